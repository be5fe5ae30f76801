"""Score a predictor on steps that it has not seen."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from metalr.meta import fit, labels
from metalr.meta.calibration import far_from, informs
from metalr.predictor import Predictor, evidence, prior


def score(predictor: Predictor, data: labels.Examples) -> dict[str, float]:
    """Score the corrections of a predictor, weighting each step.

    Returns:
      steps: their number; sign: share with the right sign, where the target is over an
      octave; rmse: of the correction in octaves; first: the same in the first ten
      steps; prior: of the prior alone; still: of no correction; within: share of the
      steps whose target lies within one standard deviation; far: share of them that
      are out of the range of training.
    """
    rows = jnp.asarray(data.features)
    found, variance = (np.asarray(x, np.float64) for x in evidence(predictor, rows))
    said = np.asarray(prior(predictor, rows)[0], np.float64)
    far = np.abs(data.target) > 1
    mean = lambda x, w: float(np.sum(x * w) / max(np.sum(w), 1e-12))  # noqa: E731
    everywhere, early = data.step >= 0, data.step < 10
    rmse = lambda x, m=everywhere: (  # noqa: E731
        mean((x - data.target)[m] ** 2, data.weight[m]) ** 0.5
    )
    return {
        "steps": len(found),
        "sign": mean((found * data.target > 0)[far], data.weight[far]),
        "rmse": rmse(found),
        "first": rmse(found, early),
        "prior": rmse(said, early),
        "still": rmse(np.zeros_like(found)),
        "within": mean((found - data.target) ** 2 < variance, data.weight),
        "far": mean(far_from(predictor.seen, data.features) > 1, data.weight),
    }


def leave_one_out(
    data: labels.Examples,
    column: str,
    settings: fit.Settings | None = None,
    whole: Predictor | None = None,
) -> list[dict[str, Any]]:
    """Fit without each value of a column in turn, and score on it.

    Args:
      data: The examples.
      column: "task", "size", "kind" or "optimizer".
      settings: Of the fit.
      whole: The predictor of all examples, whose limits count: what lies beyond them
        says what the one that ships would call out of range.

    Returns:
      One row per value, as `score` with "out"; none if there is only one value.
    """
    of = getattr(data, column)
    values = [str(value) for value in np.unique(of) if value]
    if len(values) < 2:
        return []
    found = []
    for value in values:
        out = of == value
        if not (np.any(data.weight[out] > 0) and informs(data, ~out)):
            continue  # nothing to score on, or to fit to
        predictor = fit.fit(data, settings, kept=~out, calibrate=False)
        if whole is not None:
            limit = predictor.seen._replace(limit=whole.seen.limit)
            predictor = predictor._replace(seen=limit)
        held = labels.Examples(*(column[out] for column in data))
        found.append({"out": value, **score(predictor, held)})
    return found
