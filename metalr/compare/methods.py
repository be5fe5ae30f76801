"""Methods: the ways to set the learning rate that stand in the tables.

A method is a scheduler at one base rate ("linear 2e-5"), or at the best of several for
each workload ("linear tuned").
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

TUNABLE = ("static", "constant", "linear", "cosine")
DEFAULT_RATE = 2e-5
TUNED_BASELINE = "linear tuned"  # the usual practice of those who tune


class Method(NamedTuple):
    """A way to set the rate, with the runs that it is judged by."""

    name: str  # "linear 2e-5", "linear tuned", "prodigy"
    scheduler: str
    runs: tuple[Run, ...]
    rates_tried: dict[Workload, int]  # base rates that were run to choose these runs

    def steps_paid(self, of: Workload, steps: float) -> float:
        """Return steps times the base rates that were tried."""
        return self.rates_tried[of] * steps


def group(runs: Sequence[Run]) -> dict[str, Method]:
    """Group runs by method; methods are in the order of the runs.

    Each scheduler has one method with its runs at `DEFAULT_RATE` or, if there are none,
    at its most frequent rate. A scheduler of `TUNABLE` has that rate in the name and,
    if it was run at several, a tuned method: for each workload the runs at the rate
    with the best mean final score over seeds (a tie: the lower rate), among the rates
    with the most seeds. The tuned method is chosen by the scores that it then shows,
    which favours it.
    """
    found: dict[str, Method] = {}
    for scheduler in dict.fromkeys(run["scheduler"] for run in runs):
        own = [run for run in runs if run["scheduler"] == scheduler]
        counts = Counter(map(base_rate, own))
        most_frequent = min(counts, key=lambda rate: (-counts[rate], rate))
        plain = DEFAULT_RATE if DEFAULT_RATE in counts else most_frequent
        tunable = scheduler in TUNABLE
        name = f"{scheduler} {format_rate(plain)}" if tunable else scheduler
        chosen = tuple(run for run in own if base_rate(run) == plain)
        once = dict.fromkeys(map(workload, chosen), 1)
        found[name] = Method(name, scheduler, chosen, once)
        if tunable and len(counts) > 1:
            name = f"{scheduler} tuned"
            found[name] = Method(name, scheduler, *_tune(own))
    return found


def _tune(runs: Sequence[Run]) -> tuple[tuple[Run, ...], dict[Workload, int]]:
    """Return the runs at each workload's best rate, and how many rates there were."""
    chosen: list[Run] = []
    tried = {}
    for of in dict.fromkeys(map(workload, runs)):
        by_rate: dict[float, list[Run]] = {}
        for run in runs:
            if workload(run) == of:
                by_rate.setdefault(base_rate(run), []).append(run)
        # The mean of fewer seeds depends more on luck.
        most_seeds = max(map(len, by_rate.values()))
        means = {
            rate: np.mean([*map(final_score, seeds)])
            for rate, seeds in by_rate.items()
            if len(seeds) == most_seeds
        }
        chosen += by_rate[min(means, key=lambda rate: (-means[rate], rate))]
        tried[of] = len(by_rate)
    return tuple(chosen), tried


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
