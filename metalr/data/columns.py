"""Rows as columns of Arrow: millions of them in little more memory than their text."""

import io
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from metalr.runtime.spill import Spill

if TYPE_CHECKING:
    import hashlib

    import pyarrow

Row = dict[str, Any]

_CHUNK = 4096  # rows that are Python objects at a time
_CHUNK_TEXT = 2**22  # and characters


class Rows(Sequence[Row]):
    """A sequence of dicts that is stored by column.

    A row is made when it is indexed. A slice shares the columns. `column` reads one
    column of many rows fast.
    """

    def __init__(self, table: "pyarrow.Table", order: np.ndarray | None = None):
        """Take the columns.

        Args:
          table: The columns.
          order: Which rows of them, in which order; None: all.
        """
        self._table = table
        self._order = order

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Rows":
        """Return rows by column, whatever they were."""
        if isinstance(rows, Rows):
            return rows
        import pyarrow

        return cls(pyarrow.Table.from_pylist(list(rows)))

    @property
    def names(self) -> list[str]:
        """The columns."""
        return self._table.column_names

    def column(self, name: str, first: int = 0, last: int | None = None) -> list[Any]:
        """Return the values of a column, of all rows or of those in a range."""
        return self._arrow(first, last, [name]).column(name).to_pylist()

    def array(self, name: str) -> np.ndarray:
        """Return a column of numbers, of which none is missing."""
        column = self._arrow(0, None, [name]).column(name)
        # `to_numpy` would import pandas, for half a second.
        parts = [np.from_dlpack(part) for part in column.chunks]
        return np.concatenate(parts) if parts else np.zeros(0)

    def select(self, index: np.ndarray | Sequence[int]) -> "Rows":
        """Return some of the rows, in the order given."""
        index = np.asarray(index, np.int64)
        return Rows(self._table, index if self._order is None else self._order[index])

    def digest(self, into: "hashlib._Hash") -> None:
        """Add names and values to a hash."""
        for name in sorted(self.names):
            into.update(f"{name}\n".encode())
            for first in range(0, len(self), _CHUNK):
                values = self.column(name, first, first + _CHUNK)
                into.update(repr(values).encode("utf-8", "backslashreplace"))

    def digest_bytes(self, into: "hashlib._Hash") -> None:
        """Add the columns as Arrow stores them, many times as fast as the values."""
        import pyarrow

        with pyarrow.ipc.new_stream(_Hashed(into), self._table.schema) as stream:
            for first in range(0, len(self), _CHUNK):
                stream.write_table(self._arrow(first, first + _CHUNK).combine_chunks())

    @property
    def nbytes(self) -> int:
        """The bytes of the rows in memory, about."""
        return self._table.nbytes * len(self) // max(1, self._table.num_rows)

    def _arrow(
        self, first: int, last: int | None, names: list[str] | None = None
    ) -> "pyarrow.Table":
        last = len(self) if last is None else min(last, len(self))
        table = self._table if names is None else self._table.select(names)
        if self._order is None:
            return table.slice(first, max(0, last - first))
        return table.take(self._order[first:last])

    def __len__(self) -> int:
        """Count the rows."""
        return self._table.num_rows if self._order is None else len(self._order)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...
    def __getitem__(self, index: int | slice) -> "Row | Rows":
        """Return a row, or some of them."""
        if isinstance(index, slice):
            if self._order is not None:
                return Rows(self._table, self._order[index])
            first, last, step = index.indices(len(self))
            if step == 1:
                return Rows(self._table.slice(first, max(0, last - first)))
            return self.select(np.arange(first, last, step))
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index = int(index) % len(self)
        return self._arrow(index, index + 1).to_pylist()[0]

    def __iter__(self) -> Iterator[Row]:
        """Yield every row."""
        for first in range(0, len(self), _CHUNK):
            yield from self._arrow(first, first + _CHUNK).to_pylist()

    def __eq__(self, other: object) -> bool:
        """Say whether the rows equal those of any other sequence."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    def __repr__(self) -> str:
        """Show the first rows."""
        shown = ", ".join(repr(row) for row in self[:3])
        return f"Rows({len(self)}: {shown}{', ...' * (len(self) > 3)})"


def numeric_column(values: np.ndarray) -> "pyarrow.Array":
    """Return numbers as Arrow has them, without pandas, as `pyarrow.array` wants it."""
    import pyarrow

    kind = pyarrow.from_numpy_dtype(values.dtype)
    buffers = [None, pyarrow.py_buffer(np.ascontiguousarray(values))]
    return pyarrow.Array.from_buffers(kind, len(values), buffers)


class _Hashed(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self, into: "hashlib._Hash"):
        self._into = into

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._into.update(data)
        return len(data)


class TextColumns:
    """Take texts row by row and keep them as Arrow does, on the disk if they are many.

    A column is one array: to take rows of many joins them all again every time.
    """

    def __init__(self, names: Sequence[str]):
        """Begin with no rows; `names` are those of the columns."""
        self._open: dict[str, list[str]] = {name: [] for name in names}
        self._texts = {name: Spill() for name in names}  # UTF-8, one after another
        self._ends = {name: Spill() for name in names}  # int64, of each in the texts
        self._size = self._rows = 0  # of what is open
        self._flushed = 0  # rows

    def append(self, texts: Iterable[str]) -> None:
        """Add a row: one text for each of the names."""
        for column, text in zip(self._open.values(), texts, strict=True):
            column.append(text)
            self._size += len(text)
        self._rows += 1
        if self._size > _CHUNK_TEXT or self._rows >= _CHUNK:
            self._flush()

    def finish(self, others: Mapping[str, Any]) -> Rows:
        """Return the rows with other columns beside the texts."""
        import pyarrow

        self._flush()
        columns: dict[str, Any] = {}
        for name, texts in self._texts.items():
            ends, bytes_ = self._ends[name].finish(), texts.finish()
            columns[name] = pyarrow.LargeStringArray.from_buffers(
                self._flushed, pyarrow.py_buffer(ends), pyarrow.py_buffer(bytes_)
            )
        return Rows(pyarrow.table(columns | dict(others)))

    def _flush(self) -> None:
        for name, texts in self._open.items():
            coded = [text.encode() for text in texts]
            if not self._ends[name].size:
                self._ends[name].write(np.zeros(1, np.int64))
            sizes = np.fromiter(map(len, coded), np.int64, len(coded))
            self._ends[name].write(self._texts[name].size + np.cumsum(sizes))
            self._texts[name].write(b"".join(coded))
            texts.clear()
        self._flushed += self._rows
        self._size = self._rows = 0
