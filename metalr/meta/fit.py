"""Fits the predictor to labelled steps, and scores it on steps that it has not seen.

The first output is regressed on the hindsight of `metalr.meta.labels`; the second is
the logit of the chance that to follow the first would bring the rate closer to the
best.

All of it is computed in float64 and rounded at the end: an order of summation that
differs between machines then does not reach the weights.
"""

import functools
from collections.abc import Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.errors import MetalrError
from metalr.features import NAMES
from metalr.meta import labels, traces
from metalr.predictor import Predictor, apply, init_predictor
from metalr.runtime import executors

# A feature that hardly moved in the traces says little about what is far or strange:
# its scale and its range are at least these shares of what it can be at all.
_LEAST_STD, _LEAST_RANGE = 0.01, 0.05


class Settings(NamedTuple):
    """How the predictor is fitted."""

    steps: int = 1500
    batch: int = 2048
    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    feature_dropout: float = 0.1  # share of inputs replaced by their mean
    noise: float = 0.1  # sigma added to standardised inputs
    huber: float = 2.0  # octaves: beyond, errors count linearly
    confidence: float = 0.3  # weight of the second output's loss
    unknown_horizon: float = labels.UNKNOWN_HORIZON
    hidden: tuple[str, ...] = ()  # features that are not shown to the predictor
    quantile: float = 0.002  # left out on either side of the range seen in training
    seed: int = 0


def label(runs: Sequence[traces.Run], settings: Settings | None = None):
    """Labels every step of the runs, as `labels.examples` with these settings."""
    settings = settings or Settings()
    return labels.examples(
        runs, unknown_horizon=settings.unknown_horizon, seed=settings.seed
    )


def fit(
    data: labels.Examples,
    settings: Settings | None = None,
    *,
    kept: np.ndarray | None = None,
) -> Predictor:
    """Fits a predictor; the same examples and settings give the same weights.

    Args:
      data: The examples.
      settings: Of the fit.
      kept: [N] bool, the examples to fit to; None: all. The others are not looked at,
        and save compiling again for another number of them.

    Raises:
      MetalrError: A hidden feature is unknown.
    """
    settings = settings or Settings()
    kept = np.ones(len(data.target), bool) if kept is None else kept
    blank = _scaled(init_predictor(settings.seed), data.features[kept], settings)
    with jax.enable_x64(True):
        double = lambda x: jnp.asarray(x, jnp.float64)  # noqa: E731
        arrays = (blank, data.features, data.target, data.weight * kept)
        shown = settings._replace(hidden=())  # by now infinite scales; one compilation
        weights = jax.device_get(_descend(*jax.tree.map(double, arrays), shown))
    weights = jax.tree.map(lambda x: np.asarray(x, np.float32), weights)
    return blank._replace(weights=weights)


def _scaled(blank: Predictor, features: np.ndarray, settings: Settings) -> Predictor:
    """Sets scales and ranges; a feature that is hidden or constant is not looked at."""
    unknown = set(settings.hidden) - set(NAMES)
    if unknown:
        raise MetalrError(f"no such feature: {', '.join(sorted(unknown))}")
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
    """Returns the weights after all steps of Adam on drawn batches."""
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    tx = optax.adamw(rate, weight_decay=settings.weight_decay)
    # A feature with an infinite scale gets no noise: inf / inf is NaN.
    sigma = jnp.where(jnp.isfinite(predictor.std), predictor.std, 0) * settings.noise

    def disturbed(x, drop, shake):
        x += sigma[None] * jax.random.normal(shake, x.shape, jnp.float32)
        # No feature may be trusted alone: each is missing now and then.
        missing = jax.random.bernoulli(drop, settings.feature_dropout, x.shape)
        return jnp.where(missing, predictor.mean[None], x)

    def loss(weights, x, y, w):
        correction, confidence = apply(predictor._replace(weights=weights), x)
        error = optax.huber_loss(correction, y, delta=settings.huber)
        closer = jnp.abs(y - correction) < jnp.abs(y)
        chance = jnp.clip(confidence, 1e-9, 1 - 1e-9)
        doubt = -jnp.log(jnp.where(closer, chance, 1 - chance))
        return jnp.mean(w * (error + settings.confidence * doubt))

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
    """Returns how well a predictor corrects, each step by its weight.

    Returns:
      steps: their number; sign: share of the right direction, where the target is over
      an octave; rmse: of the correction in octaves; still: the same for none at all.
    """
    found = np.asarray(apply(predictor, jnp.asarray(data.features))[0], np.float64)
    far = np.abs(data.target) > 1
    mean = lambda x, w: float(np.sum(x * w) / max(np.sum(w), 1e-12))  # noqa: E731
    return {
        "steps": len(found),
        "sign": mean((found * data.target > 0)[far], data.weight[far]),
        "rmse": mean((found - data.target) ** 2, data.weight) ** 0.5,
        "still": mean(data.target**2, data.weight) ** 0.5,
    }


def leave_one_out(
    data: labels.Examples, column: str, settings: Settings | None = None
) -> list[dict[str, Any]]:
    """Fits without each value of a column in turn, and scores on it.

    Args:
      data: The examples.
      column: "task" or "size".
      settings: Of the fit.

    Returns:
      One row per value, as `score` with "out"; none if there is only one value.
    """
    of = getattr(data, column)
    values = [str(value) for value in np.unique(of)]
    if len(values) < 2:
        return []

    def without(value: str) -> dict[str, Any]:
        predictor = fit(data, settings, kept=of != value)
        held = labels.Examples(*(column[of == value] for column in data))
        return {"out": value, **score(predictor, held)}

    # A fit has little to do in parallel within; jax lets threads run side by side.
    with futures.ThreadPoolExecutor(len(executors.cores())) as pool:
        return list(pool.map(without, values))
