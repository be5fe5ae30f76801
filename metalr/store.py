"""The results of a comparison: one JSON object a line, each run once.

A run is keyed by the hash of its settings, so that it is never done twice. Lines are
appended whole, under a lock, and a line that a kill has torn is cut off by the next
append; stores of several machines are merged by concatenation.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError
from metalr.results import FIELDS, plain

VERSION = 1
RUN, OVERHEAD = "run", "overhead"  # kinds of lines
# A result of thousands of steps is some 100 kB; a longer line is no result.
LONGEST_LINE = 64 * 2**20


def key(settings: Mapping[str, Any], **more: Any) -> str:
    """Returns the name of a run: a hash of its settings but where it writes.

    >>> key({"seed": 1, "output": "a"}) == key({"seed": 1, "output": "b"})
    True
    """
    told = {k: v for k, v in settings.items() if k not in ("output", "tensorboard")}
    text = json.dumps(plain({**told, **more}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a line: all of it or nothing, whoever else appends at the same time.

    Args:
      path: The store, in a folder that exists; made if it is missing.
      line: With `kind` and `key`; the version is added.

    Raises:
      MetalrError: The file cannot be written.
    """
    text = json.dumps(plain({"version": VERSION, **line}), allow_nan=False)
    try:
        with open(path, "a+b") as file:
            _lock(file)
            _cut_torn_line(file)
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise MetalrError(f"cannot write {path}: {error.strerror or error}") from error


def read(path: Path) -> list[dict[str, Any]]:
    """Reads a store; of lines with the same key the last one counts.

    A last line without an end was being written when its process was killed: it is
    left out.

    Raises:
      MetalrError: The file cannot be read, or a line is broken or of another version.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        with open(path, "rb") as file:
            number = 0
            while text := file.readline(LONGEST_LINE):
                number += 1
                if len(text) == LONGEST_LINE:
                    raise MetalrError(_broken(path, number, "too long to be a result"))
                if not text.endswith(b"\n"):
                    break
                if text.strip():
                    line = _parsed(path, number, text)
                    found[line["key"]] = line
    except OSError as error:
        raise MetalrError(f"cannot read {path}: {error.strerror or error}") from error
    return list(found.values())


def _parsed(path: Path, number: int, text: bytes) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetalrError(_broken(path, number, f"not JSON ({error})")) from error
    if not isinstance(line, dict) or not isinstance(line.get("key"), str):
        raise MetalrError(_broken(path, number, "not a result of metalr compare"))
    if line.get("version") != VERSION:
        raise MetalrError(
            f"{path}, line {number}: a store of version {line.get('version')}, and "
            f"this metalr reads version {VERSION}; compare into a new --output"
        )
    if line.get("kind") not in (RUN, OVERHEAD):
        raise MetalrError(_broken(path, number, f"of unknown kind {line.get('kind')}"))
    missing = [k for k in FIELDS if k not in line] if line["kind"] == RUN else []
    if missing:
        raise MetalrError(_broken(path, number, f"without {', '.join(missing)}"))
    return line


def _broken(path: Path, number: int, fault: str) -> str:
    return f"{path}, line {number}: {fault}; delete that line and run again"


def _lock(file: Any) -> None:
    """Waits for the file; closing it, or the end of the process, lets it go."""
    try:
        import fcntl
    except ImportError:  # Windows, where one process writes at a time
        return
    fcntl.flock(file, fcntl.LOCK_EX)


def _cut_torn_line(file: Any) -> None:
    end = file.seek(0, os.SEEK_END)
    kept = end
    while kept:
        begin = max(0, kept - 2**16)
        file.seek(begin)
        last = file.read(kept - begin).rfind(b"\n")
        if last >= 0:
            kept = begin + last + 1
            break
        kept = begin
    if kept < end:
        file.truncate(kept)
