"""Label each step of a run with how far its rate was from the best of its sweep.

A label depends on the outcome of whole runs. The outcome J of a run is half the mean
plus half the last of its validation losses, as logarithms relative to the first. The
best rate of a schedule's shape at step t is the mean of the log rates of its runs at
that step, weighted by a softmin of their J. Every step of every run on that shape,
including walks and runs of a predictor, then has the target

    log2(best rate_t / (schedule_t * base rate * m_{t-1})),

clipped to 8 octaves. A sweep counts once for each shape, weighted by its signal, which
is how much J differs between the peaks, and not by its number of steps.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr.errors import MetalrError
from metalr.features import NAMES
from metalr.finding.experience import ENCODER
from metalr.meta import traces
from metalr.observe import Observation
from metalr.runtime import files

UNKNOWN_HORIZON = 0.15  # share of the steps whose clock is hidden
CLIP = 8.0  # octaves; beyond, the right correction is the same
_CLOCK = ("progress", "horizon_known", "horizon", "area")
_WORST = 0.1  # J of all runs that are worse or not finite
_NOISE = 0.03  # spread of J that the order of batches alone can cause
_SHARE = 0.1  # of the spread of J: the temperature of the softmin
_FEWEST = 3  # peaks that show where the best one of a shape lies


class Examples(NamedTuple):
    """Steps with their labels."""

    features: np.ndarray  # [N, F] float32
    target: np.ndarray  # [N] octaves
    weight: np.ndarray  # [N], mean 1
    step: np.ndarray  # [N] int
    task: np.ndarray  # [N] str; empty for a problem of the zoo
    size: np.ndarray  # [N] str, depth and width of an encoder; else empty
    kind: np.ndarray  # [N] str: encoder, or a kind of the zoo
    optimizer: np.ndarray  # [N] str
    sweep: np.ndarray  # [N] str
    shape: np.ndarray  # [N] str, of the schedule, as "linear"
    run: np.ndarray  # [N] str


class BestRate(NamedTuple):
    """The best rate of a sweep, from the outcomes of its runs."""

    log2_rate: np.ndarray  # [T] best rate at each step
    signal: float  # 0 (all peaks are equally good) to 1


def outcome(evaluations: Sequence[dict[str, Any]]) -> float:
    """Return J of a run from its evaluations; lower is better, 0 is no progress.

    Where a loss is not positive, differences relative to the first replace the
    logarithms. Infinite where a loss was not finite.

    >>> round(outcome([{"eval_loss": 2.0}, {"eval_loss": 1.0}, {"eval_loss": 0.5}]), 4)
    -1.213
    """
    first, *rest = (row["eval_loss"] for row in evaluations)
    if first is None or not rest or None in rest:
        return float("inf")
    if first > 0 and min(rest) > 0:
        values = [math.log(x / first) for x in rest]
    else:
        values = [(x - first) / max(abs(first), 1e-3) for x in rest]
    return (sum(values) / len(values) + values[-1]) / 2


def outcomes(runs: Sequence[traces.Run]) -> np.ndarray:
    """Return J of each run, [n]; all that is worse than the start by 0.1 is as bad."""
    return np.minimum([outcome(run.evaluations) for run in runs], _WORST)


def of_the_best(values: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the mean of values [n, ...], weighted by a softmin of their J: [...].

    The temperature is a tenth of the spread of J, so that two peaks of about the same
    outcome have about the same weight.
    """
    share = np.exp(-(found - found.min()) / max(_SHARE * _spread(found), 1e-3))
    return share @ values / share.sum()


def _spread(found: np.ndarray) -> float:
    """Return how much J differs, counting improvement over no progress alone.

    Every sweep shows that high rates do harm, but only one that learns shows where the
    best rate lies.
    """
    return float(min(np.ptp(found), -found.min()))


def best_rates(runs: Sequence[traces.Run]) -> dict[str, BestRate]:
    """Return the best rate of each shape on which a sweep was run.

    Where the peaks of a shape are too few, it is that over all shapes.
    """
    over_all = best_rate(runs)
    found = {}
    for name in sorted({shape(run) for run in runs}):
        own = at_peaks(runs, name)
        found[name] = best_rate(own) if len(own) >= _FEWEST else over_all
    return found


def best_rate(runs: Sequence[traces.Run]) -> BestRate:
    """Return the best rate over the runs at peaks, on whatever shapes they are."""
    own = [run for run in runs if run.about["kind"] == "peak"]
    steps = max(run.steps for run in own)
    rates = np.array([_filled(run.rate, steps) for run in own])
    found = outcomes(own)
    spread = _spread(found)
    return BestRate(
        log2_rate=of_the_best(np.log2(np.maximum(rates, 1e-30)), found),
        signal=float(1 / (1 + (_NOISE / max(spread, 1e-9)) ** 2))
        if spread > 0
        else 0.0,
    )


def _filled(rate: np.ndarray, steps: int) -> np.ndarray:
    return np.concatenate([rate, np.full(steps - len(rate), rate[-1])])


def size(run: traces.Run) -> str:
    """Return the size of a run's encoder, layers by width, as 6x384; else ""."""
    if "problem" in run.about:
        return ""
    return f"{run.about['depth']}x{run.about['width']}"


def shape(run: traces.Run) -> str:
    """Return the shape of a run's schedule, as "linear"."""
    return run.about.get("shape", run.about.get("decay", "linear"))


def at_peaks(runs: Sequence[traces.Run], of_shape: str = "") -> list[traces.Run]:
    """Return the runs at peaks on one shape, from the lowest peak to the highest.

    Args:
      runs: Of one sweep.
      of_shape: Such as "linear"; empty: that of the first run, the sweep's own.
    """
    of_shape = of_shape or shape(runs[0])
    own = [r for r in runs if r.about["kind"] == "peak" and shape(r) == of_shape]
    return sorted(own, key=lambda run: run.peak)


def by_sweep(runs: Sequence[traces.Run]) -> dict[int, list[traces.Run]]:
    """Return the runs of each sweep that has two runs at peaks or more."""
    sweeps = defaultdict(list)
    for run in runs:
        _check(run)
        of_sweep = sweeps[run.about["sweep_id"]]
        of_sweep.append(run)
        _check_seed(of_sweep[0], run)
    whole = {}
    for sweep_id, of_sweep in sorted(sweeps.items()):
        if sum(run.about["kind"] == "peak" for run in of_sweep) >= 2:
            whole[sweep_id] = of_sweep
    if not whole:
        raise MetalrError(
            "the traces hold no sweep with two peaks, so no step has a label; collect "
            "more with train_meta.py"
        )
    return whole


def _check(run: traces.Run) -> None:
    """Raise an error for a run that lacks what its labels are made from."""
    about = run.about
    positive = ["base_rate", *["peak"] * (about.get("kind") == "peak")]
    losses = [row.get("eval_loss", "missing") for row in run.evaluations]
    faults = [n for n in ("sweep_id", "seed") if type(about.get(n)) is not int]
    faults += [n for n in ("task", "kind") if not isinstance(about.get(n), str)]
    faults += [n for n in ("depth", "width") if type(about.get(n)) is not int]
    faults += [n for n in positive if not _is_positive(about.get(n))]
    if not losses or not all(x is None or files.is_number(x) for x in losses):
        faults.append("eval_loss")
    if not (np.isfinite(run.multiplier).all() and np.all(run.multiplier > 0)):
        faults.append("multiplier")
    if faults:
        raise MetalrError(
            f"run {about.get('run')} of sweep {about.get('sweep_id')} "
            f"({about.get('kind')}) in the traces lacks a usable {', '.join(faults)}; "
            "take its file out of the folder"
        )


def _check_seed(first: traces.Run, run: traces.Run) -> None:
    """Refuse runs of two seeds under one number: they are not of one problem."""
    seeds = first.about["seed"], run.about["seed"]
    if seeds[0] != seeds[1]:
        raise MetalrError(
            f"sweep {run.about['sweep_id']} is in the traces with the seeds {seeds[0]} "
            f"and {seeds[1]}, which are different sweeps; a collection of each --seed "
            "has an --output of its own"
        )


def _is_positive(value: Any) -> bool:
    return files.is_number(value) and value > 0


def examples(
    runs: Sequence[traces.Run],
    *,
    unknown_horizon: float = UNKNOWN_HORIZON,
    seed: int = 0,
) -> Examples:
    """Label the steps of the runs.

    Args:
      runs: Of sweeps, including those of predictors on them.
      unknown_horizon: Share of the steps whose run is presented as of unknown length.
      seed: Of the choice of these.

    Raises:
      MetalrError: No sweep has two peaks, or a run lacks what its labels need.
    """
    found = defaultdict(list)
    for name, of_sweep in by_sweep(runs).items():
        best_of = best_rates(of_sweep)
        count = Counter(map(shape, of_sweep))
        for number, run in enumerate(of_sweep):
            about, best = run.about, best_of[shape(run)]
            target = _target(run, best)
            rows = _chosen(run)
            n = len(rows)
            share = best.signal / max(n, 1) / count[shape(run)]
            found["features"].append(run.features[rows])
            found["target"].append(np.clip(target[rows], -CLIP, CLIP))
            found["weight"].append(np.full(n, share))
            found["step"].append(rows if run.step is None else run.step[rows])
            for column, value in (
                ("task", "" if "problem" in about else about["task"]),
                ("size", size(run)),
                ("kind", about.get("problem", ENCODER)),
                ("optimizer", about.get("optimizer", "adamw")),
                ("sweep", str(name)),
                ("shape", shape(run)),
                ("run", f"{name}/{number}"),
            ):
                found[column].append(np.full(n, value))
    columns = {name: np.concatenate(parts) for name, parts in found.items()}
    # Encoders and the zoo have the same total weight, however many sweeps each has.
    encoders = columns["kind"] == ENCODER
    for half in (encoders, ~encoders):
        total = columns["weight"][half].sum()
        if total > 0:
            columns["weight"][half] /= total
    if not columns["weight"].any():  # no sweep is informative: all count alike
        columns["weight"] += 1
    columns["weight"] /= columns["weight"].mean()
    # These features are 0 in a run that does not know its length.
    rng = np.random.default_rng(seed)
    hidden = rng.random(len(columns["target"])) < unknown_horizon
    columns["features"][hidden[:, None] & np.isin(NAMES, _CLOCK)] = 0
    return Examples(**columns)


def _target(run: traces.Run, best: BestRate) -> np.ndarray:
    """Return by how many octaves the rate before each step was off: [n]."""
    level = run.features[:, NAMES.index("level")] / math.log(2)
    before = run.multiplier_before
    if before is None:
        before = np.concatenate([[1.0], run.multiplier[:-1]])
    current = math.log2(run.about["base_rate"]) + np.log2(before)
    return best.log2_rate[: run.steps] - level - current


def _chosen(run: traces.Run) -> np.ndarray:
    """Return the rows of a run that are learned from.

    Those with evidence; all of a thinned run, of which hardly any has none.
    """
    if run.step is not None:
        return np.arange(run.steps)
    if run.observations is None:
        return traces.chosen_steps(np.arange(1, run.steps))
    norm = run.observations[:, Observation._fields.index("update_norm")]
    return traces.chosen_steps(np.flatnonzero(norm > 0))
