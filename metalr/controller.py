"""How the multiplier moves: the predictor's answer, its bounds and its brakes.

    log m_t = log m_{t-1} + r_t clip(gain * confidence_t * log2(best / current)_t)
    r_t = clip(30 / (t + 1), 0.1, 1)

within [-log max, log max]. Each step estimates the same number, the rate that is best
for the run. So the first ones move the multiplier as fast as the features follow, and
later ones less and less, as in a running mean, down to what can still follow a change.
A step whose loss or gradient is not finite halves m, features that training has not
seen let m return to 1, and with a loss well above its start m does not rise, and falls
to 1 from above.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import features
from metalr.errors import MetalrError
from metalr.predictor import Predictor, apply, load_predictor, unusual

# What a run under metalr did is known by the predictor and by this: raise it with every
# change of how the multiplier moves.
CONTROLLER_VERSION = 2

# The widest bound, and the default: a small encoder wants 500 times a base rate that is
# 16x below the recipe for a large one.
MAX_MULTIPLIER = 1024.0
_DIVERGING = math.log(1.25)  # of the loss over its start: noise stays below
# r_t: steps at full response, and the least of it.
_FULL_RESPONSE, _LEAST_RESPONSE = 30.0, 0.1
_CUT = math.log(2)  # taken from log m by a skipped step


class MetalrState(NamedTuple):
    """State of `wrap` and `inject`; the names are unique in an optimizer's state."""

    lr_step: jax.Array  # [] int32, calls so far, skipped ones included
    lr_multiplier: jax.Array  # [] m of the last step, exploration included
    lr_log_multiplier: jax.Array  # [] the controller's own log m
    lr_features: jax.Array  # [F] what the predictor saw
    skipped_steps: jax.Array  # [] int32, loss or gradient not finite
    relaxed_steps: jax.Array  # [] int32, features outside of the trained range
    braked_steps: jax.Array  # [] int32, loss far above its start
    feature_state: features.FeatureState
    inner_state: Any

    @property
    def hyperparams(self) -> dict[str, Any]:
        """The injected hyperparameters, the effective `learning_rate` among them."""
        return self.inner_state.hyperparams


class Controller(NamedTuple):
    """What is fixed for a run; made by `new_controller`."""

    decide: Predictor | optax.Schedule  # a schedule forces log m
    explore: Callable | None
    schedule: Callable | None
    peak: Any  # of the schedule
    total_steps: int | None
    log_bound: float
    curvature_every: int  # 0: off
    stride: int


def new_controller(
    predictor: Predictor | None,
    total_steps: int | None,
    schedule: optax.Schedule | None,
    max_multiplier: float,
    log_multiplier: float | optax.Schedule | None,
    explore: optax.Schedule | None,
    curvature_every: int,
    stride: int,
) -> Controller:
    """Checks the arguments of `optax_schedule.wrap`, and what follows from them.

    Raises:
      MetalrError: If one is outside of its range.
    """
    if not 1 <= max_multiplier <= MAX_MULTIPLIER:
        raise MetalrError(
            f"`max_multiplier` must lie in [1, {MAX_MULTIPLIER:g}], got "
            f"{max_multiplier}. 1 switches the predictor off."
        )
    if total_steps is not None and total_steps < 1:
        raise MetalrError(
            f"`total_steps` must be at least 1, got {total_steps}. "
            "Leave it out if the length of the run is not known."
        )
    if curvature_every < 0 or stride < 1:
        raise MetalrError(
            f"`curvature_every` must be at least 0 and `stride` at least 1, got "
            f"{curvature_every} and {stride}. Leave them out."
        )
    if log_multiplier is None:
        decide = load_predictor() if predictor is None else predictor
    elif callable(log_multiplier):
        decide = log_multiplier
    else:
        decide = optax.constant_schedule(log_multiplier)
    return Controller(
        decide=decide,
        explore=explore,
        schedule=schedule,
        peak=_peak(schedule, total_steps),
        total_steps=total_steps,
        log_bound=math.log(max_multiplier),
        curvature_every=curvature_every,
        stride=stride,
    )


def decide(
    controller: Controller,
    state: MetalrState,
    vector: jax.Array,
    rise: jax.Array,
    finite: jax.Array,
) -> MetalrState:
    """Moves the multiplier: the only place where the predictor is asked.

    Args:
      controller: What is fixed for the run.
      state: After the last step.
      vector: The features of this step: [F].
      rise: log of the loss over its start, `features.log_rise`: [].
      finite: Whether loss and gradient are: [] bool.

    Returns:
      The state with this step's multiplier, and with its counts moved on.
    """
    step, log_m = state.lr_step, state.lr_log_multiplier
    outside = braked = jnp.zeros((), bool)
    predictor = controller.decide
    if not isinstance(predictor, Predictor):
        log_m = jnp.asarray(predictor(step), jnp.float32)
    else:
        response = jnp.clip(_FULL_RESPONSE / (step + 1.0), _LEAST_RESPONSE, 1)
        gain, limit = (response * x for x in (predictor.gain, predictor.limit))
        correction, confidence = apply(predictor, vector)
        relax = -gain * log_m
        outside = finite & unusual(predictor, vector)
        braked = finite & (rise > _DIVERGING)
        move = jnp.clip(gain * confidence * correction, -limit, limit)
        move = jnp.where(outside, relax, move)
        move = jnp.where(braked, jnp.minimum(move, jnp.minimum(relax, 0)), move)
        log_m = log_m + jnp.where(finite, move, -_CUT)
    bound = controller.log_bound
    log_m = jnp.clip(log_m, -bound, bound)
    applied = log_m
    if controller.explore is not None:
        applied = jnp.clip(log_m + controller.explore(step), -bound, bound)
    return state._replace(
        lr_step=optax.safe_increment(step),
        lr_multiplier=jnp.exp(applied),
        lr_log_multiplier=log_m,
        skipped_steps=state.skipped_steps + ~finite,
        relaxed_steps=state.relaxed_steps + outside,
        braked_steps=state.braked_steps + braked,
    )


def log_prior(controller: Controller, step: jax.Array) -> Any:
    """Returns the log of the schedule over its peak, what the predictor knows of it."""
    if controller.schedule is None:
        return 0.0
    level = jnp.asarray(controller.schedule(step), jnp.float32) / controller.peak
    return jnp.log(jnp.clip(level, 1e-9, 1))


def _peak(schedule: optax.Schedule | None, total_steps: int | None) -> Any:
    """Finds the highest value of a schedule on a grid, the first steps densest."""
    if schedule is None:
        return 1.0
    last = 10_000 if total_steps is None else total_steps
    grid = np.concatenate([np.linspace(0, last, 513), np.geomspace(1, last, 512) - 1])
    steps = np.unique(grid.astype(np.int32))

    @jax.jit
    def highest(steps):
        return jnp.max(jnp.asarray(jax.vmap(schedule)(steps), jnp.float32))

    return highest(steps)
