"""A short probe of a run, on copies: what its first steps say, and a range test.

Nothing that is handed in is changed: parameters are copied before a step donates them,
the optimizer's state is made anew, and batches are read by their number.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalr import controller
from metalr.finding.probed_run import ProbedRun, copied, make_step, times
from metalr.optax_schedule import wrap
from metalr.predictor import Predictor, distance

MOST_STEPS = 100
RAMP = 10  # steps of the probe's own warm-up, which is shorter than a run's
# The rate that a probe begins with is no guess of the user's.
NO_GUESS = 1e4  # octaves^2, its variance
# A range test goes over these sizes of an update beside the weights, as log2.
_RANGE = (-20.0, 2.0)
_DIVERGED = 4.0  # times the fall of the loss so far, above its lowest: the test ends


class Log(NamedTuple):
    """The steps of a probe: [n] each; rates in octaves from the user's own."""

    value: np.ndarray  # the loss before the step
    rate: np.ndarray  # that the step was taken with
    mean: np.ndarray  # of the best peak rate
    variance: np.ndarray  # of that
    distance: np.ndarray  # of the features from training


def respond(
    run: ProbedRun,
    predictor: Predictor,
    begin: float,
    *,
    most: int,
    ended: Callable[[Log], bool],
) -> tuple[Log, Any]:
    """Take steps of a copy of the run under metalr, and logs what they say.

    Args:
      run: The run.
      predictor: Of metalr.
      begin: Log2 of the factor on the user's rate that the first step has.
      most: Steps at most.
      ended: Asked every few steps.

    Returns:
      The log, and the parameters of the copy after the last step.
    """
    table = probe_levels(run.levels)
    factors = 2.0**begin * table / np.maximum(run.levels, 1e-9)
    predictor = predictor._replace(base_variance=np.float32(NO_GUESS))
    tx = wrap(
        times(run.optimizer, factors),
        predictor,
        total_steps=run.steps,
        schedule=lambda step: jnp.take(jnp.asarray(table), step, mode="clip"),
        max_multiplier=controller.MAX_MULTIPLIER,
        trust=0.0,
    )
    step_fn = make_step(run, tx, _read(predictor))
    params = jax.tree.map(copied, run.params)
    state, rows = jax.jit(tx.init)(params), []
    for index in range(most):
        params, state, row = step_fn(params, state, run.batch(index), jnp.int32(index))
        rows.append(row)
        if index % 5 == 4 or index == most - 1:
            rows = jax.device_get(rows)
            log = _log(rows, begin)
            if ended(log):
                break
    return _log(jax.device_get(rows), begin), params


def range_test(
    run: ProbedRun, relative_rate: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Raise the rate of a copy of the run step by step until the loss leaves.

    Args:
      run: The run.
      relative_rate: As `Facts` has it.
      steps: At most.

    Returns:
      Log2 of the factors on the user's rate, and the losses after steps at them: [n].
    """
    octaves = np.linspace(*_RANGE, steps) - relative_rate
    factors = 2.0**octaves / np.maximum(run.levels[:steps], 1e-9)
    tx = times(run.optimizer, factors)
    step_fn = make_step(run, tx, lambda state: {})
    params = jax.tree.map(copied, run.params)
    state, values = jax.jit(tx.init)(params), []
    for index in range(steps):
        batch = run.batch(index)
        params, state, row = step_fn(params, state, batch, jnp.int32(index))
        values.append(float(row["value"]))
        lowest = min(values)
        if not math.isfinite(values[-1]) or (
            index > 5
            and values[-1] - values[0] > _DIVERGED * max(values[0] - lowest, 1e-3)
            and values[-1] > values[0] + 0.5 * abs(values[0])
        ):
            break
    after = np.array(values[1:])
    return octaves[: len(after)], after


def probe_levels(levels: np.ndarray) -> np.ndarray:
    """Return a schedule without its warm-up, but for a short one of the probe's.

    >>> probe_levels(np.array([0.25, 0.5, 1.0, 0.5])).astype(float).round(2).tolist()
    [0.09, 0.18, 0.27, 0.18]
    """
    whole = np.maximum.accumulate(levels[::-1])[::-1]
    ramp = np.minimum(1.0, (np.arange(len(levels)) + 1) / (RAMP + 1))
    return (whole * ramp).astype(np.float32)


def _read(predictor: Predictor) -> Callable[[Any], dict[str, Any]]:
    def read(state: controller.MetalrState) -> dict[str, Any]:
        return {
            "rate": jnp.log2(state.lr_multiplier),
            "mean": state.lr_mean,
            "variance": state.lr_variance,
            "distance": distance(predictor.seen, state.lr_features),
        }

    return read


def _log(rows: list[dict[str, Any]], begin: float) -> Log:
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    log = Log(**columns)
    return log._replace(rate=log.rate + begin, mean=log.mean + begin)
