"""The result store of a comparison: one JSON object a line, one line a run.

The key of a run is the hash of its settings, so that no run is repeated. A line is
appended whole, under a lock; a line that was cut off by a kill is removed by the next
append. Stores of several machines are merged by concatenation.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError
from metalr.finetune.config import NOTHING, PACE
from metalr.finetune.config_rules import that_change
from metalr.finetune.result import faults
from metalr.runtime import locks
from metalr.runtime.files import escaped, is_number, plain

VERSION = 1
RUN, OVERHEAD = "run", "overhead"  # kinds of lines
OVERHEAD_FIELDS = ("scheduler", "model", "batch_size", "max_length", "device")
# A result of thousands of steps is some 100 kB; a longer line is no result.
LONGEST_LINE = 64 * 2**20


def key(settings: Mapping[str, Any], **more: Any) -> str:
    """Return the key of a run: a hash of the settings that change its numbers.

    >>> key({"seed": 1, "output": "a"}) == key({"seed": 1, "output": "b"})
    True
    """
    ignored = that_change(PACE, NOTHING)
    hashed = {k: v for k, v in settings.items() if k not in ignored}
    text = json.dumps(plain({**hashed, **more}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line as a whole, safe against other processes that append.

    Args:
      path: The store, in a folder that exists; created if it is missing.
      line: A line with `kind` and `key`; the version is added.

    Raises:
      MetalrError: The file cannot be written.
    """
    text = json.dumps(plain({"version": VERSION, **line}), allow_nan=False)
    try:
        with locks.exclusive(path), open(path, "a+b") as file:
            _remove_partial_line(file)
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise MetalrError(f"cannot write {path}: {error.strerror or error}") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a store; of lines with the same key the last one counts.

    A last line without a line break was being written when its process was killed; it
    is ignored.

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
                    raise MetalrError(
                        _fault_in_line(path, number, "too long to be a result")
                    )
                if not text.endswith(b"\n"):
                    break
                if text.strip():
                    line = _parse(path, number, text)
                    found[line["key"]] = line
    except OSError as error:
        raise MetalrError(f"cannot read {path}: {error.strerror or error}") from error
    return list(found.values())


def _parse(path: Path, number: int, text: bytes) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetalrError(
            _fault_in_line(path, number, f"not JSON ({error})")
        ) from error
    if fault := find_fault(line):
        raise MetalrError(_fault_in_line(path, number, fault))
    return escaped(line)


def find_fault(line: Any) -> str | None:
    """Return what is wrong with a line of a store, or None if it is valid.

    A run must have the fields of a result, the chance of its metric and its base rate;
    an overhead must have its `OVERHEAD_FIELDS` and its ratios.
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
    found, chance = [], line.get("chance")
    if not isinstance(chance, dict) or not is_number(chance.get(line["metric"])):
        found.append("no chance for its metric")
    if not is_number(line["settings"].get("learning_rate")):
        found.append("no learning_rate in its settings")
    device = line.get("device", {})
    if not isinstance(device, dict) or not isinstance(device.get("kind", ""), str):
        found.append("a device without the name of its kind")
    seconds = line.get("step_seconds")
    if seconds is not None and not is_number(seconds):
        found.append("step_seconds is not a number")
    return found


def _overhead_faults(line: Mapping[str, Any]) -> list[str]:
    names = (*OVERHEAD_FIELDS, "step_ratio", "state_ratio")
    if missing := [name for name in names if name not in line]:
        return [f"missing {', '.join(missing)}"]
    ratios = line["step_ratio"]
    if not isinstance(ratios, list) or not ratios or not all(map(is_number, ratios)):
        return ["step_ratio is not a list of numbers"]
    return [] if is_number(line["state_ratio"]) else ["state_ratio is not a number"]


def _fault_in_line(path: Path, number: int, fault: str) -> str:
    return f"{path}, line {number}: {fault}; delete that line and run again"


def _remove_partial_line(file: Any) -> None:
    """Truncate a file after its last line break."""
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
