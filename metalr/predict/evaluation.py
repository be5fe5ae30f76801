"""Scores of a fine-tuned model on labelled rows: of the whole, and by class."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr.data.columns import Row, Rows
from metalr.data.encoded import Encoded
from metalr.finetune import decode, metrics
from metalr.finetune.usage import Usage

_MOST_CONFUSED = 10
_MOST_CLASSES = 40  # in a table; all of them are in the JSON
_SQUARED = "root_mean_square_error"


class Confusion(NamedTuple):
    """Rows of one class that were taken for another."""

    label: str
    predicted: str
    rows: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a model does on labelled rows."""

    rows: int
    scores: dict[str, float]  # of the task, and errors of a regression in its own unit
    chance: dict[str, float]  # what the best constant answer scores
    # By class, label, tag or type of entity: precision, recall, F1, and rows (labels,
    # entities); empty where a task has no classes.
    classes: dict[str, dict[str, float]]
    confusions: tuple[Confusion, ...]  # the ten most frequent pairs of classes

    def to_json(self) -> dict[str, Any]:
        """Return the content of a JSON file."""
        pairs = [confusion._asdict() for confusion in self.confusions]
        return {**vars(self), "confusions": pairs}


def evaluate(
    usage: Usage,
    rows: Rows,
    parts: Iterable[tuple[Sequence[Row], list[np.ndarray], Encoded]],
) -> Evaluation:
    """Score what a model says of labelled rows.

    Args:
      usage: The model's.
      rows: All of them, with labels in their final form.
      parts: The same rows in parts, with the logits and the entries of each.
    """
    found = [
        decode.predicted(usage, logits, encoded, part)
        for part, logits, encoded in parts
    ]
    predictions, references = (_joined(side) for side in zip(*found, strict=True))
    scores = decode.scored(usage, predictions, references)
    task = usage.task
    chance = {name: decode.chance(name, task, rows) for name in scores}
    if task.kind == "regression":
        scores |= _errors(predictions, references)
        chance |= _chance_of_errors(references)
    return Evaluation(
        rows=len(rows),
        scores=scores,
        chance=chance,
        classes=_by_class(usage, predictions, references),
        confusions=_confusions(usage, predictions, references),
    )


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [answer for part in parts for answer in part]


def _errors(predictions: Any, references: np.ndarray) -> dict[str, float]:
    """Return mean absolute and root mean square error, in the unit of the labels."""
    off = np.asarray(predictions, np.float64) - np.asarray(references, np.float64)
    return {
        "mean_absolute_error": float(np.mean(np.abs(off))),
        _SQUARED: float(np.sqrt(np.mean(off**2))),
    }


def _chance_of_errors(references: np.ndarray) -> dict[str, float]:
    """Return the least errors of a constant: that of the median, that of the mean.

    >>> _chance_of_errors(np.array([1.0, 1.0, 4.0]))["mean_absolute_error"]
    1.0
    """
    of_mean = _errors(np.mean(references), references)
    return {**_errors(np.median(references), references), _SQUARED: of_mean[_SQUARED]}


def _by_class(
    usage: Usage, predictions: Any, references: Any
) -> dict[str, dict[str, float]]:
    task = usage.task
    if task.kind in ("classification", "multilabel"):
        return metrics.by_class(predictions, references, task.labels)
    if task.kind != "tokens":
        return {}
    if "entity_f1" in task.metrics:
        return metrics.by_entity(predictions, references)
    said, known = (
        [tag for row in rows for tag in row] for rows in (predictions, references)
    )
    return metrics.by_class(said, known, task.labels)


def _confusions(
    usage: Usage, predictions: Any, references: Any
) -> tuple[Confusion, ...]:
    """Return the pairs of classes that are most often taken for one another."""
    if usage.task.kind != "classification":
        return ()
    wrong = np.stack([references, predictions])[:, predictions != references]
    pairs, counts = np.unique(wrong, axis=1, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_MOST_CONFUSED]
    names = usage.task.labels
    return tuple(
        Confusion(names[pairs[0, i]], names[pairs[1, i]], int(counts[i])) for i in most
    )


def tables(found: Evaluation) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Return the tables of an evaluation: a head and rows each.

    Of more than 40 classes they hold those of the lowest F1 that have rows.
    """
    number = lambda x: "" if x is None else f"{x:.4f}"  # noqa: E731
    scores = [
        (name, number(value), number(found.chance.get(name)))
        for name, value in found.scores.items()
    ]
    shown, title = [*found.classes.items()], "class"
    if len(shown) > _MOST_CLASSES:
        title = f"class ({_MOST_CLASSES} of {len(shown)}, lowest F1 first)"
        shown.sort(key=lambda item: (not item[1]["rows"], item[1]["f1"]))
        del shown[_MOST_CLASSES:]
    classes = [
        (name, *(number(of[n]) for n in ("precision", "recall", "f1")), f"{of['rows']}")
        for name, of in shown
    ]
    pairs = [(x.label, x.predicted, f"{x.rows}") for x in found.confusions]
    every = [
        (("score", "value", "chance"), scores),
        ((title, "precision", "recall", "F1", "rows"), classes),
        (("class", "taken for", "rows"), pairs),
    ]
    return [(head, rows) for head, rows in every if rows]
