"""Predictors that say what a test wants, and a small problem to train on."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import features, inject, wrap
from metalr.observe import Observation
from metalr.predictor import init_predictor

SURE = -6.0  # log variance of an answer that a single step suffices for
UNSURE = 0.0
DOORS = ("inject", "wrap")
INNERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw": (optax.adamw, {}),
    "sgd": (optax.sgd, {"momentum": 0.9}),
    "lion": (optax.lion, {}),
    "adafactor": (optax.adafactor, {"min_dim_size_to_factor": 4}),
}

# The filter alone, and not the trust in the user's rate before it.
wrap_without_trust = functools.partial(wrap, trust=0.0)
inject_without_trust = functools.partial(inject, trust=0.0)


def opinionated(seed=0, push=0.0, log_variance=UNSURE):
    """Return a predictor that moves the rate at every step; `push` is in octaves."""
    rng = np.random.default_rng(seed)
    predictor = init_predictor(seed)
    last = {
        "kernel": 0.5 * rng.normal(size=(32, 2)).astype(np.float32),
        "bias": np.array([push, log_variance], np.float32),
    }
    # Inputs are kept small, or tanh would saturate and the answer be a constant.
    return predictor._replace(
        weights={**predictor.weights, "last": last}, std=10 * predictor.std
    )


def constant(correction, log_variance=SURE):
    """Return a predictor of one constant answer, however the rate was moved."""
    predictor = init_predictor()
    bias = np.array([correction, log_variance], np.float32)
    last = {"kernel": np.zeros((32, 2), np.float32), "bias": bias}
    return predictor._replace(weights={**predictor.weights, "last": last})


def knowing(relative_rate, variance=1.0):
    """Return a predictor that knows the best size of an update by its prior alone."""
    return init_predictor()._replace(
        prior_bias=np.full(1, relative_rate, np.float32),
        prior_variance=np.full(1, variance, np.float32),
        correlation=np.float32(np.inf),  # no step is evidence
        drift=np.float32(0),
    )


def build(door, name):
    """Return an optimizer of `INNERS` behind a door, its rate moved at every step."""
    factory, kwargs = INNERS[name]
    if door == "wrap":
        return wrap(factory(3e-3, **kwargs), opinionated(), total_steps=30)
    return inject(factory, 3e-3, opinionated(), total_steps=30, **kwargs)


def falling(steps, grad=1.0, end=0.1):
    """Gradients and losses of a run whose loss leaves its start at once."""
    return [(grad, value) for value in np.geomspace(1.0, end, steps)]


def regression(seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    params = {
        "w": jnp.asarray(0.3 * rng.normal(size=(16, 8)), dtype),
        "b": jnp.zeros(8, dtype),
    }
    x, y = rng.normal(size=(32, 16)), rng.normal(size=(32, 8))
    return params, (jnp.asarray(x, dtype), jnp.asarray(y, dtype))


def loss_fn(params, batch):
    x, y = batch
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"][None]) - y) ** 2)


def train_step(tx, params, state, batch, mean=lambda x: x, **extra):
    value, grads = mean(jax.value_and_grad(loss_fn)(params, batch))
    updates, state = tx.update(grads, state, params, value=value, **extra)
    return optax.apply_updates(params, updates), state


def train(tx, steps=100):
    """Train with the gradient, the update and its application compiled apart.

    In one jit XLA contracts `params + updates` with the last product of the update, or
    not, as the graph around it suggests.
    """
    params, batch = regression()
    state = tx.init(params)
    gradient, update = jax.jit(jax.value_and_grad(loss_fn)), jax.jit(tx.update)
    for _ in range(steps):
        value, grads = gradient(params, batch)
        updates, state = update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
    return params, state


def drive(tx, grads_and_values, params=None):
    """Feed gradients and losses by hand: updates and states of every step."""
    params = {"w": jnp.ones(3)} if params is None else params
    state, history = tx.init(params), []
    update = jax.jit(tx.update)
    for grad, value in grads_and_values:
        grads = jax.tree.map(lambda x, g=grad: jnp.full_like(x, g), params)
        updates, state = update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        history.append((updates, params, state))
    return history


def multipliers(history):
    """Return the multiplier of every step that `drive` made."""
    return np.array([float(state.lr_multiplier) for *_, state in history])


def of_a_step(**numbers):
    """Return an observation of ones, logs of 0 and a slope of -1, or what is given."""
    given = {"log_level": 0.0, "log_multiplier": 0.0, "slope": -1.0} | numbers
    rows = dict.fromkeys(Observation._fields, 1.0) | given
    return Observation(**{name: jnp.float32(x) for name, x in rows.items()})


def summary_of(value, start, spread, steps=20.0):
    """Return the summary of a run whose mean loss is `value` over the last 8 steps."""
    means = np.zeros((3, len(features.Tracked._fields)), np.float32)
    means[0, 0] = value
    return features.init()._replace(
        means=jnp.asarray(means),
        counted_steps=jnp.float32(steps),
        counted_updates=jnp.float32(steps - 1),
        initial_value=jnp.float32(start),
        initial_spread=jnp.float32(spread),
    )
