"""How far two methods are apart: paired by workload and seed."""

import math

import numpy as np

from metalr.compare import aggregates, criteria
from metalr.compare.comparable import check_devices
from metalr.compare.comparison import Comparison
from metalr.compare.criteria import Workload


def score_difference(
    comparison: Comparison, method: str, other: str | None = None
) -> aggregates.Interval:
    """Return the mean paired difference in the share of the best, method - other.

    Args:
      comparison: The runs.
      method: Name of a method.
      other: Name of the method to subtract; None: the baseline.
    """
    pairs = _pairs(comparison, method, other, "share of the best")
    return aggregates.hierarchical_bootstrap([own - theirs for own, theirs in pairs])


def speed_ratio(
    comparison: Comparison, method: str, clock: str = "steps"
) -> aggregates.Interval:
    """Return the median paired ratio of what a target takes to the baseline's.

    The target is 95 % of what the baseline's median run ends with above chance.

    Args:
      comparison: The runs.
      method: Name of a method.
      clock: "steps" or "seconds"; NaN where the runs lack their seconds.
    """
    pairs = _pairs(comparison, method, None, f"{clock} to 95 %")
    ratios = [aggregates.step_ratios(own, theirs) for own, theirs in pairs]
    if any(np.isnan(group).any() for group in ratios):
        count = sum(map(len, ratios))
        return aggregates.Interval(np.nan, np.nan, np.nan, count)
    return aggregates.hierarchical_bootstrap(ratios, aggregates.median_of_all)


def ahead(comparison: Comparison, method: str, other: str) -> dict[Workload, float]:
    """Return by how much a method leads another on each learned workload.

    That is the mean difference of the share of the best over the seeds that both have.
    """
    methods_ = comparison.averaged
    if method not in methods_ or other not in methods_:
        return {}
    found = {}
    for of, pairs in aggregates.pair(methods_[method], methods_[other]).items():
        both = zip(*pairs, strict=True)
        own, theirs = (comparison.values(runs, "share of the best") for runs in both)
        found[of] = float(np.mean(own) - np.mean(theirs))
    return found


def best_untuned(comparison: Comparison) -> str | None:
    """Return the untuned method with the highest mean share of the best, if any.

    It is chosen by the very scores that it then shows, which favours it. One that ran
    on fewer workloads than others is not compared with these.
    """
    averaged = comparison.averaged
    others = {comparison.subject, comparison.baseline}
    ran = {
        name: {*map(criteria.workload, method.runs)}
        for name, method in averaged.items()
        if method.untuned and name not in others
    }
    most = max(map(len, ran.values()), default=0)
    means = {
        name: comparison.mean(name, "share of the best")
        for name, over in ran.items()
        if len(over) == most
    }
    return max(means, key=lambda name: means[name]) if means else None


def sensitivity(comparison: Comparison, scheduler: str) -> tuple[float, int]:
    """Return what a scheduler loses on average where the base rate is 16 times off.

    The mean of `aggregates.sensitivity` over the learned workloads that it ran on at
    all of the rates, of the seeds that did, and how many these are; NaN and 0 where
    there is none.
    """
    found = []
    for of, reference in comparison.learned.items():
        by_rate: dict[float, dict[int, float]] = {}
        for run in comparison.runs:
            rate = criteria.base_rate(run)
            own = run["scheduler"] == scheduler and criteria.workload(run) == of
            if own and rate in aggregates.SENSITIVITY_RATES:
                share = criteria.share_of_best(run, reference)
                by_rate.setdefault(rate, {})[run["seed"]] = share
        if by_rate:
            seeds = set.intersection(*map(set, by_rate.values()))
            means = {
                rate: float(np.mean([shares[seed] for seed in seeds]))
                for rate, shares in by_rate.items()
                if seeds
            }
            found.append(aggregates.sensitivity(means))
    known = [lost for lost in found if not math.isnan(lost)]
    return (float(np.mean(known)) if known else math.nan), len(known)


def _pairs(
    comparison: Comparison, method: str, other: str | None, criterion: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a criterion of two methods' runs of learned workloads, by workload."""
    averaged = comparison.averaged
    other = other or comparison.baseline
    if method not in averaged or other not in averaged:
        return []
    found = []
    for of, pairs in aggregates.pair(averaged[method], averaged[other]).items():
        if not comparison.mix_devices:
            check_devices(of, pairs)
        both = zip(*pairs, strict=True)
        own, theirs = (np.array(comparison.values(runs, criterion)) for runs in both)
        found.append((own, theirs))
    return found
