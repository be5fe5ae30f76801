"""A comparison: runs that were checked to be comparable, grouped by method."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr.compare import comparable, criteria, methods, store
from metalr.compare.criteria import Reference, Run, Workload
from metalr.compare.methods import Method
from metalr.errors import MetalrError

SUBJECT = "metalr"  # the method that the report is about
# A workload is learned where some method's median final score is this part of the way
# from chance to 1; what is not is shown and left out of every mean. Spans: two tenths,
# since a span that is drawn at random shares some words with the answer.
LEARNED, LEARNED_SPANS = 0.1, 0.2


class Comparison(NamedTuple):
    """Comparable runs, and what they are compared by."""

    runs: list[Run]
    overheads: list[Mapping[str, Any]]
    methods: dict[str, Method]
    references: dict[Workload, Reference]
    baseline: str
    subject: str
    unlearned: tuple[Workload, ...] = ()  # nobody learns them: in no mean
    mix_devices: bool = False  # pairs may be of two kinds of device
    learned_alone: tuple[Workload, ...] = ()  # by the subject and its variants

    @property
    def learned(self) -> dict[Workload, Reference]:
        """The workloads that means are taken over; all where nobody learns any."""
        kept = {of: r for of, r in self.references.items() if of not in self.unlearned}
        return kept or self.references

    @property
    def averaged(self) -> dict[str, Method]:
        """The methods with their runs of learned workloads; those that have any."""
        over = self.learned
        kept = {
            name: method._replace(
                runs=tuple(r for r in method.runs if criteria.workload(r) in over),
                rates_tried={w: n for w, n in method.rates_tried.items() if w in over},
            )
            for name, method in self.methods.items()
        }
        return {name: method for name, method in kept.items() if method.runs}

    def runs_of(self, method: str, workload: Workload) -> list[Run]:
        """Return a method's runs of one workload."""
        runs = self.methods[method].runs
        return [run for run in runs if criteria.workload(run) == workload]

    def values(self, runs: Sequence[Run], criterion: str) -> list[float]:
        """Return a criterion of each of the runs."""
        value = criteria.criterion(criterion)
        return [value(run, self.references[criteria.workload(run)]) for run in runs]

    def mean(self, method: str, criterion: str) -> float:
        """Return the mean of a criterion over learned workloads; each counts alike."""
        runs = self.averaged[method].runs
        of: dict[Workload, list[float]] = {}
        for run, value in zip(runs, self.values(runs, criterion), strict=True):
            of.setdefault(criteria.workload(run), []).append(value)
        return float(np.mean([np.mean(values) for values in of.values()]))

    def scope(self, method: str) -> str:
        """Return " on 3 of 4" where it ran on 3 of 4 learned workloads; "" on all."""
        ran = {*map(criteria.workload, self.averaged[method].runs)}
        return part_of(len(ran), len(self.learned))

    def is_toy(self, workload: Workload) -> bool:
        """Return whether the data of a workload were generated."""
        return any(
            run["data"].get("kind") == "toy"
            for run in self.runs
            if criteria.workload(run) == workload
        )


def from_lines(
    lines: Sequence[Mapping[str, Any]],
    baseline: str | None = None,
    *,
    mix_devices: bool = False,
) -> Comparison:
    """Check the lines of a store and group their runs by method.

    Args:
      lines: The lines of a store: runs and overheads.
      baseline: The method that differences are taken to, such as "linear 2e-5"; None:
        as `methods.choose_baseline`.
      mix_devices: Pair runs of two kinds of device too; else that is refused.

    Raises:
      MetalrError: There is no run, a line is of another version or not a result, runs
        under one name differ in their settings, or there is no such baseline.
    """
    for line in lines:
        if fault := store.find_fault(line):
            name = line["key"] if "key" in line else "without a key"
            raise MetalrError(f"the line {name}: {fault}; leave it out or run it again")
    latest = comparable.latest(lines)
    runs = [line for line in latest if line["kind"] == store.RUN]
    if not runs:
        raise MetalrError(
            f"a report needs at least one run, got {len(lines)} lines without any; "
            "`metalr compare` adds runs to its store"
        )
    comparable.check(runs)
    grouped = methods.group(runs)
    baseline = methods.choose_baseline(grouped, baseline)
    references = criteria.references(runs, grouped[baseline].runs)
    subject = SUBJECT if SUBJECT in grouped else next(iter(grouped))
    unlearned = _unlearned(references, grouped)
    others = {name: of for name, of in grouped.items() if subject not in name}
    theirs = {criteria.workload(run) for of in others.values() for run in of.runs}
    alone = set(_unlearned(references, others)) & theirs - set(unlearned)
    return Comparison(
        runs,
        [line for line in latest if line["kind"] == store.OVERHEAD],
        grouped,
        references,
        baseline,
        subject,
        unlearned,
        mix_devices,
        tuple(of for of in references if of in alone),
    )


def _unlearned(
    references: Mapping[Workload, Reference], grouped: Mapping[str, Method]
) -> tuple[Workload, ...]:
    """Return the workloads that none of the methods learns."""
    return tuple(
        of for of in references if not _is_learned(of, references[of], grouped)
    )


def _is_learned(
    of: Workload, reference: Reference, grouped: Mapping[str, Method]
) -> bool:
    """Return whether some method's median final score is well above chance."""
    for method in grouped.values():
        runs = [run for run in method.runs if criteria.workload(run) == of]
        if not runs:
            continue
        spans = "exact_match" in runs[0]["chance"]
        share = LEARNED_SPANS if spans else LEARNED
        enough = reference.chance + share * (1 - reference.chance)
        if np.median([*map(criteria.final_score, runs)]) >= enough:
            return True
    return False


def part_of(some: int, whole: int) -> str:
    """Return how many of all a mean is over, where it is not all.

    >>> part_of(3, 4), part_of(4, 4)
    (' on 3 of 4', '')
    """
    return "" if some == whole else f" on {some} of {whole}"
