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
    log m_t = log m_{t-1} + clip(gain * confidence_t * log2(best / current)_t)

with the predictor's correction, log2(best / current), its confidence, and m_t within
[1/64, 64]. A step whose loss or gradient is not finite moves nothing and halves m: the
optimizer sees a gradient of zero. Features that training has not seen let m return
to 1, and a loss well above its start keeps m from rising.

Loss and gradients must be those of the whole batch: average them over devices first.
What happened is in the state, by name: `optax.tree.get(opt_state, "lr_multiplier")`.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import features
from metalr.errors import MetalrError
from metalr.predictor import Predictor, apply, load_predictor, unusual

_LOSS_LEVEL = [row.name for row in features.FEATURES].index("loss_level")
_DIVERGING = math.log(1.25)  # of the loss over its start: noise stays below
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


class _Controller(NamedTuple):
    """What is fixed for a run."""

    decide: Predictor | optax.Schedule  # a schedule forces log m
    explore: Callable | None
    schedule: Callable | None
    peak: Any  # of the schedule
    total_steps: int | None
    log_bound: float
    response: float  # scales the predictor's gain and limit to the horizon
    curvature_every: int  # 0: off
    stride: int


def wrap(
    inner: optax.GradientTransformation,
    predictor: Predictor | None = None,
    *,
    total_steps: int | None = None,
    prior: optax.Schedule | None = None,
    max_multiplier: float = 64.0,
    log_multiplier: float | optax.Schedule | None = None,
    explore: optax.Schedule | None = None,
    curvature_every: int = 0,
    stride: int = features.STRIDE,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates of an optimizer by a learned factor.

    `update` needs the keyword `value=`, the loss. Other extra arguments are passed on.

    Args:
      inner: Any optimizer, with its own learning rate or schedule.
      predictor: The predictor; None loads the one that comes with metalr.
      total_steps: Updates in the run, if known. It tells the predictor where in the
        budget a step is, and lets a short run respond faster than a long one.
      prior: The schedule that `inner` follows, in any unit, for the predictor to know
        how far below its peak the rate is. It is not applied again.
      max_multiplier: The factor stays within [1 / max_multiplier, max_multiplier].
      log_multiplier: Natural log of the factor, as a number or a function of the step.
        The predictor is then not used: 0.0 records features and changes nothing.
      explore: Function of the step, added to the log of the factor within its bounds.
      curvature_every: Steps between two exact line curvatures, which cost about two
        gradients each and need the extra argument `grad_fn=`, the gradient of the
        batch's loss as a function of the parameters. 0 estimates it for free.
      stride: Coordinates per sampled one, see `metalr.features.sample`.

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
    controller = _controller(
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

    return _transformation(controller, inner.init, scaled_update)


def inject(
    inner_factory: Callable[..., optax.GradientTransformation],
    learning_rate: float | optax.Schedule = 2e-5,
    predictor: Predictor | None = None,
    *,
    total_steps: int | None = None,
    prior: optax.Schedule | None = None,
    max_multiplier: float = 64.0,
    log_multiplier: float | optax.Schedule | None = None,
    explore: optax.Schedule | None = None,
    curvature_every: int = 0,
    stride: int = features.STRIDE,
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
        as in `optax.inject_hyperparams`. Integers, defaults that are functions, and
        masks are static anyway.
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
    schedule = _rate_schedule(learning_rate, prior, total_steps)
    controller = _controller(
        predictor,
        total_steps,
        schedule,
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

    return _transformation(controller, inner.init, injected_update)


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
    controller: _Controller, inner_init: Callable, inner_update: Callable
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
                stride=controller.stride,
                exact_curvature=controller.curvature_every > 0,
            ),
            inner_state=inner_init(params),
        )

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any, **extra_args: Any
    ) -> Any:
        if params is None:
            raise ValueError("metalr reads the parameters: `update(..., params, ...)`.")
        step = state.lr_step
        norm_sq = features.squared_norm(updates)
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
            total_steps=controller.total_steps,
            log_multiplier=jnp.log(state.lr_multiplier),
            log_prior=_log_prior(controller, step),
            stride=controller.stride,
        )
        decided = _decide(controller, state, vector, finite)

        def keep(new, old):
            return jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)

        extra_args = {"value": value, **extra_args}
        updates, inner_state = inner_update(
            grads, state.inner_state, params, decided, extra_args
        )
        updates = keep(updates, optax.tree.zeros_like(updates))
        if controller.curvature_every:
            curvature = _exact_curvature(
                controller, state, params, grads, updates, extra_args.get("grad_fn")
            )
            feature_state = feature_state._replace(exact_curvature=curvature)
        return updates, decided._replace(
            lr_features=keep(vector, state.lr_features),
            feature_state=keep(feature_state, state.feature_state),
            inner_state=inner_state,
        )

    as_optax: Any = update  # optax's protocol has no place for a required `value`
    return optax.GradientTransformationExtraArgs(init, as_optax)


def _decide(
    controller: _Controller, state: MetalrState, vector: jax.Array, finite: jax.Array
) -> MetalrState:
    """Moves the multiplier: the only place where the predictor is asked."""
    step, log_m = state.lr_step, state.lr_log_multiplier
    outside = braked = jnp.zeros((), bool)
    predictor = controller.decide
    if not isinstance(predictor, Predictor):
        log_m = jnp.asarray(predictor(step), jnp.float32)
    else:
        gain, limit = (
            controller.response * x for x in (predictor.gain, predictor.limit)
        )
        correction, confidence = apply(predictor, vector)
        relax = -gain * log_m
        outside = finite & unusual(predictor, vector)
        braked = finite & (vector[_LOSS_LEVEL] > _DIVERGING)
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


def _exact_curvature(
    controller: _Controller,
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
        state.lr_step % controller.curvature_every == 0,
        lambda: features.line_curvature(grad_fn, params, grads, updates),
        lambda: state.feature_state.exact_curvature,
    )


def _log_prior(controller: _Controller, step: jax.Array) -> Any:
    if controller.schedule is None:
        return 0.0
    level = jnp.asarray(controller.schedule(step), jnp.float32) / controller.peak
    return jnp.log(jnp.clip(level, 1e-9, 1))


def _rate_schedule(
    learning_rate: float | optax.Schedule,
    prior: optax.Schedule | None,
    total_steps: int | None,
) -> optax.Schedule:
    if callable(learning_rate):
        if prior is not None:
            raise MetalrError(
                "`learning_rate` must be a number where `prior` is given, got two "
                "schedules. Multiply them into one."
            )
        return learning_rate
    if isinstance(learning_rate, int | float) and not 0 < learning_rate < math.inf:
        raise MetalrError(
            f"`learning_rate` must be positive, got {learning_rate}. Give the peak "
            "rate, 2e-5 for instance, or a schedule."
        )
    if prior is None:
        return default_schedule(learning_rate, total_steps)
    return lambda step: learning_rate * prior(step)


def _peak(schedule: optax.Schedule | None, total_steps: int | None) -> Any:
    """Finds the highest value of a schedule on a grid, the first steps densest."""
    if schedule is None:
        return 1.0
    last = 10_000 if total_steps is None else total_steps
    grid = np.concatenate([np.linspace(0, last, 513), np.geomspace(1, last, 512) - 1])
    steps = np.unique(grid.astype(np.int32))
    return jnp.max(jnp.asarray(jax.vmap(schedule)(steps), jnp.float32))


def _static_args(
    inner_factory: Callable, inner_kwargs: dict, static_args: str | Iterable[str]
) -> set[str]:
    """Names what `inject_hyperparams` would trace or call by mistake."""
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
        if isinstance(value, int) or function:
            static.add(name)
    return static - {"learning_rate"}


def _controller(
    predictor: Predictor | None,
    total_steps: int | None,
    schedule: optax.Schedule | None,
    max_multiplier: float,
    log_multiplier: float | optax.Schedule | None,
    explore: optax.Schedule | None,
    curvature_every: int,
    stride: int,
) -> _Controller:
    if not 1 <= max_multiplier <= 1024:
        raise MetalrError(
            f"`max_multiplier` must lie in [1, 1024], got {max_multiplier}. "
            "1 switches the predictor off."
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
    response = 0.25 if total_steps is None else min(1.0, max(0.1, 100 / total_steps))
    return _Controller(
        decide=decide,
        explore=explore,
        schedule=schedule,
        peak=_peak(schedule, total_steps),
        total_steps=total_steps,
        log_bound=math.log(max_multiplier),
        response=response,
        curvature_every=curvature_every,
        stride=stride,
    )
