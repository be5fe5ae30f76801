"""Files of a run as JSON: whole or not at all, and checked when they are read."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError

# The longest history of a long run is some 10 MB; a file that is larger by far is none
# of ours, and would fill the memory before anybody looked at it.
MAX_JSON = 256 * 2**20

# What every result holds, by JSON type. More fields are welcome, fewer are not.
FIELDS: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "model": str,
    "data": dict,  # origin: kind, where, note
    "weights": dict,  # origin: kind, where, note
    "scheduler": str,
    "seed": int,
    "settings": dict,
    "versions": dict,
    "metric": str,  # the one that picks the best step
    "metrics": dict,  # at the best step
    "last_metrics": dict,  # at the last evaluation
    "best_step": (int, type(None)),  # null where nothing was evaluated
    "steps": int,
    "seconds": (int, float),
    "notes": list,
    "history": list,  # rows with "step"; training rows have "loss", others scores
}

_DRAFT = ".draft-"  # in the name of a file that is not finished, before the process id


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result or settings: the whole file or, if interrupted, the old one.

    Numbers that JSON cannot say (NaN, inf) become null; NumPy and JAX scalars become
    plain numbers and paths strings.

    Args:
      path: The file, in a folder that exists.
      content: For a result, the fields of `FIELDS`.

    Raises:
      MetalrError: The file cannot be written.
    """
    text = json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False)

    replace(path, lambda draft: draft.write_text(text + "\n", encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
      MetalrError: The file is missing, broken, or holds something else.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_JSON + 1)
        if len(content) > MAX_JSON:
            raise MetalrError(f"{path} must be JSON of at most {MAX_JSON} bytes")
        found = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise MetalrError(f"cannot read {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise MetalrError(f"{path} is not usable JSON: nested too deeply") from error
    except ValueError as error:  # broken JSON or broken UTF-8
        raise MetalrError(
            f"{path} is not JSON ({error}); it may be cut off: make or fetch it again"
        ) from error
    if not isinstance(found, dict):
        raise MetalrError(f"{path} must hold a JSON object, got {type(found).__name__}")
    return found


def read_result(path: Path) -> dict[str, Any]:
    """Read a result that `write_json` wrote.

    Args:
      path: The file.

    Returns:
      The fields of `FIELDS` and whatever else the file holds; null where a number was
      not finite.

    Raises:
      MetalrError: The file is missing, broken, or not a result of metalr.
    """
    result = read_json(path)
    found = faults(result)
    if found:
        raise MetalrError(
            f"{path} is not a result of metalr: {'; '.join(found)}. "
            "Give the result.json of a run's output folder"
        )
    return result


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a draft of a file, then put it in the file's place.

    Args:
      path: The file, in a folder that exists.
      write: Called with the path of the draft.

    Raises:
      MetalrError: The file cannot be written; an old one is untouched.
    """
    path = Path(path)
    # Beside the target, because a rename is atomic only within one file system.
    draft = path.with_name(f".{path.name}{_DRAFT}{os.getpid()}")
    try:
        write(draft)
        # Or a power cut may leave the new name and nothing in it.
        _flush(draft)
        os.replace(draft, path)
        _flush(path.parent)
    except OSError as error:
        raise MetalrError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)


def is_draft(path: Path) -> bool:
    """Returns whether a killed `replace` may have left this file behind.

    >>> is_draft(Path(".result.json.draft-12")), is_draft(Path(".lock"))
    (True, False)
    """
    return path.name[0] == "." and _DRAFT in path.name


def remove_drafts(folder: Path) -> None:
    """Removes what killed processes left; call it where no other one writes."""
    for path in folder.iterdir():
        if is_draft(path):
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Has the system write a file or the names of a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain(value: Any) -> Any:
    """Returns `value` in JSON's own types; null for a number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays and their scalars
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def faults(result: Mapping[str, Any]) -> list[str]:
    """Returns in words what keeps `result` from being one; nothing if it is one."""
    found = []
    missing = [name for name in FIELDS if name not in result]
    if missing:
        found.append(f"missing {', '.join(missing)}")
    found += [
        f"{name} has type {type(result[name]).__name__}"
        for name, kind in FIELDS.items()
        if name in result and not isinstance(result[name], kind)
    ]
    if found:
        return found
    tables = [("history", row) for row in result["history"]]
    tables += [(name, result[name]) for name in ("metrics", "last_metrics")]
    for name, row in tables:
        if name == "history" and not (isinstance(row, dict) and _is_step(row)):
            return [*found, "history has rows without a step"]
        wrong = [k for k, v in row.items() if v is not None and not is_number(v)]
        if wrong:
            return [*found, f"{name} has no number for {wrong[0]!r:.40}"]
    return found


def is_number(value: Any) -> bool:
    """Returns whether a value of JSON is a finite number that NumPy holds.

    >>> is_number(3), is_number(0.5), is_number(True), is_number(10**400)
    (True, True, False, False)
    """
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) is int and abs(value) < 2**63


def _is_step(row: Mapping[str, Any]) -> bool:
    step = row.get("step")
    return type(step) is int and 0 <= step < 2**63
