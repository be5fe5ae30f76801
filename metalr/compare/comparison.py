"""A comparison: runs that were checked to be comparable, grouped by method."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr.compare import aggregates, criteria, methods, store
from metalr.compare.criteria import Reference, Run, Workload
from metalr.compare.methods import Method
from metalr.errors import MetalrError
from metalr.finetune.config import NOTHING, PACE, RunConfig, that_change

SUBJECT = "metalr"  # the method that the report is about

# Settings in which runs of one workload may differ: those that belong to the method,
# and those that do not change any number.
OF_THE_METHOD = {"scheduler", "learning_rate", "warmup_steps", "predictor"}
WITHOUT_EFFECT = that_change(PACE, NOTHING)
DEFAULTS = RunConfig().to_json()  # of settings that an older metalr did not have


class Comparison(NamedTuple):
    """Comparable runs, and what they are compared by."""

    runs: list[Run]
    overheads: list[Mapping[str, Any]]
    methods: dict[str, Method]
    references: dict[Workload, Reference]
    baseline: str
    subject: str

    def runs_of(self, method: str, workload: Workload) -> list[Run]:
        """Return a method's runs of one workload."""
        runs = self.methods[method].runs
        return [run for run in runs if criteria.workload(run) == workload]

    def values(self, runs: Sequence[Run], criterion: str) -> list[float]:
        """Return a criterion of each of the runs."""
        value = criteria.criterion(criterion)
        return [value(run, self.references[criteria.workload(run)]) for run in runs]

    def is_toy(self, workload: Workload) -> bool:
        """Return whether the data of a workload were generated."""
        return any(
            run["data"].get("kind") == "toy"
            for run in self.runs
            if criteria.workload(run) == workload
        )


def from_lines(
    lines: Sequence[Mapping[str, Any]], baseline: str | None = None
) -> Comparison:
    """Check the lines of a store and group their runs by method.

    Args:
      lines: The lines of a store: runs and overheads.
      baseline: The method that differences are taken to, such as "linear 2e-5"; None:
        as `methods.choose_baseline`.

    Raises:
      MetalrError: There is no run, a line is of another version or not a result, runs
        under one name differ in their settings, or there is no such baseline.
    """
    for line in lines:
        if fault := store.find_fault(line):
            name = line["key"] if "key" in line else "without a key"
            raise MetalrError(f"the line {name}: {fault}; leave it out or run it again")
    latest = {_identity(line): line for line in lines}.values()  # a rerun comes later
    runs = [line for line in latest if line["kind"] == store.RUN]
    if not runs:
        raise MetalrError(
            f"a report needs at least one run, got {len(lines)} lines without any; "
            "`metalr compare` adds runs to its store"
        )
    _check_settings(runs)
    grouped = methods.group(runs)
    return Comparison(
        runs,
        [line for line in latest if line["kind"] == store.OVERHEAD],
        grouped,
        criteria.references(runs),
        methods.choose_baseline(grouped, baseline),
        SUBJECT if SUBJECT in grouped else next(iter(grouped)),
    )


def _identity(line: Mapping[str, Any]) -> str:
    """Return what a line is about; its key also depends on the predictor used."""
    if line["kind"] != store.RUN:
        return line["key"]
    settings = {k: v for k, v in line["settings"].items() if k not in WITHOUT_EFFECT}
    return json.dumps([line["task"], line["model"], settings], sort_keys=True)


def _check_settings(runs: Sequence[Run]) -> None:
    """Refuse runs that would stand beside each other in a table though they differ."""
    first: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        workload = criteria.workload(run)
        method = (*workload, run["scheduler"], criteria.base_rate(run))
        for key, may_differ in ((workload, OF_THE_METHOD), (method, set[str]())):
            other = first.setdefault(key, run)
            names = run["settings"].keys() | other["settings"].keys()
            names -= WITHOUT_EFFECT | may_differ | {"seed"}
            value = lambda r, n: r["settings"].get(n, DEFAULTS.get(n))  # noqa: E731
            pairs = {n: [value(r, n) for r in (other, run)] for n in names}
            pairs["kind of data"] = [r["data"].get("kind") for r in (other, run)]
            differ = [f"{n} {a!r} and {b!r}" for n, (a, b) in pairs.items() if a != b]
            if differ:
                raise MetalrError(
                    f"runs under one name must share their settings, but those of "
                    f"{' '.join(map(str, key))} differ ({', '.join(sorted(differ))}); "
                    "keep them in separate stores"
                )


def score_difference(
    comparison: Comparison, method: str, other: str | None = None
) -> aggregates.Interval:
    """Return the mean paired difference in the share of the best, method - other.

    Args:
      comparison: The runs.
      method: Name of a method.
      other: Name of the method to subtract; None: the baseline.
    """
    own, theirs = _pair(comparison, method, other, "share of the best")
    return aggregates.bootstrap(own - theirs)


def speed_ratio(comparison: Comparison, method: str) -> aggregates.Interval:
    """Return the median paired ratio of steps to 95 % of the best to the baseline's."""
    pair = _pair(comparison, method, None, "steps to 95 %")
    return aggregates.bootstrap(aggregates.step_ratios(*pair), np.median)


def _pair(
    comparison: Comparison, method: str, other: str | None, criterion: str
) -> tuple[np.ndarray, np.ndarray]:
    return aggregates.pair(
        comparison.methods[method],
        comparison.methods[other or comparison.baseline],
        lambda run: comparison.values([run], criterion)[0],
    )
