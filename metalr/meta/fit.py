"""Fit the predictor to labelled steps, and score it on steps that it has not seen.

Three parts are fitted one after the other. The *prior* is a ridge regression of the
best relative rate on the facts of a run. The *evidence* is a small network that
regresses the labels of `metalr.meta.labels` on the features of a step, and predicts the
logarithm of its own squared error. Encoders get a prior and a network of their own as
well, fitted to them alone, which answer where the facts of a run are nearest to
theirs. The *densities* are a Gaussian for each kind of
problem, scaled so that 1 % of the rows of left-out sweeps lie outside. How many steps
of evidence count as one is then estimated from sweeps that were left out.

All of it is computed in float64 and rounded at the end, so that the weights do not
depend on the order of summation, which differs between machines.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.errors import MetalrError
from metalr.features import NAMES
from metalr.meta import labels
from metalr.predictor import (
    STATIC,
    Density,
    Network,
    Predictor,
    best_relative_rate,
    distance,
    evidence,
    init_predictor,
    prior,
)

# A feature that hardly varied in the traces says little about what is out of range: its
# scale and range are at least these shares of its possible range.
_LEAST_STD, _LEAST_RANGE = 0.01, 0.05
# Ridge penalties of the prior, in sweeps: of the weights that all kinds share towards
# zero, and of the weights of a kind towards those.
_RIDGE, _OWN_SLOPE, _OWN_OFFSET = 3.0, 5.0, 0.5
_SHRINK = 0.1  # of a group's covariance towards that of all
_OF_FACTS = np.array([NAMES.index(name) for name in STATIC])
_RELATIVE_RATE = NAMES.index("relative_rate")


class Settings(NamedTuple):
    """Settings of the fit."""

    steps: int = 1500
    batch: int = 1024
    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    feature_dropout: float = 0.1  # share of inputs replaced by their mean
    noise: float = 0.1  # sigma added to standardised inputs
    huber: float = 2.0  # octaves: beyond, errors count linearly
    near: float = 3.0  # octaves off where a step counts half
    unknown_horizon: float = labels.UNKNOWN_HORIZON
    hidden: tuple[str, ...] = ()  # features that are not shown to the predictor
    quantile: float = 0.002  # left out on either side of the range seen in training
    folds: int = 3  # of sweeps, for what is read off left-out ones
    seed: int = 0


def fit(
    data: labels.Examples,
    settings: Settings | None = None,
    *,
    kept: np.ndarray | None = None,
    calibrate: bool = True,
) -> Predictor:
    """Fit a predictor; the same examples and settings give the same weights.

    Args:
      data: The examples.
      settings: Of the fit.
      kept: [N] bool, the examples to fit to; None: all.
      calibrate: Whether to estimate variances, limits and the correlation from sweeps
        that are left out, which takes one more fit for each fold. Otherwise they are
        those of the rows that were fitted to.

    Raises:
      MetalrError: A hidden feature is unknown.
    """
    settings = settings or Settings()
    kept = np.ones(len(data.target), bool) if kept is None else kept
    predictor = _fitted(data, kept, settings)
    if calibrate and (spread := _left_out(data, kept, settings)) is not None:
        predictor = _calibrated(predictor, spread)
    kinds = np.unique(data.kind[kept])
    if labels.ENCODER not in kinds or len(kinds) == 1:
        return predictor
    encoders = data.kind == labels.ENCODER
    rows = labels.Examples(*(column[encoders] for column in data))
    alone = fit(rows, settings, kept=kept[encoders], calibrate=calibrate)
    return _with_own(predictor, alone, int(np.flatnonzero(kinds == labels.ENCODER)[0]))


def _calibrated(predictor: Predictor, spread: dict[str, float]) -> Predictor:
    """Set what is read off sweeps that were left out."""
    return predictor._replace(
        # The prior errs more on sweeps left out than on those that it was fitted to.
        prior_variance=predictor.prior_variance * np.float32(spread["prior_variance"]),
        seen=predictor.seen._replace(limit=np.float32(spread["limit"])),
        prior_seen=predictor.prior_seen._replace(
            limit=np.float32(spread["prior_limit"])
        ),
        correlation=np.float32(spread["correlation"]),
        aim=np.float32(0.25),
    )


def _with_own(predictor: Predictor, alone: Predictor, kind: int) -> Predictor:
    """Let encoders have the network and the prior that were fitted to them alone.

    What counts as far, and how much a step counts, stays that of all runs.
    """
    network = Network(
        *(alone.weights, alone.mean, alone.std, alone.low, alone.high), np.float32(kind)
    )
    of_kind = {}
    for name in ("prior_weights", "prior_bias", "prior_variance"):
        of_kind[name] = getattr(predictor, name).copy()
        of_kind[name][kind] = getattr(alone, name)[0]
    return predictor._replace(own=network, **of_kind)


def _fitted(data: labels.Examples, kept: np.ndarray, settings: Settings) -> Predictor:
    """Fit prior, evidence and densities to some of the examples.

    The others get a weight of 0: dropping them would change shapes and recompile.
    """
    own = labels.Examples(*(column[kept] for column in data))
    blank = _scaled(init_predictor(settings.seed), own.features, settings)
    blank = _with_prior(blank, own)
    # What is far off is soon left: where the rate is nearly right, right counts most.
    closeness = 1 / (1 + (data.target / settings.near) ** 2)
    weight = data.weight * closeness * kept
    weight /= np.mean(weight[kept])
    network = blank._replace(prior_seen=None, prior_weights=None)  # not used here
    network = network._replace(prior_bias=None, prior_variance=None)
    with jax.enable_x64(True):
        double = lambda x: jnp.asarray(x, jnp.float64)  # noqa: E731
        arrays = (network, data.features, data.target, weight)
        shown = settings._replace(hidden=())  # their scales are infinite already
        doubles: Any = jax.tree.map(double, arrays)
        weights = jax.device_get(_descend(*doubles, shown))
    weights = jax.tree.map(lambda x: np.asarray(x, np.float32), weights)
    return blank._replace(
        weights=weights,
        seen=_densities(own.features, own.kind),
    )


def _scaled(blank: Predictor, features: np.ndarray, settings: Settings) -> Predictor:
    """Set scales and ranges; a hidden or constant feature gets an infinite scale."""
    unknown = set(settings.hidden) - set(NAMES)
    if unknown:
        raise MetalrError(
            f"`hidden` must name features, got {', '.join(sorted(unknown))}; they are "
            + ", ".join(NAMES)
        )
    double = features.astype(np.float64)
    std = double.std(axis=0)
    unseen = np.isin(NAMES, settings.hidden) | (std < 1e-6)
    possible = (blank.high - blank.low).astype(np.float64)
    ends = np.quantile(double, [settings.quantile, 1 - settings.quantile], axis=0)
    lacking = np.maximum(_LEAST_RANGE * possible - (ends[1] - ends[0]), 0) / 2
    ends += np.stack([-lacking, lacking])
    low, high = (
        np.where(np.isin(NAMES, settings.hidden), full, end)
        for full, end in zip((blank.low, blank.high), ends, strict=True)
    )
    return blank._replace(
        mean=double.mean(axis=0).astype(np.float32),
        std=np.where(unseen, np.inf, np.maximum(std, _LEAST_STD * possible)).astype(
            np.float32
        ),
        low=low.astype(np.float32),
        high=high.astype(np.float32),
    )


def _with_prior(blank: Predictor, data: labels.Examples) -> Predictor:
    """Regress the best relative rate on the facts, one point a sweep.

    The weights that all kinds share are shrunk towards zero, and those of a kind, more
    strongly, towards the shared ones: a kind with few sweeps follows the others.
    """
    facts, best, weight, kind = _points(data)
    centre, scale = facts.mean(0), np.maximum(facts.std(0), 0.1)
    x = np.column_stack([(facts - centre) / scale, np.ones(len(facts))])
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
        prior_seen=_densities(data.features[:, _OF_FACTS], data.kind),
        prior_weights=slopes.astype(np.float32),
        prior_bias=(each[:, -1] - slopes @ centre).astype(np.float32),
        prior_variance=np.array(spread, np.float32),
    )


def _points(data: labels.Examples) -> tuple[np.ndarray, ...]:
    """Return facts [S, D], best relative rate, weight and kind [S] of each sweep."""
    facts, best, weight, kind = [], [], [], []
    best_of = data.features[:, _RELATIVE_RATE].astype(np.float64) + data.target
    early = data.step <= 3
    for sweep in np.unique(data.sweep):
        rows = (data.sweep == sweep) & early
        share = data.weight[data.sweep == sweep].sum()
        if not rows.any() or share <= 0:
            continue
        facts.append(data.features[rows][:, _OF_FACTS].astype(np.float64).mean(0))
        best.append(best_of[rows].mean())
        weight.append(share)
        kind.append(data.kind[rows][0])
    weights = np.array(weight) / np.mean(weight)
    return np.array(facts), np.array(best), weights, np.array(kind)


def _densities(rows: np.ndarray, kind: np.ndarray) -> Density:
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


def _folds(data: labels.Examples, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield which examples are left out: [N] bool, whole sweeps at a time."""
    names = np.unique(data.sweep)
    of = np.random.default_rng(seed).integers(count, size=len(names))
    for fold in range(count):
        yield np.isin(data.sweep, names[of == fold])


def _left_out(
    data: labels.Examples, kept: np.ndarray, settings: Settings
) -> dict[str, float] | None:
    """Estimate variances, limits and the correlation from sweeps that are left out.

    None if no informative sweep can be left out with another one to fit to.
    """
    far, prior_far, prior_errors, runs = [], [], [], []
    for out in _folds(data, settings.folds, settings.seed):
        out = out & kept
        if not (_informs(data, out) and _informs(data, kept & ~out)):
            continue
        fitted = _fitted(data, kept & ~out, settings)
        held = labels.Examples(*(c[out] for c in data))
        rows = jnp.asarray(held.features)
        found, variance = (np.asarray(x, np.float64) for x in evidence(fitted, rows))
        far.append(_far(fitted.seen, held.features))
        prior_far.append(_far(fitted.prior_seen, held.features[:, _OF_FACTS]))
        facts, best, weight, _ = _points(held)
        said, width = (
            np.asarray(x) for x in best_relative_rate(fitted, jnp.asarray(facts))
        )
        prior_errors.append((weight, (said - best) ** 2 / width))
        runs += list(_tracks(held, found, variance))
    if not far:
        return None
    weights, errors = (np.concatenate(x) for x in zip(*prior_errors, strict=True))
    return {
        "prior_variance": float(np.average(np.minimum(errors, 9), weights=weights)),
        "limit": float(np.quantile(np.concatenate(far), 0.99)),
        "prior_limit": float(np.quantile(np.concatenate(prior_far), 0.95)),
        "correlation": _correlation(runs),
    }


def _informs(data: labels.Examples, rows: np.ndarray) -> bool:
    """Return whether a sweep among the rows says where its best rate lies."""
    return bool(data.weight[rows & (data.step <= 3)].sum() > 0)


def _far(seen: Density, rows: np.ndarray) -> np.ndarray:
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


def _correlation(runs: list[tuple[np.ndarray, np.ndarray, float]]) -> float:
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
        return 20.0
    return float(np.clip(np.average(np.minimum(ratios, 400), weights=weights), 1, 200))


@functools.partial(jax.jit, static_argnames="settings")
def _descend(
    predictor: Predictor,
    features: jax.Array,
    target: jax.Array,
    weight: jax.Array,
    settings: Settings,
) -> Any:
    """Return the weights after all steps of AdamW on random batches."""
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    tx = optax.adamw(rate, weight_decay=settings.weight_decay)
    # A feature with an infinite scale gets no noise: inf / inf is NaN.
    sigma = jnp.where(jnp.isfinite(predictor.std), predictor.std, 0) * settings.noise

    def disturbed(x, drop, shake):
        x += sigma[None] * jax.random.normal(shake, x.shape, jnp.float32)
        # So that the network does not rely on a single feature.
        missing = jax.random.bernoulli(drop, settings.feature_dropout, x.shape)
        return jnp.where(missing, predictor.mean[None], x)

    def loss(weights, x, y, w):
        correction, variance = evidence(predictor._replace(weights=weights), x)
        error = optax.huber_loss(correction, y, delta=settings.huber)
        # The variance learns the error of the correction, which it does not move.
        square = jax.lax.stop_gradient(jnp.minimum((correction - y) ** 2, 16.0))
        nll = (square / variance + jnp.log(variance)) / 2  # of a Gaussian
        return jnp.mean(w * (error + 0.3 * nll))

    def step(carry, key):
        weights, state = carry
        draw, drop, shake = jax.random.split(key, 3)
        rows = jax.random.randint(draw, (settings.batch,), 0, len(target))
        x = disturbed(features[rows], drop, shake)
        grads = jax.grad(loss)(weights, x, target[rows], weight[rows])
        updates, state = tx.update(grads, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    keys = jax.random.split(jax.random.key(settings.seed), settings.steps)
    start = (predictor.weights, tx.init(predictor.weights))
    return jax.lax.scan(step, start, keys)[0][0]


# ------------------------------------------------------------------ the check


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
        "far": mean(_far(predictor.seen, data.features) > 1, data.weight),
    }


def leave_one_out(
    data: labels.Examples, column: str, settings: Settings | None = None
) -> list[dict[str, Any]]:
    """Fit without each value of a column in turn, and score on it.

    Args:
      data: The examples.
      column: "task", "size", "kind" or "optimizer".
      settings: Of the fit.

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
        if not np.any(data.weight[out] > 0):
            continue
        predictor = fit(data, settings, kept=~out, calibrate=False)
        held = labels.Examples(*(column[out] for column in data))
        found.append({"out": value, **score(predictor, held)})
    return found
