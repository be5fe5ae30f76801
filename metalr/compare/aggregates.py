"""Aggregates of a comparison over workloads and seeds: spread, ranks, profiles.

Runs are read through `metalr.compare.criteria` alone.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metalr.compare.criteria import (
    Reference,
    Run,
    Workload,
    base_rate,
    failed,
    final_score,
    steps_to_target,
    workload,
)
from metalr.compare.methods import Method

MAX_FACTOR = 4.0  # profiles go from 1 to this many times the fastest
SENSITIVITY_RATES = (1.25e-6, 2e-5, 3.2e-4)  # 16x off either way


class Interval(NamedTuple):
    """A statistic of paired numbers and its bootstrap interval."""

    estimate: float
    low: float
    high: float
    pairs: int


class Spread(NamedTuple):
    """Centre and spread of a criterion over seeds."""

    mean: float
    median: float
    iqr: float  # 75th minus 25th percentile; NaN where either is infinite
    std: float  # with n - 1; 0 for one seed
    size: int


def spread(values: Iterable[float]) -> Spread:
    """Return centre and spread; a missed target (infinite) makes the mean infinite.

    All are NaN where a value is NaN, that is, unknown.

    No value is interpolated between a number and a miss: the median is infinite where
    half of the values are, and the quartiles are then values that occurred.
    """
    given = np.array([*values], float)
    if not len(given) or np.isnan(given).any():
        return Spread(math.nan, math.nan, math.nan, math.nan, len(given))
    if np.isinf(given).any():
        low, high = (_quantile(given, q) for q in (0.25, 0.75))
        iqr = high - low if math.isfinite(high) else math.nan
        mid = float(np.median(given))
        return Spread(math.inf, mid, iqr, math.nan, len(given))
    low, mid, high = np.percentile(given, [25, 50, 75])
    std = float(np.std(given, ddof=1)) if len(given) > 1 else 0.0
    return Spread(float(given.mean()), float(mid), float(high - low), std, len(given))


def _quantile(values: np.ndarray, q: float) -> float:
    return float(np.quantile(values, q, method="inverted_cdf"))


def mean_ranks(methods: Mapping[str, Method]) -> dict[str, float]:
    """Return each method's mean rank by final score; 1 is best, ties share their mean.

    Methods are ranked within each workload and seed that all of them have a run of. A
    failed run is last, even below one that scores less than chance. NaN where there is
    no such block.
    """
    from scipy.stats import rankdata

    blocks: dict[tuple[Workload, int], dict[str, float]] = {}
    for name, method in methods.items():
        for run in method.runs:
            score = -math.inf if failed(run) else final_score(run)
            blocks.setdefault((workload(run), run["seed"]), {})[name] = score
    full = [block for block in blocks.values() if len(block) == len(methods)]
    if not full:
        return dict.fromkeys(methods, math.nan)
    scores = np.array([[block[name] for name in methods] for block in full])
    ranks = rankdata(-scores, axis=1).mean(axis=0)
    return dict(zip(methods, ranks.tolist(), strict=True))


def slowdowns(
    methods: Mapping[str, Method],
    share: float,
    references: Mapping[Workload, Reference],
    clock: Callable[[Run, float], float] = steps_to_target,
) -> dict[str, np.ndarray]:
    """Return each method's steps to a target over the fastest method's, by workload.

    With t_ps the median over seeds of the steps that method s needs to `share` of the
    target of workload p, the slowdown is t_ps / min_s t_ps: infinite where the method
    misses the target or has no run. Workloads are in the order of `references`. The
    rates that a tuned method tried are not multiplied in.

    Args:
      methods: The methods.
      share: Of the way from chance to the typical score of the baseline.
      references: The workloads.
      clock: What a run takes to a target: its steps, or `criteria.seconds_to_target`.
        An unknown one is NaN, and so are its slowdowns.
    """
    times = np.full((len(methods), len(references)), math.inf)
    for i, method in enumerate(methods.values()):
        for j, (of, reference) in enumerate(references.items()):
            own = [run for run in method.runs if workload(run) == of]
            target = reference.target(share)
            if own:
                times[i, j] = spread(clock(run, target) for run in own).median
    fastest = np.fmin.reduce(times, axis=0, initial=math.inf)
    found = times.copy()
    np.divide(times, fastest, out=found, where=np.isfinite(times))
    return dict(zip(methods, found, strict=True))


def profile(slowdowns: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """Return rho(tau), the share of workloads with a slowdown <= tau, for each tau."""
    return (slowdowns[None, :] <= taus[:, None]).mean(axis=1)


def profile_score(slowdowns: np.ndarray, most: float = MAX_FACTOR) -> float:
    """Return AlgoPerf's score, integral_1^most rho(tau) dtau / (most - 1).

    rho is a step function, so the integral is exact: the mean over workloads of
    max(0, most - slowdown) / (most - 1). 1 is the fastest on every workload.
    """
    return float(np.mean(np.maximum(0.0, most - slowdowns)) / (most - 1.0))


def pair(own: Method, baseline: Method) -> dict[Workload, list[tuple[Run, Run]]]:
    """Return the runs of two methods that share workload and seed, by workload."""
    other = {(workload(run), run["seed"]): run for run in baseline.runs}
    found: dict[Workload, list[tuple[Run, Run]]] = {}
    for run in own.runs:
        partner = other.get((workload(run), run["seed"]))
        if partner is not None:
            found.setdefault(workload(run), []).append((run, partner))
    return found


def mean_of_means(numbers: np.ndarray) -> np.ndarray:
    """Return the mean over workloads of the means over seeds; NaN is left out.

    Args:
      numbers: [..., workloads, seeds].
    """
    return np.nanmean(numbers, axis=-1).mean(axis=-1)


def median_of_all(numbers: np.ndarray) -> np.ndarray:
    """Return the median over workloads and seeds together; NaN is left out.

    Args:
      numbers: [..., workloads, seeds].
    """
    return np.nanmedian(numbers.reshape(*numbers.shape[:-2], -1), axis=-1)


def hierarchical_bootstrap(
    groups: Sequence[Sequence[float] | np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray] = mean_of_means,
    *,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return a statistic of paired numbers, with workloads and seeds both drawn.

    Each draw takes as many workloads as there are, with replacement, and within each
    of these as many of its numbers as it has. With few workloads the interval is wide:
    another seed is less of a surprise than another task.

    `scipy.stats.bootstrap` knows one level of draws, and interpolates between the
    infinite ratios of missed targets, which gives NaN.

    Args:
      groups: The numbers of each workload, one a seed.
      statistic: `mean_of_means` or `median_of_all`.
      draws: How often.
      seed: Seed of the draws.
      level: Share of the draws inside the interval.

    Returns:
      The statistic and its interval; NaN without pairs.
    """
    groups = [group for group in groups if len(group)]
    if not groups:
        return Interval(math.nan, math.nan, math.nan, 0)
    sizes = np.array([len(group) for group in groups])
    numbers = np.full((len(groups), sizes.max()), math.nan)
    for row, group in zip(numbers, groups, strict=True):
        row[: len(group)] = group
    rng = np.random.default_rng(seed)
    which = rng.integers(len(groups), size=(draws, len(groups), 1))
    slots = np.arange(sizes.max())
    place = (rng.random((draws, len(groups), len(slots))) * sizes[which]).astype(int)
    drawn = np.where(slots < sizes[which], numbers[which, place], math.nan)
    found = statistic(drawn)
    low, high = (_quantile(found, q) for q in ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(statistic(numbers)), low, high, int(sizes.sum()))


def sensitivity(scores: Mapping[float, float]) -> float:
    """Return what a method loses on average against its best base rate.

    Args:
      scores: Mean share of the best by base rate.

    Returns:
      The mean over `SENSITIVITY_RATES` of the best of these scores less the score; NaN
      where one of these rates has no run.

    >>> round(sensitivity({1.25e-6: 0.2, 2e-5: 0.8, 3.2e-4: 0.8, 1e-3: 0.9}), 3)
    0.2
    """
    if not all(rate in scores for rate in SENSITIVITY_RATES):
        return math.nan
    own = np.array([scores[rate] for rate in SENSITIVITY_RATES])
    return float(np.mean(own.max() - own))


def step_ratios(own: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Return own / baseline of steps to a target; 1 where both miss it."""
    both = np.isinf(own) & np.isinf(baseline)
    safe = np.where(both, 1.0, baseline)
    return np.where(both, 1.0, own) / safe


def final_scores_by_rate(
    runs: Iterable[Run],
) -> dict[str, dict[float, np.ndarray]]:
    """Return final scores (over seeds) by scheduler and base rate, rates ascending."""
    found: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        by_rate = found.setdefault(run["scheduler"], {})
        by_rate.setdefault(base_rate(run), []).append(final_score(run))
    return {
        scheduler: {rate: np.array(by_rate[rate]) for rate in sorted(by_rate)}
        for scheduler, by_rate in found.items()
    }
