"""How the multiplier moves: prior and evidence fused by precision, bounds and brakes.

Let x* be log2 of the multiplier that is best for the run. What is known of it is a mean
and a variance. Before the run has moved they are 0, the user's own rate, and wide; at
the first update the facts of the run give a prior, and m is set to it at once. Then
each step is a measurement z_t of x* with a variance R_t (`metalr.predictor.evidence`):

    P = P + q,   K = P / (P + tau R_t),   mean = mean + K (z_t - mean),   P = (1 - K) P

so that m moves fast while little is known and slowly later. tau is the number of steps
that tell as much as one, since the errors of neighbours are the same, and q lets a
change of the best rate be followed. m is aimed below the mean while that is uncertain:
above the best rate lies a cliff, below it a slope. Until the loss has left its start, m
stays within an octave above the prior.

A step before which nothing moved is no evidence and moves nothing. A step whose loss
or gradient is not finite halves m. While the loss is well above its start m is cut,
whatever else is known, until it is back.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import features, observe
from metalr.errors import MetalrError
from metalr.observe import Observation
from metalr.predictor import Predictor, distance, evidence, load_predictor, prior

# What a run under metalr did is known by the predictor and by this: raise it with every
# change of how the multiplier moves.
CONTROLLER_VERSION = 3

# The widest bound: a small encoder wants 500 times a base rate that is 16x below the
# recipe for a large one.
MAX_MULTIPLIER = 1024.0
_CUT = 1.0  # octaves taken by a step that is not finite
_BRAKE = 0.25  # octaves taken by each step while the loss is well above its start
_HEADROOM = 1.0  # octaves above the prior before the loss has left its start


class MetalrState(NamedTuple):
    """State of `wrap` and `inject`; the names are unique in an optimizer's state."""

    lr_step: jax.Array  # [] int32, calls so far, skipped ones included
    lr_multiplier: jax.Array  # [] m of the last step, exploration included
    lr_log2_multiplier: jax.Array  # [] the controller's own log2 m
    lr_mean: jax.Array  # [] of log2 of the best multiplier
    lr_variance: jax.Array  # [] of it, octaves^2
    lr_prior: jax.Array  # [] its mean at the first update
    lr_features: jax.Array  # [F] what the predictor saw
    lr_observation: jax.Array  # [len(Observation)] of the last step, float32
    skipped_steps: jax.Array  # [] int32, loss or gradient not finite
    out_of_range_steps: jax.Array  # [] int32, features far from those of training
    braked_steps: jax.Array  # [] int32, loss well above its start
    observer: observe.ObserverState
    summary: features.Summary
    inner_state: Any

    @property
    def hyperparams(self) -> dict[str, Any]:
        """The injected hyperparameters, the effective `learning_rate` among them."""
        return self.inner_state.hyperparams


class Controller(NamedTuple):
    """What is fixed for a run; made by `new_controller`."""

    predictor: Predictor | None  # None: `forced` says the multiplier
    forced: Callable | None  # step -> log m
    explore: Callable | None  # step -> added to log m
    total_steps: int | None
    bound: float  # of log2 m
    curvature_every: int  # 0: off
    stride: int


def new_controller(
    predictor: Predictor | None,
    *,
    total_steps: int | None,
    max_multiplier: float,
    log_multiplier: float | optax.Schedule | None,
    explore: optax.Schedule | None,
    curvature_every: int,
    stride: int,
) -> Controller:
    """Check the arguments of `optax_schedule.wrap`, and what follows from them.

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
    forced: Any = log_multiplier
    if log_multiplier is None:
        predictor = load_predictor() if predictor is None else predictor
    else:
        predictor = None
        if not callable(log_multiplier):
            forced = optax.constant_schedule(log_multiplier)
    return Controller(
        predictor=predictor,
        forced=forced,
        explore=explore,
        total_steps=total_steps,
        bound=math.log2(max_multiplier),
        curvature_every=curvature_every,
        stride=stride,
    )


def decide(
    controller: Controller,
    state: MetalrState,
    seen: Observation,
    vector: jax.Array,
    summary: features.Summary,
    finite: jax.Array,
) -> MetalrState:
    """Move the multiplier.

    Args:
      controller: What is fixed for the run.
      state: After the last step.
      seen: The observation of this step.
      vector: The features of this step: [F].
      summary: Of the run, this step included.
      finite: Whether loss and gradient are: [] bool.

    Returns:
      The state with this step's multiplier, and with its counts moved on.
    """
    if controller.predictor is None:
        assert controller.forced is not None
        log_m = jnp.asarray(controller.forced(state.lr_step), jnp.float32)
        state = state._replace(lr_log2_multiplier=log_m / math.log(2))
    else:
        state = _estimated(
            controller.predictor, controller.bound, state, seen, vector, summary, finite
        )
    bound = controller.bound
    log2_m = jnp.clip(state.lr_log2_multiplier, -bound, bound)
    applied = log2_m
    if controller.explore is not None:
        explored = jnp.asarray(controller.explore(state.lr_step), jnp.float32)
        applied = jnp.clip(log2_m + explored / math.log(2), -bound, bound)
    return state._replace(
        lr_step=optax.safe_increment(state.lr_step),
        lr_multiplier=jnp.exp2(applied),
        lr_log2_multiplier=log2_m,
        skipped_steps=state.skipped_steps + _count(~finite),
    )


def _estimated(
    predictor: Predictor,
    bound: float,
    state: MetalrState,
    seen: Observation,
    vector: jax.Array,
    summary: features.Summary,
    finite: jax.Array,
) -> MetalrState:
    """Update mean and variance of the best multiplier, and move towards the mean."""
    counts = finite & seen.moved
    first = counts & (summary.counted_updates == 1)
    current = jnp.log2(state.lr_multiplier)  # that the features are of
    mean, variance = state.lr_mean, state.lr_variance

    said, of_prior = prior(predictor, vector)
    share = predictor.base_variance / (predictor.base_variance + of_prior)
    share = jnp.where(jnp.isfinite(of_prior), share, 0)
    # The user's own rate is a guess as well: log2 m = 0 with a variance of its own.
    start = share * jnp.clip(current + said, -bound, bound)
    mean = jnp.where(first, start, mean)
    variance = jnp.where(first, predictor.base_variance * (1 - share), variance)
    prior_mean = jnp.where(first, start, state.lr_prior)

    correction, noise = evidence(predictor, vector)
    grown = variance + predictor.drift
    gain = grown / (grown + predictor.correlation * noise)
    learned = mean + gain * (current + correction - mean)
    mean = jnp.where(counts, jnp.clip(learned, -bound, bound), mean)
    variance = jnp.where(counts, (1 - gain) * grown, variance)

    # Where nothing is known the user's rate stays as it is, and is not aimed below.
    known = jnp.clip(1 - variance / predictor.base_variance, 0, 1)
    target = mean - predictor.aim * jnp.sqrt(variance) * known
    started = features.has_left_start(summary)
    target = jnp.where(started, target, jnp.minimum(target, prior_mean + _HEADROOM))
    log2_m = state.lr_log2_multiplier
    step = jnp.clip(target - log2_m, -predictor.limit, predictor.limit)
    moved = jnp.where(first, target, log2_m + step)
    log2_m = jnp.where(counts, moved, log2_m)

    braked = counts & features.is_diverging(summary)
    log2_m = jnp.where(
        braked, jnp.minimum(log2_m, state.lr_log2_multiplier - _BRAKE), log2_m
    )
    log2_m = jnp.where(finite, log2_m, state.lr_log2_multiplier - _CUT)
    # What was cut is not gone back to at once: the best rate was not above.
    mean = jnp.where(braked | ~finite, jnp.minimum(mean, log2_m), mean)
    outside = counts & (distance(predictor.seen, vector) > 1)
    return state._replace(
        lr_log2_multiplier=log2_m,
        lr_mean=mean,
        lr_variance=variance,
        lr_prior=prior_mean,
        out_of_range_steps=state.out_of_range_steps + _count(outside),
        braked_steps=state.braked_steps + _count(braked),
    )


def _count(happened: jax.Array) -> jax.Array:
    return happened.astype(jnp.int32)


def zero_state(
    controller: Controller, observer: observe.ObserverState, inner_state: Any
) -> MetalrState:
    """Make the state before the first step."""

    def zero(dtype: Any = jnp.float32) -> jax.Array:
        return jnp.zeros((), dtype)

    predictor = controller.predictor
    width = jnp.float32(0 if predictor is None else predictor.base_variance)
    return MetalrState(
        lr_step=zero(jnp.int32),
        lr_multiplier=jnp.ones((), jnp.float32),
        lr_log2_multiplier=zero(),
        lr_mean=zero(),
        lr_variance=width,
        lr_prior=zero(),
        lr_features=jnp.zeros(len(features.FEATURES), jnp.float32),
        lr_observation=jnp.zeros(len(Observation._fields), jnp.float32),
        skipped_steps=zero(jnp.int32),
        out_of_range_steps=zero(jnp.int32),
        braked_steps=zero(jnp.int32),
        observer=observer,
        summary=features.init(),
        inner_state=inner_state,
    )


def levels(
    schedule: optax.Schedule | np.ndarray, total_steps: int | None
) -> tuple[Callable[[Any], Any], float]:
    """Return a schedule relative to its peak, and its mean over the budget.

    Args:
      schedule: A function of the step in any unit, or its values at each step.
      total_steps: Length of the run, if known.

    Returns:
      A function of the step: log(schedule / peak), at least log 1e-9; and the log of
      the mean of schedule / peak, 0 where the length is not known.
    """
    if callable(schedule):
        last = 10_000 if total_steps is None else total_steps
        grid = np.concatenate(
            [np.linspace(0, last - 1, 513), np.geomspace(1, last, 512) - 1]
        )
        grid = np.unique(grid.astype(np.int32))
        values = jax.jit(
            lambda steps: jnp.asarray(jax.vmap(schedule)(steps), jnp.float32)
        )(grid)
        peak = jnp.max(values)
        level = lambda step: jnp.asarray(schedule(step), jnp.float32) / peak  # noqa: E731
        even = np.linspace(0, last - 1, min(last, 513)).astype(np.int32)
        mean = jnp.interp(even, grid, values).mean() / peak
        area: Any = jnp.log(jnp.clip(mean, 1e-2, 1))
    else:
        table = np.asarray(schedule, np.float32) / np.max(schedule)
        level = lambda step: jnp.take(table, step, mode="clip")  # noqa: E731
        # No array of a trace: what is read off an optimizer is kept for the next one.
        area = math.log(max(float(table.mean()), 1e-2))
    log = lambda step: jnp.log(jnp.clip(level(step), 1e-9, 1))  # noqa: E731
    return log, area if total_steps is not None else 0.0
