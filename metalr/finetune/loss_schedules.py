"""Schedules that change the rate by the training loss, by a fixed rule.

Each is an optax stateful schedule, `rate = schedule(state)` before the step and
`state = schedule.update(state, value=loss)` after it, so that the rate which is logged
is the rate which was applied. A loss that is not finite is left out.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib


class PlateauState(NamedTuple):
    """State of `PlateauSchedule`."""

    steps: jax.Array  # [] int32, taken so far
    plateau: contrib.ReduceLROnPlateauState


class PlateauSchedule:
    """`optax.contrib.reduce_on_plateau` as a stateful schedule of the rate.

    The settings are the experiment plan's: after `lookahead` steps whose mean loss
    is not below the best such mean by `threshold`, the rate is multiplied by `factor`.

    Args:
      learning_rate: Base rate.
      ramp: Factor of the rate by step, for the warm-up.
      factor: What the rate is multiplied by.
      lookahead: Steps in one mean of the loss.
      threshold: Relative improvement that counts.
    """

    def __init__(
        self,
        learning_rate: float,
        ramp: optax.Schedule,
        factor: float = 0.1,
        lookahead: int = 100,
        threshold: float = 0.01,
    ):
        self._base, self._ramp = learning_rate, ramp
        self._rule = contrib.reduce_on_plateau(
            factor=factor,
            patience=1,
            rtol=threshold,
            accumulation_size=lookahead,
        )

    def init(self) -> PlateauState:
        """Return the state before the first step."""
        params = jnp.zeros((), jnp.float32)  # only their type matters: of the scale
        rule: Any = self._rule.init(params)
        return PlateauState(jnp.zeros((), jnp.int32), rule)

    def update(
        self, state: PlateauState, *, value: jax.Array, **extra_args: Any
    ) -> PlateauState:
        """Take the loss of this step into account."""
        del extra_args
        value = jnp.asarray(value, jnp.float32)
        _, after = self._rule.update(
            jnp.zeros(()), state.plateau, value=jnp.nan_to_num(value)
        )
        finite = jnp.isfinite(value)
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        plateau = jax.tree.map(keep, after, state.plateau)
        steps: Any = optax.safe_increment(state.steps)
        return PlateauState(steps, plateau)

    def __call__(self, state: PlateauState, **extra_args: Any) -> jax.Array:
        """Return the rate of this step."""
        del extra_args
        scale: Any = state.plateau.scale
        return jnp.float32(self._base) * self._ramp(state.steps) * scale


class GreedyState(NamedTuple):
    """State of `GreedySchedule`."""

    steps: jax.Array  # [] int32, taken so far
    rate: jax.Array  # [] float32, before the warm-up's factor
    recent: jax.Array  # [window] float32, the last losses
    seen: jax.Array  # [] int32, finite losses so far
    best: jax.Array  # [] float32, lowest mean of `recent` so far
    good: jax.Array  # [] int32, improvements in a row
    bad: jax.Array  # [] int32, steps without one in a row


class GreedySchedule:
    """GreedyLR (arXiv 2512.14527): up while the smoothed loss improves, else down.

    With the mean of the last `window` losses as the measure: after more than
    `patience` improvements in a row the rate is divided by `factor`, after more than
    `patience` steps without one it is multiplied by it. The settings are the defaults
    of `transformers.optimization.GreedyLR` with smoothing on, but for the lower bound:
    theirs, 1e-3, is above every rate that BERT is fine-tuned with.

    Args:
      learning_rate: Base rate.
      ramp: Factor of the rate by step, for the warm-up.
      factor: What the rate is multiplied by, below 1.
      patience: Steps.
      threshold: Absolute improvement that counts.
      window: Losses in the mean.
      low: Lowest rate.
      high: Highest rate.
    """

    def __init__(
        self,
        learning_rate: float,
        ramp: optax.Schedule,
        factor: float = 0.95,
        patience: int = 10,
        threshold: float = 1e-6,
        window: int = 50,
        low: float = 1e-7,
        high: float = 1.0,
    ):
        self._base, self._ramp = learning_rate, ramp
        self._factor, self._patience, self._threshold = factor, patience, threshold
        self._window, self._low, self._high = window, low, high

    def init(self) -> GreedyState:
        """Return the state before the first step."""
        zero = lambda: jnp.zeros((), jnp.int32)  # noqa: E731
        return GreedyState(
            steps=zero(),
            rate=jnp.float32(self._base),
            recent=jnp.zeros(self._window, jnp.float32),
            seen=zero(),
            best=jnp.float32(jnp.inf),
            good=zero(),
            bad=zero(),
        )

    def update(
        self, state: GreedyState, *, value: jax.Array, **extra_args: Any
    ) -> GreedyState:
        """Take the loss of this step into account."""
        del extra_args
        value = jnp.asarray(value, jnp.float32)
        recent = state.recent.at[state.seen % self._window].set(value)
        seen = state.seen + 1
        mean = jnp.sum(recent) / jnp.minimum(seen, self._window)
        better = mean < state.best - self._threshold
        good = jnp.where(better, state.good + 1, 0)
        bad = jnp.where(better, 0, state.bad + 1)
        rise, fall = good > self._patience, bad > self._patience
        rate = jnp.where(rise, state.rate / self._factor, state.rate)
        rate = jnp.where(fall, state.rate * self._factor, rate)
        after = GreedyState(
            steps=state.steps,
            rate=jnp.clip(rate, self._low, self._high),
            recent=recent,
            seen=seen,
            best=jnp.where(better, mean, state.best),
            good=jnp.where(rise, 0, good),
            bad=jnp.where(fall, 0, bad),
        )
        keep = lambda new, old: jnp.where(jnp.isfinite(value), new, old)  # noqa: E731
        steps: Any = optax.safe_increment(state.steps)
        return jax.tree.map(keep, after, state)._replace(steps=steps)

    def __call__(self, state: GreedyState, **extra_args: Any) -> jax.Array:
        """Return the rate of this step."""
        del extra_args
        return state.rate * self._ramp(state.steps)
