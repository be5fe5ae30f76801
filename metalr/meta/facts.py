"""What the facts of a run say: the prior, and the densities of facts and features."""

import numpy as np

from metalr.features import NAMES, OF_STATIC, STATIC
from metalr.meta import labels
from metalr.predictor import Density, Predictor

# Ridge penalties of the prior, in sweeps: of the weights that all kinds share towards
# zero, and of the weights of a kind towards those.
_RIDGE, _OWN_SLOPE, _OWN_OFFSET = 3.0, 5.0, 0.5
_SHRINK = 0.1  # of a group's covariance towards that of all
_RELATIVE_RATE = NAMES.index("relative_rate")


def with_prior(blank: Predictor, data: labels.Examples) -> Predictor:
    """Regress the best relative rate on the facts, one point a sweep.

    The weights that all kinds share are shrunk towards zero, and those of a kind, more
    strongly, towards the shared ones: a kind with few sweeps follows the others.
    """
    known, best, weight, kind = points(data)
    centre, scale = known.mean(0), np.maximum(known.std(0), 0.1)
    x = np.column_stack([(known - centre) / scale, np.ones(len(known))])
    kinds = np.unique(data.kind)
    own = [x * (kind == name)[:, None] for name in kinds]
    wide = np.column_stack([x, *own])
    pull = [_RIDGE] * len(STATIC) + [1e-6]
    pull += ([_OWN_SLOPE] * len(STATIC) + [_OWN_OFFSET]) * len(kinds)
    solved = np.linalg.solve(
        (wide * weight[:, None]).T @ wide + np.diag(pull), wide.T @ (weight * best)
    ).reshape(len(kinds) + 1, -1)
    error = wide @ solved.ravel() - best
    overall = np.average(error**2, weights=weight)
    each = solved[0] + solved[1:]
    slopes = each[:, :-1] / scale
    spread = [
        (overall + np.sum((weight * error**2)[kind == name]))
        / (1 + weight[kind == name].sum())
        for name in kinds
    ]
    return blank._replace(
        prior_seen=densities(data.features[:, OF_STATIC], data.kind),
        prior_weights=slopes.astype(np.float32),
        prior_bias=(each[:, -1] - slopes @ centre).astype(np.float32),
        prior_variance=np.array(spread, np.float32),
    )


def points(data: labels.Examples) -> tuple[np.ndarray, ...]:
    """Return facts [S, D], best relative rate, weight and kind [S] of each sweep."""
    known, best, weight, kind = [], [], [], []
    best_of = data.features[:, _RELATIVE_RATE].astype(np.float64) + data.target
    early = data.step <= 3
    for sweep in np.unique(data.sweep):
        rows = (data.sweep == sweep) & early
        share = data.weight[data.sweep == sweep].sum()
        if not rows.any() or share <= 0:
            continue
        known.append(data.features[rows][:, OF_STATIC].astype(np.float64).mean(0))
        best.append(best_of[rows].mean())
        weight.append(share)
        kind.append(data.kind[rows][0])
    weights = np.array(weight) / np.mean(weight)
    return np.array(known), np.array(best), weights, np.array(kind)


def densities(rows: np.ndarray, kind: np.ndarray) -> Density:
    """Fit a Gaussian to the rows of each kind."""
    rows = rows.astype(np.float64)
    scale = np.maximum(rows.std(0), 1e-3)
    overall = np.cov((rows / scale).T) + 1e-3 * np.eye(rows.shape[1])
    centres, whitenings = [], []
    for name in np.unique(kind):
        own = rows[kind == name] / scale
        covariance = np.cov(own.T) if len(own) > 2 * rows.shape[1] else overall
        covariance = (1 - _SHRINK) * covariance + _SHRINK * overall
        covariance += 0.02 * np.eye(rows.shape[1])
        lower = np.linalg.cholesky(np.linalg.inv(covariance))
        centres.append(own.mean(0) * scale)
        whitenings.append(lower.T / scale)
    return Density(
        np.array(centres, np.float32),
        np.array(whitenings, np.float32),
        np.float32(1),
    )
