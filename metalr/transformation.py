"""Observe a step, move the multiplier, update: the transformation of all doors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import controller, coordinates, features, observe
from metalr.arguments import (
    check_state,
    checked_value,
    gathers,
    refuse_remembering,
)
from metalr.controller import Controller
from metalr.coordinates import is_trainable
from metalr.curvature import line_curvature
from metalr.errors import MetalrError

_UPDATE_NORM = observe.Observation._fields.index("update_norm")


def transformation(
    fixed: Controller,
    inner: optax.GradientTransformationExtraArgs,
    level: Callable[[Any], tuple[Callable, Any]],
    inner_update: Callable,
) -> optax.GradientTransformationExtraArgs:
    """Make the optax transformation.

    Args:
      fixed: What the controller is told of the run.
      inner: The optimizer.
      level: Of the parameters: what `read_schedule.levels` returns for their run.
      inner_update: Takes gradients, state and parameters of the optimizer, the new
        `MetalrState` and further arguments, and returns updates at this step's rate
        and the optimizer's state.
    """

    def init(params: Any) -> Any:
        where = coordinates.layout(params, fixed.stride)
        inner_state = inner.init(params)
        refuse_remembering(inner_state)
        state = controller.zero_state(fixed, observe.init(params, where), inner_state)
        if fixed.curvature_every:
            return state._replace(observer=(state.observer, jnp.zeros(())))
        return state

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra_args
    ) -> Any:
        if params is None:
            raise ValueError("metalr reads the parameters: `update(..., params, ...)`.")
        check_state(state, controller.MetalrState)
        where = coordinates.layout(params, fixed.stride)
        read = _read(fixed, state, updates, params, checked_value(value), where, level)
        finite, seen = read.finite, read.seen
        decided = controller.decide(
            fixed, state, seen, read.vector, read.summary, finite
        )

        def keep(new, old):
            return jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)

        inner_args = {"value": read.value, **extra_args}
        changes, inner_state = inner_update(
            read.grads, state.inner_state, params, decided, inner_args
        )
        changes = _dropped(finite, changes)
        first = state.summary.counted_steps == 0
        inner_state = _forgetting(
            ~finite & first, inner_state, lambda: inner.init(params)
        )
        if gathers(state.inner_state):
            # A gradient of zero would count as a micro-batch of the group.
            inner_state = keep(inner_state, state.inner_state)
        observer, exact = _observer(fixed, state)
        observer = keep(read.observer, observer)
        if fixed.curvature_every:
            grad_fn = extra_args.get("grad_fn")
            exact = _exact_curvature(
                fixed, state, exact, finite, params, read.grads, changes, grad_fn, where
            )
            observer = (observer, exact)
        # A skipped step is one before which nothing moved: no evidence in a trace.
        last = state.lr_observation.at[_UPDATE_NORM].set(0)
        return changes, decided._replace(
            lr_features=keep(read.vector, state.lr_features),
            lr_observation=jnp.where(finite | first, jnp.stack(seen), last),
            lr_last_move=jnp.where(
                finite & seen.moved, jnp.stack(seen), state.lr_last_move
            ),
            observer=observer,
            summary=keep(read.summary, state.summary),
            inner_state=inner_state,
        )

    as_optax: Any = update  # optax's protocol has no place for a required `value`
    return optax.GradientTransformationExtraArgs(init, as_optax)


class _Read(NamedTuple):
    """What a step shows, before anything is decided."""

    finite: jax.Array  # whether the step counts
    grads: Any  # or zeros
    value: jax.Array  # the loss, or the last one
    seen: observe.Observation
    observer: Any
    vector: jax.Array  # the features
    summary: features.Summary


def _read(
    fixed: Controller,
    state: controller.MetalrState,
    updates: Any,
    params: Any,
    value: jax.Array,
    where: coordinates.Layout,
    level: Callable[[Any], tuple[Callable, Any]],
) -> _Read:
    """Read a step: gradients, parameters and the loss."""
    log_level, log_area = level(params)
    squares = coordinates.squared_norms(updates, where)
    finite = jnp.isfinite(jnp.sum(squares)) & jnp.isfinite(value)
    finite, grads = _zeroed(finite, updates)
    value = jnp.where(finite, value, state.summary.last_value)
    observer, exact = _observer(fixed, state)
    seen, observer = observe.observe(
        grads,
        observer,
        params,
        where,
        value=value,
        squares=jnp.where(finite, squares, 0),
        log_level=log_level(state.lr_step),
        log_multiplier=jnp.log(state.lr_applied),
        exact_curvature=exact,
    )
    # Whoever differentiates a step holds the factor fixed.
    seen, observer = jax.lax.stop_gradient((seen, observer))
    vector, summary = features.update(
        seen,
        state.summary,
        step=state.lr_step,
        total_steps=fixed.total_steps,
        log_area=log_area,
    )
    return _Read(finite, grads, value, seen, observer, vector, summary)


def _observer(fixed: Controller, state: controller.MetalrState) -> tuple[Any, Any]:
    """Return what observes, and the last exact curvature if that is measured."""
    observer: Any = state.observer
    return observer if fixed.curvature_every else (observer, None)


@jax.custom_jvp
def _zeroed(finite: jax.Array, updates: Any) -> tuple[jax.Array, Any]:
    """Return whether a step is finite, and its gradients, or zeros where it is not.

    Skipping is a gradient of zero and an update that is dropped. To keep the moments as
    well, XLA:CPU would copy them, or write the update out, at every step. The loop,
    which does not run on a finite step, leaves the gradient where it is; a `cond` would
    copy it, and a `where` would be fused into the optimizer and round there in another
    order. What is returned is whether it ran: XLA would work out `finite` itself, a sum
    over all leaves, in the kernel of each leaf.
    """
    times = jnp.zeros((), jnp.int32)
    _, times, grads = jax.lax.while_loop(_pending, _blank, (finite, times, updates))
    return times == 0, grads


# Functions of the module, so that JAX knows them again in the next eager step.
def _pending(carry: tuple[jax.Array, jax.Array, Any]) -> jax.Array:
    finite, times, _ = carry
    return ~finite & (times == 0)


def _blank(carry: tuple[jax.Array, jax.Array, Any]) -> tuple[jax.Array, jax.Array, Any]:
    finite, times, updates = carry
    return finite, times + 1, jax.tree.map(jnp.zeros_like, updates)


@_zeroed.defjvp
def _zeroed_jvp(primals: Any, tangents: Any) -> Any:
    """Differentiate the choice: a loop could not be, in reverse mode."""
    finite, grads = _zeroed(*primals)
    no_tangent = np.zeros(finite.shape, jax.dtypes.float0)
    return (finite, grads), (no_tangent, _dropped(finite, tangents[1]))


def _dropped(finite: jax.Array, tree: Any) -> Any:
    """Return zeros in place of the arrays of a tree where a step is not finite."""

    def drop(leaf):
        if not is_trainable(leaf):
            return leaf
        return jnp.where(finite, leaf, jnp.zeros_like(leaf))

    return jax.tree.map(drop, tree)


def _forgetting(untouched: jax.Array, state: Any, first: Callable[[], Any]) -> Any:
    """Take the numbers of a state from the first one, where no step was taken yet.

    In a skipped step the inner optimizer is given the last loss again. Before the first
    step there is none, and whatever is given would be the best that a plateau has ever
    seen. Moments stay zero under a gradient of zero, and to choose between them would
    copy them. Most states hold no such number: their first one, whose moments an eager
    step would write out, is then not made.
    """

    def choose(path, leaf, its_first):
        if not _is_number(path, leaf):
            return leaf
        return jnp.where(untouched, its_first, leaf)

    if not any(_is_number(*found) for found in jax.tree.leaves_with_path(state)):
        return state
    return jax.tree.map_with_path(choose, state, first())


def _is_number(path: tuple, leaf: Any) -> bool:
    """Tell whether a leaf of a state is a number that is not injected."""
    if any(getattr(key, "name", "") == "hyperparams" for key in path):
        return False  # what `inject` has just put there
    return jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _exact_curvature(
    fixed: Controller,
    state: controller.MetalrState,
    last: Any,
    finite: jax.Array,
    params: Any,
    grads: Any,
    updates: Any,
    grad_fn: Callable | None,
    where: coordinates.Layout,
) -> jax.Array:
    """Measure the line curvature of a step every so often, and keep it between.

    For each unit of length, since a later link of a chain may scale the update.
    Skipped steps are not counted: the measurement is made up for in the next step.
    """
    if grad_fn is None:
        raise MetalrError(
            "`curvature_every` needs the extra argument `grad_fn=`, the gradient of "
            "the batch's loss as a function of the parameters. Pass it to `update`."
        )
    taken = state.lr_step - state.skipped_steps

    def measured() -> jax.Array:
        found = line_curvature(grad_fn, params, grads, updates)
        return observe.ratio(found, observe.norm(updates, where))

    due = finite & (taken % fixed.curvature_every == 0)
    return jax.lax.cond(due, measured, lambda: last)
