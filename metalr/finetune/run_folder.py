"""The folder of a run: whose it is, and when it may be written to.

It is looked at before anything is loaded (`check`), and written to only when task,
model and data are known to be good (`take`), so that a wrong word costs nothing.
While a program writes to a folder it holds a lock on it (`held`), which the operating
system takes back when the program ends, however it ends.
"""

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from metalr.errors import MetalrError
from metalr.finetune.config import RunConfig, changed
from metalr.runtime import files

try:
    import fcntl
except ImportError:  # not on Windows, where two programs are not kept apart
    fcntl = None

RESULT = "result.json"
SETTINGS = "settings.json"
ROWS = "rows.json"
LOCK = ".lock"


def check(folder: Path, config: RunConfig, *, resume: bool, overwrite: bool) -> None:
    """Says why a run can't have this folder, if so; changes nothing.

    A folder with a run of the same settings is gone on with; one with a run of other
    settings is refused unless `overwrite`; one with anything else is always refused.

    Raises:
      MetalrError: The folder holds something else, or there is nothing to resume.
    """
    settings = folder / SETTINGS
    if settings.is_file():
        if overwrite:
            return
        different = changed(files.read_json(settings), config.to_json())
        if different:
            raise MetalrError(
                f"{folder} holds a run with other settings ({', '.join(different)}); "
                "choose another --output, or --overwrite it"
            )
        return
    if folder.exists() and (not folder.is_dir() or contents(folder)):
        raise MetalrError(
            f"{folder} exists and is no run of metalr; choose another --output"
        )
    if resume:
        raise MetalrError(f"nothing to resume: {folder} holds no run")


def take(
    folder: Path, config: RunConfig, rows: dict[str, str], *, overwrite: bool
) -> None:
    """Makes a folder that `check` has passed this run's own.

    Args:
      folder: The folder.
      config: The settings.
      rows: What tells the rows from others: kind, where, sha256.
      overwrite: Empty the folder first.

    Raises:
      MetalrError: The run there was begun on other rows.
    """
    settings, begun = folder / SETTINGS, folder / ROWS
    if begun.is_file() and not overwrite:
        before = files.read_json(begun)
        if before != rows:
            told = [f"{x.get('kind')} {x.get('where')}" for x in (before, rows)]
            which = "the same place" if told[0] == told[1] else f"now {told[1]}"
            raise MetalrError(
                f"{folder} holds a run that was begun on other rows ({told[0]}; "
                f"{which}); bring them back, or choose another --output"
            )
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_drafts(folder)
    if overwrite and settings.is_file():
        # The settings last: a folder without them is taken for somebody else's.
        old = sorted(contents(folder), key=lambda path: path.name == SETTINGS)
        for path in old:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not settings.is_file():  # first: without it a killed start is no run's folder
        files.write_json(settings, config.to_json())
    if not begun.is_file():
        files.write_json(begun, rows)


def contents(folder: Path) -> list[Path]:
    """Returns what lies in a folder, without what a killed start may have left."""
    return [
        path
        for path in folder.iterdir()
        if path.name != LOCK and not files.is_draft(path)
    ]


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other programs from writing to a folder while the block runs.

    The folder is made if it is missing, and goes again if nothing was put into it.

    Raises:
      MetalrError: Another program holds it; says which one, and where it runs.
    """
    missing = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(folder)
    except OSError as fault:
        raise MetalrError(
            f"cannot write to {folder}: {fault.strerror or fault}; choose another "
            "--output"
        ) from fault
    try:
        yield
    finally:
        if missing and not contents(folder):
            (folder / LOCK).unlink()
            with contextlib.suppress(OSError):  # another program was faster
                folder.rmdir()
        file.close()


def _locked(folder: Path) -> IO[str]:
    """Returns the folder's lock file, locked."""
    path = folder / LOCK
    while True:
        with contextlib.ExitStack() as closing:
            file = closing.enter_context(open(path, "a+", encoding="utf-8"))
            _lock(file, folder)
            # The holder before may have removed the file between these two lines.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                file.flush()
                closing.pop_all()  # it stays open: closed, it would be nobody's
                return file


def _lock(file: IO[str], folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read(200).strip() or "another process"
        raise MetalrError(
            f"{folder} is in use by {owner}; wait for its end, or choose another "
            "--output"
        ) from None
    except OSError as fault:
        # Some network file systems have no locks; there it goes without.
        if fault.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
