"""Criteria by which runs are compared: how good a run became, and how fast.

A run is a line of a result store: a `metalr.finetune.result.Result` with
`chance` and `failed` (null, or why the run broke off). A failed run, and one whose last
score is not finite, has the score of chance and reaches no target.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from metalr.errors import unknown_name

Run = Mapping[str, Any]


class Workload(NamedTuple):
    """What is learned, and by which model."""

    task: str
    model: str


class Curve(NamedTuple):
    """Validation scores over a run, one entry an evaluation."""

    steps: np.ndarray
    epochs: np.ndarray
    scores: np.ndarray  # NaN where the score was not finite


class Reference(NamedTuple):
    """What the scores of a workload are measured against."""

    chance: float
    best: float  # the best final score of any method and seed
    horizon: int  # steps of the longest run
    typical: float = math.nan  # median final score of the baseline; NaN: has no run

    def target(self, share: float) -> float:
        """Return chance + share (typical - chance), as AlgoPerf sets its targets.

        The best score replaces the typical one where the baseline has no run. Infinite
        where that does not beat chance.
        """
        goal = self.best if math.isnan(self.typical) else self.typical
        if goal <= self.chance:
            return math.inf
        return self.chance + share * (goal - self.chance)


def workload(run: Run) -> Workload:
    """Return the task and model of a run."""
    return Workload(run["task"], run["model"])


def base_rate(run: Run) -> float:
    """Return the base learning rate of a run."""
    return float(run["settings"]["learning_rate"])


def format_rate(rate: float) -> str:
    """Return a learning rate as people type it.

    >>> format_rate(2e-5), format_rate(0.00032), format_rate(1.0)
    ('2e-5', '3.2e-4', '1')
    """
    if rate >= 1e-2 or rate == 0:
        return f"{rate:g}"
    digits, exponent = f"{rate:.3e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def format_time(time: float, form: str = ".2f") -> str:
    """Return steps, epochs or seconds; ∞ is a target missed, – is unknown.

    >>> format_time(12.0, ".0f"), format_time(math.inf), format_time(math.nan)
    ('12', '∞', '–')
    """
    if math.isnan(time):
        return "–"
    return "∞" if math.isinf(time) else format(time, form)


def curve(run: Run) -> Curve:
    """Return the evaluations of a run that have its metric."""
    rows = [row for row in run["history"] if run["metric"] in row]
    number = lambda value: math.nan if value is None else float(value)  # noqa: E731
    columns = ("step", "epoch", run["metric"])
    return Curve(*(np.array([number(r.get(c)) for r in rows]) for c in columns))


def chance(run: Run) -> float:
    """Return the score of the run's metric without learning."""
    return float(run["chance"][run["metric"]])


def failed(run: Run) -> bool:
    """Return whether the run broke off, or ended without a finite score."""
    scores = curve(run).scores
    return run.get("failed") is not None or not len(scores) or math.isnan(scores[-1])


def final_score(run: Run) -> float:
    """Return the score of the last evaluation; chance for a failed run."""
    return chance(run) if failed(run) else float(curve(run).scores[-1])


def best_score(run: Run) -> float:
    """Return the highest score of any evaluation; chance for a failed run."""
    return chance(run) if failed(run) else float(np.nanmax(curve(run).scores))


def loss_at(run: Run, *, best: bool) -> float:
    """Return the validation loss of the best evaluation, or of the last; NaN if none.

    The best one is that with the highest score, the first of equals. That of a failed
    run is infinite.
    """
    if failed(run):
        return math.inf
    rows = [row for row in run["history"] if row.get(run["metric"]) is not None]
    row = max(rows, key=lambda row: row[run["metric"]]) if best else rows[-1]
    loss = row.get("eval_loss")
    return math.nan if loss is None else float(loss)


def step_seconds(run: Run) -> float:
    """Return the median seconds of a step; NaN for runs of an older metalr.

    Their seconds hold the compilation.
    """
    seconds = run.get("step_seconds")
    return math.nan if seconds is None else float(seconds)


def device(run: Run) -> str:
    """Return the kind of device of a run, "unknown" for runs of an older metalr."""
    return run.get("device", {}).get("kind", "unknown")


def references(
    runs: Iterable[Run], baseline: Iterable[Run] = ()
) -> dict[Workload, Reference]:
    """Return each workload's chance, best final score, length and typical score.

    Args:
      runs: All runs.
      baseline: Those whose median final score sets the target.
    """
    found: dict[Workload, Reference] = {}
    for run in runs:
        before = found.get(workload(run), Reference(chance(run), -math.inf, 0))
        best = max(before.best, final_score(run))
        horizon = max(before.horizon, run["steps"])
        found[workload(run)] = Reference(before.chance, best, horizon)
    scores: dict[Workload, list[float]] = {}
    for run in baseline:
        scores.setdefault(workload(run), []).append(final_score(run))
    for of, finals in scores.items():
        found[of] = found[of]._replace(typical=float(np.median(finals)))
    return found


def to_target(run: Run, target: float) -> tuple[float, float]:
    """Return steps and epochs at the first evaluation with score >= target.

    The first one counts even if the score falls below the target later. Both are
    infinite if there is none, and for a failed run.
    """
    steps, epochs, scores = curve(run)
    reached = np.flatnonzero(scores >= target)
    if failed(run) or not len(reached):
        return math.inf, math.inf
    return float(steps[reached[0]]), float(epochs[reached[0]])


def area(run: Run, reference: Reference) -> float:
    """Return the area under the validation curve as a share of the best.

    (1/T) integral_0^T (score(t) - chance) / (best - chance) dt by trapezoids, where T
    is the length of the workload's longest run. The curve starts from chance at step 0
    if nothing was evaluated there, and keeps its last score if the run stopped early.
    0 for a failed run, and where no run beat chance.
    """
    if failed(run) or reference.best <= reference.chance:
        return 0.0
    steps, _, scores = curve(run)
    known = np.isfinite(scores)
    steps, scores = steps[known], scores[known]
    if steps[0] > 0:
        steps, scores = np.r_[0.0, steps], np.r_[reference.chance, scores]
    end = max(reference.horizon, steps[-1])
    steps, scores = np.r_[steps, end], np.r_[scores, scores[-1]]
    above = (scores - reference.chance) / (reference.best - reference.chance)
    return float(np.trapezoid(above, steps) / end)


def share_of_best(run: Run, reference: Reference) -> float:
    """Return (final score - chance) / (best - chance), which is comparable over tasks.

    0 is chance and 1 the best final score of any run; 0 where no run beat chance.
    """
    if reference.best <= reference.chance:
        return 0.0
    above = final_score(run) - reference.chance
    return above / (reference.best - reference.chance)


def steps_to_target(run: Run, target: float) -> float:
    """Return the steps of `to_target`."""
    return to_target(run, target)[0]


def seconds_to_target(run: Run, target: float) -> float:
    """Return steps to the target times the median seconds of a step.

    Evaluation and compilation are left out; NaN where the seconds are unknown.
    """
    steps = steps_to_target(run, target)
    return steps if math.isinf(steps) else steps * step_seconds(run)


def share_of_best_at_best(run: Run, reference: Reference) -> float:
    """Return the same as `share_of_best` for the best evaluation."""
    if reference.best <= reference.chance:
        return 0.0
    above = best_score(run) - reference.chance
    return above / (reference.best - reference.chance)


# Each criterion by name. What it takes to a target that is missed is infinite.
CRITERIA: dict[str, Callable[[Run, Reference], float]] = {
    "final score": lambda run, _: final_score(run),
    "best score": lambda run, _: best_score(run),
    "share of the best": share_of_best,
    "share of the best, best evaluation": share_of_best_at_best,
    "final loss": lambda run, _: loss_at(run, best=False),
    "loss at the best": lambda run, _: loss_at(run, best=True),
    "area under the curve": area,
    "steps to 95 %": lambda run, r: steps_to_target(run, r.target(0.95)),
    "steps to 99 %": lambda run, r: steps_to_target(run, r.target(0.99)),
    "seconds to 95 %": lambda run, r: seconds_to_target(run, r.target(0.95)),
    "seconds to 99 %": lambda run, r: seconds_to_target(run, r.target(0.99)),
    "epochs to 95 %": lambda run, r: to_target(run, r.target(0.95))[1],
    "epochs to 99 %": lambda run, r: to_target(run, r.target(0.99))[1],
}


def criterion(name: str) -> Callable[[Run, Reference], float]:
    """Return a criterion by its name.

    Raises:
      MetalrError: There is no such criterion.
    """
    if name not in CRITERIA:
        raise unknown_name("criterion", name, CRITERIA)
    return CRITERIA[name]
