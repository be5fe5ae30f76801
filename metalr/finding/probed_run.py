"""A run as a probe takes it: copies of its parameters, its own loss and batches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.coordinates import is_trainable


class ProbedRun(NamedTuple):
    """What is probed."""

    loss_fn: Callable[..., Any]  # (params, batch[, key]) -> loss, or (loss, aux)
    params: Any
    optimizer: optax.GradientTransformationExtraArgs  # at the user's own rate
    batch: Callable[[int], Any]  # step -> batch
    steps: int  # of the whole run
    levels: np.ndarray  # [steps] of its schedule, over their peak
    key: jax.Array | None = None  # of the loss, if it wants one
    has_aux: bool = False


def value_and_grad(run: ProbedRun) -> Callable[[Any, Any, jax.Array], tuple[Any, Any]]:
    """Return (params, batch, step) -> the loss and its gradient."""

    def loss(params: Any, batch: Any, index: jax.Array) -> jax.Array:
        keys = () if run.key is None else (jax.random.fold_in(run.key, index),)
        value = run.loss_fn(params, batch, *keys)
        return value[0] if run.has_aux else value

    return jax.value_and_grad(loss)


def make_step(
    run: ProbedRun, tx: Any, read: Callable[[Any], dict[str, Any]]
) -> Callable:
    """Return a jitted step of the run, its parameters and state donated.

    Args:
      run: The run.
      tx: Its optimizer, as the probe takes it.
      read: What of the optimizer's state a step returns beside the loss.
    """
    grad = value_and_grad(run)
    tx = optax.with_extra_args_support(tx)

    def step(params: Any, state: Any, batch: Any, index: jax.Array) -> Any:
        value, grads = grad(params, batch, index)
        updates, state = tx.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        return params, state, {"value": value, **read(state)}

    return jax.jit(step, donate_argnums=(0, 1))


def copied(leaf: Any) -> Any:
    """Return a copy of a leaf that is an array, which a step may then donate."""
    return jnp.copy(leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf


class TimesState(NamedTuple):
    """State of `times`."""

    factors: jax.Array  # [T]; in the state, so that programs do not differ by them
    factor_step: jax.Array  # [] int32
    inner_state: Any


def times(
    inner: optax.GradientTransformationExtraArgs, factors: np.ndarray
) -> optax.GradientTransformationExtraArgs:
    """Multiply the updates of an optimizer by a factor a step."""

    def init(params: Any) -> TimesState:
        table = jnp.asarray(factors, jnp.float32)
        return TimesState(table, jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        updates, inner_state = inner.update(
            updates, state.inner_state, params, **extra_args
        )
        factor = jnp.take(state.factors, state.factor_step, mode="clip")

        def scale(leaf: Any) -> Any:
            return (leaf * factor).astype(leaf.dtype) if is_trainable(leaf) else leaf

        step = optax.safe_increment(state.factor_step)
        updates = jax.tree.map(scale, updates)
        return updates, state._replace(factor_step=step, inner_state=inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
