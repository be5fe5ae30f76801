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
from metalr.finetune.config import NOTHING, PACE, that_change
from metalr.finetune.result import faults
from metalr.runtime.files import is_number, plain

VERSION = 1
RUN, OVERHEAD = "run", "overhead"  # kinds of lines
OVERHEAD_PLACE = ("scheduler", "model", "batch_size", "max_length", "device")
# A result of thousands of steps is some 100 kB; a longer line is no result.
LONGEST_LINE = 64 * 2**20


def key(settings: Mapping[str, Any], **more: Any) -> str:
    """Returns the name of a run: a hash of the settings that change its numbers.

    >>> key({"seed": 1, "output": "a"}) == key({"seed": 1, "output": "b"})
    True
    """
    free = that_change(PACE, NOTHING)
    told = {k: v for k, v in settings.items() if k not in free}
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
    if wrong := fault(line):
        raise MetalrError(_broken(path, number, wrong))
    return line


def fault(line: Any) -> str | None:
    """Returns in words what keeps a value from being a line of a store, None if it is.

    A run has the fields of a result with the chance of its metric and its base rate;
    an overhead has its place and its ratios.
    """
    if not isinstance(line, dict) or not isinstance(line.get("key"), str):
        return "not a result of metalr compare"
    if line.get("version") != VERSION:
        return (
            f"of version {line.get('version')!r:.20}, and this metalr reads version "
            f"{VERSION}: use the metalr that made it, or compare into a new --output"
        )
    if line.get("kind") == RUN:
        return "; ".join(faults(line) or _run_faults(line)) or None
    if line.get("kind") == OVERHEAD:
        return "; ".join(_overhead_faults(line)) or None
    return f"neither a run nor an overhead but {line.get('kind')!r:.40}"


def _run_faults(line: Mapping[str, Any]) -> list[str]:
    wrong, chance = [], line.get("chance")
    if not isinstance(chance, dict) or not is_number(chance.get(line["metric"])):
        wrong.append("no chance for its metric")
    if not is_number(line["settings"].get("learning_rate")):
        wrong.append("no learning_rate in its settings")
    return wrong


def _overhead_faults(line: Mapping[str, Any]) -> list[str]:
    names = (*OVERHEAD_PLACE, "step_ratio", "state_ratio")
    if missing := [name for name in names if name not in line]:
        return [f"missing {', '.join(missing)}"]
    ratios = line["step_ratio"]
    if not isinstance(ratios, list) or not ratios or not all(map(is_number, ratios)):
        return ["step_ratio is no list of numbers"]
    return [] if is_number(line["state_ratio"]) else ["state_ratio is no number"]


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
