"""Tokens of texts that may be longer than the model reads, and how much is lost.

A tokenizer splits a text whole before it cuts the tokens, and a text may have
megabytes. So texts are cut to some thousand characters first, and those that then turn
out to have too few tokens are taken again with more.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tokenizer

_PER_TOKEN = 16  # characters; English has 4 to 5
_LEAST = 512  # characters
_MARGIN = 8  # tokens at the cut that the text behind it could have changed


class Lost(NamedTuple):
    """What was cut off texts."""

    rows: int = 0  # that lost their end
    tokens: int = 0  # cut off, without special tokens; those of very long texts guessed
    total: int = 0  # tokens before

    def __add__(self, other: Any) -> "Lost":
        """Return the sums."""
        return Lost(*(a + b for a, b in zip(self, other, strict=True)))


class Cut(NamedTuple):
    """Tokens of some rows."""

    ids: list[list[int]]
    types: list[list[int]] | None  # None: the model has one segment
    lost: Lost


def tokenize(
    columns: Sequence[list[str]],
    tokenizer: "Tokenizer",
    max_length: int,
    limit: int | None = None,
) -> Cut:
    """Return the tokens that are left of rows of one text or two.

    A row keeps what the tokenizer would keep of the whole row. (Where both texts of a
    pair are very long, an odd last token may go to the other one.)

    Args:
      columns: The texts, and their partners.
      tokenizer: Its truncation is changed.
      max_length: Tokens a row has at most, special tokens included.
      limit: Characters that are enough for most texts; None: some per token.
    """
    limit = limit or max(_LEAST, _PER_TOKEN * max_length)
    heads = [[_head(text, limit) for text in column] for column in columns]
    batch: Any = tokenizer(
        heads[0],
        heads[1] if len(heads) == 2 else None,
        truncation="longest_first",
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,
    )
    ids, types = batch["input_ids"], batch.get("token_type_ids")
    full = [row for row, tokens in enumerate(ids) if len(tokens) == max_length]
    counts = _counts(heads, full, batch, tokenizer)
    kept = max_length - tokenizer.num_special_tokens_to_add(len(columns) == 2)
    lost, again = Lost(), []
    for row, tokens in enumerate(ids):
        cut = [
            place
            for place, column in enumerate(columns)
            if len(heads[place][row]) < len(column[row])
        ]
        known = counts.get(row)
        if cut and not (
            known and all(known[place] >= max_length + _MARGIN for place in cut)
        ):
            again.append(row)
        elif known is None:
            lost += Lost(0, 0, len(tokens) - max_length + kept)
        else:
            whole = sum(
                count * len(column[row]) // max(1, len(head[row]))
                for count, column, head in zip(known, columns, heads, strict=True)
            )
            lost += Lost(int(whole > kept), max(0, whole - kept), whole)
    if again:
        part = [[column[row] for row in again] for column in columns]
        rest = tokenize(part, tokenizer, max_length, 8 * limit)
        lost += rest.lost
        for place, row in enumerate(again):
            ids[row] = rest.ids[place]
            if types is not None and rest.types is not None:
                types[row] = rest.types[place]
    return Cut(ids, types, lost)


def _head(text: str, limit: int) -> str:
    """Return a text's first characters, up to a space if there is one near."""
    if len(text) <= limit:
        return text
    words = text[:limit].rsplit(maxsplit=1)
    return words[0] if len(words) == 2 and len(words[0]) > limit // 2 else text[:limit]


def _counts(
    columns: Sequence[list[str]], rows: Sequence[int], batch: Any, tokenizer: Any
) -> dict[int, list[int]]:
    """Return how many tokens each text of some rows has, before they were cut."""
    if len(columns) == 1:
        special = tokenizer.num_special_tokens_to_add(False)
        found = {}
        for row in rows:
            entry = batch.encodings[row]
            parts = [entry, *entry.overflowing]
            found[row] = [sum(len(part) - special for part in parts)]
        return found
    # What overflows of a pair is every part of one text with every part of the other.
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    sides = [
        backend.encode_batch([column[row] for row in rows], add_special_tokens=False)
        for column in columns
    ]
    return {row: [len(side[place]) for side in sides] for place, row in enumerate(rows)}
