"""Logits of question windows to answers: the best span of each row, and no answer."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metalr.data.columns import Row
from metalr.data.encoded import Encoded


class Answer(NamedTuple):
    """What the windows of one row say."""

    text: str  # of the best span, cut from the context; "" if there is none
    start: int  # its first character; -1 if there is none
    stop: int  # past its last character
    score: float  # start logit + end logit of the span; -inf if there is none
    null: float  # the least sum of both at the first token: "no answer here"

    def unless_null(self, threshold: float) -> str:
        """Return the text, or "" where `null` leads by more than the threshold."""
        return "" if self.null - self.score > threshold else self.text


def decode(
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    encoded: Encoded,
    rows: Sequence[Row],
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
) -> list[Answer]:
    """Read the best answer of each row out of the logits of its windows.

    A span (i, j) of context tokens, i <= j < i + max_answer_length, scores
    start_logits[i] + end_logits[j], and all windows of a row compete. The search over
    spans is exact. Ties go to the earlier window, then start, then end. A row has no
    answer where all of its windows say so, hence the least of their null scores.

    Args:
      start_logits: One array [len or longer] an entry of `encoded`.
      end_logits: The same for the end.
      encoded: The windows of `rows`.
      rows: Where the contexts are.
      n_best: Spans tried per window until one holds more than white space.
      max_answer_length: Tokens an answer has at most.

    Returns:
      One answer a row; its text is "" where no logit is finite.
    """
    if encoded.offsets is None:
        raise ValueError("answers are decoded with the offsets of a qa encoding")
    candidates: list[list[tuple[float, int, int]]] = [[] for _ in rows]
    nulls = np.full(len(rows), np.inf)
    for i, index in enumerate(encoded.example):
        candidates[index] += _best_spans(
            start_logits[i],
            end_logits[i],
            encoded.offsets[i],
            n_best,
            max_answer_length,
        )
        null = float(start_logits[i][0]) + float(end_logits[i][0])
        nulls[index] = min(nulls[index], null)
    answers = []
    for row, spans, null in zip(rows, candidates, nulls.tolist(), strict=True):
        spans.sort(key=lambda span: -span[0])  # stable: windows stay in order
        found = (_trimmed(row["context"], span) for span in spans)
        score, start, stop = next(filter(None, found), (-np.inf, -1, -1))
        text = row["context"][start:stop] if stop > 0 else ""
        answers.append(Answer(text, start, stop, score, null))
    return answers


def _trimmed(
    context: str, span: tuple[float, int, int]
) -> tuple[float, int, int] | None:
    """Return the span without white space at its ends; None if it is nothing else."""
    score, start, stop = span
    text = context[start:stop]
    start += len(text) - len(text.lstrip())
    stop = start + len(text.strip())
    return (score, start, stop) if start < stop else None


def _best_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    offsets: np.ndarray,
    n_best: int,
    max_answer_length: int,
) -> list[tuple[float, int, int]]:
    """Return (score, first char, past last char) of a window's best spans."""
    tokens = np.flatnonzero(offsets[:, 0] >= 0)
    if len(tokens) == 0:
        return []
    window = slice(tokens[0], tokens[-1] + 1)
    width = min(max_answer_length, window.stop - window.start)
    outside = np.where(offsets[window, 0] >= 0, 0.0, -np.inf)
    starts = np.asarray(start_logits, np.float64)[window] + outside
    ends = np.asarray(end_logits, np.float64)[window] + outside
    ends = np.concatenate([ends, np.full(width - 1, -np.inf)])
    # scores[i, k] is the span of k + 1 tokens from i on.
    scores = starts[:, None] + np.lib.stride_tricks.sliding_window_view(ends, width)
    flat = np.where(np.isfinite(scores), scores, -np.inf).ravel()
    least = np.partition(flat, -min(n_best, flat.size))[-min(n_best, flat.size)]
    best = np.flatnonzero((flat >= least) & (flat > -np.inf))  # with all ties of least
    best = best[np.argsort(-flat[best], kind="stable")][:n_best]
    first, extra = np.divmod(best, width)
    return [
        (
            float(scores[i, k]),
            int(offsets[window][i, 0]),
            int(offsets[window][i + k, 1]),
        )
        for i, k in zip(first, extra, strict=True)
    ]
