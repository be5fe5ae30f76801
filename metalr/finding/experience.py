"""What the traces know of runs besides their best rate: a small table, as JSON.

How wide an interval has to be, what a rate costs that is 4x off, and where the loss and
the score end. `python -m metalr.meta.probe_table` makes it and writes it beside the
predictor that it was measured with; sweeps were left out of whatever was measured on
them.
"""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metalr import stored_predictor
from metalr.errors import MetalrError
from metalr.predictor import Predictor
from metalr.runtime import files

FILE = "probe.json"
KINDS = ANY, ENCODER = "any", "encoder"  # of run, the rows of the table
_EIGHT_IN_TEN = 1.28  # of a normal error lie within so many deviations
_WINDOW = 8  # steps in the mean of a loss
LEAST = 20  # losses that a forecast needs
SCORES = ("accuracy", "f1", "matthews", "exact_match")  # that are forecast


class Experience(NamedTuple):
    """The table; rows by kind of run."""

    coverage: float | None  # share of intervals that hold the best; None: not measured
    width: float  # standard deviations on either side of them
    scale: float  # of a probe's standard deviation, on sweeps left out
    prior_scale: float  # of that of the facts
    lost: dict[str, dict[str, tuple[float, float, float]]]  # by kind and way
    # Weights, and the error that as many forecasts have at most: of a logarithm.
    losses: dict[str, tuple[list[float], float]]
    scores: tuple[list[float], float] | None = None  # the same, of a score

    def deviation(self, variance: float) -> float:
        """Return the standard deviation of a probe's estimate, in octaves."""
        return self.scale * math.sqrt(max(variance, 0.0))

    def costs(self, kind: str) -> dict[str, tuple[float, float, float]]:
        """Return the share of the loss's fall that a rate 4x off loses, quartiles."""
        return self.lost.get(kind, self.lost.get(ANY, {}))

    def final_loss(
        self, kind: str, losses: np.ndarray
    ) -> tuple[float, float, float] | None:
        """Forecast the last validation loss: low, middle, high.

        None where a loss is not positive, or the table has no such row.
        """
        row = self.losses.get(kind, self.losses.get(ANY))
        inputs = loss_inputs(losses)
        if row is None or inputs is None:
            return None
        weights, error = row
        middle = float(np.dot(weights, inputs))
        first = _first(losses)
        low, mid, high = (first * math.exp(middle + k * error) for k in (-1, 0, 1))
        return low, mid, high

    def final_score(
        self, name: str, now: float, share: float
    ) -> tuple[float, float, float] | None:
        """Forecast the last score of a fine-tune: low, middle, high, in [0, 1].

        None where the table knows no such score, as of a correlation or an error.

        Args:
          name: Of the score.
          now: The score after the probe.
          share: Of the run that the probe was.
        """
        if self.scores is None or name not in SCORES:
            return None
        weights, error = self.scores
        middle = now + float(np.dot(weights, score_inputs(now, share)))
        low, mid, high = (min(max(middle + k * error, 0.0), 1.0) for k in (-1, 0, 1))
        return low, mid, high


def loss_inputs(losses: np.ndarray) -> np.ndarray | None:
    """Return what a forecast of the loss is made of: [1], or None.

    More than how far the loss has fallen (its slope, how much of the run is left) made
    the forecast worse on tasks left out.

    Args:
      losses: Of the first steps: [n].
    """
    losses = np.asarray(losses, np.float64)
    if len(losses) < LEAST or not np.isfinite(losses).all() or losses.min() <= 0:
        return None
    return np.array([math.log(np.mean(losses[-_WINDOW:]) / _first(losses))])


def score_inputs(now: float, share: float) -> np.ndarray:
    """Return what a forecast of the gain of a score is made of: [1].

    Args:
      now: The score, in [0, 1].
      share: Of the run that is done.
    """
    return np.array([(1 - now) * math.log(1 / share)])


def _first(losses: np.ndarray) -> float:
    return float(np.mean(losses[: _WINDOW // 2]))


def load_experience(
    path: str | Path | None = None, predictor: Predictor | None = None
) -> Experience:
    """Read the table beside a predictor, the shipped one if no path is given.

    Without a table, intervals are as wide as the predictor says, and there is neither a
    cost nor a forecast. What was measured with other weights says no share of intervals
    that hold the best rate.

    Args:
      path: Folder of a predictor.
      predictor: The weights that are asked; None: those of the folder.

    Raises:
      MetalrError: The file is there and is no such table.
    """
    folder = stored_predictor.folder_of(path)
    if not (folder / FILE).exists():
        return Experience(None, _EIGHT_IN_TEN, 1.0, 1.0, {}, {})
    found, measured_with = _load(folder, (folder / FILE).stat().st_mtime_ns)
    if predictor is None:
        asked = stored_predictor.read_metadata(folder)["sha256"]
    else:
        asked = stored_predictor.digest(predictor)
    if asked == measured_with:
        return found
    return found._replace(
        coverage=None,
        # Of other weights nobody knows yet how far they are off.
        scale=max(1.0, found.scale),
        prior_scale=max(1.0, found.prior_scale),
    )


@functools.lru_cache(maxsize=8)
def _load(folder: Path, stamp: int) -> tuple[Experience, str]:
    """Read a table, and the hash of the weights that it was measured with."""
    del stamp  # a file that was written anew is read anew
    content = files.read_json(folder / FILE)
    try:
        found = Experience(
            float(content["coverage"]),
            float(content["width"]),
            float(content["scale"]),
            float(content["prior_scale"]),
            {k: _quartiles(row) for k, row in content["lost"].items()},
            {k: _weights(row) for k, row in content["losses"].items()},
            _weights(content["scores"]) if content["scores"] else None,
        )
        return found, content["predictor_sha256"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MetalrError(
            f"{folder / FILE} is no table of metalr's probes ({error!r}); make it "
            "again: python -m metalr.meta.probe_table"
        ) from error


def _quartiles(row: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    found = {}
    for way, shares in row.items():
        low, middle, high = map(float, shares)
        found[way] = (low, middle, high)
    return found


def _weights(row: dict[str, Any]) -> tuple[list[float], float]:
    weights = [float(x) for x in row["weights"]]
    if len(weights) != 1:
        raise ValueError(f"{len(weights)} weights in place of 1")
    return weights, float(row["error"])
