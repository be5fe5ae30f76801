"""The predictor as optax sees it: a multiplier on the learning rate of any optimizer.

Before and after, in anyone's training loop:

    tx = optax.adamw(schedule)
    tx = metalr.wrap(optax.adamw(schedule), total_steps=total_steps)
    ...
    updates, opt_state = tx.update(grads, opt_state, params, value=loss)

There are three doors to one controller. `wrap` multiplies the updates of a finished
optimizer, whose own schedule stays as it is. `inject` builds the optimizer with
`optax.inject_hyperparams` and sets its learning rate, so that the effective rate of a
step can be read from the state. `scale_by_metalr` is a link of a chain, to stand before
what must come last: projections, decay, the averaging of iterates. Either way

    rate_t = schedule_t * m_t

with m_t within bounds, moved by the predictor as `metalr.controller` says. A step whose
loss or gradient is not finite moves nothing and halves m: the optimizer sees a gradient
of zero.

Loss and gradients must be those of the whole batch: average them over devices first.
What happened is in the state, by name: `optax.tree.get(opt_state, "lr_multiplier")`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metalr.arguments import (
    check_is_rate,
    check_rate,
    check_schedule,
    check_whole,
    checked_optimizer,
    checked_total_steps,
    static_arguments,
)
from metalr.controller import new_controller
from metalr.coordinates import STRIDE, is_trainable
from metalr.predictor import Predictor
from metalr.read_schedule import levels, read_level, structure
from metalr.transformation import transformation

# The default bound of `wrap`; finetune.py, whose small encoders want 500 times a base
# rate that is meant for large ones, takes `controller.MAX_MULTIPLIER`.
GENERAL_MULTIPLIER = 64.0
TRUST = 0.7  # finetune.py, whose user gives no rate, takes 0


def wrap(
    inner: optax.GradientTransformation,
    predictor: Predictor | None = None,
    *,
    total_steps: int | None = None,
    schedule: optax.Schedule | None = None,
    max_multiplier: float = GENERAL_MULTIPLIER,
    trust: float = TRUST,
    log_multiplier: float | optax.Schedule | None = None,
    explore: optax.Schedule | None = None,
    curvature_every: int = 0,
    stride: int = STRIDE,
) -> optax.GradientTransformationExtraArgs:
    """Multiply the updates of an optimizer by a learned factor.

    `update` needs the keyword `value=`, the loss. Other extra arguments are passed on.

    Args:
      inner: Any optimizer, with its own learning rate or schedule.
      predictor: The predictor; None loads the one that comes with metalr.
      total_steps: Calls of `update` in the run, if known. It tells the predictor where
        in the budget a step is.
      schedule: The schedule that `inner` follows, in any unit, for the predictor to
        know how far below its peak the rate is. It is not applied again. Its step
        counts calls of `update`: around `optax.MultiSteps` of k, `step // k` is the
        optimizer's own. None: it is read off the optimizer, and a warning says so where
        that cannot be done.
      max_multiplier: The factor stays within [1 / max_multiplier, max_multiplier].
      trust: Probability that the rate as given is tuned for this very run. The more it
        is trusted, the more the run has to show before it is left; 0 takes it for any
        guess, and starts at what the facts of the run say.
      log_multiplier: Natural log of the factor, as a number or a function of the step.
        The predictor is then not used: 0.0 records features and changes nothing.
      explore: Function of the step, added to the log of the factor within its bounds.
      curvature_every: Steps between two exact line curvatures, which cost about two
        gradients each and need the extra argument `grad_fn=`, the gradient of the
        batch's loss as a function of the parameters. 0 estimates it for free.
      stride: Coordinates per sampled one, see `metalr.coordinates.layout`.

    Returns:
      A transformation with state `MetalrState`.

    Raises:
      MetalrError: If an argument is outside of its range; when it is initialised, if
        `inner` keeps an iterate of its own, which a factor on its updates would belie.

    >>> from metalr.predictor import init_predictor
    >>> tx = wrap(optax.sgd(0.1), init_predictor())
    >>> params, grads = {"w": jnp.ones(2)}, {"w": jnp.ones(2)}
    >>> updates, state = tx.update(grads, tx.init(params), params, value=1.0)
    >>> print(updates["w"], optax.tree.get(state, "lr_multiplier"))
    [-0.1 -0.1] 1.0
    """
    fixed = new_controller(
        predictor,
        total_steps=total_steps,
        max_multiplier=max_multiplier,
        trust=trust,
        log_multiplier=log_multiplier,
        explore=explore,
        curvature_every=curvature_every,
        stride=stride,
    )
    inner, total_steps = checked_optimizer(inner), fixed.total_steps
    check_schedule(schedule)
    found: dict[Any, tuple[Callable, Any]] = {}

    def level(params: Any) -> tuple[Callable, Any]:
        if schedule is not None:
            return levels(schedule, total_steps)
        key = structure(params)
        if key not in found:
            found[key] = read_level(inner, params, total_steps)
        return found[key]

    return transformation(fixed, inner, level, _multiplied(inner))


def scale_by_metalr(
    inner: optax.GradientTransformation | None = None,
    predictor: Predictor | None = None,
    *,
    schedule: optax.Schedule | None = None,
    **settings: Any,
) -> optax.GradientTransformationExtraArgs:
    """Multiply what a rule makes of the gradients, as a link of a chain.

    For what has to come after the rate: decay that is not to be multiplied, projections
    as `optax.keep_params_nonnegative`. It must see the gradients, so that it comes
    first, around the rule:

        optax.chain(
            metalr.scale_by_metalr(optax.scale_by_adam(), schedule=schedule),
            optax.scale_by_learning_rate(schedule),
            optax.keep_params_nonnegative(),
        )

    Args:
      inner: The rule, as `optax.scale_by_adam()`; None: the gradients as they are.
      predictor: As in `wrap`.
      schedule: The schedule that the chain follows, in any unit; None: a constant one.
      **settings: As in `wrap`.

    Returns:
      A transformation with state `MetalrState`.

    >>> from metalr.predictor import init_predictor
    >>> tx = optax.chain(scale_by_metalr(predictor=init_predictor()), optax.scale(-0.1))
    >>> params, grads = {"w": jnp.ones(2)}, {"w": jnp.ones(2)}
    >>> updates, state = tx.update(grads, tx.init(params), params, value=1.0)
    >>> print(updates["w"])
    [-0.1 -0.1]
    """
    schedule = optax.constant_schedule(1.0) if schedule is None else schedule
    return wrap(inner or optax.identity(), predictor, schedule=schedule, **settings)


def inject(
    inner_factory: Callable[..., optax.GradientTransformation],
    learning_rate: float | optax.Schedule = 2e-5,
    predictor: Predictor | None = None,
    *,
    total_steps: int | None = None,
    schedule: optax.Schedule | None = None,
    max_multiplier: float = GENERAL_MULTIPLIER,
    trust: float = TRUST,
    log_multiplier: float | optax.Schedule | None = None,
    explore: optax.Schedule | None = None,
    curvature_every: int = 0,
    stride: int = STRIDE,
    static_args: str | Iterable[str] = (),
    **inner_kwargs: Any,
) -> optax.GradientTransformationExtraArgs:
    """Build an optimizer whose learning rate the predictor sets.

    The rate of a step is learning_rate * schedule * multiplier, and the state's
    `hyperparams["learning_rate"]` is what was applied in that very step.

    Args:
      inner_factory: A function with the argument `learning_rate`, as `optax.adamw`.
      learning_rate: Peak rate; or a schedule of your own.
      predictor: As in `wrap`.
      total_steps: As in `wrap`.
      schedule: Shape of the schedule, a factor on the peak rate by step. None:
        `default_schedule`, or constant 1 where `learning_rate` is a schedule.
      max_multiplier: As in `wrap`.
      trust: As in `wrap`.
      log_multiplier: As in `wrap`.
      explore: As in `wrap`.
      curvature_every: As in `wrap`.
      stride: As in `wrap`.
      static_args: Arguments of `inner_factory` that are neither numbers nor schedules,
        as in `optax.inject_hyperparams`. Plain numbers, defaults that are functions,
        and masks are static anyway.
      **inner_kwargs: Passed to `inner_factory`.

    Returns:
      A transformation with state `MetalrState`.

    Raises:
      MetalrError: If an argument is outside of its range.

    >>> from metalr.predictor import init_predictor
    >>> tx = inject(optax.adamw, 3e-5, init_predictor(), total_steps=100)
    >>> params, grads = {"w": jnp.ones(2)}, {"w": jnp.ones(2)}
    >>> updates, state = tx.update(grads, tx.init(params), params, value=1.0)
    >>> print(f"{state.hyperparams['learning_rate']:.1e}")  # one of eleven warming up
    2.7e-06
    """
    check_rate(learning_rate, schedule)
    check_schedule(schedule)
    total_steps = checked_total_steps(total_steps)
    if callable(learning_rate):
        peak, shape = 1.0, learning_rate
    else:
        peak, shape = learning_rate, schedule or default_schedule(1.0, total_steps)
    applied = lambda step: peak * shape(step)  # noqa: E731
    fixed = new_controller(
        predictor,
        total_steps=total_steps,
        max_multiplier=max_multiplier,
        trust=trust,
        log_multiplier=log_multiplier,
        explore=explore,
        curvature_every=curvature_every,
        stride=stride,
    )
    static = static_arguments(inner_factory, inner_kwargs, static_args)
    # A plain number and not a `StatefulSchedule`: a schedule sees neither gradients
    # nor parameters, and its own state would take the name `learning_rate` as well.
    first = lambda: jnp.asarray(applied(0), jnp.float32)  # noqa: E731
    inner = optax.inject_hyperparams(inner_factory, static)(
        learning_rate=first(), **inner_kwargs
    )

    def init(params):
        state: Any = inner.init(params)
        rate = {"learning_rate": first()}  # made anew, on the mesh that is set now
        return state._replace(hyperparams=state.hyperparams | rate)

    def injected(grads, state, params, decided, extra_args):
        rate = jnp.asarray(applied(decided.lr_step - 1), jnp.float32)
        rate = {"learning_rate": rate * decided.lr_multiplier}
        state = state._replace(hyperparams=state.hyperparams | rate)
        updates, state = inner.update(grads, state, params, **extra_args)
        # The rate is float32 whatever the parameters are; updates are of their type.
        return _of_type(updates, params), state

    def level(params: Any) -> tuple[Callable, Any]:
        del params
        return levels(shape, total_steps)

    started = optax.GradientTransformationExtraArgs(init, inner.update)
    return transformation(fixed, started, level, injected)


def default_schedule(
    learning_rate: float,
    total_steps: int | None = None,
    warmup_steps: int | None = None,
) -> optax.Schedule:
    """Make a linear warm-up and a linear decay that waste no step on a rate of zero.

    Unless `warmup_steps` says otherwise, `warmup_of` the run comes before the peak; the
    step after the last would be taken at zero. With an unknown horizon, 100 steps warm
    up and the rate stays.

    Raises:
      MetalrError: The rate is no number, or a length is none.

    >>> schedule = default_schedule(8.0, total_steps=10)
    >>> [float(schedule(step)) for step in (0, 1, 10)]
    [4.0, 8.0, 0.0]
    """
    check_is_rate(learning_rate)
    total_steps = checked_total_steps(total_steps)
    warmup = warmup_of(total_steps) if warmup_steps is None else warmup_steps
    check_whole("warmup_steps", warmup, 0, "0 begins at the peak.")
    return lambda step: jnp.float32(learning_rate) * linear(step, total_steps, warmup)


def linear(step: Any, total_steps: Any, warmup_steps: Any) -> jax.Array:
    """Return the factor of a step in `default_schedule`; all three may be arrays."""
    factor = jnp.minimum(1.0, (step + 1.0) / (warmup_steps + 1.0))
    if total_steps is None:
        return factor
    left = (total_steps - step) / jnp.maximum(1, total_steps - warmup_steps)
    return jnp.minimum(factor, jnp.clip(left, 0.0, 1.0))


def warmup_of(total_steps: int | None, most: int = 500) -> int:
    """Return how many steps of a run warm up: at most a tenth of it.

    >>> warmup_of(6000), warmup_of(200), warmup_of(None)
    (500, 20, 100)
    """
    return 100 if total_steps is None else min(most, total_steps // 10)


def _multiplied(inner: optax.GradientTransformationExtraArgs) -> Callable:
    """Return `inner.update` with its updates multiplied by the state's factor."""

    def multiplied(grads, state, params, decided, extra_args):
        updates, state = inner.update(grads, state, params, **extra_args)
        m = decided.lr_multiplier

        def scale(leaf):
            if not is_trainable(leaf):
                return leaf
            wide = leaf.dtype if leaf.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
            # The select keeps XLA from folding m into the rate: 1 changes no bit.
            scaled = (leaf.astype(wide) * m.astype(wide)).astype(leaf.dtype)
            return jnp.where(m == 1, leaf, scaled)

        return jax.tree.map(scale, updates), state

    return multiplied


def _of_type(updates: Any, params: Any) -> Any:
    """Return updates in the types of the parameters."""

    def cast(update, leaf):
        if not (is_trainable(update) and is_trainable(leaf)):
            return update
        return jnp.asarray(update).astype(jnp.asarray(leaf).dtype)

    return jax.tree.map(cast, updates, params, is_leaf=lambda x: x is None)
