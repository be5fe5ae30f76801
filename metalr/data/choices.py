"""A text with several others to choose from, as tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from metalr.data import cutting, structured
from metalr.data.columns import Row
from metalr.data.cutting import Lost
from metalr.data.encoded import Encoded, column_of
from metalr.data.ragged import Writer
from metalr.data.rows import well_formed
from metalr.data.schema import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tokenizer

_CHUNK = 512  # rows a tokenizer call


def encode(
    rows: Sequence[Row], task: Task, tokenizer: "Tokenizer", max_length: int
) -> Encoded:
    """Turn each row into one pair of its text and a choice for every choice.

    Raises:
      MetalrError: Rows have different numbers of choices, which a batch cannot hold.
    """
    offered = column_of(rows, task.pair or "")
    count = len(offered[0]) if len(offered) else 0
    structured.check_counts(offered, lambda place: f"row {place + 1}")
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
