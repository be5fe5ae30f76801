"""Logits to predictions, and their scores, by kind of task."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from metalr.data import answers, tagged
from metalr.data.columns import Row
from metalr.data.encoded import Encoded, column_of
from metalr.data.schema import Task
from metalr.finetune import metrics, squad_v2
from metalr.finetune.usage import Usage

Logits = Sequence[np.ndarray]


def scores(
    usage: Usage, logits: Logits, encoded: Encoded, rows: Sequence[Row]
) -> dict[str, float]:
    """Return the scores of a task's `metrics`.

    Args:
      usage: How logits are read.
      logits: One array an entry of `encoded` (a row, for a choice), at least as long.
      encoded: The rows as the model read them.
      rows: The rows, with labels.
    """
    return scored(usage, *predicted(usage, logits, encoded, rows))


def predicted(
    usage: Usage, logits: Logits, encoded: Encoded, rows: Sequence[Row]
) -> tuple[Any, Any]:
    """Return predictions and references of labelled rows, as `scored` takes them.

    Class ids and numbers, [n], and labels as [n, C] of 0 and 1, are arrays; answers and
    tags of words are lists. The arguments are those of `scores`.
    """
    task = usage.task
    if task.kind == "qa" and task.null:
        return spans(usage, logits, encoded, rows), golds(rows, task)
    return _OF_KIND[task.kind](usage, logits, encoded, rows)


def scored(usage: Usage, predictions: Any, references: Any) -> dict[str, float]:
    """Return the scores of a task's `metrics` from what `predicted` returns."""
    task = usage.task
    if task.kind == "qa" and task.null:
        return squad_v2.score(predictions, references, usage.null_threshold)
    return metrics.score(task.metrics, predictions, references)


def golds(rows: Sequence[Row], task: Task) -> list[list[str]]:
    """Return the right answers of each question."""
    return [known["text"] for known in column_of(rows, task.label)]


def spans(
    usage: Usage, logits: Logits, encoded: Encoded, rows: Sequence[Row]
) -> list[answers.Answer]:
    """Return the best answer of each question."""
    lengths = [len(ids) for ids in encoded.input_ids]
    cut = [found[:length] for found, length in zip(logits, lengths, strict=True)]
    return answers.decode(
        [found[:, 0] for found in cut],
        [found[:, 1] for found in cut],
        encoded,
        rows,
        n_best=usage.n_best,
        max_answer_length=usage.max_answer_length,
    )


def tags(
    usage: Usage, logits: Logits, encoded: Encoded, words: Sequence[Sequence[str]]
) -> list[list[str]]:
    """Return the name of each word's tag, by row."""
    names = usage.task.labels
    missing = names.index("O") if "O" in names else 0
    found = tagged.decode(logits, encoded, [len(row) for row in words], missing)
    return [[names[tag] for tag in row] for row in found]


def several(usage: Usage, logits: Logits) -> np.ndarray:
    """Return which labels each row has, [n, C] of 0 and 1."""
    limits = np.asarray(usage.thresholds or (0.5,), np.float64)
    # sigmoid(x) >= t where x >= log(t / (1 - t)).
    return (np.stack(list(logits)) >= np.log(limits / (1 - limits))).astype(np.int32)


def _classes(usage: Usage, logits: Logits, encoded: Encoded, rows: Any) -> Any:
    return np.argmax(np.stack(list(logits)), axis=-1), encoded.labels


def _numbers(usage: Usage, logits: Logits, encoded: Encoded, rows: Any) -> Any:
    return np.stack(list(logits))[:, 0], encoded.labels


def _answers(
    usage: Usage, logits: Logits, encoded: Encoded, rows: Sequence[Row]
) -> Any:
    found = spans(usage, logits, encoded, rows)
    return [answer.text for answer in found], golds(rows, usage.task)


def _tags(usage: Usage, logits: Logits, encoded: Encoded, rows: Sequence[Row]) -> Any:
    task = usage.task
    found = tags(usage, logits, encoded, column_of(rows, task.text))
    known = column_of(rows, task.label)
    return found, [[task.labels[tag] for tag in row] for row in known]


def _several(usage: Usage, logits: Logits, encoded: Encoded, rows: Any) -> Any:
    return several(usage, logits), encoded.labels


_OF_KIND: dict[str, Callable[..., tuple[Any, Any]]] = {
    "classification": _classes,
    "choice": _classes,
    "regression": _numbers,
    "qa": _answers,
    "tokens": _tags,
    "multilabel": _several,
}


def tuned(
    usage: Usage, logits: Logits, encoded: Encoded, rows: Sequence[Row]
) -> dict[str, Any]:
    """Return the thresholds of a usage that score best on labelled rows.

    Args:
      usage: Of a task of several labels, or of questions that may have no answer.
      logits: As of `scores`.
      encoded: As of `scores`.
      rows: As of `scores`.
    """
    task = usage.task
    if task.kind == "qa":
        found = spans(usage, logits, encoded, rows)
        limit = squad_v2.best_threshold(found, golds(rows, task))
        # inf: of a question without a span, which no threshold makes one.
        return {"null_threshold": float(np.clip(limit, -1e9, 1e9))}
    from scipy.special import expit

    chances = expit(np.stack(list(logits)).astype(np.float64))
    known = np.asarray(encoded.labels)
    limits = tuple(_limit(chances[:, i], known[:, i]) for i in range(known.shape[1]))
    return {"thresholds": limits}


def _limit(chances: np.ndarray, known: np.ndarray) -> float:
    """Return the probability from which on a label has the highest F1."""
    if not known.any():
        return 0.5
    order = np.argsort(-chances, kind="stable")
    right = np.cumsum(known[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + known.sum())
    # A limit stands between two probabilities; equal ones are not told apart.
    ends = np.append(np.diff(chances[order]) < 0, True)
    place = int(np.where(ends, f1, -1.0).argmax())
    below = chances[order][place + 1] if place + 1 < len(order) else 0.0
    return float(np.clip((chances[order][place] + below) / 2, 1e-6, 1 - 1e-6))


def chance(name: str, task: Task, rows: Sequence[Row]) -> float:
    """Return what the best constant guess scores, as `metrics.chance`.

    Of several labels micro-F1 is that of the most frequent ones, as many as score best,
    and macro-F1 that of all; of questions that may have no answer it is that of none.
    """
    known = column_of(rows, task.label)
    if task.kind == "tokens":
        if name.startswith("entity"):
            return 0.0
        return metrics.chance(name, [tag for row in known for tag in row])
    if task.kind == "qa":
        empty = float(np.mean([not answers["text"] for answers in known]))
        if name.startswith("no_answer"):
            return float(empty > 0)
        return empty if name.removeprefix("best_") in ("exact_match", "f1") else 0.0
    if task.kind != "multilabel":
        return metrics.chance(name, known)
    if name == "accuracy":
        sets = Counter(map(tuple, known))
        return max(sets.values()) / len(known)
    counts = np.bincount(np.concatenate(known).astype(int), minlength=len(task.labels))
    if name == "macro_f1":
        return float(np.mean(2 * counts / (counts + len(known))))
    most = np.sort(counts)[::-1]
    said = len(known) * np.arange(1, len(most) + 1)
    return float(np.max(2 * np.cumsum(most) / (said + max(1, counts.sum()))))
