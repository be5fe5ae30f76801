"""Measures of a run: how fast and how good it was; and the rows that runs stand in.

Runs are the dicts of a result store: the fields of `metalr.finetune.result.FIELDS` with
`chance` and `failed` (null, or why the run broke off). A *problem* is a (task, model).
A failed run, and one whose last score is not finite, scores chance and reaches nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr.errors import unknown_name

Run = Mapping[str, Any]
Problem = tuple[str, str]  # task, model

GRID = ("static", "constant", "linear", "cosine")  # they have a rate to tune
DEFAULT_RATE = 2e-5
TUNED = "linear tuned"  # what people do who tune


class Curve(NamedTuple):
    """Validation scores over a run, one entry an evaluation."""

    steps: np.ndarray
    epochs: np.ndarray
    scores: np.ndarray  # NaN where the score was not finite


class Bar(NamedTuple):
    """What the scores of a problem are measured against."""

    chance: float
    best: float  # the best final score of any scheduler and seed
    horizon: int  # steps of the longest run

    def target(self, share: float) -> float:
        """Returns chance + share (best - chance); infinite if nobody beat chance."""
        if self.best <= self.chance:
            return math.inf
        return self.chance + share * (self.best - self.chance)


class Row(NamedTuple):
    """A way to set the rate, as it stands in a table."""

    name: str  # "linear 2e-5", "linear tuned", "prodigy"
    scheduler: str
    runs: tuple[Run, ...]
    rates: dict[Problem, int]  # how many base rates were tried to get these runs


def problem(run: Run) -> Problem:
    """Returns the task and model of a run."""
    return run["task"], run["model"]


def rate(run: Run) -> float:
    """Returns the base rate of a run."""
    return float(run["settings"]["learning_rate"])


def rate_name(value: float) -> str:
    """Returns a rate as people type it.

    >>> rate_name(2e-5), rate_name(0.00032), rate_name(1.0)
    ('2e-5', '3.2e-4', '1')
    """
    if value >= 1e-2 or value == 0:
        return f"{value:g}"
    digits, exponent = f"{value:.3e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def time_name(value: float, form: str = ".2f") -> str:
    """Returns a time in words: a miss is infinite, and – is what nothing is known of.

    >>> time_name(12.0, ".0f"), time_name(math.inf), time_name(math.nan)
    ('12', '∞', '–')
    """
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else format(value, form)


def curve(run: Run) -> Curve:
    """Returns the evaluations of a run that have its metric."""
    rows = [row for row in run["history"] if run["metric"] in row]
    number = lambda value: math.nan if value is None else float(value)  # noqa: E731
    columns = ("step", "epoch", run["metric"])
    return Curve(*(np.array([number(r.get(c)) for r in rows]) for c in columns))


def chance(run: Run) -> float:
    """Returns what the run's metric gives without learning."""
    return float(run["chance"][run["metric"]])


def failed(run: Run) -> bool:
    """Returns whether the run broke off, or ended without a finite score."""
    scores = curve(run).scores
    return run.get("failed") is not None or not len(scores) or math.isnan(scores[-1])


def final_score(run: Run) -> float:
    """Returns the score of the last evaluation; chance for a failed run."""
    return chance(run) if failed(run) else float(curve(run).scores[-1])


def best_score(run: Run) -> float:
    """Returns the highest score of any evaluation; chance for a failed run."""
    return chance(run) if failed(run) else float(np.nanmax(curve(run).scores))


def bars(runs: Iterable[Run]) -> dict[Problem, Bar]:
    """Returns each problem's chance, best final score and length."""
    found: dict[Problem, Bar] = {}
    for run in runs:
        bar = found.get(problem(run), Bar(chance(run), -math.inf, 0))
        best = max(bar.best, final_score(run))
        found[problem(run)] = Bar(bar.chance, best, max(bar.horizon, run["steps"]))
    return found


def to_target(run: Run, target: float) -> tuple[float, float]:
    """Returns steps and epochs at the first evaluation with score >= target.

    The first counts, though the score may fall below again. Infinite if there is none,
    and for a failed run.
    """
    steps, epochs, scores = curve(run)
    reached = np.flatnonzero(scores >= target)
    if failed(run) or not len(reached):
        return math.inf, math.inf
    return float(steps[reached[0]]), float(epochs[reached[0]])


def area(run: Run, bar: Bar) -> float:
    """Returns the area under the validation curve, normalised to the best.

    (1/T) integral_0^T (score(t) - chance) / (best - chance) dt by trapezoids, T the
    problem's longest run. The curve starts from chance at step 0 where nothing was
    evaluated there, and holds its last score if the run stopped early. 0 for a failed
    run, and where nobody beat chance.
    """
    if failed(run) or bar.best <= bar.chance:
        return 0.0
    steps, _, scores = curve(run)
    known = np.isfinite(scores)
    steps, scores = steps[known], scores[known]
    if steps[0] > 0:
        steps, scores = np.r_[0.0, steps], np.r_[bar.chance, scores]
    end = max(bar.horizon, steps[-1])
    steps, scores = np.r_[steps, end], np.r_[scores, scores[-1]]
    above = (scores - bar.chance) / (bar.best - bar.chance)
    return float(np.trapezoid(above, steps) / end)


def share_of_best(run: Run, bar: Bar) -> float:
    """Returns (final score - chance) / (best - chance): tasks on one scale.

    0 is chance, 1 the best final score of any run; 0 where nobody beat chance.
    """
    if bar.best <= bar.chance:
        return 0.0
    return (final_score(run) - bar.chance) / (bar.best - bar.chance)


# Each measure of a run by name. A steps-to-target that is missed is infinite.
MEASURES: dict[str, Callable[[Run, Bar], float]] = {
    "final score": lambda run, bar: final_score(run),
    "best score": lambda run, bar: best_score(run),
    "share of the best": share_of_best,
    "area under the curve": area,
    "steps to 95 %": lambda run, bar: to_target(run, bar.target(0.95))[0],
    "steps to 99 %": lambda run, bar: to_target(run, bar.target(0.99))[0],
    "epochs to 95 %": lambda run, bar: to_target(run, bar.target(0.95))[1],
    "epochs to 99 %": lambda run, bar: to_target(run, bar.target(0.99))[1],
}


def measure(name: str) -> Callable[[Run, Bar], float]:
    """Returns a measure by its name.

    Raises:
      MetalrError: There is no such measure.
    """
    if name not in MEASURES:
        raise unknown_name("measure", name, MEASURES)
    return MEASURES[name]


def rows(runs: Sequence[Run]) -> dict[str, Row]:
    """Returns the rows of the tables, by name, in the order of the runs.

    Each scheduler has a plain row: its runs at `DEFAULT_RATE` or, if it has none, at
    its most frequent rate. One of `GRID` says the rate in its name and, if it ran at
    several, has a tuned row: for each problem the runs at the rate with the best mean
    final score over seeds (a tie: the lower rate), of those with the most seeds. The
    tuned row picks by the very scores that it is then given, which favours it.
    """
    found: dict[str, Row] = {}
    for scheduler in dict.fromkeys(run["scheduler"] for run in runs):
        own = [run for run in runs if run["scheduler"] == scheduler]
        counts = Counter(map(rate, own))
        most = min(counts, key=lambda value: (-counts[value], value))
        plain = DEFAULT_RATE if DEFAULT_RATE in counts else most
        name = scheduler
        if scheduler in GRID:
            name = f"{scheduler} {rate_name(plain)}"
        chosen = tuple(run for run in own if rate(run) == plain)
        once = dict.fromkeys(map(problem, chosen), 1)
        found[name] = Row(name, scheduler, chosen, once)
        if scheduler in GRID and len(counts) > 1:
            name = f"{scheduler} tuned"
            found[name] = Row(name, scheduler, *_tuned(own))
    return found


def _tuned(runs: Sequence[Run]) -> tuple[tuple[Run, ...], dict[Problem, int]]:
    chosen: list[Run] = []
    tried = {}
    for place in dict.fromkeys(map(problem, runs)):
        at_rate: dict[float, list[Run]] = {}
        for run in runs:
            if problem(run) == place:
                at_rate.setdefault(rate(run), []).append(run)
        # Of a rate with fewer seeds than others the mean is more a matter of luck.
        most = max(map(len, at_rate.values()))
        means = {
            value: np.mean([*map(final_score, x)])
            for value, x in at_rate.items()
            if len(x) == most
        }
        chosen += at_rate[min(means, key=lambda value: (-means[value], value))]
        tried[place] = len(at_rate)
    return tuple(chosen), tried


def row(table: Mapping[str, Row], name: str) -> Row:
    """Returns a row by its name.

    Raises:
      MetalrError: There is no such row.
    """
    if name not in table:
        raise unknown_name("baseline", name, table)
    return table[name]


def baseline(table: Mapping[str, Row], name: str | None) -> str:
    """Returns the row that differences are taken to.

    Args:
      table: The rows.
      name: The one that is wished for; None: "linear tuned", or the first if there is
        none.

    Raises:
      MetalrError: There is no such row.
    """
    if name is None:
        return TUNED if TUNED in table else next(iter(table))
    return row(table, name).name


def cost(row: Row, place: Problem, steps: float) -> float:
    """Returns the steps that were paid for: rates tried times the steps counted."""
    return row.rates[place] * steps
