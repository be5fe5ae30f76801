"""From logits to predictions: columns whose names begin with `predicted_`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from metalr.data import structured, tagged
from metalr.data.columns import Row
from metalr.data.encoded import Encoded
from metalr.finetune import decode
from metalr.finetune.usage import Usage


def outputs(
    usage: Usage, logits: list[np.ndarray], encoded: Encoded, rows: Sequence[Row]
) -> list[Row]:
    """Return the prediction of each row.

    Args:
      usage: The model's.
      logits: One array an entry of `encoded`, at least as long as the entry.
      encoded: The rows as the model read them.
      rows: The rows.
    """
    return _OF_KIND[usage.task.kind](usage, logits, encoded, rows)


def probabilities(logits: list[np.ndarray]) -> np.ndarray:
    """Return the softmax over the last axis of the rows' logits, in float64."""
    from scipy.special import softmax

    return softmax(np.stack(logits).astype(np.float64), axis=-1)


def _short(value: Any) -> float:
    """Return a float with the digits that float32 has and no more.

    >>> _short(np.float32(0.1)), float(np.float32(0.1))
    (0.1, 0.10000000149011612)
    """
    return float(str(np.float32(value)))


def _named(labels: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(labels, map(_short, values), strict=True))


def _classes(
    usage: Usage, logits: list[np.ndarray], encoded: Encoded, rows: Sequence[Row]
) -> list[Row]:
    del encoded, rows
    names = usage.task.labels
    return [
        {
            "predicted_label": names[int(values.argmax())],
            "predicted_probabilities": _named(names, values),
        }
        for values in probabilities(logits)
    ]


def _scores(
    usage: Usage, logits: list[np.ndarray], encoded: Encoded, rows: Sequence[Row]
) -> list[Row]:
    del usage, encoded, rows
    return [{"predicted_score": _short(found[0])} for found in logits]


def _answers(
    usage: Usage, logits: list[np.ndarray], encoded: Encoded, rows: Sequence[Row]
) -> list[Row]:
    return [
        _answer(usage, answer) for answer in decode.spans(usage, logits, encoded, rows)
    ]


def _answer(usage: Usage, answer: Any) -> Row:
    # How far the answer leads "no answer", in logits.
    margin = {"predicted_margin": _short(answer.score - answer.null)}
    if usage.task.null and not answer.unless_null(usage.null_threshold):
        return {
            "predicted_answer": "",
            "predicted_start": -1,
            "predicted_end": -1,
        } | margin
    return {
        "predicted_answer": answer.text,
        "predicted_start": answer.start,
        "predicted_end": answer.stop,
    } | margin


def _tags(
    usage: Usage, logits: list[np.ndarray], encoded: Encoded, rows: Sequence[Row]
) -> list[Row]:
    """Return tags, and entities with their places in the text, or among the words."""
    words = [row[usage.task.text] for row in rows]
    of_entities = structured.tag_scores(usage.task.labels)[0] == "entity_f1"
    found = []
    said = decode.tags(usage, logits, encoded, words)
    for row, of, tags in zip(rows, words, said, strict=True):
        spans = row.get("spans") or [(i, i + 1) for i in range(len(of))]
        entities = tagged.entities(of, spans, tags) if of_entities else []
        found.append({"predicted_tags": tags, "predicted_entities": entities})
    return found


def _several(
    usage: Usage, logits: list[np.ndarray], encoded: Encoded, rows: Sequence[Row]
) -> list[Row]:
    from scipy.special import expit

    del encoded, rows
    names = usage.task.labels
    chances = expit(np.stack(logits).astype(np.float64))
    return [
        {
            "predicted_labels": [n for n, y in zip(names, yes, strict=True) if y],
            "predicted_probabilities": _named(names, values),
        }
        for yes, values in zip(decode.several(usage, logits), chances, strict=True)
    ]


def _choices(
    usage: Usage, logits: list[np.ndarray], encoded: Encoded, rows: Sequence[Row]
) -> list[Row]:
    del encoded
    found = []
    for row, values in zip(rows, probabilities(logits), strict=True):
        place = int(values.argmax())
        found.append(
            {
                "predicted_choice": place,
                "predicted_text": row[usage.task.pair or ""][place],
                "predicted_probabilities": [_short(value) for value in values],
            }
        )
    return found


_OF_KIND: dict[str, Callable[..., list[Row]]] = {
    "classification": _classes,
    "regression": _scores,
    "qa": _answers,
    "tokens": _tags,
    "multilabel": _several,
    "choice": _choices,
}


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for a table of text: a dictionary of numbers becomes columns.

    >>> flat({"text": "x", "predicted_probabilities": {"no": 0.25, "yes": 0.75}})
    {'text': 'x', 'predicted_probability_no': 0.25, 'predicted_probability_yes': 0.75}
    """
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name == "predicted_probabilities" and isinstance(value, dict):
            found |= {f"predicted_probability_{k}": v for k, v in value.items()}
        else:
            found[name] = value
    return found
