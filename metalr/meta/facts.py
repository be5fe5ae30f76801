"""What the facts of a run say: the prior, and the densities of facts and features."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from metalr.features import NAMES, OF_STATIC, STATIC
from metalr.meta import labels
from metalr.predictor import Density, Predictor

# Ridge penalties of the prior, in sweeps: of the weights that all kinds share towards
# zero, and of the weights of a kind towards those.
_RIDGE, _OWN_SLOPE, _OWN_OFFSET = 3.0, 5.0, 0.5
_PAIRED = 5.0  # weight of a difference between the shapes of a sweep
_SHRINK = 0.1  # of a group's covariance towards that of all
_RELATIVE_RATE = NAMES.index("relative_rate")
_HORIZON_KNOWN = NAMES.index("horizon_known")


class Points(NamedTuple):
    """What there is to know before the first step, and what was best: a row each."""

    facts: np.ndarray  # [P, D] in the order of STATIC
    best: np.ndarray  # [P] log2 of the best relative rate
    weight: np.ndarray  # [P] mean 1
    kind: np.ndarray  # [P] str
    sweep: np.ndarray  # [P] str; empty where the clock is hidden


def with_prior(blank: Predictor, data: labels.Examples) -> Predictor:
    """Regress the best relative rate on the facts.

    The weights that all kinds share are shrunk towards zero, and those of a kind, more
    strongly, towards the shared ones: a kind with few sweeps follows the others. What
    differs between the shapes of one sweep is that shape alone, so these differences
    count more than those between sweeps.
    """
    found = points(data)
    known, kind = found.facts, found.kind
    centre, scale = known.mean(0), np.maximum(known.std(0), 0.1)
    x = np.column_stack([(known - centre) / scale, np.ones(len(known))])
    kinds = np.unique(data.kind)
    own = [x * (kind == name)[:, None] for name in kinds]
    wide = np.column_stack([x, *own])
    pull = [_RIDGE] * len(STATIC) + [1e-6]
    pull += ([_OWN_SLOPE] * len(STATIC) + [_OWN_OFFSET]) * len(kinds)
    rows = np.concatenate([wide, _within_sweeps(found, wide)])
    target = np.concatenate([found.best, _within_sweeps(found, found.best)])
    weight = np.concatenate([found.weight, _PAIRED * found.weight])
    solved = np.linalg.solve(
        (rows * weight[:, None]).T @ rows + np.diag(pull), rows.T @ (weight * target)
    ).reshape(len(kinds) + 1, -1)
    error = wide @ solved.ravel() - found.best
    overall = np.average(error**2, weights=found.weight)
    each = solved[0] + solved[1:]
    slopes = each[:, :-1] / scale
    spread = [
        (overall + np.sum((found.weight * error**2)[kind == name]))
        / (1 + found.weight[kind == name].sum())
        for name in kinds
    ]
    return blank._replace(
        prior_seen=densities(data.features[:, OF_STATIC], data.kind, data.shape),
        prior_weights=slopes.astype(np.float32),
        prior_bias=(each[:, -1] - slopes @ centre).astype(np.float32),
        prior_variance=np.array(spread, np.float32),
    )


def _within_sweeps(found: Points, values: np.ndarray) -> np.ndarray:
    """Return how far the values of each point are from the mean of its sweep's.

    That is 0 where the clock is hidden, since the facts do not tell shapes apart then.
    """
    apart = np.zeros_like(values)
    for sweep in set(found.sweep) - {""}:
        own = found.sweep == sweep
        apart[own] = values[own] - values[own].mean(0)
    return apart


def points(data: labels.Examples) -> Points:
    """Return a point for each shape of each sweep, and one where the clock is hidden.

    Each is the mean of what runs really show, in their first steps.
    """
    found = defaultdict(list)
    best_of = data.features[:, _RELATIVE_RATE].astype(np.float64) + data.target
    clock = data.features[:, _HORIZON_KNOWN] > 0
    early = data.step <= 3
    for sweep, shape in sorted(set(zip(data.sweep, data.shape, strict=True))):
        own = (data.sweep == sweep) & (data.shape == shape)
        total = data.weight[own].sum()
        for is_known in (True, False):
            rows = own & early & (clock == is_known)
            if not rows.any() or total <= 0:
                continue
            facts = data.features[rows][:, OF_STATIC].astype(np.float64)
            found["facts"].append(facts.mean(0))
            found["best"].append(best_of[rows].mean())
            found["weight"].append(total * rows.sum() / (own & early).sum())
            found["kind"].append(data.kind[rows][0])
            found["sweep"].append(sweep if is_known else "")
    columns = {name: np.array(rows) for name, rows in found.items()}
    columns["weight"] /= np.mean(columns["weight"])
    return Points(**columns)


def densities(
    rows: np.ndarray, kind: np.ndarray, shape: np.ndarray | None = None
) -> Density:
    """Fit a Gaussian to the rows of each kind.

    Args:
      rows: [N, D].
      kind: [N] of their runs.
      shape: [N] of their schedules: each shape of a kind then counts as much as any
        other, or one that is rare in training would pass for unknown. None: each row.
    """
    rows = rows.astype(np.float64)
    scale = np.maximum(rows.std(0), 1e-3)
    weight = np.ones(len(rows)) if shape is None else _balanced(kind, shape)
    overall = np.cov((rows / scale).T, aweights=weight) + 1e-3 * np.eye(rows.shape[1])
    centres, whitenings = [], []
    for name in np.unique(kind):
        own, count = rows[kind == name] / scale, weight[kind == name]
        covariance = overall
        if len(own) > 2 * rows.shape[1]:
            covariance = np.cov(own.T, aweights=count)
        covariance = (1 - _SHRINK) * covariance + _SHRINK * overall
        covariance += 0.02 * np.eye(rows.shape[1])
        lower = np.linalg.cholesky(np.linalg.inv(covariance))
        centres.append(np.average(own, axis=0, weights=count) * scale)
        whitenings.append(lower.T / scale)
    return Density(
        np.array(centres, np.float32),
        np.array(whitenings, np.float32),
        np.float32(1),
    )


def _balanced(kind: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Return weights [N] by which each shape of a kind has the same sum."""
    _, group, count = np.unique(
        np.stack([kind, shape]), axis=1, return_inverse=True, return_counts=True
    )
    return 1.0 / count[group]
