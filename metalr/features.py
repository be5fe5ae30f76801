"""What the predictor sees of a run: how it answers to its learning rate.

Let L_t be the loss, g_t the gradient and theta_t the parameters at step t, and let
u_{t-1} = theta_t - theta_{t-1} be the update that was applied before it. Every feature
is a ratio, and of the loss only differences enter, measured by what the gradient
promised of a step. So the loss may be scaled and shifted and the parameters scaled at
will, which changes no run, and nothing names the task, the model or the absolute
learning rate: log 2 at the start of two classes is as good as 5 at that of a span.
Batches make single-step ratios wild; a feature is therefore a ratio of running means,
never a running mean of ratios.

Inner products come from a fixed sample of coordinates, see `metalr.coordinates`. The
update is read off the parameters, one step late: it is what really was applied, and the
optimizer's own output need not be touched.

>>> params, grads = jnp.array([2.0, 1.0]), jnp.array([2.0, 1.0])
>>> vector, state = update(grads, init(params), params, value=2.5, step=0)
>>> vector.shape == (len(FEATURES),)
True
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metalr.coordinates import STRIDE, sample, squared_norm

FEATURE_VERSION = 2  # raise it with every change of FEATURES or of what a row means


class Feature(NamedTuple):
    """One input of the predictor; values outside of [low, high] are clipped."""

    name: str
    formula: str
    low: float
    high: float


# E is a mean over some 8 steps, E' over some 32, E" over a tenth of the budget (of the
# steps so far, if that is unknown). L_0 and g_0 are means over the first 8 steps. In
# formulas of slope and curvature u is u_{t-1}, g is g_t, and h is g_{t-1}.
FEATURES = (
    Feature("progress", "t / T, 0 if T is unknown", 0, 1),
    Feature("horizon_known", "1 if T is known, else 0", 0, 1),
    Feature("horizon", "log10 T, 0 if T is unknown", 0, 7),
    Feature("steps", "log10(1 + t)", 0, 7),
    Feature("loss_recent", "asinh((E L - E' L) / E' abs(h.u))", -12, 12),
    Feature("loss_budget", "asinh((E L - E\" L) / E' abs(h.u))", -12, 12),
    Feature("loss_level", "asinh((E L - L_0) / E' abs(h.u))", -12, 12),
    Feature("loss_noise", "log(std' L / E' abs(h.u))", -12, 12),
    Feature("gradient_recent", "log(E |g| / E' |g|)", -3, 3),
    Feature("gradient_level", "log(E |g| / |g_0|)", -9, 9),
    Feature("gradient_noise", "std' |g| / E' |g|", 0, 5),
    Feature("coherence", "log(|E g|^2 / E |g|^2)", -9, 1),
    Feature("alignment", "E' g.m / E' |g||m|, m = E g of the step before", -1, 1),
    Feature("slope", "E g.u / E |g||u|", -1, 1),
    Feature("slope_slow", "E' g.u / E' |g||u|", -1, 1),
    Feature("curvature", "E (g - h).u / E abs(h.u)", -5, 10),
    Feature("curvature_slow", "E' (g - h).u / E' abs(h.u)", -5, 10),
    Feature("gain_ratio", "asinh(E' (L_{t-1} - L_t) / E' abs(h.u))", -6, 6),
    Feature("relative_update", "log(|u| / |theta|)", -20, 3),
    Feature("distance", "log(|theta_t - theta_0| / |theta|)", -20, 3),
    Feature("straightness", "log(|theta_t - theta_0|^2 / sum |u|^2)", -7, 12),
    Feature("multiplier", "log m_{t-1}", -7, 7),
    Feature("multiplier_trend", "log m_{t-1} - E' log m", -7, 7),
    Feature("prior", "log(schedule_t / its peak)", -7, 0),
)

NAMES = tuple(row.name for row in FEATURES)

# Where in the budget a step is: a run longer than those of training is no strange run.
CLOCK = ("progress", "horizon_known", "horizon", "steps")
_FAST, _SLOW, _BUDGET = 0, 1, 2  # the windows of a running mean
_WINDOWS = (8.0, 32.0)  # steps; the third is a tenth of the budget
_LARGE = 1e18  # its square is still finite in float32
_TINY = 1e-30


class Tracked(NamedTuple):
    """The quantities of a step whose running means make the features."""

    value: Any  # L_t
    value_spread: Any  # what makes the mean of it the variance of L, see `_spread`
    norm: Any  # |g_t|, of all coordinates
    norm_spread: Any
    gain: Any  # L_{t-1} - L_t
    slope: Any  # g_t.u_{t-1}
    slope_bound: Any  # |g_t||u_{t-1}|
    bend: Any  # (g_t - g_{t-1}).u_{t-1}
    promise: Any  # abs(g_{t-1}.u_{t-1})
    alignment: Any  # g_t.m_{t-1}
    alignment_bound: Any  # |g_t||m_{t-1}|
    sample_sq: Any  # |g_t|^2, of the sample
    log_multiplier: Any  # log m_{t-1}


class FeatureState(NamedTuple):
    """What is kept of the past: four samples and a few scalars, all float32."""

    sampled_params: jax.Array  # [n] theta_{t-1}
    sampled_start: jax.Array  # [n] theta_0
    sampled_grads: jax.Array  # [n] g_{t-1}
    sampled_mean: jax.Array  # [n] E g
    means: jax.Array  # [3, len(Tracked)], one row a window
    seen: jax.Array  # [] steps so far
    opening: jax.Array  # [2] L_0 and |g_0|
    last_value: jax.Array  # [] L_{t-1}
    energy: jax.Array  # [] sum of |u|^2
    exact_curvature: jax.Array | None  # [] see `line_curvature`; None: g - h is used


def init(
    params: Any, *, stride: int = STRIDE, exact_curvature: bool = False
) -> FeatureState:
    """Makes the state before the first step.

    Args:
      params: Parameters theta_0.
      stride: As in `metalr.coordinates.sample`.
      exact_curvature: Whether the caller sets the state's `exact_curvature`.
    """

    def zeros(*shape: int) -> jax.Array:
        return jnp.zeros(shape, jnp.float32)

    # Two samples, not one twice: both are donated to the step that replaces them.
    theta, start = (_bounded(sample(params, stride)) for _ in range(2))
    return FeatureState(
        sampled_params=theta,
        sampled_start=start,
        sampled_grads=jnp.zeros_like(theta),
        sampled_mean=jnp.zeros_like(theta),
        means=zeros(3, len(Tracked._fields)),
        seen=zeros(),
        opening=zeros(2),
        last_value=zeros(),
        energy=zeros(),
        exact_curvature=zeros() if exact_curvature else None,
    )


def update(
    grads: Any,
    state: FeatureState,
    params: Any,
    *,
    value: Any,
    step: Any,
    norm_sq: Any = None,
    total_steps: int | None = None,
    log_multiplier: Any = 0.0,
    log_prior: Any = 0.0,
    stride: int = STRIDE,
) -> tuple[jax.Array, FeatureState]:
    """Computes the features of a step, before its learning rate is chosen.

    Args:
      grads: Gradients g_t.
      state: State after the last step.
      params: Parameters theta_t, which the gradients were taken at.
      value: Loss L_t: [].
      step: Steps so far, t: [].
      norm_sq: `squared_norm(grads)`, if the caller has it already: [].
      total_steps: Length of the run T, if known.
      log_multiplier: log m_{t-1}, as applied in the last step: [].
      log_prior: log(schedule_t / its peak): [].
      stride: As in `init`.

    Returns:
      The features in the order of FEATURES, [F] float32, finite whatever the input;
      and the new state, to be dropped with a step that is skipped.
    """
    value, step = _bounded(_float32(value)), _float32(step)
    norm = jnp.sqrt(squared_norm(grads) if norm_sq is None else norm_sq)
    gradient, theta = (_bounded(sample(tree, stride)) for tree in (grads, params))
    moved = theta - state.sampled_params

    budget = (step if total_steps is None else total_steps) / 10
    windows = jnp.stack(
        [jnp.float32(width) for width in _WINDOWS]
        + [jnp.maximum(_float32(budget), _WINDOWS[_FAST])]
    )
    # A plain mean until the window is full, exponential after: no bias to correct.
    weights = 1 / jnp.minimum(state.seen + 1, windows)
    tracked = _track(
        state, gradient, moved, value, norm, log_multiplier, weights[_SLOW]
    )
    means = state.means + weights[:, None] * (tracked[None] - state.means)
    mean = state.sampled_mean + weights[_FAST] * (gradient - state.sampled_mean)
    fast = Tracked(*means[_FAST])
    opening = jnp.where(
        state.seen < _WINDOWS[_FAST], jnp.stack([fast.value, fast.norm]), state.opening
    )
    state = state._replace(
        sampled_params=theta,
        sampled_grads=gradient,
        sampled_mean=mean,
        means=means,
        seen=state.seen + 1,
        opening=opening,
        last_value=value,
        energy=_bounded(state.energy + _dot(moved, moved)),
    )
    clock = _clock(step, total_steps)
    own = (_float32(log_multiplier), _float32(log_prior))
    return _vector(state, moved, clock, own), state


def log_rise(state: FeatureState) -> jax.Array:
    """Takes log(E L / L_0) of the state after a step; 0 unless both are positive."""
    now, start = state.means[_FAST][0], state.opening[0]
    return jnp.where((now > 0) & (start > 0), _log_ratio(now, start), 0)


def line_curvature(
    grad_fn: Callable[[Any], Any], params: Any, grads: Any, updates: Any
) -> jax.Array:
    """Computes u'Hu / abs(g'u): 1 if u ends at its line's minimum, 2 at the edge.

    One forward-mode product of the gradient, on all coordinates and without the noise
    between two batches.

    Args:
      grad_fn: Gradient of the batch's loss as a function of the parameters.
      params: Parameters.
      grads: Their gradient.
      updates: The update u.

    >>> hessian, theta = jnp.array([1.0, 4.0]), jnp.array([1.0, 1.0])
    >>> grad_fn = lambda params: hessian * params
    >>> to_minimum = jnp.array([0.0, -1.0])  # along the second axis
    >>> print(line_curvature(grad_fn, theta, grad_fn(theta), to_minimum))
    1.0
    """

    def dot(tree: Any) -> jax.Array:
        products = jax.tree.map(
            lambda x, y: jnp.sum(_float32(x) * _float32(y)), tree, updates
        )
        return _float32(sum(jax.tree.leaves(products)))

    tangents = jax.tree.map(lambda u, theta: u.astype(theta.dtype), updates, params)
    _, product = jax.jvp(grad_fn, (params,), (tangents,))
    return _bounded(_ratio(dot(product), jnp.abs(dot(grads))))


def _track(
    state: FeatureState,
    gradient: jax.Array,
    moved: jax.Array,
    value: jax.Array,
    norm: jax.Array,
    log_multiplier: Any,
    weight: jax.Array,
) -> jax.Array:
    """Returns the step's `Tracked` as a vector; `weight` is its own in E'."""
    before_it = Tracked(*state.means[_SLOW])
    sample_sq, mean_sq = _dot(gradient, gradient), _norm(state.sampled_mean) ** 2
    slope, before = _dot(gradient, moved), _dot(state.sampled_grads, moved)
    bend = slope - before
    if state.exact_curvature is not None:
        bend = state.exact_curvature * jnp.abs(before)
    tracked = Tracked(
        value=value,
        value_spread=_spread(value, before_it.value, weight),
        norm=norm,
        norm_spread=_spread(norm, before_it.norm, weight),
        gain=jnp.where(state.seen > 0, state.last_value - value, 0),
        slope=slope,
        slope_bound=jnp.sqrt(sample_sq) * _norm(moved),
        bend=bend,
        promise=jnp.abs(before),
        alignment=_dot(gradient, state.sampled_mean),
        alignment_bound=jnp.sqrt(sample_sq) * jnp.sqrt(mean_sq),
        sample_sq=sample_sq,
        log_multiplier=_float32(log_multiplier),
    )
    return _bounded(jnp.stack(tracked))


def _clock(step: jax.Array, total_steps: int | None) -> tuple:
    steps = jnp.log10(1 + step)
    if total_steps is None:
        return 0.0, 0.0, 0.0, steps
    return step / total_steps, 1.0, jnp.log10(_float32(total_steps)), steps


def _vector(
    state: FeatureState, moved: jax.Array, clock: tuple, own: tuple
) -> jax.Array:
    """Puts the features in the order of FEATURES, and within their bounds."""
    mean = Tracked(*state.means.T)  # each [3], one value a window
    slope = _ratio(mean.slope, mean.slope_bound)
    curvature = _ratio(mean.bend, mean.promise)
    theta, path = state.sampled_params, state.sampled_params - state.sampled_start
    log_multiplier, log_prior = own
    # How many steps a change of the loss is worth, by what the gradient promised one.
    promised = lambda x: jnp.arcsinh(_ratio(x, mean.promise[_SLOW]))  # noqa: E731
    noise = _log_ratio(jnp.sqrt(mean.value_spread[_SLOW]), mean.promise[_SLOW])
    noise = jnp.where(mean.promise[_SLOW] > 0, noise, 0)  # else it is of rounding
    vector = (
        *clock,
        promised(mean.value[_FAST] - mean.value[_SLOW]),
        promised(mean.value[_FAST] - mean.value[_BUDGET]),
        promised(mean.value[_FAST] - state.opening[0]),
        noise,
        _log_ratio(mean.norm[_FAST], mean.norm[_SLOW]),
        _log_ratio(mean.norm[_FAST], state.opening[1]),
        _ratio(jnp.sqrt(mean.norm_spread[_SLOW]), mean.norm[_SLOW]),
        _log_ratio(_norm(state.sampled_mean) ** 2, mean.sample_sq[_FAST]),
        _ratio(mean.alignment, mean.alignment_bound)[_SLOW],
        slope[_FAST],
        slope[_SLOW],
        curvature[_FAST],
        curvature[_SLOW],
        promised(mean.gain[_SLOW]),
        _log_ratio(_norm(moved), _norm(theta)),
        _log_ratio(_norm(path), _norm(theta)),
        _log_ratio(_dot(path, path), state.energy),
        log_multiplier,
        log_multiplier - mean.log_multiplier[_SLOW],
        log_prior,
    )
    low, high = (_float32([row[column] for row in FEATURES]) for column in (2, 3))
    return jnp.clip(jnp.nan_to_num(jnp.stack([*map(_float32, vector)])), low, high)


def _float32(x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def _bounded(x: jax.Array) -> jax.Array:
    return jnp.clip(jnp.nan_to_num(x, posinf=_LARGE, neginf=-_LARGE), -_LARGE, _LARGE)


def _dot(left: jax.Array, right: jax.Array) -> jax.Array:
    return _bounded(jnp.vdot(left, right))


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(_dot(x, x))


def _ratio(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """Divides by a bottom that is not negative; 0 / 0 is 0."""
    return top / jnp.maximum(bottom, _TINY)


def _log_ratio(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """Takes log(top / bottom); 0 if neither is positive."""
    return jnp.log(jnp.maximum(top, _TINY)) - jnp.log(jnp.maximum(bottom, _TINY))


def _spread(x: jax.Array, mean: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns (1 - w) (x - mean)^2, of which the running mean is the variance of x.

    With the mean before x. E x^2 - (E x)^2 is the same number, and lost to rounding
    where x hardly varies (Welford 1962, for weights that forget).
    """
    return (1 - weight) * _bounded(x - mean) ** 2
