"""`metalr.find` inside of a run, and then linear decay or metalr at what it found.

The probe is the run itself under metalr, without its long warm-up. As in `lr_find`, it
is paid for, so it has at most a quarter of the run; then parameters and optimizer begin
anew over the steps that are left.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import optax_schedule
from metalr.controller import MAX_MULTIPLIER
from metalr.finding.probe import MOST_STEPS, NO_GUESS, RAMP
from metalr.finetune.rules import shapes
from metalr.finetune.rules.plan import Build, Inner, RunPlan


class FindState(NamedTuple):
    """State of `find`."""

    find_step: jax.Array  # [] int32, of the probe, or of the run after it
    found_rate: jax.Array  # [] float32; 0 until the probe ends
    first_params: Any
    inner_state: Any  # metalr's, of the probe or of the run after it


def find(*, learned: bool) -> Build:
    """Make a row's `build`; octaves count from the base rate, the probe from the prior.

    Args:
      learned: Whether metalr continues after the probe, or linear decay alone.
    """

    def build(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
        size, probe, after = _halves(inner, plan, learned)

        def init(params: Any) -> FindState:
            return FindState(
                find_step=jnp.zeros((), jnp.int32),
                found_rate=jnp.zeros((), jnp.float32),
                first_params=jax.tree.map(jnp.copy, params),
                inner_state=probe.init(params),
            )

        def update(
            grads: Any, state: Any, params: Any, *, value: Any, **extra: Any
        ) -> Any:
            more = {"value": value, **extra}

            def probing() -> Any:
                return probe.update(grads, state.inner_state, params, **more)

            def running() -> Any:
                tx = after(state.found_rate)
                return tx.update(grads, state.inner_state, params, **more)

            is_probe = state.found_rate == 0
            updates, inner_state = jax.lax.cond(is_probe, probing, running)
            state = state._replace(
                find_step=optax.safe_increment(state.find_step),
                inner_state=inner_state,
            )

            def begin_anew() -> Any:
                rate = plan.learning_rate * jnp.exp2(inner_state.lr_mean)
                begun = _begun(state, after(rate), rate)
                return optax.tree.sub(state.first_params, params), begun

            ended = is_probe & (state.find_step >= size)
            return jax.lax.cond(ended, begin_anew, lambda: (updates, state))

        as_optax: Any = update  # optax's protocol has no place for a required `value`
        return optax.GradientTransformationExtraArgs(init, as_optax)

    return build


class _Halves(NamedTuple):
    """What a run consists of."""

    size: int  # of the probe, in steps
    probe: optax.GradientTransformationExtraArgs
    after: Callable[[Any], optax.GradientTransformationExtraArgs]  # at a peak rate


def _halves(inner: Inner, plan: RunPlan, learned: bool) -> _Halves:
    """Divide a run into its probe and the steps that are left."""
    predictor = plan.predictor()
    shape = shapes.hold_then_decay if learned else shapes.linear
    size = max(1, min(MOST_STEPS, plan.total_steps // 4))
    left = max(1, plan.total_steps - size)
    short = plan._replace(warmup_steps=min(plan.warmup_steps, RAMP))
    warmup = optax_schedule.warmup_of(left, plan.warmup_steps)
    rest = plan._replace(total_steps=left, warmup_steps=warmup)
    probe = optax_schedule.inject(
        inner,
        plan.learning_rate,
        predictor._replace(base_variance=np.float32(NO_GUESS)),
        total_steps=plan.total_steps,
        schedule=shape(short),
        max_multiplier=MAX_MULTIPLIER,
        trust=0.0,
    )

    def after(rate: Any) -> optax.GradientTransformationExtraArgs:
        return optax_schedule.inject(
            inner,
            rate,
            predictor,
            total_steps=left,
            schedule=shape(rest),
            max_multiplier=MAX_MULTIPLIER,
            log_multiplier=None if learned else 0.0,
        )

    return _Halves(size, probe, after)


def _begun(
    state: FindState, tx: optax.GradientTransformationExtraArgs, rate: jax.Array
) -> FindState:
    """Return the state before the first step of the run after the probe."""
    fresh: Any = tx.init(state.first_params)
    # What the log of this step shows is its own rate.
    shown = state.inner_state.inner_state.hyperparams
    inside = fresh.inner_state._replace(hyperparams=shown)
    return state._replace(
        find_step=jnp.zeros((), jnp.int32),
        found_rate=jnp.asarray(rate, jnp.float32),
        inner_state=fresh._replace(inner_state=inside),
    )
