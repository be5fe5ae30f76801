"""Fit the predictor to labelled steps.

Three parts are fitted one after the other. The *prior* is a ridge regression of the
best relative rate on the facts of a run (`metalr.meta.facts`). The *evidence* is a
small network that regresses the labels of `metalr.meta.labels` on the features of a
step, and predicts the logarithm of its own squared error. The *densities* are a
Gaussian for each kind of problem. How wide they are, and how many steps of evidence
count as one, is read off sweeps that were left out (`metalr.meta.calibration`).

Encoders get a prior and a network of their own as well, fitted to them alone, which
answer where the facts of a run are nearest to theirs.

All of it is computed in float64 and rounded at the end, so that the weights do not
depend on the order of summation, which differs between machines.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.errors import MetalrError
from metalr.features import NAMES
from metalr.finding.experience import ENCODER
from metalr.meta import calibration, facts, labels, traces
from metalr.predictor import Network, Predictor, evidence, init_predictor

# A feature that hardly varied in the traces says little about what is out of range: its
# scale and range are at least these shares of its possible range.
_LEAST_STD, _LEAST_RANGE = 0.01, 0.05


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


def examples(
    runs: Sequence[traces.Run], settings: Settings | None = None
) -> labels.Examples:
    """Label the steps of runs as the settings of a fit say; errors as `labels`' own."""
    settings = settings or Settings()
    return labels.examples(
        runs, unknown_horizon=settings.unknown_horizon, seed=settings.seed
    )


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
      MetalrError: A hidden feature is unknown, or no sweep among the examples tells its
        best rate.
    """
    settings = settings or Settings()
    kept = np.ones(len(data.target), bool) if kept is None else kept
    if not calibration.informs(data, kept):
        raise MetalrError(
            "no sweep to fit to tells its best rate: all peaks end alike; collect "
            "longer ones, or of other tasks, with train_meta.py"
        )
    predictor = _fitted(data, kept, settings)
    if calibrate:
        again = functools.partial(_fitted, data, settings=settings)
        spread = calibration.left_out(data, kept, again, settings.folds, settings.seed)
        predictor = predictor if spread is None else _calibrated(predictor, spread)
    kinds = np.unique(data.kind[kept])
    encoders = data.kind == ENCODER
    if len(kinds) == 1 or not calibration.informs(data, kept & encoders):
        return predictor
    rows = labels.Examples(*(column[encoders] for column in data))
    alone = fit(rows, settings, kept=kept[encoders], calibrate=calibrate)
    return _with_own(predictor, alone, int(np.flatnonzero(kinds == ENCODER)[0]))


def _calibrated(predictor: Predictor, spread: calibration.LeftOutSpread) -> Predictor:
    """Set what is read off sweeps that were left out."""
    return predictor._replace(
        # The prior errs more on sweeps left out than on those that it was fitted to.
        prior_variance=predictor.prior_variance * np.float32(spread.prior_variance),
        seen=predictor.seen._replace(limit=np.float32(spread.limit)),
        prior_seen=predictor.prior_seen._replace(limit=np.float32(spread.prior_limit)),
        correlation=np.float32(spread.correlation),
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
    blank = facts.with_prior(blank, own)
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
        seen=facts.densities(own.features, own.kind),
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
