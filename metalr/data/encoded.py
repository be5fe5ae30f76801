"""Tokenized rows, and what is done with them whatever the task."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr.data.columns import Row, Rows
from metalr.data.cutting import Lost
from metalr.data.ragged import Ragged
from metalr.data.rows import well_formed
from metalr.runtime import progress
from metalr.runtime.spill import Spill

_CHUNK = 2048  # rows a tokenizer call: bounds the Python lists that it returns
_CHUNK_TEXT = 2**21  # and characters


class Encoded(NamedTuple):
    """Tokenized rows; an entry is one input of the encoder, of any length."""

    input_ids: Sequence[np.ndarray]  # n arrays [len] int32
    token_type_ids: Sequence[np.ndarray]  # n arrays [len] of integers
    # [n] int32 ids | [n] float32 | [n, 2] int32 start, end token | [n, C] 0 and 1 of
    # several labels | n arrays [len] int32 of tokens, -1 where there is none
    labels: np.ndarray | Ragged
    example: np.ndarray  # [n] int32, the row each entry comes from
    offsets: Sequence[np.ndarray] | None  # n arrays [len, 2] int32 chars; qa only
    lost: Lost = Lost()  # what was cut off texts
    words: Sequence[np.ndarray] | None = None  # n arrays [len] int32, tokens only
    weights: np.ndarray | None = None  # [n] float32, how much a row counts; None: 1
    group: int = 1  # so many entries, one after another, are one row of a batch

    @property
    def size(self) -> int:
        """The number of rows of batches."""
        return len(self.input_ids) // self.group

    @property
    def lengths(self) -> np.ndarray:
        """[count] int64, in tokens, of the longest entry of each."""
        lengths = Ragged.of(self.input_ids).lengths
        return lengths.reshape(-1, self.group).max(axis=1, initial=0)


def parts(rows: Sequence[Row], names: Sequence[str]) -> Iterator[list[list[str]]]:
    """Yield columns of texts, of as many rows as a tokenizer should take at once."""
    with progress.loading("tokenizing", len(rows)) as log:
        for first in range(0, len(rows), _CHUNK):
            log(first)
            chunk = rows[first : first + _CHUNK]
            yield from _short([texts_of(chunk, name) for name in names])


def _short(columns: list[list[str]]) -> Iterator[list[list[str]]]:
    """Yield the rows in parts of which the texts together are not too long."""
    begin, size = 0, 0
    for row, texts in enumerate(zip(*columns, strict=True)):
        size += sum(map(len, texts))
        if size > _CHUNK_TEXT:
            yield [column[begin : row + 1] for column in columns]
            begin, size = row + 1, 0
    if begin < len(columns[0]):
        yield [column[begin:] for column in columns]


def texts_of(rows: Sequence[Row], name: str) -> list[str]:
    """Return a column of texts as tokenizers take them."""
    return [well_formed(text) for text in column_of(rows, name)]


def column_of(rows: Sequence[Row], name: str) -> list[Any]:
    """Return a column of rows, however they are stored."""
    return rows.column(name) if isinstance(rows, Rows) else [row[name] for row in rows]


def used_ids(encodeds: Iterable[Encoded], always: Iterable[int] = ()) -> np.ndarray:
    """Return the sorted token ids that occur, and those of `always`.

    >>> ids = [np.array([7, 2, 7], np.int32)]
    >>> used_ids([Encoded(ids, ids, np.zeros(1), np.zeros(1), None)], always=[0])
    array([0, 2, 7], dtype=int32)
    """
    found = [np.asarray(list(always), np.int32)]
    for encoded in encodeds:
        found += [np.unique(piece) for piece in _pieces(encoded.input_ids)]
    return np.unique(np.concatenate(found))


def remap_ids(encoded: Encoded, used: np.ndarray) -> Encoded:
    """Rename each token id to its place in the sorted `used`, for a cut vocabulary.

    Args:
      encoded: What to rename; not changed.
      used: Sorted ids as `used_ids` returns them.

    Raises:
      ValueError: An id of `encoded` is not in `used`.
    """
    if not np.isin(used_ids([encoded]), used).all():
        raise ValueError("`used` lacks ids that occur; take used_ids of all the data")
    ids, found = Ragged.of(encoded.input_ids), Spill()
    for piece in _pieces(ids):
        found.write(np.searchsorted(used, piece).astype(np.int32))
    flat = np.frombuffer(found.finish(), np.int32)
    return encoded._replace(input_ids=Ragged(flat, ids.bounds))


_PIECE = 2**20  # tokens; more at once would copy all of them


def _pieces(ids: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    flat = Ragged.of(ids).flat
    for first in range(0, len(flat), _PIECE):
        yield flat[first : first + _PIECE]
