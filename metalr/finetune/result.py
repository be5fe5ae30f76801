"""What a run leaves behind as result.json, and how it is checked when it is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError
from metalr.runtime.files import escaped, is_number, read_json

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


def read_result(path: Path) -> dict[str, Any]:
    """Read a result that `write_json` wrote.

    Args:
      path: The file.

    Returns:
      The fields of `FIELDS` and whatever else the file holds; null where a number was
      not finite, and control characters escaped: the file may be a stranger's.

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
    return escaped(result)


def faults(result: Mapping[str, Any]) -> list[str]:
    """Return in words what keeps `result` from being one; nothing if it is one."""
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
    for name in ("seed", "steps", "seconds"):
        if not is_number(result[name]) or result[name] < 0:
            return [f"{name} must be a number of at least 0"]
    words = [result[name].get(part) for name in ("data", "weights") for part in _WORDS]
    if not all(isinstance(w, str | None) for w in words) or not all(
        isinstance(note, str) for note in result["notes"]
    ):
        return ["an origin or a note is no text"]
    tables = [("history", row) for row in result["history"]]
    tables += [(name, result[name]) for name in ("metrics", "last_metrics")]
    for name, row in tables:
        if name == "history" and not (isinstance(row, dict) and _is_step(row)):
            return [*found, "history has rows without a step"]
        wrong = [k for k, v in row.items() if v is not None and not is_number(v)]
        if wrong:
            return [*found, f"{name} has no number for {wrong[0]!r:.40}"]
    return found


_WORDS = ("kind", "where")  # of an origin


def _is_step(row: Mapping[str, Any]) -> bool:
    step = row.get("step")
    return type(step) is int and 0 <= step < 2**63
