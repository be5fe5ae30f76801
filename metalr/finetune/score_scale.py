"""Scores far from where a head begins are learned in units of their own.

A head begins near 0, and its bias moves by about one rate a step, so that scores near
1,000 are out of reach of a usual run; their correlation, which knows neither offset nor
unit, would not tell. So they are learned less their mean, over their
deviation, and both go into the last layer of the model that is saved.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from metalr.data.encoded import Encoded, column_of
from metalr.data.schema import Task

_NEAR = 10.0  # a mean or a deviation that is larger is far
_NARROW = 0.1  # and so is a deviation that is smaller
_LAST = "out"  # the layer of `heads.SequenceModel` that gives the score


class ScoreScale(NamedTuple):
    """What is taken from scores before they are learned."""

    mean: float
    deviation: float

    def scaled(self, rows: Any, task: Task, encoded: Encoded) -> Encoded:
        """Return the entries of rows with their scores in these units."""
        apart = (_scores(rows, task) - self.mean) / self.deviation
        return encoded._replace(labels=apart.astype(np.float32))

    def restored(self, params: Any) -> Any:
        """Return parameters that give scores as the rows have them.

        Args:
          params: Of the model that learned them in these units.
        """
        return _changed(params, self.deviation, self.mean)

    def begun(self, params: Any) -> Any:
        """Return the same the other way: of a model whose scores are as in the rows."""
        return _changed(params, 1 / self.deviation, -self.mean / self.deviation)

    @property
    def note(self) -> str:
        """What a person is told of it."""
        return (
            f"the scores of the training rows have mean {self.mean:.4g} and deviation "
            f"{self.deviation:.3g}: learned less the one, over the other, so loss and "
            "eval_loss are in these units; the saved model gives scores as the rows do"
        )


def of_rows(rows: Any, task: Task) -> ScoreScale | None:
    """Return the scale of training rows; None where a head can learn them as they are.

    Args:
      rows: With their scores.
      task: Whose rows they are.
    """
    if task.kind != "regression":
        return None
    scores = _scores(rows, task)
    mean, deviation = float(scores.mean()), float(scores.std())
    near = abs(mean) <= _NEAR and _NARROW <= deviation <= _NEAR
    return None if near or deviation == 0 else ScoreScale(mean, deviation)


def _changed(params: Any, factor: float, offset: float) -> Any:
    """Return parameters whose score is multiplied, and then moved."""
    last = {name: np.asarray(x, np.float64) for name, x in params[_LAST].items()}
    last = {"kernel": last["kernel"] * factor, "bias": last["bias"] * factor + offset}
    last = {k: jnp.asarray(x, params[_LAST][k].dtype) for k, x in last.items()}
    return {**params, _LAST: last}


def _scores(rows: Any, task: Task) -> np.ndarray:
    return np.array([float(x) for x in column_of(rows, task.label)], np.float64)
