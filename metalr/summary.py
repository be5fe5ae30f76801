"""What a store of runs says: checked, put in rows, and told in sentences and tables.

The text of the report comes from here as plain strings; how it looks is the business
of `metalr.document`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr import measures, results
from metalr.errors import MetalrError
from metalr.measures import Bar, Problem, Row, Run

VERSION = 1
SUBJECT = "metalr"  # the row that the answer is about

# Settings in which runs of one task and model may differ: what a way to set the rate
# brings along, and what makes no difference to the numbers.
OF_THE_METHOD = {"scheduler", "learning_rate", "warmup_steps", "predictor"}
WITHOUT_EFFECT = {"output", "tensorboard", "save_every", "log_every"}

Cells = list[tuple[str, ...]]


class Comparison(NamedTuple):
    """Runs that may be compared, and what they are compared by."""

    runs: list[Run]
    overheads: list[Mapping[str, Any]]
    rows: dict[str, Row]
    bars: dict[Problem, Bar]
    baseline: str
    subject: str

    def of(self, row: str, place: Problem) -> list[Run]:
        """Returns a row's runs of one problem."""
        return [r for r in self.rows[row].runs if measures.problem(r) == place]

    def values(self, runs: Sequence[Run], measure: str) -> list[float]:
        """Returns a measure of each of the runs."""
        found = measures.measure(measure)
        return [found(run, self.bars[measures.problem(run)]) for run in runs]

    def toy(self, place: Problem) -> bool:
        """Returns whether a problem's data were generated."""
        return any(
            run["data"].get("kind") == "toy"
            for run in self.runs
            if measures.problem(run) == place
        )


def gather(lines: Sequence[Mapping[str, Any]], baseline: str) -> Comparison:
    """Checks the lines of a store and puts their runs in rows.

    Args:
      lines: What the store holds: runs and overheads.
      baseline: The row that differences are taken to, such as "linear 2e-5".

    Raises:
      MetalrError: There is no run, a line is of another version or no result, runs
        under one name differ in their settings, or there is no such baseline.
    """
    for line in lines:
        _check_line(line)
    latest = {line["key"]: line for line in lines}.values()  # a rerun comes later
    runs = [line for line in latest if line["kind"] == "run"]
    if not runs:
        raise MetalrError(
            f"a report needs at least one run, got {len(lines)} lines without any; "
            "`metalr compare` adds runs to its store"
        )
    _check_settings(runs)
    rows = measures.rows(runs)
    measures.row(rows, baseline)
    subject = SUBJECT if SUBJECT in rows else next(iter(rows))
    overheads = [line for line in latest if line["kind"] == "overhead"]
    bars = measures.bars(runs)
    return Comparison(runs, overheads, rows, bars, baseline, subject)


def _check_line(line: Mapping[str, Any]) -> None:
    name = line.get("key", "without a key")
    version = line.get("version")
    if version != VERSION:
        raise MetalrError(
            f"results must have version {VERSION}, got {version!r} in the line {name}; "
            "use the metalr that made them, or begin a new store"
        )
    if line.get("kind") not in ("run", "overhead"):
        raise MetalrError(
            f"a line of a store is a run or an overhead, got {line.get('kind')!r} in "
            f"the line {name}; begin a new store"
        )
    wrong = results.faults(line) if line["kind"] == "run" else []
    if line["kind"] == "run" and line.get("metric") not in line.get("chance", {}):
        wrong.append("no chance for its metric")
    if wrong:
        raise MetalrError(
            f"the line {name} is not a result of metalr: {'; '.join(wrong)}; "
            "delete the line and run it again"
        )


def _check_settings(runs: Sequence[Run]) -> None:
    """Refuses runs that a table would put beside each other though they differ."""
    first: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        place = measures.problem(run)
        row = (*place, run["scheduler"], measures.rate(run))
        for key, free in ((place, OF_THE_METHOD), (row, set[str]())):
            other = first.setdefault(key, run)
            names = run["settings"].keys() | other["settings"].keys()
            names -= WITHOUT_EFFECT | free | {"seed"}
            pairs = {n: [r["settings"].get(n) for r in (other, run)] for n in names}
            pairs["kind of data"] = [r["data"].get("kind") for r in (other, run)]
            differ = [f"{n} {a!r} and {b!r}" for n, (a, b) in pairs.items() if a != b]
            if differ:
                raise MetalrError(
                    f"runs under one name must share their settings, but those of "
                    f"{' '.join(map(str, key))} differ ({', '.join(sorted(differ))}); "
                    "keep them in stores of their own"
                )


def answer(found: Comparison) -> list[str]:
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


def _verdict(gap: measures.Interval) -> str:
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


def _pace(gap: measures.Interval, baseline: str) -> str:
    goal = "95 % of the best score"
    if not gap.pairs:
        return f"Of steps to {goal} there is no pair with {baseline}"
    if gap.middle == 0:
        return f"In most pairs it reaches {goal} and {baseline} never does"
    if math.isinf(gap.middle):
        return f"In most pairs it never reaches {goal} and {baseline} does"
    return (
        f"To {goal} it needs {_factor(gap.middle)} times the steps of {baseline} "
        f"(median of pairs, 95 % interval {_factor(gap.low)} to {_factor(gap.high)}; "
        "1 where both miss it)"
    )


def _losses(found: Comparison) -> str:
    """Returns the sentence that names what is better than the subject, and where."""
    beaten = []
    score = {
        name: measures.profile_score(factors)
        for name, factors in measures.factors(found.rows, 0.95).items()
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


def difference(
    found: Comparison, row: str, other: str | None = None
) -> measures.Interval:
    """Returns the mean paired difference in the share of the best, row - other.

    The other row is the baseline if none is named.
    """
    own, theirs = _paired(found, row, other, "share of the best")
    return measures.bootstrap(own - theirs)


def speed(found: Comparison, row: str) -> measures.Interval:
    """Returns the median paired ratio of steps to 95 % of the best, row / baseline."""
    pair = _paired(found, row, None, "steps to 95 %")
    return measures.bootstrap(measures.ratio(*pair), np.median)


def _paired(
    found: Comparison, row: str, other: str | None, measure: str
) -> tuple[np.ndarray, np.ndarray]:
    of = measures.measure(measure)
    return measures.paired(
        found.rows[row],
        found.rows[other or found.baseline],
        lambda run: of(run, found.bars[measures.problem(run)]),
    )


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
    ranks = measures.mean_ranks(found.rows)
    factors = [measures.factors(found.rows, share) for share in (0.95, 0.99)]
    lines = []
    for name, row in found.rows.items():
        share = measures.spread(found.values(row.runs, "share of the best"))
        gap = difference(found, name)
        times = found.values(row.runs, "steps to 95 %")
        is_base = name == found.baseline
        cells = (
            name,
            f"{share.mean:.3f} (IQR {share.iqr:.3f})",
            "baseline" if is_base else _interval(gap),
            *(_factor(measures.spread(f[name]).median) for f in factors),
            f"{np.mean(found.values(row.runs, 'area under the curve')):.3f}",
            "–" if math.isnan(ranks[name]) else f"{ranks[name]:.1f}",
            f"{measures.profile_score(factors[0][name]):.2f}",
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
        of = {m: measures.spread(found.values(runs, m)) for m in measures.MEASURES}
        final, steps = of["final score"], of["steps to 95 %"].median
        cells = (
            name,
            measures.rate_name(measures.rate(runs[0])),
            f"{final.mean:.3f} ± {final.std:.3f}",
            f"{final.median:.3f} ({final.iqr:.3f})",
            f"{of['best score'].mean:.3f}",
            _time(of["epochs to 95 %"].median, ".2f"),
            _time(of["epochs to 99 %"].median, ".2f"),
            _time(steps, ".0f"),
            _time(measures.cost(row, place, steps), ".0f"),
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
        place = ("scheduler", "model", "batch_size", "max_length", "device")
        cells = [str(line[name]) for name in place]
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _factor(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else _time(value, "")


def _time(value: float, form: str) -> str:
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else format(value, form)


def _interval(gap: measures.Interval) -> str:
    if not gap.pairs:
        return "–"
    return f"{gap.middle:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
