"""What a probe, or the facts of a run alone, said of its rate; and that in words."""

import math
from typing import Any, NamedTuple

import numpy as np


class Finding(NamedTuple):
    """What a probe found; rates are peaks of the schedule.

    In `relative` findings they are multiples of the optimizer's own rate.
    """

    rate: float | None  # None: the run is of no known kind
    low: float | None  # the interval
    high: float | None
    coverage: float | None  # share of such intervals that hold the best rate, if known
    prior: float  # before any step: the facts alone
    relative: bool  # in multiples of the optimizer's own rate
    known: bool  # whether training has seen runs of the kind
    distance: float  # from those, out of range above 1
    total_steps: int  # of the run
    steps: int  # of the probe, those of a range test included
    losses: tuple[float, ...]  # of the probe, before each step
    rates: tuple[float, ...]  # that the steps were taken with, at the schedule's peak
    means: tuple[float, ...]  # the estimate after each
    costs: dict[str, tuple[float, float, float]]  # of 4x lower and higher, quartiles
    forecast: tuple[float, float, float] | None  # final loss: low, middle, high
    curve: tuple[tuple[float, float], ...]  # range test: rate, loss after a step at it
    score: Any = None  # what `on_end` said of the copy's last parameters

    @property
    def text(self) -> str:
        """All of it in a few lines."""
        return describe(self)


class Suggestion(NamedTuple):
    """What the facts of a run say before any step."""

    rate: float
    low: float
    high: float
    coverage: float | None
    relative: bool
    known: bool
    distance: float
    total_steps: int

    @property
    def text(self) -> str:
        """All of it in one line."""
        line = _interval(self) + " (no step was taken)"
        return line if self.known else f"{line}; {_unknown(self.distance)}"


def describe(found: Finding, shape: str = "its schedule") -> str:
    """Return a finding in a few lines.

    Args:
      found: What was found.
      shape: The schedule in words, such as "linear decay".
    """
    if not found.known:
        line = f"no rate: {_unknown(found.distance)}"
        curve = [point for point in found.curve if math.isfinite(point[1])]
        if not curve:
            if found.curve:
                return f"{line}\nrange test: the loss of a step is finite at no rate"
            return f"{line}\nno range test: too few steps are left for one"
        rates, losses = zip(*curve, strict=True)
        lowest = int(np.argmin(losses))
        shown = sorted({0, len(rates) // 4, len(rates) // 2, lowest, len(rates) - 1})
        points = ", ".join(f"{losses[k]:.3g} at {rates[k]:.1e}" for k in shown)
        return f"{line}\nrange test, the loss of a step: {points}"
    lines = [
        _interval(found, shape),
        *(
            f"{way}: {share[1]:.0%} of what the loss falls is lost (half of such runs: "
            f"{share[0]:.0%} to {share[2]:.0%})"
            for way, share in found.costs.items()
        ),
    ]
    if found.forecast:
        low, middle, high = found.forecast
        lines.append(f"final loss about {middle:.3g}, between {low:.3g} and {high:.3g}")
    return "\n".join([*lines, f"from {found.steps} steps of a copy"])


def _interval(found: Any, shape: str = "its schedule") -> str:
    unit = " x the optimizer's own" if found.relative else ""
    holds = (
        "how many such intervals hold the best one was not measured with this predictor"
        if found.coverage is None
        else f"{found.coverage:.0%} of such intervals hold the best one"
        + ("" if found.known else " in runs of known kinds, and this is of none")
    )
    return (
        f"rate {found.rate:.2g}{unit}, between {found.low:.2g} and {found.high:.2g} "
        f"({holds}), for {found.total_steps} steps of {shape}"
    )


def _unknown(distance: float) -> str:
    if math.isinf(distance):
        return (
            "all weights are zero at the start, and metalr knows rates by the size of "
            "an update beside the weights"
        )
    return (
        "metalr has not learned from runs of this kind (they are "
        f"{distance:.2g} times as far from those as a known kind is at most)"
    )
