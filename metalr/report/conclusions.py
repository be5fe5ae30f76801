"""The conclusions of a comparison: sentences made from the numbers.

The first three say how the subject does against the baseline (tuned linear decay, if
nobody asks for another), against the best shape tuned, and against the best method that
needs no tuning: wins and losses alike.
"""

import math
from collections.abc import Sequence

import numpy as np

from metalr.compare import aggregates, criteria, methods
from metalr.compare.comparison import Comparison
from metalr.compare.paired import (
    ahead,
    best_untuned,
    score_difference,
    speed_ratio,
)

ENOUGH_PAIRS = 50  # of a headline, says docs/protocol.md
# With fewer not even a win in every pair is beyond what chance gives one time in forty.
FEWEST_PAIRS = 6
WORSE = "worse"


def sentences(comparison: Comparison) -> list[str]:
    """Return sentences: against whom the subject wins and loses, and how fast it is."""
    return [
        _against_baseline(comparison),
        _against_best_shape(comparison),
        _against_best_untuned(comparison),
        *_without_its_own(comparison),
        _how_fast(comparison),
        _losses(comparison),
    ]


def _against_baseline(comparison: Comparison) -> str:
    subject, baseline = comparison.subject, comparison.baseline
    own = comparison.averaged.get(subject)
    runs = own.runs if own else ()
    ran = {*map(criteria.workload, runs)}
    tasks, models = ({getattr(of, name) for of in ran} for name in ("task", "model"))
    seeds = {run["seed"] for run in runs}
    scope = (
        f"Over {_count(len(tasks), 'task')}, {_count(len(models), 'model')} and "
        f"{_count(len(seeds), 'seed')}, {subject} ends at {_share(comparison, subject)}"
        " of the best score above chance"
    )
    if subject == baseline:
        return f"{scope}; it is the baseline."
    share = _share(comparison, baseline)
    return f"{scope}, {baseline} at {share}: {_result(comparison, baseline)}."


def _against_best_shape(comparison: Comparison) -> str:
    name = methods.BEST_SHAPE
    if name not in comparison.averaged:
        return "Against the best shape: no second shape was tuned here."
    tries = max(comparison.methods[name].rates_tried.values())
    return (
        f"Against the best shape of those tuned ({tries} tries, ends at "
        f"{_share(comparison, name)}): {_result(comparison, name)}."
    )


def _against_best_untuned(comparison: Comparison) -> str:
    name = best_untuned(comparison)
    if name is None:
        return "Against the best untuned method: none is in this comparison."
    return (
        f"Against the best untuned method, {name} (picked by these scores, ends at "
        f"{_share(comparison, name)}): {_result(comparison, name)}."
    )


def _without_its_own(comparison: Comparison) -> list[str]:
    """Say what is left of the scores without what the subject alone learns."""
    alone = comparison.learned_alone
    rest = comparison._replace(unlearned=(*comparison.unlearned, *alone))
    names = _and([" with ".join(of) for of in alone])
    if not alone:
        return []
    subject = comparison.subject
    if len(rest.unlearned) == len(rest.references):
        return [f"No method but {subject} and its variants learns {names}."]
    rows = (comparison.baseline, methods.BEST_SHAPE, best_untuned(comparison))
    shown = [name for name in rows if name in rest.averaged and name != subject]
    shares = [f"{name} at {_share(rest, name)}" for name in dict.fromkeys(shown)]
    return [
        f"No method but {subject} and its variants learns {names}; without it "
        f"{_and([f'{subject} ends at {_share(rest, subject)}', *shares])}."
    ]


def _share(comparison: Comparison, name: str) -> str:
    """Return a method's mean share of the best, and of how many problems if not all."""
    if name not in comparison.averaged:
        return "–"
    mean = comparison.mean(name, "share of the best")
    return f"{mean:.3f}{comparison.scope(name)}"


def _result(comparison: Comparison, other: str) -> str:
    """Return the difference of the subject to another method, and where it leads."""
    gap = score_difference(comparison, comparison.subject, other)
    if gap.pairs == 0:
        return "no run of one can be paired with a run of the other"
    apart = ahead(comparison, comparison.subject, other).values()
    part = " where both ran" if len(apart) < len(comparison.learned) else ""
    above, below = (sum(sign * gap > 0 for gap in apart) for sign in (1, -1))
    pairs = _count(gap.pairs, "pair")
    if gap.pairs < ENOUGH_PAIRS:
        pairs += f", fewer than {ENOUGH_PAIRS}"
    return (
        f"{_verdict(gap)} by {gap.estimate:+.3f} (95 % interval {gap.low:+.3f} to "
        f"{gap.high:+.3f}, {pairs}), ahead on {above} and behind on {below} "
        f"of {len(apart)} tasks and models{part}"
    )


def _verdict(gap: aggregates.Interval) -> str:
    if gap.pairs < FEWEST_PAIRS:
        return "too few pairs to tell, different"
    if gap.low > 0:
        return "better"
    if gap.high < 0:
        return WORSE
    return "not distinguishable with these runs, different"


def _how_fast(comparison: Comparison) -> str:
    subject, baseline = comparison.subject, comparison.baseline
    averaged = comparison.averaged
    if subject not in averaged or baseline not in averaged:
        return "How fast it is cannot be said."
    own, theirs = (
        np.array(comparison.values(averaged[name].runs, "steps to 95 %"))
        for name in (subject, baseline)
    )
    missed = f"misses it in {np.isinf(own).sum()} of {_count(len(own), 'run')}"
    goal = f"95 % of what the median run of {baseline} ends with"
    if subject == baseline:
        return f"It reaches {goal}, or {missed}."
    steps = speed_ratio(comparison, subject)
    seconds = speed_ratio(comparison, subject, "seconds")
    return (
        f"{_speed(steps, goal, baseline)}{_seconds(seconds)}; it {missed}, "
        f"{baseline} in {np.isinf(theirs).sum()} of {len(theirs)}."
    )


def _speed(ratio: aggregates.Interval, goal: str, baseline: str) -> str:
    if not ratio.pairs:
        return f"Steps to {goal} cannot be compared: there is no pair"
    if ratio.estimate == 0:
        return f"In most pairs it reaches {goal} and that run does not"
    if math.isinf(ratio.estimate):
        return f"In half of the pairs or more it never reaches {goal}"
    estimate, low, high = map(criteria.format_time, ratio[:3])
    return (
        f"To {goal} it needs {estimate} times the steps of {baseline} (median of "
        f"pairs, 95 % interval {low} to {high}; 1 where both miss it)"
    )


def _seconds(ratio: aggregates.Interval) -> str:
    if not math.isfinite(ratio.estimate) or not ratio.estimate:
        return ""
    estimate, low, high = map(criteria.format_time, ratio[:3])
    return f" and {estimate} times the seconds ({low} to {high})"


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
    runs = comparison.methods[comparison.subject].runs  # of all workloads
    failures = sum(map(criteria.failed, runs))
    parts.append(f"{failures} of its {_count(len(runs), 'run')} failed")
    return f"Losses: {', '.join(parts[:-1])}, and {parts[-1]}."


def _better_in_score(comparison: Comparison) -> list[str]:
    found = []
    for name in comparison.averaged:
        gap = score_difference(comparison, comparison.subject, name)
        if name != comparison.subject and _verdict(gap) == WORSE:
            found.append(f"{name} ({gap.estimate:+.3f})")
    return found


def _better_in_profile(comparison: Comparison) -> list[str]:
    slowdowns = aggregates.slowdowns(comparison.averaged, 0.95, comparison.learned)
    scores = {name: aggregates.profile_score(s) for name, s in slowdowns.items()}
    own = scores.get(comparison.subject, math.inf)
    return [
        f"{name} ({score:.2f} against {own:.2f})"
        for name, score in scores.items()
        if score > own
    ]


def _behind_baseline(comparison: Comparison) -> list[str]:
    apart = ahead(comparison, comparison.subject, comparison.baseline)
    return [
        f"{' with '.join(workload)} ({gap:+.3f})"
        for workload, gap in apart.items()
        if gap < 0
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
