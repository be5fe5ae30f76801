"""What rows of a comparison come to over problems and seeds: spread, ranks, profiles.

Nothing here looks at a run but through `metalr.compare.measures`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from metalr.compare.measures import (
    Bar,
    Problem,
    Row,
    Run,
    failed,
    final_score,
    problem,
    rate,
    to_target,
)

MAX_FACTOR = 4.0  # profiles go from 1 to this many times the fastest


class Interval(NamedTuple):
    """A statistic of paired differences and its bootstrap interval."""

    middle: float
    low: float
    high: float
    pairs: int


class Spread(NamedTuple):
    """Middle and spread of a measure over seeds."""

    mean: float
    median: float
    iqr: float  # 75th less 25th percentile; NaN where either is infinite
    std: float  # with n - 1; 0 for one seed
    size: int


def spread(values: Iterable[float]) -> Spread:
    """Returns middle and spread; a miss (infinite) makes the mean infinite.

    Between a number and a miss nothing is interpolated: a median is infinite where half
    of the values are, and the outer quartiles are then values that occurred.
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


def mean_ranks(table: Mapping[str, Row]) -> dict[str, float]:
    """Returns each row's mean rank by final score; 1 is best, ties share their mean.

    Ranked within each problem and seed that every row has a run of; a failed run is
    last, below one that scores less than chance. NaN where there is no such block.
    """
    blocks: dict[tuple[Problem, int], dict[str, float]] = {}
    for name, entry in table.items():
        for run in entry.runs:
            score = -math.inf if failed(run) else final_score(run)
            blocks.setdefault((problem(run), run["seed"]), {})[name] = score
    full = [block for block in blocks.values() if len(block) == len(table)]
    if not full:
        return dict.fromkeys(table, math.nan)
    scores = np.array([[block[name] for name in table] for block in full])
    above = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(axis=2)
    ranks = above + (equal + 1) / 2
    return dict(zip(table, ranks.mean(axis=0).tolist(), strict=True))


def factors(
    table: Mapping[str, Row], share: float, limits: Mapping[Problem, Bar]
) -> dict[str, np.ndarray]:
    """Returns each row's steps to the target over the fastest row's, by problem.

    t_ps is the median over seeds of the steps to `share` of the best; the factor is
    t_ps / min_s t_ps, infinite where the row misses or has no run. Problems stand in
    the order of `limits`, which says what is best. Rates tried are not multiplied in.
    """
    times = np.full((len(table), len(limits)), math.inf)
    for i, entry in enumerate(table.values()):
        for j, (place, bar) in enumerate(limits.items()):
            own = [run for run in entry.runs if problem(run) == place]
            target = bar.target(share)
            if own:
                times[i, j] = spread(to_target(run, target)[0] for run in own).median
    fastest = times.min(axis=0, initial=math.inf)
    found = np.full_like(times, math.inf)
    np.divide(times, fastest, out=found, where=np.isfinite(times))
    return dict(zip(table, found, strict=True))


def profile(factors: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """Returns rho(tau), the share of problems with a factor <= tau, for each tau."""
    return (factors[None, :] <= taus[:, None]).mean(axis=1)


def profile_score(factors: np.ndarray, most: float = MAX_FACTOR) -> float:
    """Returns AlgoPerf's score, integral_1^most rho(tau) dtau / (most - 1).

    Exact, since rho is a staircase: the mean over problems of
    max(0, most - factor) / (most - 1). 1 is the fastest everywhere.
    """
    return float(np.mean(np.maximum(0.0, most - factors)) / (most - 1.0))


def paired(
    own: Row, baseline: Row, measure: Callable[[Run], float]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a measure of the runs of two rows that share problem and seed."""
    keyed = [{(problem(r), r["seed"]): r for r in x.runs} for x in (own, baseline)]
    shared = [key for key in keyed[0] if key in keyed[1]]
    mine, theirs = (np.array([measure(x[key]) for key in shared]) for x in keyed)
    return mine, theirs


def bootstrap(
    differences: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns a statistic of paired differences with its percentile interval.

    Pairs are drawn with replacement, `draws` times; the interval runs between the
    (1 - level)/2 quantiles of the statistic. NaN without pairs.

    Args:
      differences: One number a pair, such as own - baseline; ratios may be infinite.
      statistic: Called with `axis=-1`, such as `np.mean` or `np.median`.
      draws: How often to draw.
      seed: Of the draws.
      level: The share of the draws inside.
    """
    count = len(differences)
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    drawn = np.random.default_rng(seed).integers(count, size=(draws, count))
    found = statistic(differences[drawn], axis=-1)
    low, high = (_quantile(found, q) for q in ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(statistic(differences, axis=-1)), low, high, count)


def ratio(own: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Returns own / baseline of steps to a target; 1 where both miss."""
    both = np.isinf(own) & np.isinf(baseline)
    safe = np.where(both, 1.0, baseline)
    return np.where(both, 1.0, own) / safe


def sensitivity(runs: Iterable[Run]) -> dict[str, dict[float, np.ndarray]]:
    """Returns final scores (over seeds) by scheduler and base rate, rates rising."""
    found: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        scores = found.setdefault(run["scheduler"], {}).setdefault(rate(run), [])
        scores.append(final_score(run))
    return {
        scheduler: {value: np.array(at[value]) for value in sorted(at)}
        for scheduler, at in found.items()
    }
