"""How a fine-tuned model is used: `metalr.json` beside its weights.

transformers' config.json has the names of the labels, but not which columns the texts
stand in, how long they may be, or how an answer is read out of the logits.
"""

import dataclasses
from pathlib import Path
from typing import Any

from metalr.data import structured
from metalr.data.schema import SCORES, Task, of_own_rows
from metalr.data.tasks import TASKS
from metalr.errors import MetalrError
from metalr.models import heads
from metalr.runtime import files

FILE = "metalr.json"
_VERSION = 1
# What a task has to say where its rows have no labels any more.
_OF_TASK = ("name", "kind", "text", "pair", "label", "labels", "null", "separator")
_TEXTS = ("name", "kind", "text", "label")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """What reads rows and logits as the fine-tune did."""

    task: Task
    max_length: int  # tokens
    stride: int = 128  # tokens that two windows of a long context share
    n_best: int = 20
    max_answer_length: int = 30  # tokens
    # How far "no answer" has to lead the best span, in logits, to be said.
    null_threshold: float = 0.0
    # The probability from which on a row has a label: one for all, or one for each.
    thresholds: tuple[float, ...] = (0.5,)


def write(folder: Path, usage: Usage) -> None:
    """Write `metalr.json` into the folder of a model.

    Raises:
      MetalrError: The file cannot be written.
    """
    content: dict[str, Any] = {"format": _VERSION}
    content |= {f.name: getattr(usage, f.name) for f in dataclasses.fields(usage)}
    names = (*_OF_TASK, "told_by")  # the last of newer versions alone
    content["task"] = {name: getattr(usage.task, name) for name in names}
    files.write_json(folder / FILE, content)


def read(folder: Path) -> Usage | None:
    """Read `metalr.json`; None where a model has none.

    Raises:
      MetalrError: The file is there and broken, or of a later version of metalr.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    content = files.read_json(path)
    if content.get("format") != _VERSION:
        raise MetalrError(
            f"{path} must be of format {_VERSION}, got {content.get('format')!r:.40}; "
            "another version of metalr wrote it: install that one"
        )
    task = _task(path, content.get("task"))
    counts = {name: _count(path, content.get(name), name) for name in _COUNTS}
    null, limits = content.get("null_threshold", 0.0), content.get("thresholds", [0.5])
    if not files.is_number(null):
        raise MetalrError(f"{path}: null_threshold must be a number, got {null!r:.40}")
    good = isinstance(limits, list) and all(map(files.is_number, limits))
    if not good or not all(0 < limit < 1 for limit in limits):
        raise MetalrError(
            f"{path}: thresholds must lie between 0 and 1, got {limits!r:.60}"
        )
    if len(limits) not in (1, len(task.labels)):
        raise MetalrError(
            f"{path}: thresholds must be one, or one for each of {len(task.labels)} "
            f"labels, got {len(limits)}"
        )
    return Usage(task=task, null_threshold=null, thresholds=tuple(limits), **counts)


_COUNTS = ("max_length", "stride", "n_best", "max_answer_length")


def _count(path: Path, value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MetalrError(f"{path}: {name} must be a number from 0 on, got {value!r}")
    return value


def _task(path: Path, content: Any) -> Task:
    fields = content if isinstance(content, dict) else {}
    pair, labels = fields.get("pair"), fields.get("labels", [])
    texts = all(isinstance(fields.get(name), str) for name in _TEXTS)
    good = isinstance(labels, list) and all(isinstance(n, str) for n in labels)
    if not texts or not isinstance(pair, str | None) or not good:
        raise MetalrError(
            f"{path}: 'task' must have {', '.join(_OF_TASK)}, got {content!r:.60}"
        )
    if fields["kind"] not in heads.KINDS:
        raise MetalrError(f"{path}: {fields['kind']!r:.40} is not a kind of task")
    found: dict[str, Any] = {n: fields[n] for n in _OF_TASK if n in fields}
    found["labels"] = tuple(found["labels"])
    if fields.get("told_by") in structured.WAYS:
        found["told_by"] = fields["told_by"]
    task = Task(**found, hub=("", None))
    return dataclasses.replace(task, metrics=scores_of(task))


def scores_of(task: Task) -> tuple[str, ...]:
    """Return the scores of a task on rows of a file: a model does not name them."""
    known = TASKS.get(task.name)
    known = known if known is not None and known.kind == task.kind else None
    if task.kind == "classification":
        return of_own_rows(known.metrics if known else SCORES[task.kind])
    if known is not None:
        return known.metrics
    if task.kind == "tokens":
        return structured.tag_scores(task.labels)
    if task.kind == "qa":
        return TASKS["squad_v2" if task.null else "squad"].metrics
    return SCORES[task.kind]
