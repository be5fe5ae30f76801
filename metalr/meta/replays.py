"""What the controller would have known at each step of recorded runs.

A recorded run is a probe that was never asked: its features say what metalr would have
made of it. The controller's own fusion (`metalr.controller.decide`) goes over them,
with the multiplier held at what was recorded.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalr import controller, features
from metalr.controller import MAX_MULTIPLIER
from metalr.finding.probe import NO_GUESS
from metalr.meta import traces
from metalr.observe import Observation
from metalr.predictor import Predictor, distance

_MOVED = Observation._fields.index("update_norm")


class Replay(NamedTuple):
    """What is known at each step of some runs: [R, N], NaN after the end of a run."""

    mean: np.ndarray  # log2 of the best peak rate
    variance: np.ndarray  # octaves^2
    distance: np.ndarray  # of the features from training


def replay(predictor: Predictor, runs: Sequence[traces.Run], steps: int) -> Replay:
    """Go over the first steps of runs.

    Args:
      predictor: Whose knowledge it is.
      runs: The runs.
      steps: N, of each at most.
    """
    shape = (len(runs), steps)
    vectors = np.zeros((*shape, runs[0].features.shape[1]), np.float32)
    before, moved = np.zeros(shape, np.float32), np.zeros(shape, bool)
    for row, run in enumerate(runs):
        n = min(steps, run.steps)
        vectors[row, :n] = run.features[:n]
        before[row, 1:n] = np.log2(run.multiplier[: n - 1])
        moved[row, 1:n] = (
            True if run.observations is None else run.observations[1:n, _MOVED] > 0
        )
    base = np.log2([run.about["base_rate"] for run in runs])
    predictor = predictor._replace(base_variance=np.float32(NO_GUESS))
    found = jax.device_get(_over_runs(predictor, vectors, before, moved))
    there = np.arange(steps) < np.array([run.steps for run in runs])[:, None]
    mean, variance, apart = (np.where(there, x, np.nan) for x in found)
    return Replay(mean + base[:, None], variance, apart)


@jax.jit
def _over_runs(predictor: Predictor, vectors: Any, before: Any, moved: Any) -> Any:
    each = functools.partial(_over_steps, predictor)
    return jax.vmap(each)(vectors, before, moved)


def _over_steps(predictor: Predictor, vectors: Any, before: Any, moved: Any) -> Any:
    fixed = controller.new_controller(
        predictor,
        total_steps=None,
        max_multiplier=MAX_MULTIPLIER,
        trust=0.0,
        log_multiplier=None,
        explore=None,
        curvature_every=0,
        stride=1,
    )
    first: Any = controller.zero_state(fixed, None, None)  # type: ignore[arg-type]

    def step(carry: Any, row: Any) -> Any:
        state, updates = carry
        vector, log2_before, has_moved = row
        updates = updates + has_moved
        state = state._replace(lr_applied=jnp.exp2(log2_before))
        seen = Observation(*[jnp.zeros(())] * len(Observation._fields))
        seen = seen._replace(update_norm=jnp.asarray(has_moved, jnp.float32))
        summary = features.init()._replace(counted_updates=updates)
        state = controller.decide(fixed, state, seen, vector, summary, jnp.bool_(True))
        apart = distance(predictor.seen, vector)
        return (state, updates), (state.lr_mean, state.lr_variance, apart)

    start = (first, jnp.zeros(()))
    return jax.lax.scan(step, start, (vectors, before, moved))[1]
