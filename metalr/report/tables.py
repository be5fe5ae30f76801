"""The tables of a comparison as plain strings; `document` formats them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from metalr.compare import aggregates, criteria
from metalr.compare.comparison import WITHOUT_EFFECT, Comparison, score_difference
from metalr.compare.criteria import Workload, format_time
from metalr.compare.store import OVERHEAD_FIELDS

Cells = list[tuple[str, ...]]

SUMMARY_HEAD = (
    "method",
    "share of the best",
    "difference to the baseline",
    "steps to 95 %",
    "steps to 99 %",
    "area",
    "rank",
    "profile",
    "missed",
    "failed",
    "rates tried",
)

# What the columns mean, as the report explains them.
LEGEND = (
    "Share of the best: (final score - chance) / (best final score - chance), with the "
    "best over all methods and seeds of a task and model. A failed run scores chance.",
    "Difference: paired by task, model and seed; mean and 95 % bootstrap interval over "
    "the pairs, so it holds for these tasks and not for others.",
    "Steps to 95 % and 99 % of the best: median over tasks and models of the factor to "
    "the fastest method there, with the median over seeds; ∞ is a miss.",
    "Area: under the validation curve, share of the best. Rank: mean by final score.",
    "Profile: AlgoPerf's score for 95 %, up to a factor of 4; 1 is the fastest "
    "everywhere. Missed: runs that never reach 95 %.",
    "A tuned method uses for each task and model the base rate with the best mean "
    "final score: it is chosen by the scores that it shows. Rates tried is its price.",
)


def summary_table(comparison: Comparison) -> Cells:
    """Return the cells under `SUMMARY_HEAD`, the best share first.

    Steps to a target are the median over workloads of the factor to the fastest method,
    the profile is AlgoPerf's score for 95 %, missed counts the runs below 95 %.
    """
    methods = comparison.methods
    ranks = aggregates.mean_ranks(methods)
    slowdowns = [
        aggregates.slowdowns(methods, share, comparison.references)
        for share in (0.95, 0.99)
    ]
    lines = []
    for name, method in methods.items():
        share, area, steps = (
            comparison.values(method.runs, criterion)
            for criterion in (
                "share of the best",
                "area under the curve",
                "steps to 95 %",
            )
        )
        spread = aggregates.spread(share)
        gap = score_difference(comparison, name)
        cells = (
            name,
            f"{spread.mean:.3f} (IQR {spread.iqr:.3f})",
            "baseline" if name == comparison.baseline else _interval(gap),
            *(format_time(aggregates.spread(s[name]).median) for s in slowdowns),
            f"{np.mean(area):.3f}",
            "–" if math.isnan(ranks[name]) else f"{ranks[name]:.1f}",
            f"{aggregates.profile_score(slowdowns[0][name]):.2f}",
            f"{np.isinf(steps).sum()} of {len(steps)}",
            f"{sum(map(criteria.failed, method.runs))} of {len(method.runs)}",
            f"{np.mean([*method.rates_tried.values()]):.3g}",
        )
        lines.append((-spread.mean, cells))
    return [cells for _, cells in sorted(lines, key=lambda line: line[0])]


WORKLOAD_HEAD = (
    "method",
    "rate",
    "final, mean ± std",
    "final, median (IQR)",
    "best",
    "epochs to 95 %",
    "epochs to 99 %",
    "steps to 95 %",
    "steps paid",
    "area",
    "failed",
)


def workload_table(comparison: Comparison, workload: Workload) -> Cells:
    """Return the cells under `WORKLOAD_HEAD` for a task and model, best first.

    Steps and epochs are medians over seeds; steps paid are the rates tried times the
    steps to 95 %.
    """
    lines = []
    for name, method in comparison.methods.items():
        runs = comparison.runs_of(name, workload)
        if not runs:
            continue
        of = {
            criterion: aggregates.spread(comparison.values(runs, criterion))
            for criterion in criteria.CRITERIA
        }
        final, steps = of["final score"], of["steps to 95 %"].median
        cells = (
            name,
            criteria.format_rate(criteria.base_rate(runs[0])),
            f"{final.mean:.3f} ± {final.std:.3f}",
            f"{final.median:.3f} ({final.iqr:.3f})",
            f"{of['best score'].mean:.3f}",
            format_time(of["epochs to 95 %"].median, ".2f"),
            format_time(of["epochs to 99 %"].median, ".2f"),
            format_time(steps, ".0f"),
            format_time(method.steps_paid(workload, steps), ".0f"),
            f"{of['area under the curve'].mean:.3f}",
            f"{sum(map(criteria.failed, runs))} of {len(runs)}",
        )
        lines.append((-final.mean, cells))
    return [cells for _, cells in sorted(lines, key=lambda line: line[0])]


OVERHEAD_HEAD = (
    "scheduler",
    "model",
    "batch",
    "length",
    "device",
    "step time",
    "middle half",
    "optimizer state",
)


def overhead_table(comparison: Comparison) -> Cells:
    """Return the cells under `OVERHEAD_HEAD`: factors to plain AdamW."""
    lines = []
    for line in comparison.overheads:
        low, middle, high = np.percentile(line["step_ratio"], [25, 50, 75])
        cells = [str(line[name]) for name in OVERHEAD_FIELDS]
        cells += [f"{middle:.3f}", f"{low:.3f} to {high:.3f}"]
        lines.append((*cells, f"{line['state_ratio']:.3f}"))
    return sorted(lines)


ORIGIN_HEAD = ("task", "model", "data", "weights")


def origin_table(comparison: Comparison) -> Cells:
    """Return the cells under `ORIGIN_HEAD`: where data and weights come from."""
    lines = []
    for workload in comparison.references:
        run = next(r for r in comparison.runs if criteria.workload(r) == workload)
        lines.append((*workload, _origin(run["data"]), _origin(run["weights"])))
    return lines


def settings_table(comparison: Comparison) -> Cells:
    """Return each setting with its values over all runs, in most cases one."""
    names = sorted({name for run in comparison.runs for name in run["settings"]})
    lines = []
    for name in names:
        values = {str(run["settings"].get(name)): None for run in comparison.runs}
        if name not in WITHOUT_EFFECT and values.keys() != {"None"}:
            lines.append((name, ", ".join(values)))
    return lines


def versions_table(comparison: Comparison) -> Cells:
    """Return each library with the versions that the runs were made with."""
    runs = comparison.runs
    names = sorted({name for run in runs for name in run["versions"]})
    return [
        (name, ", ".join(sorted({str(run["versions"].get(name)) for run in runs})))
        for name in names
    ]


def _origin(origin: Mapping[str, Any]) -> str:
    parts = (origin.get("kind"), origin.get("where"), origin.get("note"))
    return ", ".join(str(part) for part in parts if part) or "unknown"


def _interval(gap: aggregates.Interval) -> str:
    if not gap.pairs:
        return "–"
    return f"{gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
