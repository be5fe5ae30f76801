"""What the predictor sees of a run: how it responds to its learning rate.

Features are a pure function of the observations of a run (`metalr.observe`). Every one
is a ratio, and of the loss only differences enter, measured by the decrease that the
gradient predicted for a step. So the loss may be scaled and shifted and the parameters
scaled, which changes no run while gradients keep a norm of 1e-15 to 1e9 (float32 holds
no squares of others), and nothing names the task, the model or the learning rate: log 2
at the start of two classes is as good as 5 at that of a span.
Batches make single-step ratios wild; a feature is therefore a ratio of running means,
not a running mean of ratios. `relative_rate`, of the same size at every step, is a mean
of logarithms.

The last rows, FACTS, say what is known of a run before it has responded: how large
the updates are beside the weights, how many matrices of what width are trained, how
long and under what schedule. They hold for any base rate and any optimizer.

A step before which nothing moved (a rate of 0, an accumulated micro-batch) is no
evidence: it changes neither the running means nor the features.

>>> from metalr import coordinates, observe
>>> params, grads = jnp.array([2.0, 1.0]), jnp.array([2.0, 1.0])
>>> where = coordinates.layout(params)
>>> seen, _ = observe.observe(grads, observe.init(params, where), params, where,
...                           value=2.5)
>>> vector, summary = update(seen, init(), step=0)
>>> vector.shape == (len(FEATURES),)
True
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalr.observe import TINY, Observation, bounded, float32, ratio

FEATURE_VERSION = 3  # raise it with every change of FEATURES or of what a row means


class Feature(NamedTuple):
    """One input of the predictor; values outside of [low, high] are clipped."""

    name: str
    formula: str
    low: float
    high: float


# E is a mean over some 8 steps, E' over some 32, E" over a tenth of the budget (of the
# steps so far, if that is unknown). L_0 is the mean over the first 8 steps. In formulas
# of slope and curvature u is u_{t-1}, g is g_t, and h is g_{t-1}.
FEATURES = (
    Feature("progress", "t / T, 0 if T is unknown", 0, 1),
    Feature("updates", "log10(1 + updates so far)", 0, 7),
    Feature("loss_recent", "asinh((E L - E' L) / E' abs(h.u))", -12, 12),
    Feature("loss_budget", "asinh((E L - E\" L) / E' abs(h.u))", -12, 12),
    Feature("loss_level", "asinh((E L - L_0) / E' abs(h.u))", -12, 12),
    Feature("loss_noise", "log(std' L / E' abs(h.u))", -12, 12),
    Feature("gradient_recent", "log(E |g| / E' |g|)", -3, 3),
    Feature("gradient_noise", "std' |g| / E' |g|", 0, 5),
    Feature("coherence", "log(|E g|^2 / E |g|^2)", -9, 1),
    Feature("alignment", "E' g.m / E' |g||m|, m = E g of the step before", -1, 1),
    Feature("slope", "E g.u / E |g||u|", -1, 1),
    Feature("slope_slow", "E' g.u / E' |g||u|", -1, 1),
    Feature("curvature", "E (g - h).u / E abs(h.u)", -5, 10),
    Feature("curvature_slow", "E' (g - h).u / E' abs(h.u)", -5, 10),
    Feature("gain_ratio", "asinh(E' (L_{t-1} - L_t) / E' abs(h.u))", -6, 6),
    Feature("straightness", "log(|theta_t - theta_0|^2 / sum |u|^2)", -7, 12),
    Feature("level", "log(schedule_t / its peak)", -7, 0),
    # FACTS from here on.
    Feature("relative_rate", "log2 m + E' log2(|u| / (m |theta| level))", -30, 6),
    Feature("matrices", "log2(1 + trained weight matrices)", 0, 14),
    Feature("width", "mean log2 of the sides of a trained matrix", 0, 16),
    Feature("evenness", "log2 of mean |u| / rms u at the first update", -8, 0),
    Feature("horizon_known", "1 if T is known, else 0", 0, 1),
    Feature("horizon", "log2 T, 0 if T is unknown", 0, 24),
    Feature("area", "log2 of the mean level over the budget", -4, 0),
)

NAMES = tuple(row.name for row in FEATURES)
FACTS = NAMES[NAMES.index("relative_rate") :]
STATIC = FACTS[1:]  # known before any step, and what the prior is of
# Their columns. JAX takes no index of 64 bits both inside and outside `enable_x64`.
OF_STATIC = np.array([NAMES.index(name) for name in STATIC], np.int32)
_FAST, _SLOW, _BUDGET = 0, 1, 2  # the windows of a running mean
_WINDOWS = (8.0, 32.0)  # steps; the third is a tenth of the budget


class Tracked(NamedTuple):
    """The quantities of a step whose running means make the features."""

    value: Any  # L_t
    value_spread: Any  # what makes the mean of it the variance of L, see `_spread`
    norm: Any  # |g_t|, of all coordinates
    norm_spread: Any
    alignment: Any  # g_t.m_{t-1}
    alignment_bound: Any  # |g_t||m_{t-1}|
    sample_sq: Any  # |g_t|^2, of the sample
    # Of an update, from here on.
    gain: Any  # L_{t-1} - L_t
    slope: Any  # g_t.u_{t-1}
    slope_bound: Any  # |g_t||u_{t-1}|
    curvature_term: Any  # (g_t - g_{t-1}).u_{t-1}
    predicted_decrease: Any  # abs(g_{t-1}.u_{t-1})
    log_unit: Any  # log(|u_{t-1}| / |theta_t|), less the logs of level and multiplier


_OF_UPDATES = Tracked._fields.index("gain")


class Summary(NamedTuple):
    """What is kept of the observations so far: scalars, float32."""

    means: jax.Array  # [3, len(Tracked)], one row a window
    counted_steps: jax.Array  # [] steps in the means
    counted_updates: jax.Array  # [] updates in the means
    initial_value: jax.Array  # [] L_0
    initial_spread: jax.Array  # [] standard deviation of L over the first 8 steps
    initial_evenness: jax.Array  # [] of the first update
    last_value: jax.Array  # [] L_{t-1}
    last_level: jax.Array  # [] log level of the step before
    path_length_sq: jax.Array  # [] sum of |u|^2
    last_features: jax.Array  # [F] of the last step that was evidence


def init() -> Summary:
    """Make the summary before the first observation."""
    zeros = lambda *shape: jnp.zeros(shape, jnp.float32)  # noqa: E731
    return Summary(
        means=zeros(3, len(Tracked._fields)),
        counted_steps=zeros(),
        counted_updates=zeros(),
        initial_value=zeros(),
        initial_spread=zeros(),
        initial_evenness=zeros(),
        last_value=zeros(),
        last_level=zeros(),
        path_length_sq=zeros(),
        last_features=zeros(len(FEATURES)),
    )


def update(
    seen: Observation,
    state: Summary,
    *,
    step: Any,
    total_steps: Any = None,
    log_area: Any = 0.0,
) -> tuple[jax.Array, Summary]:
    """Compute the features of a step, before its learning rate is chosen.

    Args:
      seen: The observation of the step.
      state: Summary of those before it.
      step: Steps so far, t: [].
      total_steps: Length of the run T, if known.
      log_area: log of the mean of schedule over its peak, over the budget: [].

    Returns:
      The features in the order of FEATURES, [F] float32, finite whatever the input (of
      the last step that was evidence, where this one is none); and the new summary, to
      be dropped with a step that is skipped.
    """
    # Before the first update there is a gradient, unless the step was skipped.
    first = state.counted_steps == 0
    counts = seen.moved | (first & (seen.norm > 0))
    budget = (float32(step) if total_steps is None else total_steps) / 10
    windows = jnp.stack(
        [jnp.float32(width) for width in _WINDOWS]
        + [jnp.maximum(float32(budget), _WINDOWS[_FAST])]
    )
    # A plain mean until the window is full, exponential after: no bias to correct.
    weights = 1 / jnp.minimum(state.counted_steps + 1, windows)
    of_updates = 1 / jnp.minimum(state.counted_updates + 1, windows)
    shares = jnp.concatenate(
        [
            jnp.broadcast_to(weights[:, None], (3, _OF_UPDATES)),
            jnp.broadcast_to(
                of_updates[:, None], (3, len(Tracked._fields) - _OF_UPDATES)
            ),
        ],
        axis=1,
    )
    # The first observation has no update before it.
    shares = jnp.where(
        first & (jnp.arange(len(Tracked._fields)) >= _OF_UPDATES)[None], 0, shares
    )
    tracked = _track(seen, state, weights[_SLOW])
    means = state.means + shares * (tracked[None] - state.means)
    fast, slow = Tracked(*means[_FAST]), Tracked(*means[_SLOW])
    early = state.counted_steps < _WINDOWS[_FAST]
    evenness = jnp.log2(jnp.maximum(seen.update_abs, TINY))
    new = Summary(
        means=means,
        counted_steps=state.counted_steps + 1,
        counted_updates=state.counted_updates + float32(seen.moved),
        initial_value=jnp.where(early, fast.value, state.initial_value),
        initial_spread=jnp.where(
            early,
            jnp.sqrt(jnp.maximum(slow.value_spread, 0)),
            state.initial_spread,
        ),
        initial_evenness=jnp.where(
            (state.counted_updates == 0) & seen.moved, evenness, state.initial_evenness
        ),
        last_value=seen.value,
        last_level=seen.log_level,
        path_length_sq=bounded(state.path_length_sq + seen.update_norm**2),
        last_features=state.last_features,
    )
    clock = (float32(step), total_steps, float32(log_area))
    vector = jnp.where(counts, _vector(seen, new, clock), state.last_features)
    kept = jax.tree.map(lambda x, y: jnp.where(counts, x, y), new, state)
    return vector, kept._replace(
        last_value=new.last_value, last_level=new.last_level, last_features=vector
    )


def of_trace(
    trace: Observation, total_steps: Any = None, log_area: Any = 0.0
) -> jax.Array:
    """Compute the features of a recorded run, as the transformation saw them.

    Args:
      trace: The observations of its steps: [T] each.
      total_steps: Length of the run as it was known to it.
      log_area: As in `update`.

    Returns:
      The features: [T, F].
    """

    def body(state: Summary, step_and_seen: Any) -> tuple[Summary, jax.Array]:
        step, seen = step_and_seen
        vector, state = update(
            seen, state, step=step, total_steps=total_steps, log_area=log_area
        )
        return state, vector

    steps = jnp.arange(len(trace.value))
    return jax.lax.scan(body, init(), (steps, trace))[1]


def has_left_start(state: Summary) -> jax.Array:
    """Tell whether the loss is below its start by twice its noise there: [] bool."""
    fallen = state.initial_value - state.means[_FAST][0]
    return (state.counted_steps >= _WINDOWS[_FAST]) & (
        fallen > 2 * state.initial_spread
    )


def is_diverging(state: Summary) -> jax.Array:
    """Tell whether the loss is well above its start: [] bool.

    By a quarter of its start, or by four times its noise there, whichever is more, so
    that it holds for losses of either sign.
    """
    risen = state.means[_FAST][0] - state.initial_value
    margin = jnp.maximum(abs(state.initial_value) / 4, 4 * state.initial_spread)
    return (state.counted_steps > _WINDOWS[_FAST]) & (risen > margin)


def _track(seen: Observation, state: Summary, weight: jax.Array) -> jax.Array:
    """Return the step's `Tracked` as a vector; `weight` is its own in E'."""
    before_it = Tracked(*state.means[_SLOW])
    unit = _log_ratio(seen.update_norm, seen.param_norm)
    tracked = Tracked(
        value=seen.value,
        value_spread=_spread(seen.value, before_it.value, weight),
        norm=seen.norm,
        norm_spread=_spread(seen.norm, before_it.norm, weight),
        alignment=seen.alignment,
        alignment_bound=seen.sample_norm * seen.mean_norm_before,
        sample_sq=seen.sample_norm**2,
        gain=state.last_value - seen.value,
        slope=seen.slope,
        slope_bound=seen.sample_norm * seen.update_norm,
        curvature_term=seen.slope - seen.slope_before,
        predicted_decrease=jnp.abs(seen.slope_before),
        log_unit=unit - state.last_level - seen.log_multiplier,
    )
    return bounded(jnp.stack(tracked))


def _vector(seen: Observation, state: Summary, clock: tuple) -> jax.Array:
    """Put the features in the order of FEATURES, and within their bounds."""
    step, total_steps, log_area = clock
    known = total_steps is not None
    mean = Tracked(*state.means.T)  # each [3], one value a window
    slope = ratio(mean.slope, mean.slope_bound)
    curvature = ratio(mean.curvature_term, mean.predicted_decrease)
    # How many steps a change of the loss is worth, by what was predicted of one.
    predicted = mean.predicted_decrease[_SLOW]
    in_steps = lambda x: jnp.arcsinh(ratio(x, predicted))  # noqa: E731
    noise = _log_ratio(jnp.sqrt(mean.value_spread[_SLOW]), predicted)
    vector = (
        step / total_steps if total_steps is not None else 0.0,
        jnp.log10(1 + state.counted_updates),
        in_steps(mean.value[_FAST] - mean.value[_SLOW]),
        in_steps(mean.value[_FAST] - mean.value[_BUDGET]),
        in_steps(mean.value[_FAST] - state.initial_value),
        jnp.where(predicted > 0, noise, 0),  # else it is of rounding
        _log_ratio(mean.norm[_FAST], mean.norm[_SLOW]),
        ratio(jnp.sqrt(mean.norm_spread[_SLOW]), mean.norm[_SLOW]),
        _log_ratio(seen.mean_norm**2, mean.sample_sq[_FAST]),
        ratio(mean.alignment, mean.alignment_bound)[_SLOW],
        slope[_FAST],
        slope[_SLOW],
        curvature[_FAST],
        curvature[_SLOW],
        in_steps(mean.gain[_SLOW]),
        _log_ratio(seen.path_norm**2, state.path_length_sq),
        seen.log_level,
        (mean.log_unit[_SLOW] + seen.log_multiplier) / jnp.log(2.0),
        jnp.log2(1 + seen.matrices),
        seen.width,
        state.initial_evenness,
        float(known),
        jnp.log2(float32(total_steps)) if known else 0.0,
        log_area / jnp.log(2.0),
    )
    low, high = (float32([row[column] for row in FEATURES]) for column in (2, 3))
    return jnp.clip(jnp.nan_to_num(jnp.stack([*map(float32, vector)])), low, high)


def _log_ratio(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """Take log(top / bottom); 0 if neither is positive."""
    return jnp.log(jnp.maximum(top, TINY)) - jnp.log(jnp.maximum(bottom, TINY))


def _spread(x: jax.Array, mean: jax.Array, weight: jax.Array) -> jax.Array:
    """Return (1 - w) (x - mean)^2, of which the running mean is the variance of x.

    With the mean before x. E x^2 - (E x)^2 is the same number, and lost to rounding
    where x hardly varies (Welford 1962, for weights that forget).
    """
    return (1 - weight) * bounded(x - mean) ** 2
