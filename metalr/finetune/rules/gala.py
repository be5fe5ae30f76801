"""GALA (arXiv 2506.08419): the rate from alignment and curvature, by online learning.

The last step went from w to w' = w - rate d. With g and g' the gradients of one batch
at w and w',

    L = ||g' - g|| / ||w' - w||,   rate = sum <g', d> / sum L ||d||^2

over all steps so far: follow-the-regularized-leader on the surrogate
-rate <g', d> + rate^2 L ||d||^2 / 2. Each step costs one more gradient. The first step
is taken at the base rate. No code of the authors is published: that d is the direction
of the given optimizer (theirs is the gradient, or Adam's step), and the lowest rate
that keeps a run from standing still, are assumptions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalr.finetune.rules.plan import Inner, RunPlan, at, injected

LOWEST = 1e-8
_TINY = 1e-30


class GalaState(NamedTuple):
    """State of `gala`."""

    step: jax.Array  # [] int32
    rate: jax.Array  # [] float32, of the last step
    alignment: jax.Array  # [] float32, sum of <g', d>
    curvature: jax.Array  # [] float32, sum of L ||d||^2
    before: Any  # parameters before the last step
    inner_state: Any


def gala(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
    """Build the row; `update` needs `grad_fn=`, the gradient of the step's batch."""
    tx = injected(inner, plan.learning_rate)

    def init(params: Any) -> GalaState:
        zero = jnp.zeros((), jnp.float32)
        before = jax.tree.map(jnp.copy, params)
        count = jnp.zeros((), jnp.int32)
        return GalaState(count, zero, zero, zero, before, tx.init(params))

    def update(
        grads: Any, state: Any, params: Any, *, grad_fn: Any, **extra: Any
    ) -> Any:
        moved = optax.tree.sub(params, state.before)
        change = optax.tree.sub(grads, grad_fn(state.before))
        rate = jnp.maximum(state.rate, LOWEST)
        norm = optax.tree.norm(moved)
        steepness = optax.tree.norm(change) / jnp.maximum(norm, _TINY)
        # d = -moved / rate
        alignment = state.alignment - optax.tree.vdot(grads, moved) / rate
        curvature = state.curvature + steepness * (norm / rate) ** 2
        learned = jnp.maximum(alignment / jnp.maximum(curvature, _TINY), LOWEST)
        started = (state.step > 0) & (norm > 0)
        rate = jnp.where(state.step > 0, learned, plan.learning_rate)
        rate = jnp.where(started | (state.step == 0), rate, state.rate)
        rate = rate.astype(jnp.float32)
        updates, inner_state = tx.update(
            grads, at(state.inner_state, rate), params, grad_fn=grad_fn, **extra
        )
        keep = lambda new, old: jnp.where(started, new, old).astype(jnp.float32)  # noqa: E731
        step: Any = optax.safe_increment(state.step)
        return updates, GalaState(
            step,
            rate,
            keep(alignment, state.alignment),
            keep(curvature, state.curvature),
            jax.tree.map(jnp.asarray, params),
            inner_state,
        )

    as_optax: Any = update  # optax's protocol has no place for a required `grad_fn`
    return optax.GradientTransformationExtraArgs(init, as_optax)
