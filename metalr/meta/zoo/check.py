"""A learned predictor in the loop, on a problem that no sweep of its traces has.

The plain run, the predictor and the one that comes with metalr take the same rows from
base rates on either side of the tuned one. What a good predictor does is hold the
tuned rate's loss over many octaves of the base rate.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from metalr.meta.zoo import closed_loop, sweeps
from metalr.meta.zoo.sweeps import ZooSweep
from metalr.predictor import Predictor

OCTAVES = np.arange(-6.0, 7.0, 2.0)  # of the base rate around the tuned one
SEEDS = range(1, 4)
_FIRST, _LONGEST = 10_000, 150  # no collection is as large; steps of the check


class Check(NamedTuple):
    """Validation losses after the last step, by base rate."""

    sweep: ZooSweep
    rates: np.ndarray  # [R] base rates
    initial: float  # loss before the first step
    losses: dict[str, np.ndarray]  # of "plain" and of each predictor: [S, R]


def left_out(seed: int, kind: str = "convolution") -> ZooSweep:
    """Draw a short sweep of AdamW that a collection with this seed does not reach."""
    return next(_short(seed, kind))


def _short(seed: int, kind: str) -> Iterator[ZooSweep]:
    for index in range(_FIRST, 2 * _FIRST):
        sweep = sweeps.draw(index, seed)
        short = sweep.horizon <= _LONGEST and 8 <= sweep.batch <= 64
        if short and sweep.kind == kind and sweep.optimizer == "adamw":
            yield sweep


def check(sweep: ZooSweep, predictors: Mapping[str, Predictor]) -> Check:
    """Run a problem of the zoo from several base rates, plain and under predictors.

    Args:
      sweep: The problem, its batch and its steps.
      predictors: By the name of their row.
    """
    problem = sweeps.build(sweep)
    programs = closed_loop.make_programs(sweep, problem)
    tuned = closed_loop.tuned_rate(sweep, problem, programs)
    rates = tuned * 2.0**OCTAVES
    plain = closed_loop.carry_out(sweep, problem, programs, rates, SEEDS).losses
    losses = {"plain": plain[..., -1]}
    for name, predictor in predictors.items():
        found = closed_loop.carry_out(sweep, problem, programs, rates, SEEDS, predictor)
        losses[name] = found.losses[..., -1]
    return Check(sweep, rates, float(plain[0, 0, 0]), losses)


def table(found: Check) -> str:
    """Return the check as Markdown: mean last validation loss by base rate."""
    sweep = found.sweep
    head = " | ".join(f"{rate:.1e}" for rate in found.rates)
    lines = [
        f"In the loop, on a problem that is in no trace ({sweep.kind}, "
        f"{sweep.optimizer}, {sweep.horizon} steps of {sweep.batch}; "
        f"{len(SEEDS)} seeds): the last validation loss by base rate. "
        f"It starts at {found.initial:.3g}.",
        "",
        f"| | {head} |",
        "|---|" + "--:|" * len(found.rates),
    ]
    for name, losses in found.losses.items():
        mean = np.where(np.isfinite(losses), losses, np.inf).mean(0)
        lines.append(f"| {name} | " + " | ".join(f"{x:.3g}" for x in mean) + " |")
    return "\n".join(lines)
