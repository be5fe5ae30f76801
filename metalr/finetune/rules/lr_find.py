"""fastai's learning rate finder, and then linear decay from the rate that it found.

A probe raises the rate from 1e-7 to 10, step by step, and smooths the loss; it ends
early when that is four times its lowest. Then parameters and optimizer begin anew, as
fastai does, with linear warm-up and decay over the steps that are left. The rate is

- valley: two thirds into the longest falling subsequence of the losses, or
- steep: where the loss falls fastest in log rate,

of the losses without the first tenth and the last five. fastai takes 100 steps more
than asked for; here the probe is paid for, so it has at most a quarter of the run.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalr import optax_schedule
from metalr.errors import MetalrError
from metalr.finetune.rules.plan import Build, Inner, RunPlan, at, injected

LOWEST, HIGHEST, MOST_STEPS = 1e-7, 10.0, 100
SMOOTHING, DIVERGED = 0.98, 4.0
_LAST = 5  # losses that are left out, at the end
_LEAST_STEPS = 4 * (_LAST + 2)  # of a run: two losses are left to choose from

# (log rates [n], losses [n], which of them count [n]) -> index of the choice
Pick = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class LrFindState(NamedTuple):
    """State of `lr_find`."""

    step: jax.Array  # [] int32, of the probe, or of the run after it
    found_rate: jax.Array  # [] float32; 0 until the probe ends
    steps_left: jax.Array  # [] int32, for the run after the probe
    losses: jax.Array  # [n] float32, smoothed
    smooth: jax.Array  # [] float32, before the correction of its bias
    lowest: jax.Array  # [] float32, of the smoothed losses
    first_params: Any
    inner_state: Any


def lr_find(pick: Pick) -> Build:
    """Make a row's `build` from a way to choose; the base rate is not read."""

    def build(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
        if plan.total_steps < _LEAST_STEPS:
            raise MetalrError(
                f"a run with lr_find has at least {_LEAST_STEPS} steps, got "
                f"{plan.total_steps}: a quarter is its probe, of which {_LAST} losses "
                "do not count; take more --epochs, or another --scheduler"
            )
        tx = injected(inner, LOWEST)
        size = min(MOST_STEPS, plan.total_steps // 4)
        log_rates = jnp.linspace(jnp.log(LOWEST), jnp.log(HIGHEST), size)

        def init(params: Any) -> LrFindState:
            return LrFindState(
                step=jnp.zeros((), jnp.int32),
                found_rate=jnp.zeros((), jnp.float32),
                steps_left=jnp.zeros((), jnp.int32),
                losses=jnp.zeros(size, jnp.float32),
                smooth=jnp.zeros((), jnp.float32),
                lowest=jnp.float32(jnp.inf),
                first_params=jax.tree.map(jnp.copy, params),
                inner_state=tx.init(params),
            )

        def update(
            grads: Any, state: Any, params: Any, *, value: Any, **extra: Any
        ) -> Any:
            probing = state.found_rate == 0
            rate = jnp.where(
                probing,
                jnp.exp(log_rates[jnp.minimum(state.step, size - 1)]),
                state.found_rate * _linear(state, plan),
            )
            inner_state = at(state.inner_state, rate)
            updates, inner_state = tx.update(
                grads, inner_state, params, value=value, **extra
            )
            state = state._replace(
                step=optax.safe_increment(state.step), inner_state=inner_state
            )
            value = jnp.asarray(value, jnp.float32)
            state, ended = _smoothed(state, value, probing)

            def begin_anew() -> Any:
                count = jnp.arange(size)
                used = (count >= size // 10) & (count < state.step - _LAST)
                chosen = pick(log_rates, state.losses, used)
                fresh = at(tx.init(state.first_params), rate)
                return optax.tree.sub(state.first_params, params), state._replace(
                    step=jnp.zeros((), jnp.int32),
                    found_rate=jnp.exp(log_rates[chosen]),
                    steps_left=plan.total_steps - state.step,
                    inner_state=fresh,
                )

            return jax.lax.cond(ended, begin_anew, lambda: (updates, state))

        as_optax: Any = update  # optax's protocol has no place for a required `value`
        return optax.GradientTransformationExtraArgs(init, as_optax)

    return build


def _linear(state: LrFindState, plan: RunPlan) -> jax.Array:
    """Return the multiplier of the found rate, over the steps that are left."""
    warmup = jnp.minimum(plan.warmup_steps, state.steps_left // 10)
    return optax_schedule.linear(state.step, state.steps_left, warmup)


def _smoothed(
    state: LrFindState, value: jax.Array, probing: jax.Array
) -> tuple[LrFindState, jax.Array]:
    """Take a loss of the probe into account; return whether the probe is over."""
    size = len(state.losses)
    smooth = SMOOTHING * state.smooth + (1 - SMOOTHING) * value
    loss = smooth / (1 - SMOOTHING ** state.step.astype(jnp.float32))
    finite = jnp.isfinite(loss)
    keep = probing & finite
    place = jnp.clip(state.step - 1, 0, size - 1)
    lowest = jnp.where(keep, jnp.minimum(state.lowest, loss), state.lowest)
    losses = state.losses.at[place].set(jnp.where(keep, loss, state.losses[place]))
    ended = probing & (~finite | (loss > DIVERGED * lowest) | (state.step >= size))
    smooth = jnp.where(keep, smooth, state.smooth)
    return state._replace(losses=losses, smooth=smooth, lowest=lowest), ended


def valley(log_rates: jax.Array, losses: jax.Array, used: jax.Array) -> jax.Array:
    """Return the place two thirds into the longest falling subsequence."""
    del log_rates
    size = len(losses)

    def lengthen(index: Any, lengths: jax.Array) -> jax.Array:
        before = used & (jnp.arange(size) < index) & (losses > losses[index])
        longest = 1 + jnp.max(jnp.where(before, lengths, 0))
        return lengths.at[index].set(jnp.where(used[index], longest, 0))

    lengths = jax.lax.fori_loop(0, size, lengthen, jnp.zeros(size, jnp.int32))
    first, end = jnp.argmax(used), jnp.argmax(lengths)
    longest = lengths[end]
    # fastai counts back from the end by the length, as if nothing lay between.
    start = jnp.where(longest > 1, end - longest, end)
    third = (end - start) / 3
    place = start + third.astype(jnp.int32) + (third / 2).astype(jnp.int32)
    return jnp.clip(place, first, size - 1)


def steep(log_rates: jax.Array, losses: jax.Array, used: jax.Array) -> jax.Array:
    """Return the place before the steepest fall of the loss in log rate."""
    slopes = jnp.diff(losses) / jnp.diff(log_rates)
    return jnp.argmin(jnp.where(used[:-1] & used[1:], slopes, jnp.inf))
