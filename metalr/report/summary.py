"""The answer of a comparison in three sentences, made from the numbers."""

import math
from collections.abc import Sequence

import numpy as np

from metalr.compare import measures, statistics
from metalr.compare.comparison import Comparison, difference, speed


def sentences(found: Comparison) -> list[str]:
    """Returns the answer in three sentences: how good, how fast, and what is lost."""
    return [_how_good(found), _how_fast(found), _losses(found)]


def _how_good(found: Comparison) -> str:
    tasks = {task for task, _ in found.bars}
    models = {model for _, model in found.bars}
    seeds = {run["seed"] for run in found.runs}
    scope = (
        f"Over {_count(len(tasks), 'task')}, {_count(len(models), 'model')} and "
        f"{_count(len(seeds), 'seed')}, {found.subject} ends at "
    )
    own = np.mean(found.values(found.rows[found.subject].runs, "share of the best"))
    if found.subject == found.baseline:
        return f"{scope}{own:.3f} of the best score above chance; it is the baseline."
    theirs = found.values(found.rows[found.baseline].runs, "share of the best")
    gap = difference(found, found.subject)
    if gap.pairs == 0:
        verdict = "no run of one has a partner in the other"
    else:
        verdict = (
            f"{_verdict(gap)} by {gap.middle:+.3f} (95 % interval {gap.low:+.3f} to "
            f"{gap.high:+.3f}, {_count(gap.pairs, 'pair')})"
        )
    return (
        f"{scope}{own:.3f} of the best score above chance, {found.baseline} at "
        f"{np.mean(theirs):.3f}: {verdict}."
    )


def _verdict(gap: statistics.Interval) -> str:
    if gap.low > 0:
        return "better"
    if gap.high < 0:
        return "worse"
    return "no difference that these runs can show, off"


def _how_fast(found: Comparison) -> str:
    own = found.rows[found.subject]
    times = np.array(found.values(own.runs, "steps to 95 %"))
    missed = f"misses it in {np.isinf(times).sum()} of {_count(len(times), 'run')}"
    if found.subject == found.baseline:
        return f"It reaches 95 % of the best score, or {missed}."
    rest = found.values(found.rows[found.baseline].runs, "steps to 95 %")
    gap = speed(found, found.subject)
    return (
        f"{_pace(gap, found.baseline)}; it {missed}, {found.baseline} in "
        f"{np.isinf(rest).sum()} of {len(rest)}."
    )


def _pace(gap: statistics.Interval, baseline: str) -> str:
    goal = "95 % of the best score"
    if not gap.pairs:
        return f"Of steps to {goal} there is no pair with {baseline}"
    if gap.middle == 0:
        return f"In most pairs it reaches {goal} and {baseline} never does"
    if math.isinf(gap.middle):
        return f"In half of the pairs or more it never reaches {goal}, {baseline} does"
    middle, low, high = map(measures.time_name, (gap.middle, gap.low, gap.high))
    return (
        f"To {goal} it needs {middle} times the steps of {baseline} (median of pairs, "
        f"95 % interval {low} to {high}; 1 where both miss it)"
    )


def _losses(found: Comparison) -> str:
    """Returns the sentence that names what is better than the subject, and where."""
    beaten = []
    score = {
        name: statistics.profile_score(factors)
        for name, factors in statistics.factors(found.rows, 0.95, found.bars).items()
    }
    faster = [
        f"{name} ({score[name]:.2f} against {score[found.subject]:.2f})"
        for name in score
        if score[name] > score[found.subject]
    ]
    for name in found.rows:
        gap = difference(found, found.subject, name)
        if name != found.subject and gap.pairs and gap.high < 0:
            beaten.append(f"{name} ({gap.middle:+.3f})")
    behind = []
    for place in found.bars:
        means = [
            np.mean(found.values(found.of(name, place), "share of the best") or [0])
            for name in (found.subject, found.baseline)
        ]
        if means[0] < means[1] and found.of(found.subject, place):
            behind.append(f"{' with '.join(place)} ({means[0] - means[1]:+.3f})")
    lost = [
        f"in the final score it loses to {_and(beaten)}"
        if beaten
        else "in the final score no row is better beyond the interval",
        f"in the profile of steps to 95 % to {_and(faster)}"
        if faster
        else "in the profile of steps to 95 % none is better",
    ]
    if found.subject != found.baseline:
        lost.append(
            f"against {found.baseline} it is behind on {_and(behind)}"
            if behind
            else f"it is behind {found.baseline} on no task"
        )
    broke = sum(map(measures.failed, found.rows[found.subject].runs))
    count = _count(len(found.rows[found.subject].runs), "run")
    lost.append(f"{broke} of its {count} failed")
    text = ", ".join(lost[:-1]) + ", and " + lost[-1]
    return f"Losses: {text}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
