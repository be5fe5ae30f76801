"""Runs that may be compared: checked, put in rows, paired."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr.compare import measures, statistics, store
from metalr.compare.measures import Bar, Problem, Row, Run
from metalr.errors import MetalrError
from metalr.finetune.config import NOTHING, PACE, RunConfig, that_change

SUBJECT = "metalr"  # the row that the answer is about

# Settings in which runs of one task and model may differ: what a way to set the rate
# brings along, and what makes no difference to the numbers.
OF_THE_METHOD = {"scheduler", "learning_rate", "warmup_steps", "predictor"}
WITHOUT_EFFECT = that_change(PACE, NOTHING)
DEFAULTS = RunConfig().to_json()  # of settings that an older metalr did not have


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


def gather(lines: Sequence[Mapping[str, Any]], baseline: str | None) -> Comparison:
    """Checks the lines of a store and puts their runs in rows.

    Args:
      lines: What the store holds: runs and overheads.
      baseline: The row that differences are taken to, such as "linear 2e-5".

    Raises:
      MetalrError: There is no run, a line is of another version or no result, runs
        under one name differ in their settings, or there is no such baseline.
    """
    for line in lines:
        if wrong := store.fault(line):
            name = line["key"] if "key" in line else "without a key"
            raise MetalrError(f"the line {name}: {wrong}; leave it out or run it again")
    latest = {_identity(line): line for line in lines}.values()  # a rerun comes later
    runs = [line for line in latest if line["kind"] == store.RUN]
    if not runs:
        raise MetalrError(
            f"a report needs at least one run, got {len(lines)} lines without any; "
            "`metalr compare` adds runs to its store"
        )
    _check_settings(runs)
    rows = measures.rows(runs)
    baseline = measures.baseline(rows, baseline)
    subject = SUBJECT if SUBJECT in rows else next(iter(rows))
    overheads = [line for line in latest if line["kind"] == store.OVERHEAD]
    bars = measures.bars(runs)
    return Comparison(runs, overheads, rows, bars, baseline, subject)


def _identity(line: Mapping[str, Any]) -> str:
    """Returns what a line is about; its key also tells which predictor was asked."""
    if line["kind"] != store.RUN:
        return line["key"]
    settings = {k: v for k, v in line["settings"].items() if k not in WITHOUT_EFFECT}
    return json.dumps([line["task"], line["model"], settings], sort_keys=True)


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
            said = lambda r, n: r["settings"].get(n, DEFAULTS.get(n))  # noqa: E731
            pairs = {n: [said(r, n) for r in (other, run)] for n in names}
            pairs["kind of data"] = [r["data"].get("kind") for r in (other, run)]
            differ = [f"{n} {a!r} and {b!r}" for n, (a, b) in pairs.items() if a != b]
            if differ:
                raise MetalrError(
                    f"runs under one name must share their settings, but those of "
                    f"{' '.join(map(str, key))} differ ({', '.join(sorted(differ))}); "
                    "keep them in stores of their own"
                )


def difference(
    found: Comparison, row: str, other: str | None = None
) -> statistics.Interval:
    """Returns the mean paired difference in the share of the best, row - other.

    The other row is the baseline if none is named.
    """
    own, theirs = _paired(found, row, other, "share of the best")
    return statistics.bootstrap(own - theirs)


def speed(found: Comparison, row: str) -> statistics.Interval:
    """Returns the median paired ratio of steps to 95 % of the best, row / baseline."""
    pair = _paired(found, row, None, "steps to 95 %")
    return statistics.bootstrap(statistics.ratio(*pair), np.median)


def _paired(
    found: Comparison, row: str, other: str | None, measure: str
) -> tuple[np.ndarray, np.ndarray]:
    of = measures.measure(measure)
    return statistics.paired(
        found.rows[row],
        found.rows[other or found.baseline],
        lambda run: of(run, found.bars[measures.problem(run)]),
    )
