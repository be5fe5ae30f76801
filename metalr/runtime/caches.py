"""Folders of what may be made again: compiled programs, tokens."""

import contextlib
import os
import shutil
import time
from pathlib import Path

from metalr.runtime import files

MOST_BYTES = 2 * 2**30  # of each kind
_DRAFT_SECONDS = 3600.0  # nobody works at one for longer


def folder(kind: str) -> Path | None:
    """Return where a kind of thing is kept: in `METALR_CACHE`, or the user's caches.

    None where an account has no home, or where `METALR_CACHE` is empty.
    """
    home = os.path.expanduser("~")  # as it is where there is none
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    root = os.environ.get("METALR_CACHE", os.path.join(caches, "metalr"))
    return None if not root or root.startswith("~") else Path(root) / kind


def prune(where: Path, most: int = MOST_BYTES) -> None:
    """Remove the oldest files and folders until the rest has at most `most` bytes.

    Drafts that a killed process left an hour ago or longer go first.
    """
    sizes: list[tuple[float, int, Path]] = []
    with contextlib.suppress(OSError):  # another process may prune, or there is none
        for path in where.iterdir():
            changed = path.stat().st_mtime
            if files.is_draft(path) and changed < time.time() - _DRAFT_SECONDS:
                _remove(path)
            else:
                sizes.append((changed, _size(path), path))
        total = sum(size for _, size, _ in sizes)
        for _, size, path in sorted(sizes):
            if total <= most:
                return
            _remove(path)
            total -= size


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    parts = path.iterdir() if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts)
