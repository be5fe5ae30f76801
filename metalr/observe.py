"""What is read off a step of training: a few numbers, from which all features follow.

Let L_t be the loss, g_t the gradient and theta_t the parameters at step t, and let
u_{t-1} = theta_t - theta_{t-1} be the update that was applied before it. The update is
read off the parameters, one step late: it is what really was applied, whatever stands
around the optimizer, whose own output need not be touched.

Inner products come from a fixed sample of coordinates, see `metalr.coordinates`, of the
leaves that have moved since the start: what is frozen, masked or trained by another
optimizer changes no number, wherever the transformation stands.

A recorded run is these numbers at each step; features are a pure function of them
(`metalr.features`), so that another feature never costs another collection.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metalr.coordinates import (
    Block,
    Layout,
    by_block,
    reduce_blocks,
    sample,
    squared_norms,
)

_LARGE = 1e18  # its square is still finite in float32
TINY = 1e-30  # in place of a bottom of 0
_WINDOW = 8.0  # steps in the mean E of the gradient


class Observation(NamedTuple):
    """The numbers of step t, before its rate is chosen: [] float32, [T] of a trace."""

    value: Any  # L_t
    norm: Any  # |g_t|, of all coordinates
    sample_norm: Any  # |g_t|, of the sample, as all that follow
    slope: Any  # g_t.u_{t-1}
    slope_before: Any  # g_{t-1}.u_{t-1}
    alignment: Any  # g_t.m_{t-1}, where m = E g
    mean_norm_before: Any  # |m_{t-1}|
    mean_norm: Any  # |m_t|
    update_norm: Any  # |u_{t-1}|; 0: nothing moved
    # Mean |u| / root mean square of u: 1 if all moved as far, a little less where the
    # strides differ, since the sample of each leaf is scaled to its norm.
    update_abs: Any
    param_norm: Any  # |theta_t|
    path_norm: Any  # |theta_t - theta_0|
    leaf_update: Any  # median over leaves of log(|u| / |theta|)
    matrices: Any  # number of weight matrices that are trained
    width: Any  # log2 of the geometric mean of their sides
    log_level: Any  # log(schedule_t / its peak)
    log_multiplier: Any  # log m_{t-1}, as applied in the step before

    @property
    def moved(self) -> Any:
        """Whether an update was applied since the last observation."""
        return self.update_norm > 0


class ObserverState(NamedTuple):
    """What is kept of the past: four samples, float32."""

    sampled_params: jax.Array  # [n] theta_{t-1}
    sampled_start: jax.Array  # [n] theta_0
    sampled_grads: jax.Array  # [n] g_{t-1}
    sampled_mean: jax.Array  # [n] E g
    observed_steps: jax.Array  # []


def init(params: Any, where: Layout) -> ObserverState:
    """Make the state before the first step, at parameters theta_0."""
    # Two samples, not one twice: both are donated to the step that replaces them.
    theta, start = (bounded(sample(params, where)) for _ in range(2))
    return ObserverState(
        sampled_params=theta,
        sampled_start=start,
        sampled_grads=jnp.zeros_like(theta),
        sampled_mean=jnp.zeros_like(theta),
        observed_steps=jnp.zeros((), jnp.float32),
    )


def observe(
    grads: Any,
    state: ObserverState,
    params: Any,
    where: Layout,
    *,
    value: Any,
    squares: Any = None,
    log_level: Any = 0.0,
    log_multiplier: Any = 0.0,
    exact_curvature: Any = None,
) -> tuple[Observation, ObserverState]:
    """Read the numbers of a step.

    Args:
      grads: Gradients g_t.
      state: State after the last step.
      params: Parameters theta_t, which the gradients were taken at.
      where: `coordinates.layout(params)`.
      value: Loss L_t: [].
      squares: `squared_norms(grads, where)`, if the caller has it already: [blocks].
      log_level: log(schedule_t / its peak): [].
      log_multiplier: log m_{t-1}, as applied in the last step: [].
      exact_curvature: u'Hu / abs(g'u), see `metalr.curvature`, for each unit of u's
        norm: what has moved may be a multiple of the update that was measured. None: it
        is estimated from the gradients of two batches.

    Returns:
      The numbers, finite whatever the input; and the new state, to be dropped with a
      step that is skipped.
    """
    squares = squared_norms(grads, where) if squares is None else squares
    gradient, theta = (bounded(sample(tree, where)) for tree in (grads, params))
    trained = reduce_blocks(_any, theta - state.sampled_start, where)
    trained = trained | ~jnp.any(trained)  # before the first update: all that may be
    kept = by_block(trained.astype(jnp.float32), where)
    gradient, own = gradient * kept, theta * kept
    moved = theta - state.sampled_params
    before, mean_before = state.sampled_grads, state.sampled_mean * kept
    weight = 1 / jnp.minimum(state.observed_steps + 1, _WINDOW)
    mean = mean_before + weight * (gradient - mean_before)
    slope, slope_before = _dot(gradient, moved), _dot(before, moved)
    update_norm, coordinates = _norm(moved), jnp.maximum(jnp.sum(kept), 1)
    if exact_curvature is not None:
        slope = slope_before + exact_curvature * update_norm * jnp.abs(slope_before)
    matrices, width = _shape_facts(where, trained)
    seen = Observation(
        value=float32(value),
        norm=jnp.sqrt(jnp.sum(jnp.where(trained, squares, 0))),
        sample_norm=_norm(gradient),
        slope=slope,
        slope_before=slope_before,
        alignment=_dot(gradient, mean_before),
        mean_norm_before=_norm(mean_before),
        mean_norm=_norm(mean),
        update_norm=update_norm,
        update_abs=ratio(jnp.sum(jnp.abs(moved)), update_norm * jnp.sqrt(coordinates)),
        param_norm=_norm(own),
        path_norm=_norm(theta - state.sampled_start),
        leaf_update=_leaf_update(moved, theta, trained, where),
        matrices=matrices,
        width=width,
        log_level=float32(log_level),
        log_multiplier=float32(log_multiplier),
    )
    return Observation(*bounded(jnp.stack(seen))), ObserverState(
        sampled_params=theta,
        sampled_start=state.sampled_start,
        sampled_grads=gradient,
        sampled_mean=mean,
        observed_steps=state.observed_steps + 1,
    )


def norm(tree: Any, where: Layout) -> jax.Array:
    """Estimate the norm of a tree from its sample: [] float32."""
    return _norm(bounded(sample(tree, where)))


def _shape_facts(where: Layout, trained: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Count the trained weight matrices and take the mean log2 of their sides."""
    facts = [_matrices(block) for block in where.blocks]
    counts = jnp.asarray([count for count, _ in facts] or [0.0], jnp.float32)
    widths = jnp.asarray([width for _, width in facts] or [0.0], jnp.float32)
    shares = counts * (float32(trained) if facts else 0.0)
    total = jnp.sum(shares)
    return total, ratio(jnp.sum(shares * widths), total)


def _matrices(block: Block) -> tuple[float, float]:
    """Return how many matrices a leaf holds and log2 of the mean of their sides.

    A leaf of three axes whose first is short is a stack of layers; any other leaf of
    more than two axes is one map from all axes but the last.
    """
    shape = block.shape
    if len(shape) < 2:
        return 0.0, 0.0
    stacked = len(shape) == 3 and shape[0] <= 64 and shape[0] < shape[1]
    count, shape = (shape[0], shape[1:]) if stacked else (1, shape)
    return float(count), math.log2(math.prod(shape[:-1]) * shape[-1]) / 2


def _leaf_update(
    moved: jax.Array, theta: jax.Array, trained: jax.Array, where: Layout
) -> jax.Array:
    """Return the median over trained leaves of log(|u| / |theta|); zeros left out."""
    if not where.blocks:
        return jnp.zeros((), jnp.float32)
    squares = reduce_blocks(_squares, jnp.stack([moved, theta]), where)
    known = jnp.all((squares > 0) & (squares < _LARGE), axis=0) & trained
    safe = jnp.log(jnp.where(known, squares, 1))
    # Unknown ones go to the end: a NaN as their mark would stop `jax_debug_nans`.
    logs = jnp.sort(jnp.where(known, (safe[0] - safe[1]) / 2, jnp.inf))
    count = jnp.sum(known)
    middle = jnp.maximum(jnp.stack([count - 1, count]) // 2, 0)
    return jnp.where(count > 0, jnp.mean(logs[middle]), 0)


def _squares(blocks: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(blocks), -1)


def _any(blocks: jax.Array) -> jax.Array:
    return jnp.any(blocks != 0, -1)


def float32(x: Any) -> jax.Array:
    """Return an array of float32."""
    return jnp.asarray(x, jnp.float32)


def bounded(x: Any) -> jax.Array:
    """Return float32 whose square is finite, NaN as 0."""
    x = float32(x)
    return jnp.clip(jnp.where(jnp.isnan(x), 0, x), -_LARGE, _LARGE)


def _dot(left: jax.Array, right: jax.Array) -> jax.Array:
    return bounded(jnp.vdot(left, right))


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(_dot(x, x))


def ratio(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """Divide by a bottom that is not negative; 0 / 0 is 0."""
    return top / jnp.maximum(bottom, TINY)
