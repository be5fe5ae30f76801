"""Forecasts of a run's last loss and score, learned from what its first steps say."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr.finding import experience, finder
from metalr.meta import labels, traces
from metalr.meta.peak_curves import PeakCurve

COVERAGE = 0.8  # of the errors on groups left out lie below the error of a forecast
_RIDGE = 3.0  # rows' worth of pull of a forecast's weights to zero
_GOOD = 0.25  # share of what the rate decides, lost by runs that forecasts learn from


class Row(NamedTuple):
    """A run that a forecast is learned from."""

    group: str  # left out together: a task, or a kind of the zoo
    inputs: np.ndarray
    target: float


def good_runs(
    runs: Sequence[traces.Run], sweeps: Sequence[PeakCurve]
) -> list[tuple[PeakCurve, traces.Run]]:
    """Return the runs that end about as well as the best peak, on any schedule."""
    of = {sweep.name: sweep for sweep in sweeps}
    found = []
    for run in runs:
        sweep = of.get(str(run.about["sweep_id"]))
        if sweep is None:
            continue
        best, worst = sweep.outcome.min(), min(0.0, sweep.outcome.max())
        if labels.outcome(run.evaluations) <= best + _GOOD * (worst - best):
            found.append((sweep, traces.held(run)))
    return found


def loss_rows(good: Sequence[tuple[PeakCurve, traces.Run]]) -> list[Row]:
    """Return what forecasts of the loss are learned from."""
    found = []
    for sweep, run in good:
        first, last = (run.evaluations[k]["eval_loss"] for k in (0, -1))
        inputs = experience.loss_inputs(run.loss[: finder.longest(run.steps)])
        if inputs is not None and min(first, last) > 0:
            found.append(Row(sweep.task, inputs, math.log(last / first)))
    return found


def score_rows(good: Sequence[tuple[PeakCurve, traces.Run]]) -> list[Row]:
    """Return what forecasts of the score are learned from: runs of encoders."""
    found = []
    for sweep, run in good:
        rows, most = run.evaluations, finder.longest(run.steps)
        name = next((n for n in experience.SCORES if n in rows[0]), None)
        early = [row for row in rows[1:-1] if row["step"] <= most]
        if name is None or not early:
            continue
        now, last = early[-1], rows[-1]
        inputs = experience.score_inputs(now[name], now["step"] / run.steps)
        found.append(Row(sweep.task, inputs, last[name] - now[name]))
    return found


def forecast(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Fit a ridge; its error is what 80 % of those on groups left out are below.

    None where there are too few rows, or no second group to tell the error by.
    """
    group = np.array([row.group for row in rows])
    if len(rows) < 12 or len(np.unique(group)) < 2:
        return None
    x = np.array([row.inputs for row in rows], np.float64)
    y = np.array([row.target for row in rows], np.float64)
    errors = np.zeros(len(y))
    for name in np.unique(group):
        out = group == name
        errors[out] = abs(x[out] @ _solved(x[~out], y[~out]) - y[out])
    return {
        "weights": [round(float(w), 6) for w in _solved(x, y)],
        "error": round(float(np.quantile(errors, COVERAGE)), 4),
        "median_error": round(float(np.median(errors)), 4),
        "runs": len(y),
        "groups": len(np.unique(group)),
    }


def _solved(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Solve a ridge whose far rows count less (Huber 1964): a run may learn late."""
    scale = np.maximum(x.std(0), 1e-3)
    z, weight = x / scale, np.ones(len(y))
    found = np.zeros(z.shape[1])
    for _ in range(10):
        left = (z * weight[:, None]).T
        found = np.linalg.solve(left @ z + _RIDGE * np.eye(z.shape[1]), left @ y)
        errors = abs(z @ found - y)
        weight = np.minimum(1, 1.3 * np.median(errors) / np.maximum(errors, 1e-9))
    return found / scale
