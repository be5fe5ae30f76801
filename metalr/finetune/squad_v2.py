"""Scores of SQuAD 2.0, where a question may have no answer in its paragraph.

As its official script has them, from 0 to 1 in place of to 100: exact match and token
F1 of all questions at one threshold, apart for those with an answer and those without,
and what the best threshold in hindsight would have given.
"""

from collections.abc import Sequence

import numpy as np

from metalr.data.answers import Answer
from metalr.finetune import metrics

SCORES = (
    "exact_match",
    "f1",
    *("has_answer_exact_match", "has_answer_f1", "no_answer_f1"),
    *("best_exact_match", "best_f1"),
)


def score(
    answers: Sequence[Answer], references: Sequence[Sequence[str]], threshold: float
) -> dict[str, float]:
    """Return the scores by name; a share of no questions is left out.

    Args:
      answers: What the model says of each question.
      references: The right answers of each; none: it has no answer.
      threshold: How far "no answer" has to lead the best span, in logits, to be said.
    """
    golds = [_golds(known) for known in references]
    has = np.array([len(known) > 0 for known in references])
    odds = _odds(answers)
    found: dict[str, float] = {}
    for name in ("exact_match", "f1"):
        best = _of_texts(name, answers, golds)
        said = np.where(odds > threshold, ~has, best)
        found[name] = float(said.mean())
        if has.any():
            found[f"has_answer_{name}"] = float(said[has].mean())
        if not has.all():
            found[f"no_answer_{name}"] = float(said[~has].mean())
        found[f"best_{name}"], _ = _best(best, odds, has, answers)
    return {name: found[name] for name in SCORES if name in found}


def best_threshold(
    answers: Sequence[Answer], references: Sequence[Sequence[str]]
) -> float:
    """Return the threshold with the highest F1."""
    golds = [_golds(known) for known in references]
    has = np.array([len(known) > 0 for known in references])
    texts = _of_texts("f1", answers, golds)
    return _best(texts, _odds(answers), has, answers)[1]


def _golds(known: Sequence[str]) -> list[str]:
    return [text for text in known if metrics.normalize_answer(text)] or [""]


def _odds(answers: Sequence[Answer]) -> np.ndarray:
    """Return how far "no answer" leads, [n]; inf where there is no span."""
    return np.array([answer.null - answer.score for answer in answers])


def _of_texts(
    name: str, answers: Sequence[Answer], golds: Sequence[Sequence[str]]
) -> np.ndarray:
    """Return the score of each best span, [n], whatever the threshold."""
    compare = metrics.METRICS[name]
    return np.array(
        [compare([a.text], [known]) for a, known in zip(answers, golds, strict=True)]
    )


def _best(
    scores: np.ndarray, odds: np.ndarray, has: np.ndarray, answers: Sequence[Answer]
) -> tuple[float, float]:
    """Return the highest mean over all thresholds, and the threshold.

    Begins with "no answer" for all and gives up one after another, those first that
    are most of all answers.
    """
    order = np.argsort(odds, kind="stable")
    empty = np.array([not answer.text for answer in answers])
    gain = np.where(has, scores, np.where(empty, 0.0, -1.0))[order]
    total = np.concatenate([[0.0], np.cumsum(gain)]) + (~has).sum()
    place = int(total.argmax())
    # The official script's odds are probabilities, and its threshold for none is 0.
    threshold = odds.min() - 1.0 if place == 0 else odds[order][place - 1]
    return float(total[place] / len(scores)), float(threshold)
