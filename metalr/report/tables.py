"""The tables of a comparison as plain strings; `document` formats them."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metalr.compare import aggregates, criteria
from metalr.compare.comparable import WITHOUT_EFFECT
from metalr.compare.comparison import Comparison, part_of
from metalr.compare.criteria import Run, Workload, format_time
from metalr.compare.methods import Method
from metalr.compare.paired import score_difference, sensitivity
from metalr.compare.store import OVERHEAD_FIELDS
from metalr.finetune.schedulers import SCHEDULERS
from metalr.runtime.origin import Origin

Cells = list[tuple[str, ...]]

SUMMARY_HEAD = (
    "method",
    "share of the best",
    "at its best evaluation",
    "difference to the baseline",
    "steps to 95 %",
    "steps to 99 %",
    "seconds to 95 %",
    "seconds to 99 %",
    "area",
    "rank",
    "profile",
    "missed",
    "failed",
    "sensitivity",
    "rates tried",
)

# What the columns mean, as the report explains them.
LEGEND = (
    "Share of the best: (final score - chance) / (best final score - chance), with the "
    "best over all methods and seeds of a task and model. A failed run scores chance.",
    "Difference: paired by task, model and seed; mean, and the 95 % interval of a "
    "hierarchical bootstrap that draws tasks and models first and then seeds.",
    "Steps and seconds to 95 % and 99 % of the target, which is what the median run of "
    "the baseline ends with above chance: median over tasks and models of the factor "
    "to the fastest method there, with the median over seeds; ∞ is a miss, – unknown. "
    "Seconds leave out compilation and evaluation.",
    "Area: under the validation curve, share of the best. Rank: mean by final score.",
    "Profile: AlgoPerf's score for the steps to 95 %, up to a factor of 4; 1 is the "
    "fastest everywhere. Missed: runs that never reach 95 %.",
    "Sensitivity: mean loss of the share over base rates 1.25e-6, 2e-5 and 3.2e-4 "
    "against the best of the three; none reads no base rate.",
    "A tuned method uses for each task, model and seed the base rate (the best shape: "
    "and the scheduler) with the best mean final score on the other seeds; with one "
    "seed it is chosen by the score that it shows. Rates tried is its price.",
)


def summary_table(comparison: Comparison) -> Cells:
    """Return the cells under `SUMMARY_HEAD`, the best share first.

    Steps to a target are the median over workloads of the factor to the fastest method,
    the profile is AlgoPerf's score for 95 %, missed counts the runs below 95 %. All are
    of the workloads that somebody learns; a method that did not run on all of them says
    on how many its mean is.
    """
    methods = comparison.averaged
    ranks = aggregates.mean_ranks(methods)
    slowdowns = [
        aggregates.slowdowns(methods, share, comparison.learned, clock)
        for clock in (criteria.steps_to_target, criteria.seconds_to_target)
        for share in (0.95, 0.99)
    ]
    lines = []
    for name, method in methods.items():
        share, steps = (
            comparison.values(method.runs, criterion)
            for criterion in ("share of the best", "steps to 95 %")
        )
        mean = functools.partial(comparison.mean, name)
        spread = aggregates.spread(share)
        gap = score_difference(comparison, name)
        cells = (
            name,
            f"{mean('share of the best'):.3f} (IQR {spread.iqr:.3f})"
            f"{comparison.scope(name)}",
            f"{mean('share of the best, best evaluation'):.3f}",
            "baseline" if name == comparison.baseline else _interval(gap),
            *(format_time(aggregates.spread(s[name]).median) for s in slowdowns),
            f"{mean('area under the curve'):.3f}",
            "–" if math.isnan(ranks[name]) else f"{ranks[name]:.1f}",
            f"{aggregates.profile_score(slowdowns[0][name]):.2f}",
            f"{np.isinf(steps).sum()} of {len(steps)}",
            f"{sum(map(criteria.failed, method.runs))} of {len(method.runs)}",
            _sensitivity(comparison, method),
            f"{np.mean([*method.rates_tried.values()]):.3g}",
        )
        lines.append((-mean("share of the best"), cells))
    return [cells for _, cells in sorted(lines, key=lambda line: line[0])]


WORKLOAD_HEAD = (
    "method",
    "rate",
    "final, mean ± std",
    "final, median (IQR)",
    "best",
    "final loss",
    "loss at the best",
    "epochs to 95 %",
    "epochs to 99 %",
    "steps to 95 %",
    "steps paid",
    "seconds to 95 %",
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
            _rates(runs),
            f"{final.mean:.3f} ± {final.std:.3f}",
            f"{final.median:.3f} ({final.iqr:.3f})",
            f"{of['best score'].mean:.3f}",
            _number(of["final loss"].mean),
            _number(of["loss at the best"].mean),
            format_time(of["epochs to 95 %"].median, ".2f"),
            format_time(of["epochs to 99 %"].median, ".2f"),
            format_time(steps, ".0f"),
            format_time(method.steps_paid(workload, steps), ".0f"),
            format_time(of["seconds to 95 %"].median, ".1f"),
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
    kind, where, note, _ = Origin.of(origin)
    return ", ".join(filter(None, (kind, where, str(note)))) or "unknown"


def device_table(comparison: Comparison) -> Cells:
    """Return each kind of device with its processor, threads and number of runs."""
    count: dict[tuple[str, ...], int] = {}
    for run in comparison.runs:
        device = run.get("device", {})
        fields = (criteria.device(run), device.get("processor"), device.get("threads"))
        cells = tuple("–" if field is None else str(field) for field in fields)
        count[cells] = count.get(cells, 0) + 1
    return [(*cells, str(number)) for cells, number in sorted(count.items())]


def _sensitivity(comparison: Comparison, method: Method) -> str:
    row = SCHEDULERS.get(method.scheduler)
    if row is not None and row.rate_free:
        return "none"
    if method.tuned:
        return "–"
    lost, count = sensitivity(comparison, method.scheduler)
    return _number(lost) + (part_of(count, len(comparison.learned)) if count else "")


def _rates(runs: Sequence[Run]) -> str:
    """Return the base rates of runs; where seeds chose several, each once."""
    rates = sorted({criteria.base_rate(run) for run in runs})
    return ", ".join(map(criteria.format_rate, rates))


def _number(value: float) -> str:
    return format_time(value, ".3f")


def _interval(gap: aggregates.Interval) -> str:
    if not gap.pairs:
        return "–"
    return f"{gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
