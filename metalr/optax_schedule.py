"""The predictor as optax sees it: a multiplier on the learning rate of any optimizer.

Before and after, in anyone's training loop:

    tx = optax.adamw(schedule)
    tx = metalr.wrap(optax.adamw(schedule), total_steps=total_steps)
    ...
    updates, opt_state = tx.update(grads, opt_state, params, value=loss)

There are two doors to one controller. `wrap` multiplies the updates of a finished
optimizer, whose own schedule stays as it is. `inject` builds the optimizer with
`optax.inject_hyperparams` and sets its learning rate, so that the effective rate of a
step can be read from the state. Either way

    rate_t = schedule_t * m_t

with m_t within [1/1024, 1024], moved by the predictor as `metalr.controller` says. A
step whose loss or gradient is not finite moves nothing and halves m: the optimizer sees
a gradient of zero.

Loss and gradients must be those of the whole batch: average them over devices first.
What happened is in the state, by name: `optax.tree.get(opt_state, "lr_multiplier")`.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from metalr import features
from metalr.controller import (
    MAX_MULTIPLIER,
    Controller,
    MetalrState,
    decide,
    log_prior,
    new_controller,
)
from metalr.coordinates import STRIDE, squared_norm
from metalr.errors import MetalrError
from metalr.predictor import Predictor


def wrap(
    inner: optax.GradientTransformation,
    predictor: Predictor | None = None,
    *,
    total_steps: int | None = None,
    prior: optax.Schedule | None = None,
    max_multiplier: float = MAX_MULTIPLIER,
    log_multiplier: float | optax.Schedule | None = None,
    explore: optax.Schedule | None = None,
    curvature_every: int = 0,
    stride: int = STRIDE,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates of an optimizer by a learned factor.

    `update` needs the keyword `value=`, the loss. Other extra arguments are passed on.

    Args:
      inner: Any optimizer, with its own learning rate or schedule.
      predictor: The predictor; None loads the one that comes with metalr.
      total_steps: Updates in the run, if known. It tells the predictor where in the
        budget a step is.
      prior: The schedule that `inner` follows, in any unit, for the predictor to know
        how far below its peak the rate is. It is not applied again.
      max_multiplier: The factor stays within [1 / max_multiplier, max_multiplier].
      log_multiplier: Natural log of the factor, as a number or a function of the step.
        The predictor is then not used: 0.0 records features and changes nothing.
      explore: Function of the step, added to the log of the factor within its bounds.
      curvature_every: Steps between two exact line curvatures, which cost about two
        gradients each and need the extra argument `grad_fn=`, the gradient of the
        batch's loss as a function of the parameters. 0 estimates it for free.
      stride: Coordinates per sampled one, see `metalr.coordinates.sample`.

    Returns:
      A transformation with state `MetalrState`.

    Raises:
      MetalrError: If an argument is outside of its range.

    >>> from metalr.predictor import init_predictor
    >>> tx = wrap(optax.sgd(0.1), init_predictor())
    >>> params, grads = {"w": jnp.ones(2)}, {"w": jnp.ones(2)}
    >>> updates, state = tx.update(grads, tx.init(params), params, value=1.0)
    >>> print(updates["w"], optax.tree.get(state, "lr_multiplier"))
    [-0.1 -0.1] 1.0
    """
    fixed = new_controller(
        predictor,
        total_steps,
        prior,
        max_multiplier,
        log_multiplier,
        explore,
        curvature_every,
        stride,
    )
    inner = optax.with_extra_args_support(inner)

    def scaled_update(grads, state, params, decided, extra_args):
        updates, state = inner.update(grads, state, params, **extra_args)

        m = decided.lr_multiplier

        def scale(leaf):
            # The select keeps XLA from folding m into the rate: 1 changes no bit.
            return jnp.where(m == 1, leaf, (leaf * m).astype(leaf.dtype))

        return jax.tree.map(scale, updates), state

    return _transformation(fixed, inner.init, scaled_update)


def inject(
    inner_factory: Callable[..., optax.GradientTransformation],
    learning_rate: float | optax.Schedule = 2e-5,
    predictor: Predictor | None = None,
    *,
    total_steps: int | None = None,
    prior: optax.Schedule | None = None,
    max_multiplier: float = MAX_MULTIPLIER,
    log_multiplier: float | optax.Schedule | None = None,
    explore: optax.Schedule | None = None,
    curvature_every: int = 0,
    stride: int = STRIDE,
    static_args: str | Iterable[str] = (),
    **inner_kwargs: Any,
) -> optax.GradientTransformationExtraArgs:
    """Builds an optimizer whose learning rate the predictor sets.

    The rate of a step is schedule * multiplier, and the state's
    `hyperparams["learning_rate"]` is what was applied in that very step.

    Args:
      inner_factory: A function with the argument `learning_rate`, as `optax.adamw`.
      learning_rate: Peak rate; or a schedule of your own.
      predictor: As in `wrap`.
      total_steps: As in `wrap`.
      prior: Factor on the peak rate by step. None: `default_schedule`.
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
    peak, shape = _rate(learning_rate, prior, total_steps)
    schedule = lambda step: peak * shape(step)  # noqa: E731
    fixed = new_controller(
        predictor,
        total_steps,
        shape,
        max_multiplier,
        log_multiplier,
        explore,
        curvature_every,
        stride,
    )
    static = _static_args(inner_factory, inner_kwargs, static_args)
    # A plain number and not a `StatefulSchedule`: a schedule sees neither gradients
    # nor parameters, and its own state would take the name `learning_rate` as well.
    inner = optax.inject_hyperparams(inner_factory, static)(
        learning_rate=jnp.asarray(schedule(0), jnp.float32), **inner_kwargs
    )

    def injected_update(grads, state, params, decided, extra_args):
        rate = jnp.asarray(schedule(decided.lr_step - 1), jnp.float32)
        rate = {"learning_rate": rate * decided.lr_multiplier}
        state = state._replace(hyperparams=state.hyperparams | rate)
        return inner.update(grads, state, params, **extra_args)

    return _transformation(fixed, inner.init, injected_update)


def default_schedule(
    learning_rate: float,
    total_steps: int | None = None,
    warmup_steps: int | None = None,
) -> optax.Schedule:
    """Makes a linear warm-up and a linear decay that waste no step on a rate of zero.

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


def _transformation(
    fixed: Controller, inner_init: Callable, inner_update: Callable
) -> optax.GradientTransformationExtraArgs:
    def init(params: Any) -> Any:
        def zero(dtype=jnp.int32):
            return jnp.zeros((), dtype)

        return MetalrState(
            lr_step=zero(),
            lr_multiplier=jnp.ones((), jnp.float32),
            lr_log_multiplier=zero(jnp.float32),
            lr_features=jnp.zeros(len(features.FEATURES), jnp.float32),
            skipped_steps=zero(),
            relaxed_steps=zero(),
            braked_steps=zero(),
            feature_state=features.init(
                params,
                stride=fixed.stride,
                exact_curvature=fixed.curvature_every > 0,
            ),
            inner_state=inner_init(params),
        )

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any, **extra_args: Any
    ) -> Any:
        if params is None:
            raise ValueError("metalr reads the parameters: `update(..., params, ...)`.")
        step = state.lr_step
        norm_sq = squared_norm(updates)
        finite = jnp.isfinite(norm_sq) & jnp.isfinite(jnp.asarray(value, jnp.float32))
        # Skipping is a gradient of zero and an update that is dropped. To keep the
        # moments as well, XLA:CPU would copy them, or write the update out, at every
        # step. The loop, which does not run on a finite step, leaves the gradient where
        # it is; a `cond` would copy it, and a `where` would be fused into the optimizer
        # and round there in another order.
        _, grads = jax.lax.while_loop(
            lambda carry: ~carry[0],
            lambda carry: (jnp.ones_like(carry[0]), optax.tree.zeros_like(carry[1])),
            (finite, updates),
        )
        value = jnp.where(finite, value, state.feature_state.last_value)
        vector, feature_state = features.update(
            grads,
            state.feature_state,
            params,
            value=value,
            step=step,
            norm_sq=norm_sq,
            total_steps=fixed.total_steps,
            log_multiplier=jnp.log(state.lr_multiplier),
            log_prior=log_prior(fixed, step),
            stride=fixed.stride,
        )
        rise = features.log_rise(feature_state)
        decided = decide(fixed, state, vector, rise, finite)

        def keep(new, old):
            return jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)

        extra_args = {"value": value, **extra_args}
        updates, inner_state = inner_update(
            grads, state.inner_state, params, decided, extra_args
        )
        updates = keep(updates, optax.tree.zeros_like(updates))
        untouched = ~finite & (state.feature_state.seen == 0)
        inner_state = _forgetting(untouched, inner_state, inner_init(params))
        if fixed.curvature_every:
            curvature = _exact_curvature(
                fixed, state, params, grads, updates, extra_args.get("grad_fn")
            )
            feature_state = feature_state._replace(exact_curvature=curvature)
        return updates, decided._replace(
            lr_features=keep(vector, state.lr_features),
            feature_state=keep(feature_state, state.feature_state),
            inner_state=inner_state,
        )

    as_optax: Any = update  # optax's protocol has no place for a required `value`
    return optax.GradientTransformationExtraArgs(init, as_optax)


def _forgetting(untouched: jax.Array, state: Any, first: Any) -> Any:
    """Takes the numbers of a state from the first one, where no step was taken yet.

    A skipped step tells the last loss again. Before the first step there is none, and
    whatever is told would be the best that a plateau has ever seen. Moments stay zero
    under a gradient of zero, and to choose between them would copy them.
    """

    def choose(leaf, its_first):
        number = jnp.ndim(leaf) == 0 and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.where(untouched, its_first, leaf) if number else leaf

    return jax.tree.map(choose, state, first)


def _exact_curvature(
    fixed: Controller,
    state: MetalrState,
    params: Any,
    grads: Any,
    updates: Any,
    grad_fn: Callable | None,
) -> jax.Array:
    """Measures the line curvature of a step every so often, and keeps it between."""
    if grad_fn is None:
        raise MetalrError(
            "`curvature_every` needs the extra argument `grad_fn=`, the gradient of "
            "the batch's loss as a function of the parameters. Pass it to `update`."
        )
    return jax.lax.cond(
        state.lr_step % fixed.curvature_every == 0,
        lambda: features.line_curvature(grad_fn, params, grads, updates),
        lambda: state.feature_state.exact_curvature,
    )


def _rate(
    learning_rate: float | optax.Schedule,
    prior: optax.Schedule | None,
    total_steps: int | None,
) -> tuple[Any, optax.Schedule]:
    """Returns a rate and the schedule that it is multiplied by."""
    if callable(learning_rate):
        if prior is not None:
            raise MetalrError(
                "`learning_rate` must be a number where `prior` is given, got two "
                "schedules. Multiply them into one."
            )
        return 1.0, learning_rate
    if isinstance(learning_rate, int | float) and not 0 < learning_rate < math.inf:
        raise MetalrError(
            f"`learning_rate` must be positive, got {learning_rate}. Give the peak "
            "rate, 2e-5 for instance, or a schedule."
        )
    return learning_rate, prior or default_schedule(1.0, total_steps)


def _static_args(
    inner_factory: Callable, inner_kwargs: dict, static_args: str | Iterable[str]
) -> set[str]:
    """Names what `inject_hyperparams` would trace, round or call by mistake.

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
