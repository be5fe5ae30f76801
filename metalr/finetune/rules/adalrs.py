"""AdaLRS (arXiv 2506.13274): search for the rate by how fast the loss falls.

The descent velocity v is the negated slope of a least-squares line through the losses
of a window of k steps, with e its standard error. Between 10 % and 40 % of the run each
window is followed by a trial at a higher rate:

    v(trial) > v + 2e   the higher rate stays
    v(trial) < v - 2e   parameters and optimizer go back to before the trial, and the
                        rate is lowered
    otherwise           the rate is as it was

The n-th change is by 3 * 0.99^n up and by 2 * 0.99^n down, never below 1. A loss that
rises over two windows in a row lowers the rate as well, and one that is above all
before the trial ends it. Base schedule: linear warm-up and decay. No code is published:
k = a hundredth of the run, at least 10, what e is, and that a rise is one beyond 2e,
are assumptions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalr.finetune.rules.plan import Inner, RunPlan, at, injected
from metalr.finetune.rules.shapes import linear

BEGIN, END = 0.1, 0.4  # of the run
UP, DOWN, FADING = 3.0, 2.0, 0.99


class AdalrsState(NamedTuple):
    """State of `adalrs`."""

    step: jax.Array  # [] int32
    factor: jax.Array  # [] float32, of the base rate
    changes: jax.Array  # [] int32
    window: jax.Array  # [k] float32, losses
    filled: jax.Array  # [] int32, of the window
    trial: jax.Array  # [] bool
    velocity: jax.Array  # [] float32, of the window before; NaN if there is none
    highest: jax.Array  # [] float32, loss outside of trials
    saved: Any  # parameters and the given optimizer's state before the trial
    inner_state: Any


def adalrs(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
    """Build the row; `update` needs the keyword `value=`, the loss."""
    shape = linear(plan)
    tx = injected(inner, plan.learning_rate * shape(0))
    size = max(10, plan.total_steps // 100)
    begin, end = int(BEGIN * plan.total_steps), int(END * plan.total_steps)

    def init(params: Any) -> AdalrsState:
        inner_state: Any = tx.init(params)
        saved = (jax.tree.map(jnp.copy, params), inner_state.inner_state)
        return AdalrsState(
            step=jnp.zeros((), jnp.int32),
            factor=jnp.ones((), jnp.float32),
            changes=jnp.zeros((), jnp.int32),
            window=jnp.zeros(size, jnp.float32),
            filled=jnp.zeros((), jnp.int32),
            trial=jnp.zeros((), bool),
            velocity=jnp.float32(jnp.nan),
            highest=jnp.float32(-jnp.inf),
            saved=saved,
            inner_state=inner_state,
        )

    def update(grads: Any, state: Any, params: Any, *, value: Any, **extra: Any) -> Any:
        value = jnp.asarray(value, jnp.float32)
        rate = jnp.float32(plan.learning_rate) * shape(state.step) * state.factor
        updates, inner_state = tx.update(
            grads, at(state.inner_state, rate), params, value=value, **extra
        )
        state = state._replace(
            step=optax.safe_increment(state.step),
            window=state.window.at[state.filled].set(value),
            filled=state.filled + 1,
            highest=jnp.where(
                state.trial, state.highest, jnp.maximum(state.highest, value)
            ),
            inner_state=inner_state,
        )
        searching = (state.step > begin) & (state.step <= end)
        ruined = state.trial & ~(value <= state.highest)
        state, back, begun = _decided(state, searching, ruined, size)

        def go_back() -> Any:
            there, saved = state.saved
            back_then = state.inner_state._replace(inner_state=saved)
            updates = optax.tree.sub(there, params)
            return updates, state._replace(inner_state=back_then)

        def go_on() -> Any:
            now = optax.apply_updates(params, updates), state.inner_state.inner_state
            saved = jax.lax.cond(begun, lambda: now, lambda: state.saved)
            return updates, state._replace(saved=saved)

        return jax.lax.cond(back, go_back, go_on)

    as_optax: Any = update  # optax's protocol has no place for a required `value`
    return optax.GradientTransformationExtraArgs(init, as_optax)


def _decided(
    state: AdalrsState, searching: jax.Array, ruined: jax.Array, size: int
) -> tuple[AdalrsState, jax.Array, jax.Array]:
    """Return the state after this loss, whether to go back, whether a trial begins."""
    whole = (state.filled >= size) | ruined
    velocity, error = _velocity(state.window)
    up, down = _factors(state.changes)
    better = state.trial & ~ruined & (velocity > state.velocity + 2 * error)
    worse = state.trial & (ruined | (velocity < state.velocity - 2 * error))
    rising = searching & (velocity < -2 * error) & (state.velocity < 0)
    lower = worse | (rising & ~better)

    factor = jnp.where(state.trial & ~better, state.factor / up, state.factor)
    factor = jnp.where(lower, factor * down, factor)
    changes = state.changes + (state.trial | lower)
    # The velocity at the rate that a trial begins from is known where it was better.
    begun = whole & searching & (better | ~(state.trial | lower))
    factor = jnp.where(begun, factor * _factors(changes)[0], factor)
    known = jnp.where((state.trial & ~better) | lower, jnp.nan, velocity)

    choose = lambda new, old: jnp.where(whole, new, old).astype(old.dtype)  # noqa: E731
    after = state._replace(
        factor=choose(factor, state.factor),
        changes=choose(changes, state.changes),
        filled=choose(0, state.filled),
        trial=choose(begun, state.trial),
        velocity=choose(known, state.velocity),
    )
    return after, whole & worse, begun


def _factors(changes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return what the rate is multiplied by, up and down, after so many changes."""
    fade = FADING ** changes.astype(jnp.float32)
    return jnp.maximum(UP * fade, 1.0), 1 / jnp.maximum(DOWN * fade, 1.0)


def _velocity(losses: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the negated slope of the losses a step, and its standard error."""
    size = len(losses)
    place = jnp.arange(size) - (size - 1) / 2
    spread = jnp.sum(place**2)
    slope = jnp.sum(place * losses) / spread
    rest = losses - jnp.mean(losses) - slope * place
    return -slope, jnp.sqrt(jnp.sum(rest**2) / (size - 2) / spread)
