"""`Spill`: bytes that grow, in memory while they are few and on a disk beyond that."""

import contextlib
import mmap
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from metalr.errors import MetalrError
from metalr.runtime import caches

MOST_IN_MEMORY = 2**28  # bytes; beyond, all of them are in a file


class Spill:
    """Bytes that are written piece by piece, and then read in any order.

    A file of them has no name, so that nothing is left of it, whatever ends the
    process. It lies where the caches do (`METALR_CACHE`), since the folder of temporary
    files is often memory itself. What the system maps of it gives way to whatever
    needs the memory.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.size = 0  # bytes so far
        self._few = bytearray()
        self._file: IO[bytes] | None = None

    def write(self, data: Any) -> None:
        """Add what lies in a buffer, as of an array.

        Raises:
          MetalrError: The disk is full, or there is none to write to.
        """
        view = memoryview(data).cast("B")
        self.size += len(view)
        with _disk():
            if self._file is not None:
                self._file.write(view)
                return
            self._few += view
            if self.size > MOST_IN_MEMORY:
                self._file = tempfile.TemporaryFile(dir=_folder())
                weakref.finalize(self, self._file.close)  # if nobody finishes
                self._file.write(self._few)
                self._few = bytearray()

    def finish(self) -> memoryview:
        """Return all of them, to be read alone; nothing can be added any more.

        Raises:
          MetalrError: As `write`.
        """
        if self._file is None:
            return memoryview(self._few).toreadonly()
        with _disk(), self._file as file:
            file.flush()
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise MetalrError(
            "no room on the disk for rows that are too large for the memory "
            f"({fault.strerror or fault}); METALR_CACHE names another folder for "
            "them"
        ) from fault


def _folder() -> Path | None:
    root = caches.folder("rows")
    if root is not None:
        root.mkdir(parents=True, exist_ok=True)
    return root
