"""What a run leaves behind as result.json, and how it is checked when it is read."""

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from metalr.errors import MetalrError
from metalr.runtime.files import escaped, is_number, read_json


class Result(TypedDict):
    """What every result holds. More fields are welcome, fewer are not."""

    task: str
    model: str
    data: dict[str, str]  # `Origin.to_json`; of newer versions also the rows' sha256
    weights: dict[str, str]  # the same
    scheduler: str
    seed: int
    settings: dict[str, Any]  # `RunConfig.to_json`
    versions: dict[str, str]
    metric: str  # the one that picks the best step
    metrics: dict[str, float | None]  # at the best step
    last_metrics: dict[str, float | None]  # at the last evaluation
    best_step: int | None  # null where nothing was evaluated
    steps: int
    seconds: float
    notes: list[str]
    history: list[dict[str, Any]]  # rows with "step", and loss or scores
    # Of newer versions alone.
    reading: NotRequired[dict[str, Any]]  # `Reading.to_json`
    chance: NotRequired[dict[str, float | None]]  # each metric's, without learning
    learned_by: NotRequired[dict[str, Any]]  # `schedulers.learned_by`
    step_seconds: NotRequired[float]  # median of a step: compilation does not move it
    device: NotRequired[dict[str, Any]]
    stopped: NotRequired[str | None]  # early, asked or diverged; null: at its end
    failed: NotRequired[str]  # why a run of a comparison diverged


def _json_type(hint: Any) -> tuple[type, ...]:
    """Return the types that a field may have once JSON is read."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    found = tuple(typing.get_origin(part) or part for part in parts)
    return (int, float) if found == (float,) else found


FIELDS = {
    name: _json_type(hint)
    for name, hint in typing.get_type_hints(Result).items()
    if name in Result.__required_keys__
}


def read_result(path: Path) -> Result:
    """Read a result that `write_json` wrote.

    Args:
      path: The file.

    Returns:
      The result, with whatever else the file holds; null where a number was not finite,
      and control characters escaped: the file may be a stranger's.

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
    return cast(Result, escaped(result))


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
        return ["an origin or a note is not text"]
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
