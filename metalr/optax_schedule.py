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

import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import controller, coordinates, features, observe
from metalr.controller import Controller, new_controller
from metalr.coordinates import STRIDE, is_trainable, leaves_of
from metalr.errors import MetalrError
from metalr.predictor import Predictor
from metalr.read_schedule import levels, read_schedule

# The default bound of `wrap`; finetune.py, whose small encoders want 500 times a base
# rate that is meant for large ones, takes `controller.MAX_MULTIPLIER`.
GENERAL_MULTIPLIER = 64.0
# Rules whose own state remembers where the parameters are, or how large their steps
# were: a factor on what they return makes their memory wrong.
_REMEMBERING = {
    "ScheduleFreeState": "optax.contrib.schedule_free(metalr.wrap(base), ...)",
    "MechanicState": "optax.contrib.mechanize(metalr.wrap(base), ...)",
    "LookaheadState": "optax.lookahead(metalr.wrap(base), ...)",
    "SAMState": "optax.contrib.sam(metalr.wrap(base), ...)",
    "ProdigyState": "the optimizer alone: it estimates the rate itself",
    "DAdaptAdamWState": "the optimizer alone: it estimates the rate itself",
    "DoGState": "the optimizer alone: it estimates the rate itself",
    "DoWGState": "the optimizer alone: it estimates the rate itself",
    "COCOBState": "the optimizer alone: it estimates the rate itself",
}


_UPDATE_NORM = observe.Observation._fields.index("update_norm")


def wrap(
    inner: optax.GradientTransformation,
    predictor: Predictor | None = None,
    *,
    total_steps: int | None = None,
    schedule: optax.Schedule | None = None,
    max_multiplier: float = GENERAL_MULTIPLIER,
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
      total_steps: Updates in the run, if known. It tells the predictor where in the
        budget a step is.
      schedule: The schedule that `inner` follows, in any unit, for the predictor to
        know how far below its peak the rate is. It is not applied again. None: it is
        read off the optimizer, and a warning says so where that cannot be done.
      max_multiplier: The factor stays within [1 / max_multiplier, max_multiplier].
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
        log_multiplier=log_multiplier,
        explore=explore,
        curvature_every=curvature_every,
        stride=stride,
    )
    inner = optax.with_extra_args_support(inner)
    found: dict[Any, tuple[Callable, Any]] = {}

    def level(params: Any) -> tuple[Callable, Any]:
        if schedule is not None:
            return levels(schedule, total_steps)
        key = _structure(params)
        if key not in found:
            found[key] = _read_level(inner, params, total_steps)
        return found[key]

    return _transformation(fixed, inner, level, _multiplied(inner))


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
    peak, shape = _rate(learning_rate, schedule, total_steps)
    applied = lambda step: peak * shape(step)  # noqa: E731
    fixed = new_controller(
        predictor,
        total_steps=total_steps,
        max_multiplier=max_multiplier,
        log_multiplier=log_multiplier,
        explore=explore,
        curvature_every=curvature_every,
        stride=stride,
    )
    static = _static_args(inner_factory, inner_kwargs, static_args)
    # A plain number and not a `StatefulSchedule`: a schedule sees neither gradients
    # nor parameters, and its own state would take the name `learning_rate` as well.
    inner = optax.inject_hyperparams(inner_factory, static)(
        learning_rate=jnp.asarray(applied(0), jnp.float32), **inner_kwargs
    )

    def injected(grads, state, params, decided, extra_args):
        rate = jnp.asarray(applied(decided.lr_step - 1), jnp.float32)
        rate = {"learning_rate": rate * decided.lr_multiplier}
        state = state._replace(hyperparams=state.hyperparams | rate)
        updates, state = inner.update(grads, state, params, **extra_args)
        # The rate is float32 whatever the parameters are; updates are of their type.
        return _as_gradients(updates, grads), state

    def level(params: Any) -> tuple[Callable, Any]:
        del params
        return levels(shape, total_steps)

    return _transformation(fixed, inner, level, injected)


def default_schedule(
    learning_rate: float,
    total_steps: int | None = None,
    warmup_steps: int | None = None,
) -> optax.Schedule:
    """Make a linear warm-up and a linear decay that waste no step on a rate of zero.

    Unless `warmup_steps` says otherwise, a tenth of the run, at most 500 steps, comes
    before the peak; the step after the last would be taken at zero. With an unknown
    horizon, 100 steps warm up and the rate stays.

    >>> schedule = default_schedule(8.0, total_steps=10)
    >>> [float(schedule(step)) for step in (0, 1, 10)]
    [4.0, 8.0, 0.0]
    """
    warmup = 100 if total_steps is None else min(500, total_steps // 10)
    warmup = warmup if warmup_steps is None else warmup_steps

    def schedule(step):
        factor = jnp.minimum(1.0, (step + 1.0) / (warmup + 1.0))
        if total_steps is not None:
            left = (total_steps - step) / max(1, total_steps - warmup)
            factor = jnp.minimum(factor, jnp.clip(left, 0.0, 1.0))
        return jnp.float32(learning_rate) * factor

    return schedule


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


def _transformation(
    fixed: Controller,
    inner: optax.GradientTransformationExtraArgs,
    level: Callable[[Any], tuple[Callable, Any]],
    inner_update: Callable,
) -> optax.GradientTransformationExtraArgs:
    def init(params: Any) -> Any:
        where = coordinates.layout(params, fixed.stride)
        inner_state = inner.init(params)
        _refuse_remembering(inner_state)
        state = controller.zero_state(fixed, observe.init(params, where), inner_state)
        if fixed.curvature_every:
            return state._replace(observer=(state.observer, jnp.zeros(())))
        return state

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra_args
    ) -> Any:
        if params is None:
            raise ValueError("metalr reads the parameters: `update(..., params, ...)`.")
        value = _checked_value(value)
        where = coordinates.layout(params, fixed.stride)
        log_level, log_area = level(params)
        squares = coordinates.squared_norms(updates, where)
        finite = jnp.isfinite(jnp.sum(squares)) & jnp.isfinite(value)
        # An inner `apply_if_finite` skips and counts the step itself.
        hidden = not isinstance(state.inner_state, optax.ApplyIfFiniteState)
        grads = _zeroed(finite, updates) if hidden else updates
        clean = _zeroed(finite, updates) if not hidden else grads
        value = jnp.where(finite, value, state.summary.last_value)
        observer, exact = state.observer, None
        if fixed.curvature_every:
            observer, exact = observer
        seen, new_observer = observe.observe(
            clean,
            observer,
            params,
            where,
            value=value,
            squares=jnp.where(finite, squares, 0),
            log_level=log_level(state.lr_step),
            log_multiplier=jnp.log(state.lr_multiplier),
            exact_curvature=exact,
        )
        # Whoever differentiates a step holds the factor fixed.
        seen, new_observer = jax.lax.stop_gradient((seen, new_observer))
        vector, summary = features.update(
            seen,
            state.summary,
            step=state.lr_step,
            total_steps=fixed.total_steps,
            log_area=log_area,
        )
        decided = controller.decide(fixed, state, seen, vector, summary, finite)

        # A skipped step is one before which nothing moved: no evidence in a trace.
        first = state.summary.counted_steps == 0
        last = state.lr_observation.at[_UPDATE_NORM].set(0)
        last = jnp.where(finite | first, jnp.stack(seen), last)

        def keep(new, old):
            return jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)

        inner_args = {"value": value, **extra_args}
        changes, inner_state = inner_update(
            grads, state.inner_state, params, decided, inner_args
        )
        changes = _dropped(finite, changes)
        untouched = ~finite & first
        inner_state = _forgetting(untouched, inner_state, inner.init(params))
        new_observer = keep(new_observer, observer)
        if fixed.curvature_every:
            grad_fn = extra_args.get("grad_fn")
            exact = _exact_curvature(
                fixed, state.lr_step, exact, params, clean, changes, grad_fn
            )
            new_observer = (new_observer, exact)
        return changes, decided._replace(
            lr_features=keep(vector, state.lr_features),
            lr_observation=last,
            observer=new_observer,
            summary=keep(summary, state.summary),
            inner_state=inner_state,
        )

    as_optax: Any = update  # optax's protocol has no place for a required `value`
    return optax.GradientTransformationExtraArgs(init, as_optax)


@jax.custom_jvp
def _zeroed(finite: jax.Array, updates: Any) -> Any:
    """Return the gradients, or zeros where the step is not finite.

    Skipping is a gradient of zero and an update that is dropped. To keep the moments as
    well, XLA:CPU would copy them, or write the update out, at every step. The loop,
    which does not run on a finite step, leaves the gradient where it is; a `cond` would
    copy it, and a `where` would be fused into the optimizer and round there in another
    order.
    """
    _, grads = jax.lax.while_loop(
        lambda carry: ~carry[0],
        lambda carry: (jnp.ones_like(carry[0]), _zeros(carry[1])),
        (finite, updates),
    )
    return grads


@_zeroed.defjvp
def _zeroed_jvp(primals: Any, tangents: Any) -> Any:
    """Differentiate the choice: a loop could not be, in reverse mode."""
    finite, updates = primals
    out = _zeroed(finite, updates)
    return out, _dropped(finite, tangents[1])


def _zeros(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)


def _dropped(finite: jax.Array, tree: Any) -> Any:
    """Return zeros in place of the arrays of a tree where a step is not finite."""

    def drop(leaf):
        if not is_trainable(leaf):
            return leaf
        return jnp.where(finite, leaf, jnp.zeros_like(leaf))

    return jax.tree.map(drop, tree)


def _as_gradients(updates: Any, grads: Any) -> Any:
    def cast(update, grad):
        if not (is_trainable(update) and is_trainable(grad)):
            return update
        return jnp.asarray(update).astype(jnp.asarray(grad).dtype)

    return jax.tree.map(cast, updates, grads)


def _checked_value(value: Any) -> jax.Array:
    """Return the loss as a float32 scalar.

    Raises:
      MetalrError: It is missing, or is none.
    """
    way_out = (
        "Call `tx.update(grads, opt_state, params, value=loss)`; a trainer that cannot "
        "pass it on (flax's TrainState) has to call `tx.update` itself."
    )
    if value is None:
        raise MetalrError(f"metalr needs the loss as `value=`, got none. {way_out}")
    if isinstance(value, tuple | list | dict):
        raise MetalrError(
            f"`value` must be the loss alone, got a {type(value).__name__}: with "
            f"`has_aux=True`, take the loss out first. {way_out}"
        )
    if jnp.shape(value) != ():
        raise MetalrError(
            f"`value` must be one number, the mean loss of the batch; got an array of "
            f"shape {jnp.shape(value)}. Take its mean."
        )
    return jnp.asarray(value, jnp.float32)


def _refuse_remembering(inner_state: Any) -> None:
    """Raise an error for a rule whose memory a factor on its updates would belie."""
    known = lambda x: type(x).__name__ in _REMEMBERING  # noqa: E731
    for part in jax.tree.leaves(inner_state, is_leaf=known):
        name = type(part).__name__
        if name in _REMEMBERING:
            raise MetalrError(
                "metalr multiplies the update of a rule, and "
                f"{name.removesuffix('State')} keeps a record of its own updates that "
                f"would no longer be true. Use {_REMEMBERING[name]}."
            )


def _structure(params: Any) -> Any:
    shapes = tuple(
        (jnp.shape(x), str(x.dtype))
        if is_trainable(x) and hasattr(x, "dtype")
        else None
        for x in leaves_of(params)
    )
    return jax.tree.structure(params, is_leaf=lambda x: x is None), shapes


def _read_level(
    inner: optax.GradientTransformationExtraArgs, params: Any, total_steps: int | None
) -> tuple[Callable, Any]:
    table = read_schedule(inner, params, total_steps)
    if table is None:
        warnings.warn(
            "metalr.wrap cannot read the schedule of this optimizer and takes it for a "
            "constant rate; tell it with `schedule=`.",
            stacklevel=4,
        )
        table = np.ones(1, np.float32)
    return levels(table, total_steps)


def _forgetting(untouched: jax.Array, state: Any, first: Any) -> Any:
    """Take the numbers of a state from the first one, where no step was taken yet.

    In a skipped step the inner optimizer is given the last loss again. Before the first
    step there is none, and whatever is given would be the best that a plateau has ever
    seen. Moments stay zero under a gradient of zero, and to choose between them would
    copy them.
    """

    def choose(leaf, its_first):
        number = jnp.ndim(leaf) == 0 and jnp.issubdtype(
            jnp.result_type(leaf), jnp.floating
        )
        return jnp.where(untouched, its_first, leaf) if number else leaf

    return jax.tree.map(choose, state, first)


def _exact_curvature(
    fixed: Controller,
    step: jax.Array,
    last: Any,
    params: Any,
    grads: Any,
    updates: Any,
    grad_fn: Callable | None,
) -> jax.Array:
    """Measure the line curvature of a step every so often, and keep it between."""
    if grad_fn is None:
        raise MetalrError(
            "`curvature_every` needs the extra argument `grad_fn=`, the gradient of "
            "the batch's loss as a function of the parameters. Pass it to `update`."
        )
    return jax.lax.cond(
        step % fixed.curvature_every == 0,
        lambda: features.line_curvature(grad_fn, params, grads, updates),
        lambda: last,
    )


def _rate(
    learning_rate: float | optax.Schedule,
    schedule: optax.Schedule | None,
    total_steps: int | None,
) -> tuple[Any, optax.Schedule]:
    """Return a rate and the schedule that it is multiplied by."""
    if callable(learning_rate):
        if schedule is not None:
            raise MetalrError(
                "`learning_rate` must be a number where `schedule` is given, got two "
                "schedules. Multiply them into one."
            )
        return 1.0, learning_rate
    if isinstance(learning_rate, int | float) and not 0 < learning_rate < math.inf:
        raise MetalrError(
            f"`learning_rate` must be positive, got {learning_rate}. Give the peak "
            "rate, 2e-5 for instance, or a schedule."
        )
    return learning_rate, schedule or default_schedule(1.0, total_steps)


def _static_args(
    inner_factory: Callable, inner_kwargs: dict, static_args: str | Iterable[str]
) -> set[str]:
    """Name what `inject_hyperparams` would trace, round or call by mistake.

    It gives numbers the type of the parameters: a b2 of 0.999 is 1 in bfloat16, and
    Adam's correction of the bias then divides by 0.
    """
    parameters = inspect.signature(inner_factory).parameters
    if "learning_rate" not in parameters:
        raise MetalrError(
            "`inner_factory` must take `learning_rate`, as optax.adamw does; "
            f"{inner_factory!r} does not. Build the optimizer and use `wrap`."
        )
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    for name, parameter in parameters.items():
        value = inner_kwargs.get(name, parameter.default)
        function = callable(value) and (
            name not in inner_kwargs or name.endswith("mask")
        )
        if isinstance(value, int | float) or function:
            static.add(name)
    return static - {"learning_rate"}
