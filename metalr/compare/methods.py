"""Methods: the ways to set the learning rate that stand in the tables.

A method is a scheduler at one base rate ("linear 2e-5"), or at a rate that was chosen
among several for each workload ("linear tuned"), or that and the scheduler as well
("best shape tuned").
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metalr.compare.criteria import (
    Run,
    Workload,
    base_rate,
    final_score,
    format_rate,
    workload,
)
from metalr.errors import unknown_name
from metalr.finetune.schedulers import FIXED_RATE, SCHEDULERS

TUNED_BASELINE = "linear tuned"  # the usual practice of those who tune
BEST_SHAPE = "best shape tuned"
# Shapes with a method of their own at each of these, for those who never tune: what is
# best for small encoders, and half of it, between what few layers and many want.
AT_FIXED_RATES = ("linear", "wsd")
FIXED_RATES = (FIXED_RATE / 2, FIXED_RATE)


class Method(NamedTuple):
    """A way to set the rate, with the runs that it is judged by."""

    name: str  # "linear 2e-5", "linear tuned", "prodigy"
    scheduler: str
    runs: tuple[Run, ...]
    rates_tried: dict[Workload, int]  # base rates that were run to choose these runs
    tuned: bool = False

    def steps_paid(self, of: Workload, steps: float) -> float:
        """Return steps times the base rates that were tried."""
        return self.rates_tried[of] * steps

    @property
    def untuned(self) -> bool:
        """Whether it is a rival that needs no choice: not tuned, nor learned by us."""
        row = SCHEDULERS.get(self.scheduler)
        return not self.tuned and not (row and (row.learned or row.is_control))


def group(runs: Sequence[Run]) -> dict[str, Method]:
    """Group runs by method; methods are in the order of the runs.

    Each scheduler has one method with its runs at its default base rate or, if there
    are none, at its most frequent one. A tunable scheduler has that rate in the name
    and, if it was run at several, a tuned method, and "best shape tuned" chooses among
    all of these. `tune` says how the rate is chosen.
    """
    found: dict[str, Method] = {}
    shapes: list[Run] = []
    for scheduler in dict.fromkeys(run["scheduler"] for run in runs):
        own = [run for run in runs if run["scheduler"] == scheduler]
        counts = Counter(map(base_rate, own))
        tunable = _is_tunable(scheduler)
        plain = _plain_rate(scheduler, counts)
        name = f"{scheduler} {format_rate(plain)}" if tunable else scheduler
        found[name] = _at_rate(name, own, plain)
        if not tunable or len(counts) == 1:
            continue
        for rate in FIXED_RATES if scheduler in AT_FIXED_RATES else ():
            if rate in counts:
                name = f"{scheduler} {format_rate(rate)}"
                found.setdefault(name, _at_rate(name, own, rate))
        name = f"{scheduler} tuned"
        found[name] = Method(name, scheduler, *tune(own), tuned=True)
        shapes += own
    if len({run["scheduler"] for run in shapes}) > 1:
        chosen = tune(shapes)
        found[BEST_SHAPE] = Method(BEST_SHAPE, BEST_SHAPE, *chosen, tuned=True)
    return found


def _is_tunable(scheduler: str) -> bool:
    return scheduler in SCHEDULERS and SCHEDULERS[scheduler].tunable


def _plain_rate(scheduler: str, counts: Mapping[float, int]) -> float:
    """Return the rate that a scheduler's own method shows."""
    if scheduler in SCHEDULERS and SCHEDULERS[scheduler].learning_rate in counts:
        return SCHEDULERS[scheduler].learning_rate
    return min(counts, key=lambda rate: (-counts[rate], rate))


def _at_rate(name: str, runs: Sequence[Run], rate: float) -> Method:
    chosen = tuple(run for run in runs if base_rate(run) == rate)
    once = dict.fromkeys(map(workload, chosen), 1)
    return Method(name, chosen[0]["scheduler"], chosen, once)


def tune(runs: Sequence[Run]) -> tuple[tuple[Run, ...], dict[Workload, int]]:
    """Choose a scheduler and rate for each workload and seed, by the other seeds.

    For each workload and seed, the run is chosen whose scheduler and rate have the best
    mean final score over the *other* seeds, among those with the most of them (of equal
    ones the lower rate). So no method is chosen by the scores that it then shows. With
    one seed there are no others, and its own score decides.

    Returns:
      The runs, one a workload and seed, and how many were to choose from.
    """
    chosen: list[Run] = []
    tried = {}
    for of in dict.fromkeys(map(workload, runs)):
        candidates: dict[tuple[str, float], dict[int, Run]] = {}
        for run in runs:
            if workload(run) == of:
                candidate = run["scheduler"], base_rate(run)
                candidates.setdefault(candidate, {})[run["seed"]] = run
        tried[of] = len(candidates)
        seeds = dict.fromkeys(seed for its in candidates.values() for seed in its)
        chosen += [_chosen(candidates, seed) for seed in seeds]
    return tuple(chosen), tried


def _chosen(candidates: Mapping[tuple[str, float], Mapping[int, Run]], seed: int):
    """Return the run of a seed that the others would choose."""
    others = {
        candidate: [final_score(run) for other, run in its.items() if other != seed]
        for candidate, its in candidates.items()
        if seed in its
    }
    most = max(map(len, others.values()))
    if not most:
        others = {c: [final_score(candidates[c][seed])] for c in others}
        most = 1
    # The mean of fewer seeds depends more on luck.
    means = {c: np.mean(scores) for c, scores in others.items() if len(scores) == most}
    best = min(means, key=lambda c: (-means[c], c[1]))
    return candidates[best][seed]


def choose_baseline(methods: Mapping[str, Method], name: str | None) -> str:
    """Return the name of the method that differences are taken to.

    Args:
      methods: All methods of the comparison.
      name: The one that the user asks for. None: "linear tuned", or the first method
        if there is none of that name.

    Raises:
      MetalrError: There is no such method.
    """
    if name is None:
        return TUNED_BASELINE if TUNED_BASELINE in methods else next(iter(methods))
    if name not in methods:
        raise unknown_name("baseline", name, methods)
    return name
