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

Of a run unlike those of training nothing is known, and m stays where the user set it: a
step out of range says less, from half as far again (squared) nothing, and every step
counts by the squared share of those within range in the run so far (one out of range is
forgiven). So does the prior, at the first update within range; it must know the facts
as well. To widen the variance would not do: the errors of such steps are all the same,
and the user's own rate is so vague a guess that many vague measurements would outweigh
it.

A user's rate may be tuned, right to within half an octave, or any guess. m is moved by
the probability of the second (`trust` before the run, then by what the run has shown):
little where the estimate is near the user's rate, and all the way where it is far.

A step before which nothing moved is no evidence and moves nothing. A step whose loss
or gradient is not finite halves m. While the loss is well above its start m is cut,
whatever else is known, until it is back; by as much as the slope along the update has
grown, where it grows without bounds.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalr import brake, features, observe
from metalr.arguments import check_whole, checked_total_steps, known_number
from metalr.errors import MetalrError
from metalr.features import OF_STATIC
from metalr.observe import Observation
from metalr.predictor import Predictor, distance, evidence, prior
from metalr.stored_predictor import load_predictor

# What a run under metalr did is known by the predictor and by this: raise it with every
# change of how the multiplier moves.
CONTROLLER_VERSION = 8

# The widest bound: a small encoder wants 500 times a base rate that is 16x below the
# recipe for a large one.
MAX_MULTIPLIER = 1024.0
_HEADROOM = 1.0  # octaves above the prior before the loss has left its start
_CUT = 1.0  # octaves taken by a step that is not finite
_TUNED_VARIANCE = 0.25  # octaves^2 of a rate that somebody tuned
_FORGIVEN = 1.0  # steps out of range that any run may have: one in a hundred is


class MetalrState(NamedTuple):
    """State of `wrap` and `inject`; the names are unique in an optimizer's state."""

    lr_step: jax.Array  # [] int32, calls so far, skipped ones included
    lr_multiplier: jax.Array  # [] m of the last step, exploration included
    lr_applied: jax.Array  # [] the same of the last step that was not skipped
    lr_log2_multiplier: jax.Array  # [] the controller's own log2 m
    lr_mean: jax.Array  # [] of log2 of the best multiplier
    lr_variance: jax.Array  # [] of it, octaves^2
    lr_prior: jax.Array  # [] its mean at the first update within range
    lr_prior_entered: jax.Array  # [] bool, whether there was one
    lr_trusted: jax.Array  # [] log2 m of what may be tuned: 0, less what was cut
    lr_features: jax.Array  # [F] what the predictor saw
    lr_observation: jax.Array  # [len(Observation)] of the last step, float32
    lr_last_move: jax.Array  # the same of the last step before which something moved
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
    trust: float  # probability that the user's own rate is tuned
    curvature_every: int  # 0: off
    stride: int


def new_controller(
    predictor: Predictor | None,
    *,
    total_steps: int | None,
    max_multiplier: float,
    trust: float,
    log_multiplier: float | optax.Schedule | None,
    explore: optax.Schedule | None,
    curvature_every: int,
    stride: int,
) -> Controller:
    """Check the arguments of `optax_schedule.wrap`, and what follows from them.

    Raises:
      MetalrError: If one is outside of its range.
    """
    bound = known_number(max_multiplier)
    if bound is None or not 1 <= bound <= MAX_MULTIPLIER:
        raise MetalrError(
            f"`max_multiplier` must lie in [1, {MAX_MULTIPLIER:g}], got "
            f"{max_multiplier}. 1 switches the predictor off."
        )
    probability = known_number(trust)
    if probability is None or not 0 <= probability < 1:
        raise MetalrError(
            f"`trust` must be a probability below 1, got {trust}. 0 takes the base "
            "rate for any guess; to keep it as it is, leave metalr out."
        )
    total_steps = checked_total_steps(total_steps)
    for name, value, least in (
        ("curvature_every", curvature_every, 0),
        ("stride", stride, 1),
    ):
        check_whole(name, value, least, "Leave it out.")
    forced: Any = log_multiplier
    if not isinstance(predictor, Predictor | None):
        raise MetalrError(
            f"`predictor` must be one of metalr, got a {type(predictor).__name__}. "
            "Read it with metalr.load_predictor(folder)"
        )
    if log_multiplier is None:
        predictor = load_predictor() if predictor is None else predictor
    else:
        predictor = None
        if not callable(log_multiplier):
            number = known_number(log_multiplier)
            if number is not None and not math.isfinite(number):
                raise MetalrError(
                    "`log_multiplier` must be finite, the natural log of the factor, "
                    f"got {log_multiplier}. 0.0 changes nothing."
                )
            forced = optax.constant_schedule(log_multiplier)
    return Controller(
        predictor=predictor,
        forced=forced,
        explore=explore,
        total_steps=total_steps,
        bound=math.log2(max_multiplier),
        trust=trust,
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
        state = _estimated(controller, state, seen, vector, summary, finite)
    bound = controller.bound
    log2_m = jnp.clip(state.lr_log2_multiplier, -bound, bound)
    applied = log2_m
    if controller.explore is not None:
        explored = jnp.asarray(controller.explore(state.lr_step), jnp.float32)
        applied = jnp.clip(log2_m + explored / math.log(2), -bound, bound)
    multiplier = jnp.exp2(applied)
    return state._replace(
        lr_step=optax.safe_increment(state.lr_step),
        lr_multiplier=multiplier,
        lr_applied=jnp.where(finite, multiplier, state.lr_applied),
        lr_log2_multiplier=log2_m,
        skipped_steps=state.skipped_steps + _count(~finite),
    )


def _estimated(
    controller: Controller,
    state: MetalrState,
    seen: Observation,
    vector: jax.Array,
    summary: features.Summary,
    finite: jax.Array,
) -> MetalrState:
    """Update mean and variance of the best multiplier, and move towards the mean."""
    predictor, bound = controller.predictor, controller.bound
    assert predictor is not None
    counts = finite & seen.moved
    # Nothing was known so far: this update may be the first that says something.
    first = counts & ~state.lr_prior_entered
    far = distance(predictor.seen, vector)
    outside = state.out_of_range_steps + _count(counts & (far > 1))
    counted = jnp.maximum(summary.counted_updates, 1)
    excess = jnp.maximum(jnp.asarray(outside, jnp.float32) - _FORGIVEN, 0)
    weight = _weight(far) * (1 - excess / counted) ** 2
    # The prior enters once, so that half of it would be all that there ever is.
    weight = jnp.where(first & (far > 1), 0, weight)
    state = state._replace(
        out_of_range_steps=outside,
        lr_prior_entered=state.lr_prior_entered | (first & (weight > 0)),
    )
    state = _fused(predictor, bound, state, vector, weight, first, counts)

    # Where nothing is known the user's rate stays as it is, and is not aimed below.
    base = predictor.base_variance
    known = jnp.clip(1 - state.lr_variance / base, 0, 1)
    target = state.lr_mean - predictor.aim * jnp.sqrt(state.lr_variance) * known
    tuned = _tuned(controller.trust, base, state)
    target += tuned * (state.lr_trusted - target)
    started = features.has_left_start(summary)
    highest = jnp.where(started, bound, state.lr_prior + _HEADROOM)
    target = jnp.minimum(target, highest)
    before = state.lr_log2_multiplier
    step = jnp.clip(target - before, -predictor.limit, predictor.limit)
    moved = jnp.where(first, target, before + step)
    log2_m = jnp.where(counts, moved, before)

    last = Observation(*state.lr_last_move)
    cut = brake.octaves(seen, last, summary, state.summary)
    cut = jnp.where(counts, cut, 0)
    log2_m = jnp.where(cut > 0, jnp.minimum(log2_m, before - cut), log2_m)
    log2_m = jnp.clip(jnp.where(finite, log2_m, before - _CUT), -bound, bound)
    # What was cut is not gone back to at once: the best rate was not above.
    was_cut = (cut > 0) | ~finite
    below = lambda x: jnp.where(was_cut, jnp.minimum(x, log2_m), x)  # noqa: E731
    return state._replace(
        lr_log2_multiplier=log2_m,
        lr_mean=below(state.lr_mean),
        lr_trusted=below(state.lr_trusted),
        braked_steps=state.braked_steps + _count(cut > 0),
    )


def _weight(far: jax.Array) -> jax.Array:
    """Return 1 within the range of training, 0 from half as far again (squared)."""
    return jnp.clip(3 - 2 * far, 0, 1)


def _fused(
    predictor: Predictor,
    bound: float,
    state: MetalrState,
    vector: jax.Array,
    weight: jax.Array,
    first: jax.Array,
    counts: jax.Array,
) -> MetalrState:
    """Update mean and variance: at first by the prior, then by evidence."""
    current = jnp.log2(state.lr_applied)  # that the features are of
    base = predictor.base_variance
    said, of_prior = prior(predictor, vector)
    # The user's own rate, less what was cut, is a guess as well, with a variance.
    share = jnp.where(jnp.isfinite(of_prior), base / (base + of_prior), 0)
    share = share * weight * _weight(distance(predictor.prior_seen, vector[OF_STATIC]))
    guess = state.lr_trusted
    start = guess + share * (jnp.clip(current + said, -bound, bound) - guess)
    mean = jnp.where(first, start, state.lr_mean)
    variance = jnp.where(first, base * (1 - share), state.lr_variance)

    correction, noise = evidence(predictor, vector)
    grown = variance + predictor.drift
    gain = weight * grown / (grown + predictor.correlation * noise)
    learned = mean + gain * (current + correction - mean)
    return state._replace(
        lr_mean=jnp.where(counts, jnp.clip(learned, -bound, bound), mean),
        lr_variance=jnp.where(counts, jnp.minimum((1 - gain) * grown, base), variance),
        lr_prior=jnp.where(first, start, state.lr_prior),
    )


def _tuned(trust: float, base_variance: Any, state: MetalrState) -> jax.Array:
    """Return the probability that the user's own rate is tuned, given the run: [].

    A rate that somebody tuned is right to within half an octave, any other one to
    within a few: two Gaussians, about what cuts have left of it and about 0. What the
    run has shown, which is `lr_mean` without the second, has a likelihood under each.
    """
    shown = jnp.maximum(1 / state.lr_variance - 1 / base_variance, 1e-6)
    pull = state.lr_mean / state.lr_variance  # shown * its mean

    def log_likelihood(centre: Any, spread: Any) -> jax.Array:
        inflated = 1 + shown * spread
        apart = pull - shown * centre
        return -(jnp.log(inflated) + apart**2 / (shown * inflated)) / 2

    odds = jnp.log(trust) - jnp.log1p(-trust)  # -inf without trust
    odds += log_likelihood(state.lr_trusted, _TUNED_VARIANCE)
    return jax.nn.sigmoid(odds - log_likelihood(0.0, base_variance))


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
        lr_applied=jnp.ones((), jnp.float32),
        lr_log2_multiplier=zero(),
        lr_mean=zero(),
        lr_variance=width,
        lr_prior=zero(),
        lr_prior_entered=zero(jnp.bool_),
        lr_trusted=zero(),
        lr_features=jnp.zeros(len(features.FEATURES), jnp.float32),
        lr_observation=jnp.zeros(len(Observation._fields), jnp.float32),
        lr_last_move=jnp.zeros(len(Observation._fields), jnp.float32),
        skipped_steps=zero(jnp.int32),
        out_of_range_steps=zero(jnp.int32),
        braked_steps=zero(jnp.int32),
        observer=observer,
        summary=features.init(),
        inner_state=inner_state,
    )
