"""Shapes: the multiplier of the base rate as a function of the step, known in advance.

All but `static` begin with a linear warm-up. t is the share of the steps after it that
is done.
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from metalr import optax_schedule
from metalr.finetune.rules.plan import Build, Inner, RunPlan

Shape = Callable[[RunPlan], optax.Schedule]
COOLDOWN = 0.2  # share of the run in which hold-then-decay decays, arXiv 2405.18392


def scheduled(shape: Shape) -> Build:
    """Make a row's `build` from a schedule of the multiplier of the base rate."""

    def build(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
        factor = shape(plan)
        # A float32 rate: a Python float would take the parameters' type.
        rate = lambda count: jnp.float32(plan.learning_rate) * factor(count)  # noqa: E731
        return optax.inject_hyperparams(inner)(learning_rate=rate)

    return build


def static(plan: RunPlan) -> optax.Schedule:
    """Return 1, from the first step to the last."""
    return lambda count: jnp.float32(1.0)


def ramp(plan: RunPlan) -> optax.Schedule:
    """Rise to 1 over the warm-up; the first step is taken at 1/(w+1), not at 0."""
    return optax_schedule.default_schedule(1.0, None, plan.warmup_steps)


def linear(plan: RunPlan) -> optax.Schedule:
    """Fall as 1 - t."""
    return optax_schedule.default_schedule(1.0, plan.total_steps, plan.warmup_steps)


def cosine(plan: RunPlan) -> optax.Schedule:
    """Fall as (1 + cos(pi t)) / 2."""
    rise, left = ramp(plan), _left(plan)
    return lambda count: jnp.minimum(
        rise(count), 0.5 - 0.5 * jnp.cos(jnp.pi * left(count))
    )


def hold_then_decay(plan: RunPlan) -> optax.Schedule:
    """Stay at 1, then fall linearly to 0 over the last fifth of all steps."""
    rise, span = ramp(plan), max(1.0, COOLDOWN * plan.total_steps)
    return lambda count: jnp.minimum(
        rise(count), jnp.clip((plan.total_steps - count) / span, 0.0, 1.0)
    )


def rex(plan: RunPlan) -> optax.Schedule:
    """Fall as (1 - t) / (1/2 + (1 - t) / 2): late, and then fast."""
    rise, left = ramp(plan), _left(plan)
    return lambda count: jnp.minimum(
        rise(count), left(count) / (0.5 + 0.5 * left(count))
    )


def _left(plan: RunPlan) -> optax.Schedule:
    """Return 1 - t."""
    span = max(1, plan.total_steps - plan.warmup_steps)
    return lambda count: jnp.clip((plan.total_steps - count) / span, 0.0, 1.0)
