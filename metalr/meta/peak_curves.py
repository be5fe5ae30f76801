"""The sweeps of traces as curves over the peak of a linear decay."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metalr.finding.experience import ENCODER
from metalr.meta import labels, traces

_TELLING = 0.5  # least signal of a sweep that is learned from


class PeakCurve(NamedTuple):
    """The runs of a sweep on linear decay, from the lowest peak to the highest."""

    name: str
    kind: str  # encoder, or a kind of the zoo
    task: str  # of an encoder, or its kind
    size: str
    runs: list[traces.Run]
    peaks: np.ndarray  # [P] log2
    outcome: np.ndarray  # [P] J, at most that of a run that learned nothing
    best: float  # log2 of the best peak

    @property
    def row(self) -> str:
        """Its row in the table."""
        return ENCODER if self.kind == ENCODER else "zoo"

    def nearest(self, log2_rate: float) -> int:
        """Return which run has the nearest peak."""
        return int(np.argmin(abs(self.peaks - log2_rate)))


def curves(runs: Sequence[traces.Run]) -> list[PeakCurve]:
    """Return the sweeps that tell a best rate under linear decay."""
    found = []
    for number, of_sweep in labels.by_sweep(runs).items():
        own = labels.at_peaks(of_sweep, "linear")
        if len(own) < 3 or labels.best_rate(own).signal < _TELLING:
            continue
        peaks = np.log2([run.peak for run in own])
        about = own[0].about
        outcome = labels.outcomes(own)
        found.append(
            PeakCurve(
                name=str(number),
                kind=about.get("problem", ENCODER),
                task=about["task"],
                size=labels.size(own[0]),
                runs=[traces.held(run) for run in own],
                peaks=peaks,
                outcome=outcome,
                best=best_peak(peaks, outcome),
            )
        )
    return found


def best_peak(peaks: np.ndarray, outcome: np.ndarray) -> float:
    """Return the best peak of a sweep as `labels.best_rate` does: a softmin.

    >>> best_peak(np.array([-3.0, -2.0, -1.0]), np.array([-0.5, -2.0, -0.5]))
    -2.0
    """
    return round(float(labels.of_the_best(peaks, outcome)), 6)
