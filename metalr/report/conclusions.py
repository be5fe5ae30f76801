"""The conclusions of a comparison: three sentences made from the numbers."""

import math
from collections.abc import Sequence

import numpy as np

from metalr.compare import aggregates, criteria
from metalr.compare.comparison import Comparison, score_difference, speed_ratio


def sentences(comparison: Comparison) -> list[str]:
    """Return three sentences: how good the subject is, how fast, where it loses."""
    return [_how_good(comparison), _how_fast(comparison), _losses(comparison)]


def _how_good(comparison: Comparison) -> str:
    tasks = {workload.task for workload in comparison.references}
    models = {workload.model for workload in comparison.references}
    seeds = {run["seed"] for run in comparison.runs}
    subject, baseline = comparison.subject, comparison.baseline
    scope = (
        f"Over {_count(len(tasks), 'task')}, {_count(len(models), 'model')} and "
        f"{_count(len(seeds), 'seed')}, {subject} ends at "
    )
    own, theirs = (
        np.mean(comparison.values(comparison.methods[name].runs, "share of the best"))
        for name in (subject, baseline)
    )
    if subject == baseline:
        return f"{scope}{own:.3f} of the best score above chance; it is the baseline."
    gap = score_difference(comparison, subject)
    if gap.pairs == 0:
        result = "no run of one can be paired with a run of the other"
    else:
        result = (
            f"{_verdict(gap)} by {gap.estimate:+.3f} (95 % interval {gap.low:+.3f} to "
            f"{gap.high:+.3f}, {_count(gap.pairs, 'pair')})"
        )
    return (
        f"{scope}{own:.3f} of the best score above chance, {baseline} at "
        f"{theirs:.3f}: {result}."
    )


def _verdict(gap: aggregates.Interval) -> str:
    if gap.low > 0:
        return "better"
    if gap.high < 0:
        return "worse"
    return "not distinguishable with these runs, different"


def _how_fast(comparison: Comparison) -> str:
    subject, baseline = comparison.subject, comparison.baseline
    own, theirs = (
        np.array(comparison.values(comparison.methods[name].runs, "steps to 95 %"))
        for name in (subject, baseline)
    )
    missed = f"misses it in {np.isinf(own).sum()} of {_count(len(own), 'run')}"
    if subject == baseline:
        return f"It reaches 95 % of the best score, or {missed}."
    return (
        f"{_speed(speed_ratio(comparison, subject), baseline)}; it {missed}, "
        f"{baseline} in {np.isinf(theirs).sum()} of {len(theirs)}."
    )


def _speed(ratio: aggregates.Interval, baseline: str) -> str:
    goal = "95 % of the best score"
    if not ratio.pairs:
        return f"Steps to {goal} cannot be compared: there is no pair with {baseline}"
    if ratio.estimate == 0:
        return f"In most pairs it reaches {goal} and {baseline} never does"
    if math.isinf(ratio.estimate):
        return f"In half of the pairs or more it never reaches {goal}, {baseline} does"
    estimate, low, high = map(criteria.format_time, ratio[:3])
    return (
        f"To {goal} it needs {estimate} times the steps of {baseline} (median of "
        f"pairs, 95 % interval {low} to {high}; 1 where both miss it)"
    )


def _losses(comparison: Comparison) -> str:
    """Return the sentence on what is better than the subject, and where."""
    better = _better_in_score(comparison)
    faster = _better_in_profile(comparison)
    parts = [
        f"in the final score it loses to {_and(better)}"
        if better
        else "in the final score no method is better beyond the interval",
        f"in the profile of steps to 95 % to {_and(faster)}"
        if faster
        else "in the profile of steps to 95 % none is better",
    ]
    if comparison.subject != comparison.baseline:
        behind = _behind_baseline(comparison)
        parts.append(
            f"it is behind {comparison.baseline} on {_and(behind)}"
            if behind
            else f"it is behind {comparison.baseline} on no task"
        )
    runs = comparison.methods[comparison.subject].runs
    failures = sum(map(criteria.failed, runs))
    parts.append(f"{failures} of its {_count(len(runs), 'run')} failed")
    return f"Losses: {', '.join(parts[:-1])}, and {parts[-1]}."


def _better_in_score(comparison: Comparison) -> list[str]:
    found = []
    for name in comparison.methods:
        gap = score_difference(comparison, comparison.subject, name)
        if name != comparison.subject and gap.pairs and gap.high < 0:
            found.append(f"{name} ({gap.estimate:+.3f})")
    return found


def _better_in_profile(comparison: Comparison) -> list[str]:
    slowdowns = aggregates.slowdowns(comparison.methods, 0.95, comparison.references)
    scores = {name: aggregates.profile_score(s) for name, s in slowdowns.items()}
    own = scores[comparison.subject]
    return [
        f"{name} ({score:.2f} against {own:.2f})"
        for name, score in scores.items()
        if score > own
    ]


def _behind_baseline(comparison: Comparison) -> list[str]:
    found = []
    for workload in comparison.references:
        own, theirs = (
            comparison.runs_of(name, workload)
            for name in (comparison.subject, comparison.baseline)
        )
        means = [
            np.mean(comparison.values(runs, "share of the best") or [0])
            for runs in (own, theirs)
        ]
        if own and means[0] < means[1]:
            found.append(f"{' with '.join(workload)} ({means[0] - means[1]:+.3f})")
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
