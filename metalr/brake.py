"""When a run diverges, and how far its rate is to be cut, whatever else is known."""

import jax
import jax.numpy as jnp

from metalr import features
from metalr.observe import Observation

_STEADY = 0.25  # octaves taken by each step while the loss is well above its start
# Twice in a row so many times the slope along the update, and against it: the run will
# overflow within steps. Runs that end below their start hardly ever show it.
_OVERSHOT = 4.0
# A slope before an update counts as at least this share of what it would be along the
# mean gradient: noise has slopes near 0 there, and beside those any slope is large.
_ALONG = 0.25
_MOST = 24.0  # octaves; the bound of the multiplier is narrower


def octaves(
    seen: Observation,
    last: Observation,
    summary: features.Summary,
    before: features.Summary,
) -> jax.Array:
    """Return the octaves to take from the rate; 0 for a run that is well.

    Means over 8 steps tell a rise of the loss from noise. A loss that grows a
    thousandfold a step would not wait for them: there each of the last two updates went
    far over the minimum along its line. The slope along the line is that before the
    update times 1 - rate * curvature, and the rate over this growth is about the best
    one.

    Args:
      seen: The observation of a step, after an update.
      last: Of the step after the update before it.
      summary: Of the run, this step included.
      before: Of the run, without it.
    """
    overshot = _overshot(seen) & _overshot(last)
    start = before.initial_value
    risen = (seen.value > last.value) & (seen.value - start > jnp.abs(start) / 4)
    growth = jnp.log2(seen.slope / _slope_before(seen))
    steady = jnp.where(features.is_diverging(summary), _STEADY, 0)
    # Where nothing runs away the growth may be of a slope of either sign, and NaN.
    return jnp.where(overshot & risen, jnp.clip(growth, _STEADY, _MOST), steady)


def _overshot(seen: Observation) -> jax.Array:
    return seen.moved & (seen.slope > _OVERSHOT * _slope_before(seen))


def _slope_before(seen: Observation) -> jax.Array:
    """Return the size of the slope along an update before it was applied: []."""
    least = _ALONG * seen.mean_norm_before * seen.update_norm
    return jnp.maximum(jnp.maximum(jnp.abs(seen.slope_before), least), 1e-18)
