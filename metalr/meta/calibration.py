"""What left-out sweeps say of a fit: its widths, its limits, how much a step counts."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from metalr.features import OF_STATIC
from metalr.meta import facts, labels
from metalr.predictor import (
    UNMEASURED,
    Density,
    Predictor,
    best_relative_rate,
    distance,
    evidence,
)


class LeftOutSpread(NamedTuple):
    """How far off a predictor is on sweeps that it was not fitted to."""

    prior_variance: float  # a factor on the prior's own
    limit: float  # of the densities: 99 % of the rows lie below
    prior_limit: float  # of those of the facts: 95 %
    correlation: float  # steps that hold the information of one


def _folds(data: labels.Examples, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield which examples are left out: [N] bool, whole sweeps at a time."""
    names = np.unique(data.sweep)
    of = np.random.default_rng(seed).integers(count, size=len(names))
    for fold in range(count):
        yield np.isin(data.sweep, names[of == fold])


def left_out(
    data: labels.Examples,
    kept: np.ndarray,
    fitted: Callable[[np.ndarray], Predictor],
    folds: int,
    seed: int,
) -> LeftOutSpread | None:
    """Estimate variances, limits and the correlation from sweeps that are left out.

    Args:
      data: The examples.
      kept: [N] bool, those that there are.
      fitted: Fits a predictor to some of them: [N] bool.
      folds: Whole sweeps are left out in so many parts.
      seed: Of the parts.

    Returns:
      None if no informative sweep can be left out with another one to fit to.
    """
    far, prior_far, prior_errors, runs = [], [], [], []
    for out in _folds(data, folds, seed):
        out = out & kept
        if not (informs(data, out) and informs(data, kept & ~out)):
            continue
        predictor = fitted(kept & ~out)
        held = labels.Examples(*(c[out] for c in data))
        rows = jnp.asarray(held.features)
        found, variance = (np.asarray(x, np.float64) for x in evidence(predictor, rows))
        far.append(far_from(predictor.seen, held.features))
        prior_far.append(far_from(predictor.prior_seen, held.features[:, OF_STATIC]))
        known = facts.points(held)
        said, width = (
            np.asarray(x)
            for x in best_relative_rate(predictor, jnp.asarray(known.facts))
        )
        prior_errors.append((known.weight, (said - known.best) ** 2 / width))
        runs += list(_tracks(held, found, variance))
    if not far:
        return None
    weights, errors = (np.concatenate(x) for x in zip(*prior_errors, strict=True))
    return LeftOutSpread(
        prior_variance=float(np.average(np.minimum(errors, 9), weights=weights)),
        limit=float(np.quantile(np.concatenate(far), 0.99)),
        prior_limit=float(np.quantile(np.concatenate(prior_far), 0.95)),
        correlation=correlation(runs),
    )


def informs(data: labels.Examples, rows: np.ndarray) -> bool:
    """Return whether a sweep among the rows says where its best rate lies."""
    return bool(data.weight[rows & (data.step <= 3)].sum() > 0)


def far_from(seen: Density, rows: np.ndarray) -> np.ndarray:
    """Return the distance of each row from training: [N]."""
    return np.asarray(distance(seen, jnp.asarray(rows)))


def _tracks(
    held: labels.Examples, found: np.ndarray, variance: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yield errors, variances and weight of the steps of each run, in order."""
    for run in np.unique(held.run):
        rows = held.run == run
        if rows.sum() >= 8:
            error = (found - held.target)[rows]
            yield error, variance[rows], float(held.weight[rows].sum())


def correlation(runs: list[tuple[np.ndarray, np.ndarray, float]]) -> float:
    """Return how many steps hold the information of one independent step.

    If that is tau, the precision-weighted mean of the errors of a run has the variance
    tau / sum(1/v). The maximum-likelihood tau is the mean over runs of the squared mean
    times sum(1/v).
    """
    ratios, weights = [], []
    for error, variance, weight in runs:
        precision = 1 / variance
        mean = np.sum(error * precision) / precision.sum()
        ratios.append(mean**2 * precision.sum())
        weights.append(weight)
    if not ratios:
        return UNMEASURED
    return float(np.clip(np.average(np.minimum(ratios, 400), weights=weights), 1, 200))
