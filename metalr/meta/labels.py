"""What hindsight says about each step of a run: by how much the rate was off.

The label of a step looks over the rest of the budget. A run's outcome is

    J = (mean of the validation losses + the last one) / 2, relative to the first,

and a bank's best peak P is the mean of its log peaks under a softmin of J. Every step
of every run on that bank, walks and policies included, then has the target

    log2(P * prior_t / current rate) = log2(P / (base rate * m_{t-1})),

clipped to 6 octaves: dense, long-horizon, and relative to the current rate. Banks count
by their signal, which is how much J differs between their peaks, and not by their
number of steps.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from metalr.errors import MetalrError
from metalr.features import NAMES
from metalr.meta import traces
from metalr.runtime import files

UNKNOWN_HORIZON = 0.15  # share of the steps whose clock is hidden
CLIP = 6.0  # octaves; further off the answer is the same: as fast as allowed
_CLOCK = ("progress", "horizon_known", "horizon")
_WORST = 1.1  # J of a run that is worse or not finite: all of these are as bad
_NOISE = 0.03  # spread of J that the draw of batches alone can make


class Examples(NamedTuple):
    """Steps with their labels."""

    features: np.ndarray  # [N, F] float32
    target: np.ndarray  # [N] octaves
    weight: np.ndarray  # [N], mean 1
    task: np.ndarray  # [N] str
    size: np.ndarray  # [N] str, depth and width of the model


class Verdict(NamedTuple):
    """What hindsight says about a bank."""

    log2_best: float  # of the peak rate
    signal: float  # 0 (all peaks are as good) to 1


def outcome(evaluations: Sequence[dict[str, Any]]) -> float:
    """Returns J of a run from its evaluations; lower is better, 1 is no progress.

    Infinite where a loss was not finite, or the first one leaves nothing to learn.

    >>> outcome([{"eval_loss": 2.0}, {"eval_loss": 1.0}, {"eval_loss": 0.5}])
    0.3125
    """
    first, *rest = (row["eval_loss"] for row in evaluations)
    if not first or not rest or None in rest:
        return float("inf")
    return (sum(rest) / len(rest) + rest[-1]) / 2 / first


def judge(runs: Sequence[traces.Run]) -> Verdict:
    """Returns a bank's best peak, from its runs at constant peaks.

    The softmin has a tenth of the spread as its temperature, so that of two peaks that
    are about as good neither wins by luck.
    """
    own = [run for run in runs if run.about["kind"] == "peak"]
    peaks = np.log2([run.about["peak"] for run in own])
    found = np.minimum([outcome(run.evaluations) for run in own], _WORST)
    spread = float(np.ptp(found))
    share = np.exp(-(found - found.min()) / max(0.1 * spread, 1e-3))
    return Verdict(
        log2_best=float(np.sum(share * peaks) / np.sum(share)),
        # Only what is won against no progress counts: that high rates do harm is
        # told by every bank, and where the best rate lies only by those that learn.
        signal=float(1 / (1 + (_NOISE / max(min(spread, 1 - found.min()), 1e-9)) ** 2)),
    )


def size(run: traces.Run) -> str:
    """Returns the size of a run's model: layers by width, as 6x384."""
    return f"{run.about['depth']}x{run.about['width']}"


def by_bank(runs: Sequence[traces.Run]) -> dict[int, list[traces.Run]]:
    """Returns the runs of each bank that has peaks to be judged by."""
    banks = defaultdict(list)
    for run in runs:
        _check(run)
        banks[run.about["bank_id"]].append(run)
    whole = {}
    for bank_id, of_bank in sorted(banks.items()):
        if sum(run.about["kind"] == "peak" for run in of_bank) >= 2:
            whole[bank_id] = of_bank
    if not whole:
        raise MetalrError("the traces hold no whole bank, so no step has a label")
    return whole


def _check(run: traces.Run) -> None:
    """Raises an error for a run that lacks what its labels are made of."""
    about = run.about
    positive = ["base_rate", *["peak"] * (about.get("kind") == "peak")]
    losses = [row.get("eval_loss", "missing") for row in run.evaluations]
    faults = [n for n in ("bank_id", "seed") if type(about.get(n)) is not int]
    faults += [n for n in ("task", "kind") if not isinstance(about.get(n), str)]
    faults += [n for n in ("depth", "width") if type(about.get(n)) is not int]
    faults += [n for n in positive if not _is_positive(about.get(n))]
    if not losses or not all(x is None or x == 0 or _is_positive(x) for x in losses):
        faults.append("eval_loss")
    if not (np.isfinite(run.multiplier).all() and np.all(run.multiplier > 0)):
        faults.append("multiplier")
    if faults:
        raise MetalrError(
            f"run {about.get('run')} of bank {about.get('bank_id')} "
            f"({about.get('kind')}) in the traces lacks a usable {', '.join(faults)}; "
            "take its file out of the folder"
        )


def _is_positive(value: Any) -> bool:
    return files.is_number(value) and value > 0


def examples(
    runs: Sequence[traces.Run],
    *,
    unknown_horizon: float = UNKNOWN_HORIZON,
    seed: int = 0,
) -> Examples:
    """Labels every step of the runs.

    Args:
      runs: Banks, and what policies did on them.
      unknown_horizon: Share of the steps that are shown as of a run of unknown length.
      seed: Of the draw of these.

    Raises:
      MetalrError: There is no bank to judge by.
    """
    found = defaultdict(list)
    for of_bank in by_bank(runs).values():
        verdict = judge(of_bank)
        steps = sum(run.steps for run in of_bank)
        for run in of_bank:
            about, n = run.about, run.steps
            before = np.concatenate([[1.0], run.multiplier[:-1]])
            current = np.log2(about["base_rate"]) + np.log2(before)
            found["features"].append(run.features)
            found["target"].append(np.clip(verdict.log2_best - current, -CLIP, CLIP))
            found["weight"].append(np.full(n, verdict.signal / steps))
            found["task"].append(np.full(n, about["task"]))
            found["size"].append(np.full(n, size(run)))
    columns = {name: np.concatenate(parts) for name, parts in found.items()}
    columns["weight"] /= columns["weight"].mean()
    # A run may not know its length: then these three are 0.
    rng = np.random.default_rng(seed)
    hidden = rng.random(len(columns["target"])) < unknown_horizon
    columns["features"][hidden[:, None] & np.isin(NAMES, _CLOCK)] = 0
    return Examples(**columns)
