"""The tables of a comparison as plain strings; `document` says how they look."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from metalr.compare import measures, statistics
from metalr.compare.comparison import WITHOUT_EFFECT, Comparison, difference
from metalr.compare.measures import Problem
from metalr.compare.store import OVERHEAD_PLACE

Cells = list[tuple[str, ...]]

SUMMARY_HEAD = (
    "row",
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

# What the columns say, in the words of the report.
LEGEND = (
    "Share of the best: (final score - chance) / (best final score - chance), with the "
    "best over all rows and seeds of a task and model. A failed run scores chance.",
    "Difference: paired by task, model and seed; mean and 95 % bootstrap interval over "
    "the pairs, so it speaks of these tasks and not of others.",
    "Steps to 95 % and 99 % of the best: median over tasks and models of the factor to "
    "the fastest row there, seeds by their median; ∞ is a miss.",
    "Area: under the validation curve, share of the best. Rank: mean by final score.",
    "Profile: AlgoPerf's score for 95 %, up to a factor of 4; 1 is the fastest "
    "everywhere. Missed: runs that never reach 95 %.",
    "A tuned row takes for each task and model the base rate with the best mean final "
    "score: it is picked by the very scores that it shows. Rates tried is its price.",
)


def summary_table(found: Comparison) -> Cells:
    """Returns the cells under `SUMMARY_HEAD`, the best share first.

    Steps to a target are the median over problems of the factor to the fastest row,
    the profile is AlgoPerf's score for 95 %, missed counts the runs below 95 %.
    """
    ranks = statistics.mean_ranks(found.rows)
    factors = [
        statistics.factors(found.rows, share, found.bars) for share in (0.95, 0.99)
    ]
    lines = []
    for name, row in found.rows.items():
        share = statistics.spread(found.values(row.runs, "share of the best"))
        gap = difference(found, name)
        times = found.values(row.runs, "steps to 95 %")
        is_base = name == found.baseline
        cells = (
            name,
            f"{share.mean:.3f} (IQR {share.iqr:.3f})",
            "baseline" if is_base else _interval(gap),
            *(measures.time_name(statistics.spread(f[name]).median) for f in factors),
            f"{np.mean(found.values(row.runs, 'area under the curve')):.3f}",
            "–" if math.isnan(ranks[name]) else f"{ranks[name]:.1f}",
            f"{statistics.profile_score(factors[0][name]):.2f}",
            f"{np.isinf(times).sum()} of {len(times)}",
            f"{sum(map(measures.failed, row.runs))} of {len(row.runs)}",
            f"{np.mean([*row.rates.values()]):.3g}",
        )
        lines.append((-share.mean, cells))
    return [cells for _, cells in sorted(lines, key=lambda line: line[0])]


PROBLEM_HEAD = (
    "row",
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


def problem_table(found: Comparison, place: Problem) -> Cells:
    """Returns the cells under `PROBLEM_HEAD` for a task and model, best first.

    Times are medians over seeds; steps paid are the rates tried times the steps to
    95 %.
    """
    lines = []
    for name, row in found.rows.items():
        runs = found.of(name, place)
        if not runs:
            continue
        of = {m: statistics.spread(found.values(runs, m)) for m in measures.MEASURES}
        final, steps = of["final score"], of["steps to 95 %"].median
        cells = (
            name,
            measures.rate_name(measures.rate(runs[0])),
            f"{final.mean:.3f} ± {final.std:.3f}",
            f"{final.median:.3f} ({final.iqr:.3f})",
            f"{of['best score'].mean:.3f}",
            measures.time_name(of["epochs to 95 %"].median, ".2f"),
            measures.time_name(of["epochs to 99 %"].median, ".2f"),
            measures.time_name(steps, ".0f"),
            measures.time_name(measures.cost(row, place, steps), ".0f"),
            f"{of['area under the curve'].mean:.3f}",
            f"{sum(map(measures.failed, runs))} of {len(runs)}",
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


def overhead_table(found: Comparison) -> Cells:
    """Returns the cells under `OVERHEAD_HEAD`: factors to plain AdamW."""
    lines = []
    for line in found.overheads:
        low, middle, high = np.percentile(line["step_ratio"], [25, 50, 75])
        cells = [str(line[name]) for name in OVERHEAD_PLACE]
        cells += [f"{middle:.3f}", f"{low:.3f} to {high:.3f}"]
        lines.append((*cells, f"{line['state_ratio']:.3f}"))
    return sorted(lines)


ORIGIN_HEAD = ("task", "model", "data", "weights")


def origin_table(found: Comparison) -> Cells:
    """Returns the cells under `ORIGIN_HEAD`: where data and weights are from."""
    lines = []
    for place in found.bars:
        run = next(r for r in found.runs if measures.problem(r) == place)
        lines.append((*place, _origin(run["data"]), _origin(run["weights"])))
    return lines


def settings_table(found: Comparison) -> Cells:
    """Returns each setting with its values over all runs, most of them one."""
    names = sorted({name for run in found.runs for name in run["settings"]})
    lines = []
    for name in names:
        values = {str(run["settings"].get(name)): None for run in found.runs}
        if name not in WITHOUT_EFFECT and values.keys() != {"None"}:
            lines.append((name, ", ".join(values)))
    return lines


def versions_table(found: Comparison) -> Cells:
    """Returns each library with the versions that the runs were made with."""
    names = sorted({name for run in found.runs for name in run["versions"]})
    return [
        (name, ", ".join(sorted({str(r["versions"].get(name)) for r in found.runs})))
        for name in names
    ]


def _origin(origin: Mapping[str, Any]) -> str:
    parts = (origin.get("kind"), origin.get("where"), origin.get("note"))
    return ", ".join(str(part) for part in parts if part) or "unknown"


def _interval(gap: statistics.Interval) -> str:
    if not gap.pairs:
        return "–"
    return f"{gap.middle:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
