"""Many arrays of different lengths in one."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from metalr.runtime.spill import Spill


class Ragged(Sequence[np.ndarray]):
    """A sequence of arrays that lie one after another in a flat one."""

    def __init__(self, flat: np.ndarray, bounds: np.ndarray):
        """Take what is there.

        Args:
          flat: [total, ...] the values of all.
          bounds: [n + 1] int64; array i is flat[bounds[i] : bounds[i + 1]].
        """
        self.flat, self.bounds = flat, bounds

    @classmethod
    def of(cls, arrays: Iterable[Sequence[int] | np.ndarray]) -> "Ragged":
        """Return arrays as one, whatever they were."""
        if isinstance(arrays, Ragged):
            return arrays
        found = [np.asarray(array) for array in arrays]
        flat = np.concatenate(found) if found else np.zeros(0, np.int32)
        return cls(flat, bounds_of(map(len, found)))

    @property
    def lengths(self) -> np.ndarray:
        """[n] int64."""
        return np.diff(self.bounds)

    def __len__(self) -> int:
        """Count the arrays."""
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        """Return an array, or some of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        if not -len(self) <= index < len(self):
            raise IndexError(f"array {index} of {len(self)}")
        index = int(index) % len(self)
        return self.flat[self.bounds[index] : self.bounds[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield every array."""
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Say whether the arrays equal those of any other sequence."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(np.array_equal, self, other))


def bounds_of(lengths: Iterable[int]) -> np.ndarray:
    """Return where arrays of these lengths begin and end, [n + 1] int64.

    >>> bounds_of([2, 0, 3])
    array([0, 2, 2, 5])
    """
    sizes = np.fromiter(lengths, np.int64)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


class Writer:
    """Take arrays one after another, and become a `Ragged`.

    The values grow in one buffer, or in a file where they are many: pieces that are
    joined at the end would take the memory twice.
    """

    def __init__(self, dtype: type, *, width: int | None = None):
        """Begin with none.

        Args:
          dtype: Of all.
          width: Of arrays [len, width]; None: they are [len].
        """
        self._dtype, self._width = np.dtype(dtype), width
        self._flat = Spill()
        self._lengths: list[np.ndarray] = []
        self._zeros = 0  # values that are all there is so far, and kept nowhere

    def extend(
        self,
        lists: Sequence[Sequence[int]] | None,
        zeros_like: Sequence[Sequence[int]] = (),
    ) -> None:
        """Add arrays; where there are none, zeros in the lengths of others."""
        sizes = map(len, zeros_like if lists is None else lists)
        lengths = np.fromiter(sizes, np.int64)
        flat = np.zeros(0 if lists is not None else int(lengths.sum()), self._dtype)
        if lists is not None:
            flat = np.fromiter(itertools.chain.from_iterable(lists), self._dtype)
        self._lengths.append(lengths)
        if not self._flat.size and not flat.any():
            self._zeros += len(flat)
            return
        if self._zeros:
            self._flat.write(bytes(self._zeros * self._dtype.itemsize))
            self._zeros = 0
        self._flat.write(flat)

    def extend_by_arrays(self, arrays: Sequence[np.ndarray]) -> None:
        """Add arrays [len] or, with a width, [len, width]."""
        for array in arrays:
            self._flat.write(np.ascontiguousarray(array, self._dtype))
        self._lengths.append(np.fromiter(map(len, arrays), np.int64, len(arrays)))

    def finish(self) -> Ragged:
        """Return all of them."""
        lengths = np.concatenate([np.zeros(0, np.int64), *self._lengths])
        if self._zeros:
            flat = np.broadcast_to(np.zeros(1, self._dtype), self._zeros)
        else:
            flat = np.frombuffer(self._flat.finish(), self._dtype)
        if self._width is not None:
            flat = flat.reshape(-1, self._width)
        return Ragged(flat, bounds_of(lengths))
