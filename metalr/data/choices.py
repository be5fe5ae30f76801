"""A text with several others to choose from, as tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from metalr.data import cutting
from metalr.data.columns import Row
from metalr.data.cutting import Lost
from metalr.data.encoded import Encoded, column_of
from metalr.data.ragged import Writer
from metalr.data.rows import well_formed
from metalr.data.schema import Task
from metalr.errors import MetalrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tokenizer

_CHUNK = 512  # rows a tokenizer call


def check_counts(rows: Sequence[Row], task: Task, count: int, first: int = 1) -> None:
    """Check that each row has as many choices as a batch holds.

    Args:
      rows: The rows.
      task: Names their column.
      count: The choices that each has to have.
      first: Number of the first row, for errors.

    Raises:
      MetalrError: One has more or fewer.
    """
    for place, found in enumerate(column_of(rows, task.pair or ""), start=first):
        if len(found) != count:
            raise MetalrError(
                f"every row must have as many choices as the first, {count}; row "
                f"{place} has {len(found)}"
            )


def encode(
    rows: Sequence[Row], task: Task, tokenizer: "Tokenizer", max_length: int
) -> Encoded:
    """Turn each row into one pair of its text and a choice for every choice.

    Raises:
      MetalrError: Rows have different numbers of choices, which a batch cannot hold.
    """
    offered = column_of(rows, task.pair or "")
    count = len(offered[0]) if len(offered) else 0
    check_counts(rows, task, count)
    texts = column_of(rows, task.text)
    tokens, types, lost = Writer(np.int32), Writer(np.int8), Lost()
    for first in range(0, len(rows), _CHUNK):
        part = slice(first, first + _CHUNK)
        columns = [
            [well_formed(text) for text in texts[part] for _ in range(count)],
            [well_formed(text) for choices in offered[part] for text in choices],
        ]
        found = cutting.tokenize(columns, tokenizer, max_length)
        tokens.extend(found.ids)
        types.extend(found.types, found.ids)
        lost += found.lost
    return Encoded(
        tokens.finish(),
        types.finish(),
        np.zeros(len(rows), np.int32),
        np.arange(len(rows), dtype=np.int32),
        None,
        lost,
        group=count,
    )
