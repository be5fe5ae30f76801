"""ScheduleFree+ (arXiv 2605.19095): schedule-free AdamW at a Polyak rate.

After the equations of the paper and its authors' reference code (schedule_free,
`AdamCScheduleFreePlusPaper`), at their defaults. With gradients g and loss f at y,

    rate = lr * max(0, f + beta <g, z - x>) / (sqrt(pi / 2) ||g||_1)
    z <- z - rate * Adam(g);  x <- (1 - c) x + c z;  y <- beta x + (1 - beta) z

c is the step's share of the sum of (largest rate so far)^2. The parameters in training
are y; x is what is scored. Their optional parts (averaged norms, annealed beta, weight
decay by rate^2) are off by default and left out.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalr.finetune.rules.plan import Inner, RunPlan
from metalr.finetune.rules.shapes import ramp, scheduled

ADAM_BETAS, BETA, EPS = (0.9, 0.95), 0.9, 1e-8


class ScheduleFreePlusState(NamedTuple):
    """State of `schedule_free_plus`."""

    step: jax.Array  # [] int32
    estim_lr: jax.Array  # [] float32, what the rate was multiplied by
    largest: jax.Array  # [] float32, highest rate so far
    weight_sum: jax.Array  # [] float32
    z: Any
    x: Any
    mu: Any
    nu: Any


def schedule_free_plus(learning_rate: Any) -> optax.GradientTransformationExtraArgs:
    """Build the optimizer; `update` needs the keyword `value=`, the loss."""

    def init(params: Any) -> ScheduleFreePlusState:
        zeros = optax.tree.zeros_like(params)
        copy = lambda: jax.tree.map(jnp.copy, params)  # noqa: E731
        return ScheduleFreePlusState(
            step=jnp.zeros((), jnp.int32),
            estim_lr=jnp.zeros((), jnp.float32),
            largest=jnp.float32(EPS),
            weight_sum=jnp.zeros((), jnp.float32),
            z=copy(),
            x=copy(),
            mu=zeros,
            nu=zeros,
        )

    def update(grads: Any, state: Any, params: Any, *, value: Any, **extra: Any) -> Any:
        del extra
        step: Any = optax.safe_increment(state.step)
        apart = optax.tree.vdot(grads, optax.tree.sub(state.z, state.x))
        norm = math.sqrt(math.pi / 2) * optax.tree.norm(grads, ord=1)
        floor = jnp.finfo(jnp.float32).tiny
        ahead = jnp.maximum(0.0, jnp.asarray(value, jnp.float32) + BETA * apart)
        estimate = (ahead / jnp.maximum(norm, floor)).astype(jnp.float32)
        rate = jnp.maximum(jnp.asarray(learning_rate, jnp.float32), EPS) * estimate
        largest = jnp.maximum(state.largest, rate)
        weight_sum = state.weight_sum + largest**2
        share = largest**2 / weight_sum

        mu = optax.tree.update_moment(grads, state.mu, ADAM_BETAS[0], 1)
        nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, ADAM_BETAS[1], 2)
        ahead_mu = optax.tree.bias_correction(mu, ADAM_BETAS[0], step)
        ahead_nu = optax.tree.bias_correction(nu, ADAM_BETAS[1], step)
        move = lambda z, m, v: (z - rate * m / (jnp.sqrt(v) + EPS)).astype(z.dtype)  # noqa: E731
        z = jax.tree.map(move, state.z, ahead_mu, ahead_nu)
        mix = lambda a, b, w: ((1 - w) * a + w * b).astype(a.dtype)  # noqa: E731
        x = jax.tree.map(lambda x, z: mix(x, z, share), state.x, z)
        y = jax.tree.map(lambda z, x: mix(z, x, BETA), z, x)
        after = ScheduleFreePlusState(step, estimate, largest, weight_sum, z, x, mu, nu)
        return optax.tree.sub(y, params), after

    as_optax: Any = update  # optax's protocol has no place for a required `value`
    return optax.GradientTransformationExtraArgs(init, as_optax)


def build(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
    """Build the row: warm-up, then the estimate; nothing is clipped.

    A clipped gradient would raise the rate, which is a loss over a norm.
    """
    del inner
    return scheduled(ramp)(schedule_free_plus, plan)


def averaged(opt_state: Any, params: Any) -> Any:
    """Return x, which the method is to be judged by."""
    del params
    state = lambda s: isinstance(s, ScheduleFreePlusState)  # noqa: E731
    (found,) = [s for s in jax.tree.leaves(opt_state, is_leaf=state) if state(s)]
    return found.x
