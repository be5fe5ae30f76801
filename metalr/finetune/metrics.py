"""Scores from 0 (or -1) to 1: classification, regression and answers to questions.

scikit-learn and scipy are imported when a score needs them. A score that is not
defined (a constant prediction has no correlation) is 0.0, without a warning.
"""

import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from metalr.errors import unknown_name

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def accuracy(predictions: Any, references: Any) -> float:
    """Return the share of equal class ids, sets of labels, or tags of words."""
    if isinstance(predictions[0], list):
        predictions, references = _flat(predictions), _flat(references)
    equal = np.asarray(predictions) == np.asarray(references)
    return float(np.mean(equal if equal.ndim == 1 else equal.all(axis=1)))


def _flat(rows: Any) -> list[Any]:
    return [tag for row in rows for tag in row]


def f1(predictions: Any, references: Any) -> float:
    """Return F1 of class 1, or for texts the mean token F1 of SQuAD."""
    if isinstance(predictions[0], str):
        return _mean_over_golds(_token_f1, predictions, references)
    from sklearn.metrics import f1_score

    positive = np.asarray(predictions) == 1
    return float(f1_score(np.asarray(references) == 1, positive, zero_division=0))  # pyright: ignore[reportArgumentType]


def macro_f1(predictions: Any, references: Any) -> float:
    """Return the mean F1 of the classes, labels or tags, frequent or rare alike."""
    if isinstance(predictions[0], list):  # rows of tags, each as long as it is
        predictions, references = _flat(predictions), _flat(references)
    elif np.shape(references)[1:] == (1,):
        return f1(np.ravel(predictions), np.ravel(references))
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="macro", zero_division=0))  # pyright: ignore[reportArgumentType]


def micro_f1(predictions: Any, references: Any) -> float:
    """Return F1 over all labels of all rows, [n, C] of 0 and 1, taken together."""
    if np.shape(references)[1] == 1:  # scikit-learn would count its absence as well
        return f1(np.ravel(predictions), np.ravel(references))
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="micro", zero_division=0))  # pyright: ignore[reportArgumentType]


def by_class(
    predictions: Any, references: Any, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and rows of each class.

    Args:
      predictions: Class ids [n], several labels as [n, C] of 0 and 1, or names of tags.
      references: The same.
      names: Of the classes, by id.
    """
    from sklearn.metrics import precision_recall_fscore_support

    ids: Any = names if isinstance(references[0], str) else range(len(names))
    if np.shape(references)[1:] == (1,):  # scikit-learn would count its absence as well
        predictions, references, ids = np.ravel(predictions), np.ravel(references), [1]
    found: Any = precision_recall_fscore_support(
        references,
        predictions,
        labels=ids,
        average=None,
        zero_division=0,  # pyright: ignore[reportArgumentType]
    )
    return {
        name: dict(zip(("precision", "recall", "f1"), map(float, each), strict=True))
        | {"rows": int(rows)}
        for name, *each, rows in zip(names, *found, strict=True)
    }


def by_entity(predictions: Any, references: Any) -> dict[str, dict[str, float]]:
    """Return the same of each type of entity, as seqeval counts them."""
    from seqeval.metrics import classification_report

    report = _of_entities(classification_report, predictions, references, as_dict=True)
    return {
        name: {
            "precision": float(row["precision"]),
            "recall": float(row["recall"]),
            "f1": float(row["f1-score"]),
            "rows": int(row["support"]),
        }
        for name, row in report.items()
        if name not in ("micro avg", "macro avg", "weighted avg")
    }


def entity_f1(predictions: Any, references: Any) -> float:
    """Return F1 of whole entities, as CoNLL's script and seqeval count them."""
    from seqeval.metrics import f1_score

    return float(_of_entities(f1_score, predictions, references))


def entity_precision(predictions: Any, references: Any) -> float:
    """Return the share of predicted entities that are right in place and type."""
    from seqeval.metrics import precision_score

    return float(_of_entities(precision_score, predictions, references))


def entity_recall(predictions: Any, references: Any) -> float:
    """Return the share of entities that were found, in place and type."""
    from seqeval.metrics import recall_score

    return float(_of_entities(recall_score, predictions, references))


def _of_entities(
    score: Callable, predictions: Any, references: Any, *, as_dict: bool = False
) -> Any:
    # seqeval has IOBES alone, where a unit is a single and the last one an end.
    same = str.maketrans("UL", "SE")
    spell = lambda tag: tag[:1].translate(same) + tag[1:]  # noqa: E731
    both = [[[*map(spell, row)] for row in rows] for rows in (references, predictions)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # neither has an entity
        more = {"output_dict": True} if as_dict else {}
        return score(*both, zero_division=0, **more)


def matthews(predictions: Any, references: Any) -> float:
    """Return the Matthews correlation of class ids; 0 where either is constant."""
    if np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return 0.0
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(references, predictions))


def pearson(predictions: Any, references: Any) -> float:
    """Return the linear correlation; 0 where it is not defined."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predictions, references)


def spearman(predictions: Any, references: Any) -> float:
    """Return the rank correlation; 0 where it is not defined."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predictions, references)


def _correlation(correlate: Callable, predictions: Any, references: Any) -> float:
    x, y = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
    # NaN predictions come from a run that diverged: no correlation, not a crash.
    if len(x) < 2 or not np.isfinite([x, y]).all() or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nearly constant input
        value = float(correlate(x, y).statistic)
    return value if np.isfinite(value) else 0.0


def exact_match(predictions: Sequence[str], references: Sequence[Any]) -> float:
    """Return the share of answers that equal one of their golds, normalised."""
    return _mean_over_golds(
        lambda text, gold: float(normalize_answer(text) == normalize_answer(gold)),
        predictions,
        references,
    )


def normalize_answer(text: str) -> str:
    """Normalise an answer as SQuAD's official script does.

    Lower case, then no punctuation (ASCII), no articles, single spaces.

    >>> normalize_answer("The  Eiffel-Tower, an icon.")
    'eiffeltower icon'
    """
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def _token_f1(text: str, gold: str) -> float:
    """Return the harmonic mean of precision and recall over normalised words."""
    words, gold_words = normalize_answer(text).split(), normalize_answer(gold).split()
    if not words or not gold_words:  # as SQuAD 2.0: F1 never lies under exact match
        return float(words == gold_words)
    shared = sum((Counter(words) & Counter(gold_words)).values())
    return 2.0 * shared / (len(words) + len(gold_words))


def _mean_over_golds(
    compare: Callable[[str, str], float], texts: Sequence[str], golds: Sequence[Any]
) -> float:
    """Average the best comparison with any gold; a gold may be a text or several."""
    best = []
    for text, known in zip(texts, golds, strict=True):
        known = [known] if isinstance(known, str) else list(known)
        best.append(max(compare(text, gold) for gold in known or [""]))
    return float(np.mean(best))


METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "exact_match": exact_match,
    "micro_f1": micro_f1,
    "entity_f1": entity_f1,
    "entity_precision": entity_precision,
    "entity_recall": entity_recall,
}


def score(
    names: Iterable[str], predictions: Sequence | np.ndarray, references: Any
) -> dict[str, float]:
    """Score predictions by several metrics.

    Args:
      names: Rows of METRICS.
      predictions: [n] class ids, [n] floats, or n texts.
      references: The same, for texts n lists of golds.

    Returns:
      One float a metric, 1 the best.

    Raises:
      MetalrError: A name that is not in METRICS.
      ValueError: No predictions, or not as many as references.

    >>> score(["accuracy", "f1"], [1, 0, 1, 1], [1, 0, 0, 1])
    {'accuracy': 0.75, 'f1': 0.8}
    """
    if len(predictions) == 0 or len(predictions) != len(references):
        raise ValueError(
            f"score needs as many predictions as references and at least one, "
            f"got {len(predictions)} and {len(references)}"
        )
    return {name: _metric(name)(predictions, references) for name in names}


def _metric(name: str) -> Callable[[Any, Any], float]:
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]


def chance(name: str, references: Any) -> float:
    """Return what the best constant guess scores: 0 on the way from chance to 1.

    The share of the most frequent class for accuracy, F1 of "always 1" for F1, that of
    the most frequent class over all of them for macro-F1, and 0 for correlations and
    for answers in words.

    >>> chance("accuracy", [0, 1, 1, 2]), chance("f1", [0, 1, 0, 1])
    (0.5, 0.6666666666666666)
    """
    _metric(name)
    if name == "accuracy":
        return float(
            np.unique(references, return_counts=True)[1].max() / len(references)
        )
    if name == "macro_f1":
        classes, counts = np.unique(references, return_counts=True)
        return macro_f1(np.full(len(references), classes[counts.argmax()]), references)
    if name == "f1" and np.issubdtype(np.asarray(references[0]).dtype, np.number):
        return f1(np.ones(len(references), np.int32), references)
    return 0.0
