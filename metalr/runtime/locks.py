"""Locks on files, which the operating system releases when their process ends."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from metalr.errors import MetalrError

# Some network file systems have no locks; metalr works there without them.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for the lock of a file and hold it during the block.

    Args:
      path: The file; its lock is the file `.NAME.lock` beside it, which stays.

    Raises:
      OSError: The folder cannot be written to.
    """
    from filelock import FileLock

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with contextlib.ExitStack() as held:
        with _unless_unsupported():
            held.enter_context(lock)
        yield


@contextlib.contextmanager
def claim(path: Path, *, what: Path) -> Iterator[None]:
    """Hold a lock file during the block, or say at once who holds it.

    Args:
      path: The lock file, in a folder that exists. The name of the process stands
        beside it, since Windows lets nobody read a locked file.
      what: What the message says is in use.

    Raises:
      MetalrError: Another process holds the lock; the message says which, and where.
      OSError: The folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    name = owner_file(path)
    with contextlib.ExitStack() as held:
        try:
            with _unless_unsupported():
                held.enter_context(FileLock(path, timeout=0))
        except Timeout:
            owner = ""
            with contextlib.suppress(OSError):
                owner = name.read_text(encoding="utf-8")[:200].strip()
            raise MetalrError(
                f"{what} is in use by {owner or 'another process'}; wait for its end, "
                "or choose another --output"
            ) from None
        name.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", "utf-8")
        yield


def owner_file(path: Path) -> Path:
    """Return the file that says which process holds a lock file."""
    return path.with_name(f"{path.name}-owner")


@contextlib.contextmanager
def _unless_unsupported() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        if fault.errno not in _NO_LOCKS:
            raise
