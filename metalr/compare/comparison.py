"""A comparison: runs that were checked to be comparable, grouped by method."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr.compare import aggregates, criteria, methods, store
from metalr.compare.criteria import Reference, Run, Workload
from metalr.compare.methods import Method
from metalr.errors import MetalrError
from metalr.finetune.config import NOTHING, PACE, RunConfig
from metalr.finetune.config_rules import that_change

SUBJECT = "metalr"  # the method that the report is about
# A workload is learned where some method's median final score is this part of the way
# from chance to 1; what is not is shown and left out of every mean. Spans: two tenths,
# since a span that is drawn at random shares some words with the answer.
LEARNED, LEARNED_SPANS = 0.1, 0.2

# Settings in which runs of one workload may differ: those that belong to the method,
# and those that do not change any number.
OF_THE_METHOD = {"scheduler", "learning_rate", "warmup_steps", "predictor"}
WITHOUT_EFFECT = that_change(PACE, NOTHING) | {"tensorboard"}  # which is no more
DEFAULTS = RunConfig().to_json()  # of settings that an older metalr did not have


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
    latest = {_identity(line): line for line in lines}.values()  # a rerun comes later
    runs = [line for line in latest if line["kind"] == store.RUN]
    if not runs:
        raise MetalrError(
            f"a report needs at least one run, got {len(lines)} lines without any; "
            "`metalr compare` adds runs to its store"
        )
    _check_settings(runs)
    _check_protocols(runs)
    _check_learned(runs)
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


def _check_protocols(runs: Sequence[Run]) -> None:
    """Refuse runs of two versions of the protocol; older runs name none."""
    versions = sorted({run["protocol"] for run in runs if "protocol" in run})
    if len(versions) > 1:
        raise MetalrError(
            "runs of one comparison must follow one version of docs/protocol.md, but "
            f"these follow {' and '.join(map(str, versions))}; keep them in separate "
            "stores"
        )


def _check_learned(runs: Sequence[Run]) -> None:
    """Refuse runs of two predictors or controllers, under one name or two.

    Older lines, and those of rows that learn nothing, do not name any.
    """
    first: Run | None = None
    for run in runs:
        if found := run.get("learned_by"):
            first = first or run
            if first["learned_by"] != found:
                raise MetalrError(
                    f"runs of one comparison must be learned by one predictor and "
                    f"controller, but those of {first['scheduler']} are by "
                    f"{first['learned_by']} and those of {run['scheduler']} by {found}"
                    "; keep them in separate stores, or run the older ones again"
                )


def _identity(line: Mapping[str, Any]) -> str:
    """Return what a line is about; its key also depends on the predictor used."""
    if line["kind"] != store.RUN:
        return json.dumps([line[name] for name in store.OVERHEAD_FIELDS])
    settings = DEFAULTS | line["settings"]
    settings = {k: v for k, v in settings.items() if k not in WITHOUT_EFFECT}
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
            pairs |= _rows_of(other, run)
            differ = [f"{n} {a!r} and {b!r}" for n, (a, b) in pairs.items() if a != b]
            if differ:
                raise MetalrError(
                    f"runs under one name must share their settings, but those of "
                    f"{' '.join(map(str, key))} differ ({', '.join(sorted(differ))}); "
                    "keep them in separate stores"
                )


def _rows_of(one: Run, other: Run) -> dict[str, list[Any]]:
    """Return what tells the rows of two runs apart, which need not have one seed.

    Older runs have no hash of their rows, but the score of the best constant guess.
    """
    hashes = [run["data"].get("sha256") for run in (one, other)]
    if None in hashes:
        return {"chance": [round(criteria.chance(run), 6) for run in (one, other)]}
    return {"rows": [of[:12] for of in hashes]}


def score_difference(
    comparison: Comparison, method: str, other: str | None = None
) -> aggregates.Interval:
    """Return the mean paired difference in the share of the best, method - other.

    Args:
      comparison: The runs.
      method: Name of a method.
      other: Name of the method to subtract; None: the baseline.
    """
    pairs = _pairs(comparison, method, other, "share of the best")
    return aggregates.hierarchical_bootstrap([own - theirs for own, theirs in pairs])


def speed_ratio(
    comparison: Comparison, method: str, clock: str = "steps"
) -> aggregates.Interval:
    """Return the median paired ratio of what a target takes to the baseline's.

    The target is 95 % of what the baseline's median run ends with above chance.

    Args:
      comparison: The runs.
      method: Name of a method.
      clock: "steps" or "seconds"; NaN where the runs lack their seconds.
    """
    pairs = _pairs(comparison, method, None, f"{clock} to 95 %")
    ratios = [aggregates.step_ratios(own, theirs) for own, theirs in pairs]
    if any(np.isnan(group).any() for group in ratios):
        count = sum(map(len, ratios))
        return aggregates.Interval(np.nan, np.nan, np.nan, count)
    return aggregates.hierarchical_bootstrap(ratios, aggregates.median_of_all)


def ahead(comparison: Comparison, method: str, other: str) -> dict[Workload, float]:
    """Return by how much a method leads another on each learned workload.

    That is the mean difference of the share of the best over the seeds that both have.
    """
    methods_ = comparison.averaged
    if method not in methods_ or other not in methods_:
        return {}
    found = {}
    for of, pairs in aggregates.pair(methods_[method], methods_[other]).items():
        both = zip(*pairs, strict=True)
        own, theirs = (comparison.values(runs, "share of the best") for runs in both)
        found[of] = float(np.mean(own) - np.mean(theirs))
    return found


def best_untuned(comparison: Comparison) -> str | None:
    """Return the untuned method with the highest mean share of the best, if any.

    It is chosen by the very scores that it then shows, which favours it. One that ran
    on fewer workloads than others is not compared with these.
    """
    averaged = comparison.averaged
    others = {comparison.subject, comparison.baseline}
    ran = {
        name: {*map(criteria.workload, method.runs)}
        for name, method in averaged.items()
        if method.untuned and name not in others
    }
    most = max(map(len, ran.values()), default=0)
    means = {
        name: comparison.mean(name, "share of the best")
        for name, over in ran.items()
        if len(over) == most
    }
    return max(means, key=lambda name: means[name]) if means else None


def part_of(some: int, whole: int) -> str:
    """Return how many of all a mean is over, where it is not all.

    >>> part_of(3, 4), part_of(4, 4)
    (' on 3 of 4', '')
    """
    return "" if some == whole else f" on {some} of {whole}"


def sensitivity(comparison: Comparison, scheduler: str) -> tuple[float, int]:
    """Return what a scheduler loses on average where the base rate is 16 times off.

    The mean of `aggregates.sensitivity` over the learned workloads that it ran on at
    all of the rates, of the seeds that did, and how many these are; NaN and 0 where
    there is none.
    """
    found = []
    for of, reference in comparison.learned.items():
        by_rate: dict[float, dict[int, float]] = {}
        for run in comparison.runs:
            rate = criteria.base_rate(run)
            own = run["scheduler"] == scheduler and criteria.workload(run) == of
            if own and rate in aggregates.SENSITIVITY_RATES:
                share = criteria.share_of_best(run, reference)
                by_rate.setdefault(rate, {})[run["seed"]] = share
        if by_rate:
            seeds = set.intersection(*map(set, by_rate.values()))
            means = {
                rate: float(np.mean([shares[seed] for seed in seeds]))
                for rate, shares in by_rate.items()
                if seeds
            }
            found.append(aggregates.sensitivity(means))
    known = [lost for lost in found if not math.isnan(lost)]
    return (float(np.mean(known)) if known else math.nan), len(known)


def _pairs(
    comparison: Comparison, method: str, other: str | None, criterion: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a criterion of two methods' runs of learned workloads, by workload."""
    averaged = comparison.averaged
    other = other or comparison.baseline
    if method not in averaged or other not in averaged:
        return []
    found = []
    for of, pairs in aggregates.pair(averaged[method], averaged[other]).items():
        if not comparison.mix_devices:
            _check_devices(of, pairs)
        both = zip(*pairs, strict=True)
        own, theirs = (np.array(comparison.values(runs, criterion)) for runs in both)
        found.append((own, theirs))
    return found


def _check_devices(of: Workload, pairs: Sequence[tuple[Run, Run]]) -> None:
    """Refuse pairs of runs from two kinds of device."""
    for own, theirs in pairs:
        if criteria.device(own) != criteria.device(theirs):
            names = " and ".join(
                f"{run['scheduler']} at {criteria.format_rate(criteria.base_rate(run))}"
                f" ({criteria.device(run)})"
                for run in (own, theirs)
            )
            raise MetalrError(
                f"runs that are paired must be of one kind of device, but on "
                f"{' with '.join(of)}, seed {own['seed']}, {names} are not; run one "
                "of them again, or say --mix-devices"
            )
