"""The learned half of metalr: what is known of a run in, the best rate out.

The unknown is one number, log2 of the best learning rate for the run. Two things are
known of it, each with a variance of its own, in octaves:

- the *prior*, from the facts of the run (`metalr.features`): a linear map to the
  best size of an update beside the weights;
- the *evidence* of a step, from all features: a small Flax MLP with a linear skip that
  says by how much the rate is off, and how sure that is.

`metalr.controller` fuses them by precision. Both know how far an input is from what
training has seen, and are less sure there. An untrained predictor changes nothing.

>>> predictor = init_predictor(seed=0)
>>> correction, variance = evidence(predictor, jnp.zeros(len(FEATURES)))
>>> print(correction)
0.0
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalr.features import FEATURES, NAMES, OF_STATIC, STATIC

WIDTH = 32
UNMEASURED = 20.0  # steps that tell as much as one, where no fit has measured it
_RELATIVE_RATE = NAMES.index("relative_rate")
# On either side of a feature's trained range, in widths of it: the network is asked no
# further than a little outside.
_CLIPPED = 0.25


class MLP(nnx.Module):
    """Two hidden layers of tanh beside a linear map; the last layers start at zero."""

    def __init__(self, *, rngs: nnx.Rngs):
        """Draw the weights."""
        zeros = nnx.initializers.zeros_init()
        self.hidden = nnx.Linear(len(FEATURES), WIDTH, rngs=rngs)
        self.deep = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.last = nnx.Linear(WIDTH, 2, kernel_init=zeros, rngs=rngs)
        self.skip = nnx.Linear(
            len(FEATURES), 2, use_bias=False, kernel_init=zeros, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map standardised features [..., F] to correction and log variance."""
        # tanh saturates: an input far outside training gives no large answer.
        hidden = jnp.tanh(self.deep(jnp.tanh(self.hidden(x))))
        return self.last(hidden) + self.skip(x)


class Density(NamedTuple):
    """How far an input is from each group of runs that training has seen."""

    centre: Any  # [K, D]
    whitening: Any  # [K, D, D]: |W (x - centre)|^2 / D is 1 on average within a group
    limit: Any  # [] of that; 99 % of left-out rows of known kinds lie below


class Network(NamedTuple):
    """An MLP and its inputs' scales, for the runs of one kind alone."""

    weights: dict[str, Any]
    mean: Any  # [F] of the features in training
    std: Any  # [F]
    low: Any  # [F] range seen in training
    high: Any  # [F]
    kind: Any  # [] which group of `prior_seen` it is for


class Predictor(NamedTuple):
    """A pytree of arrays: close over it, pass it to jit, or map over a stack."""

    weights: dict[str, Any]  # the MLP's parameters as plain nested dicts
    mean: Any  # [F] of the features in training
    std: Any  # [F]; inf hides a feature from the MLP
    low: Any  # [F] range seen in training
    high: Any  # [F]
    seen: Density  # of the features
    prior_seen: Density  # of the facts: K kinds of run
    prior_weights: Any  # [K, len(STATIC)] octaves per unit of a fact
    prior_bias: Any  # [K] log2 of the best relative update where facts are at 0
    prior_variance: Any  # [K] octaves^2; inf: nothing is known
    base_variance: Any  # [] octaves^2 of the user's own rate as a guess
    correlation: Any  # [] steps of evidence that count as one
    drift: Any  # [] octaves^2 a step that the best rate may move
    aim: Any  # [] standard deviations below the mean that the rate is set to
    limit: Any  # [] octaves a step that the rate moves at most
    own: Network | None = None  # for the runs of one kind: encoders


def init_predictor(seed: int = 0) -> Predictor:
    """Make an untrained predictor: it corrects nothing and finds no input far."""
    with jax.ensure_compile_time_eval():  # arrays even where a caller is traced
        state = nnx.state(MLP(rngs=nnx.Rngs(seed)), nnx.Param)
        weights = jax.tree.map(np.asarray, nnx.to_pure_dict(state))
    return untrained(weights)


def untrained(
    weights: dict[str, Any], groups: int = 1, fact_groups: int = 1, own: bool = False
) -> Predictor:
    """Make the predictor that knows nothing but the weights of its network.

    Args:
      weights: Of the MLP.
      groups: Of features in training.
      fact_groups: Kinds of run in the prior.
      own: Whether one kind has a network of its own.
    """
    size, facts = len(FEATURES), len(STATIC)
    number = np.float32

    def nowhere(groups: int, size: int) -> Density:
        return Density(
            np.zeros((groups, size), number),
            np.zeros((groups, size, size), number),
            number(1),
        )

    scales = {
        "mean": np.zeros(size, number),
        "std": np.ones(size, number),
        "low": np.array([row.low for row in FEATURES], number),
        "high": np.array([row.high for row in FEATURES], number),
    }
    return Predictor(
        weights=weights,
        **scales,
        own=Network(weights, **scales, kind=number(0)) if own else None,
        seen=nowhere(groups, size),
        prior_seen=nowhere(fact_groups, facts),
        prior_weights=np.zeros((fact_groups, facts), number),
        prior_bias=np.zeros(fact_groups, number),
        prior_variance=np.full(fact_groups, np.inf, number),
        base_variance=number(16),
        correlation=number(UNMEASURED),
        drift=number(1e-3),
        aim=number(0),
        limit=number(0.5),
    )


def prior(predictor: Predictor, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Predict from the facts alone how far the learning rate is from the best one.

    Args:
      predictor: The predictor.
      features: Features in the order of FEATURES: [F].

    Returns:
      log2(best / current) in octaves, and its variance (inf for an untrained one): [].
    """
    best, variance = best_relative_rate(predictor, features[..., OF_STATIC])
    return best - features[..., _RELATIVE_RATE], variance


def best_relative_rate(
    predictor: Predictor, facts: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Predict log2 of the best update beside the weights, from the facts of a run.

    A mixture: each kind of run has a linear map of its own, and counts as the facts are
    near to those of its runs.

    Args:
      predictor: The predictor.
      facts: In the order of STATIC: [..., D].

    Returns:
      The mean, and the variance in octaves^2, which grows outside of training: [...].
    """
    apart = _apart(predictor.prior_seen, facts)  # [..., K]
    share = jax.nn.softmax(-apart * len(STATIC) / 2, axis=-1)
    shape = (1,) * (facts.ndim - 1) + (-1,)
    bias, spread = (
        jnp.reshape(jnp.asarray(x), shape)
        for x in (predictor.prior_bias, predictor.prior_variance)
    )
    each = facts @ jnp.asarray(predictor.prior_weights).T + bias
    best = jnp.sum(share * each, -1)
    variance = spread + jnp.square(each - best[..., None])
    variance = jnp.sum(share * variance, -1)
    # Twice as far outside: four times as unsure.
    far = jnp.min(apart, -1) / predictor.prior_seen.limit
    return best, variance * jnp.maximum(1.0, far) ** 2


def evidence(predictor: Predictor, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Predict how far the learning rate is from the best one.

    Args:
      predictor: The predictor.
      features: Features in the order of FEATURES: [..., F]. They are clipped to the
        trained range, with a margin of a quarter of its width.

    Returns:
      The correction log2(best / current) in octaves, and its variance in octaves^2,
      which grows with the distance of an input from training: both [...].
    """
    correction, log_variance = _answer(predictor, features)
    if predictor.own is not None:
        here = _is_own(predictor, predictor.own, features)
        there = _answer(predictor.own, features)
        correction = jnp.where(here, there[0], correction)
        log_variance = jnp.where(here, there[1], log_variance)
    far = distance(predictor.seen, features)
    variance = jnp.exp(jnp.clip(log_variance, -6, 6)) * jnp.maximum(1.0, far) ** 2
    return correction, variance


def _answer(
    network: Predictor | Network, features: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return correction and log variance of one network: both [...]."""
    low, high = jnp.asarray(network.low), jnp.asarray(network.high)
    margin = _CLIPPED * (high - low)
    shape = (1,) * (features.ndim - 1) + (-1,)
    low, high, mean, std = (
        jnp.reshape(x, shape)
        for x in (low - margin, high + margin, network.mean, network.std)
    )
    inputs = (jnp.clip(features, low, high) - mean) / std
    output = nnx.merge(_graph(), network.weights)(inputs)
    return output[..., 0], output[..., 1]


def _is_own(predictor: Predictor, own: Network, features: jax.Array) -> jax.Array:
    """Return whether the facts of a run are nearest to those of the network's kind."""
    apart = _apart(predictor.prior_seen, features[..., OF_STATIC])
    return jnp.argmin(apart, -1) == jnp.asarray(own.kind, jnp.int32)


def usual(predictor: Predictor, features: jax.Array) -> jax.Array:
    """Return the mean in training of the features that the network knows: [F].

    Args:
      predictor: The predictor.
      features: Of a run: [F]. They say which network answers.
    """
    mean = jnp.asarray(predictor.mean)
    if predictor.own is None:
        return mean
    here = _is_own(predictor, predictor.own, features)
    return jnp.where(here, jnp.asarray(predictor.own.mean), mean)


def distance(seen: Density, x: jax.Array) -> jax.Array:
    """Return the squared distance to the nearest group over its limit: [...].

    Above 1, an input is out of the range of training.

    Args:
      seen: The groups.
      x: Inputs: [..., D].
    """
    return jnp.min(_apart(seen, x), -1) / seen.limit


def _apart(seen: Density, x: jax.Array) -> jax.Array:
    """Return the mean squared deviation from each group, in its scale: [..., K]."""
    groups, size = seen.centre.shape
    shape = (1,) * (x.ndim - 1) + (groups, size)
    apart = x[..., None, :] - jnp.reshape(jnp.asarray(seen.centre), shape)
    white = jnp.einsum("kij,...kj->...ki", jnp.asarray(seen.whitening), apart)
    return jnp.mean(jnp.square(white), -1)


@functools.cache
def _graph() -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: MLP(rngs=nnx.Rngs(0))))[0]
