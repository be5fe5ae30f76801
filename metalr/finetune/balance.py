"""Weights of rare classes: how much their rows count, how often they are drawn."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from metalr.data.encoded import Encoded
from metalr.data.ragged import Ragged
from metalr.data.schema import Task
from metalr.errors import MetalrError
from metalr.runtime import files

BALANCED = "balanced"
_WEIGHTED = ("classification", "tokens", "multilabel")


def class_weights(said: str | None, task: Task, encoded: Encoded) -> np.ndarray | None:
    """Return how much each class counts, [C] float32; None: all the same.

    balanced is n / (C n_c), as in scikit-learn: all classes have the same total weight.
    For several labels it is the number of rows without a label over those with it, as
    PyTorch's `pos_weight`.

    Args:
      said: balanced, a JSON file of weights by class, or None.
      task: Names the classes.
      encoded: The training rows.

    Raises:
      MetalrError: The task has no classes, or the file does not fit.
    """
    if said is None:
        return None
    if task.kind not in _WEIGHTED:
        raise MetalrError(
            f"--class-weights are for classes, tags and labels; {task.name} is a task "
            f"of {task.kind}: leave them out"
        )
    if said != BALANCED:
        return _from_file(Path(said), task)
    if task.kind == "multilabel":
        labels = np.asarray(encoded.labels)
        there = labels.sum(axis=0)
        weights = (len(labels) - there) / np.maximum(there, 1)
        return np.maximum(weights, 1e-3).astype(np.float32)
    labels = encoded.labels
    flat = labels.flat if isinstance(labels, Ragged) else labels
    counts = np.bincount(flat[flat >= 0], minlength=len(task.labels))
    present = (counts > 0).sum()  # a class without rows has no weight
    weights = counts.sum() / (present * np.maximum(counts, 1))
    return weights.astype(np.float32)


def _from_file(path: Path, task: Task) -> np.ndarray:
    found: Mapping[str, object] = files.read_json(path)
    wrong = sorted({*found} ^ {*task.labels})
    if wrong:
        raise MetalrError(
            f"--class-weights {path} must have a weight for each class, "
            f"{', '.join(task.labels):.200}; these differ: {', '.join(wrong):.200}"
        )
    weights = [found[name] for name in task.labels]
    for name, weight in zip(task.labels, weights, strict=True):
        if not files.is_number(weight) or not 0 < float(str(weight)) < 1e6:
            raise MetalrError(
                f"--class-weights {path}: the weight of {name!r} must be a number "
                f"above 0, got {weight!r:.40}"
            )
    return np.array(weights, np.float32)


def weighted(encoded: Encoded, task: Task, weights: np.ndarray | None) -> Encoded:
    """Return rows that count as much as their classes; `losses` does the rest."""
    if weights is None or task.kind == "multilabel":
        return encoded
    if isinstance(encoded.labels, Ragged):
        labels = encoded.labels
        each = np.where(labels.flat >= 0, weights[np.maximum(labels.flat, 0)], 0.0)
        rows = np.array([part.sum() for part in Ragged(each, labels.bounds)])
    else:
        rows = weights[encoded.labels]
    return encoded._replace(weights=rows.astype(np.float32))


def draws(balanced: bool, task: Task, encoded: Encoded) -> np.ndarray | None:
    """Return how likely each row is drawn, [n], so that classes are equally likely.

    None: every row once an epoch.

    Raises:
      MetalrError: A row of the task has not one class.
    """
    if not balanced:
        return None
    if task.kind != "classification":
        raise MetalrError(
            f"--balanced-sampling draws rows by their class; {task.name} is a task of "
            f"{task.kind}: leave it out (--class-weights weighs tags and labels)"
        )
    labels = np.asarray(encoded.labels)
    counts = np.bincount(labels, minlength=len(task.labels))
    chances = 1.0 / counts[labels]
    return chances / chances.sum()


def check_smoothing(smoothing: float, task: Task) -> None:
    """Refuse smoothed labels where there are none to smooth.

    Raises:
      MetalrError: The task's answers are numbers or spans.
    """
    if smoothing and task.kind not in (*_WEIGHTED, "choice"):
        raise MetalrError(
            f"--label-smoothing is for classes, tags and labels; {task.name} is a task "
            f"of {task.kind}: leave it out"
        )
