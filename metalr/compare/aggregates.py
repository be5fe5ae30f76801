"""Aggregates of a comparison over workloads and seeds: spread, ranks, profiles.

Runs are read through `metalr.compare.criteria` alone.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from metalr.compare.criteria import (
    Reference,
    Run,
    Workload,
    base_rate,
    failed,
    final_score,
    to_target,
    workload,
)
from metalr.compare.methods import Method

MAX_FACTOR = 4.0  # profiles go from 1 to this many times the fastest


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

    No value is interpolated between a number and a miss: the median is infinite where
    half of the values are, and the quartiles are then values that occurred.
    """
    given = np.array([*values], float)
    if not len(given):
        return Spread(math.nan, math.nan, math.nan, math.nan, 0)
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
) -> dict[str, np.ndarray]:
    """Return each method's steps to a target over the fastest method's, by workload.

    With t_ps the median over seeds of the steps that method s needs to `share` of the
    best on workload p, the slowdown is t_ps / min_s t_ps: infinite where the method
    misses the target or has no run. Workloads are in the order of `references`. The
    rates that a tuned method tried are not multiplied in.
    """
    times = np.full((len(methods), len(references)), math.inf)
    for i, method in enumerate(methods.values()):
        for j, (of, reference) in enumerate(references.items()):
            own = [run for run in method.runs if workload(run) == of]
            target = reference.target(share)
            if own:
                times[i, j] = spread(to_target(run, target)[0] for run in own).median
    fastest = times.min(axis=0, initial=math.inf)
    found = np.full_like(times, math.inf)
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


def pair(
    own: Method, baseline: Method, criterion: Callable[[Run], float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a criterion of the runs of two methods that share workload and seed."""
    keyed = [{(workload(r), r["seed"]): r for r in m.runs} for m in (own, baseline)]
    shared = [key for key in keyed[0] if key in keyed[1]]
    mine, theirs = (np.array([criterion(x[key]) for key in shared]) for x in keyed)
    return mine, theirs


def bootstrap(
    numbers: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return a statistic of paired numbers with its percentile bootstrap interval.

    `scipy.stats.bootstrap` refuses a single pair and interpolates between the infinite
    ratios of missed targets, which gives NaN; elsewhere the two agree.

    Args:
      numbers: One number a pair, such as own - baseline; ratios may be infinite.
      statistic: Called with `axis=-1`, such as `np.mean` or `np.median`.
      draws: How often all pairs are drawn with replacement.
      seed: Seed of the draws.
      level: Share of the draws inside the interval.

    Returns:
      The statistic and its interval; NaN without pairs.
    """
    count = len(numbers)
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    drawn = np.random.default_rng(seed).integers(count, size=(draws, count))
    found = statistic(numbers[drawn], axis=-1)
    low, high = (_quantile(found, q) for q in ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(statistic(numbers, axis=-1)), low, high, count)


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
