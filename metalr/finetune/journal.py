"""The history of a run: its rows, its best evaluation, and how it ended."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from metalr.errors import MetalrError

Row = dict[str, Any]


class Outcome(NamedTuple):
    """A run that ended."""

    params: Any  # the last parameters; None where the run diverged
    history: list[Row]
    best: Row  # the evaluation with the best score
    last: Row  # the last evaluation
    steps: int
    seconds: float  # in steps, without evaluation and saving
    step_seconds: float  # median over the logged intervals; NaN where there is none
    stopped: str | None  # None: ran to its end; "early"; "asked"; "diverged"


class Diverged(MetalrError):
    """The loss is not finite, and the transformation does not skip such steps."""

    def __init__(self, message: str, outcome: Outcome):
        super().__init__(message)
        self.outcome = outcome  # the run up to there


@dataclasses.dataclass
class Journal:
    """The history of a run; a checkpoint holds it, as JSON, beside the state."""

    history: list[Row] = dataclasses.field(default_factory=list)
    best: Row = dataclasses.field(default_factory=dict)
    last: Row = dataclasses.field(default_factory=dict)
    stale: int = 0  # evaluations since the best
    seconds: float = 0.0
    # Logged values since the last row, still on the device.
    pending: list[Row] = dataclasses.field(default_factory=list)
    spent: float = 0.0  # seconds of these steps up to the last save
    # Seconds a step of each interval between two rows.
    paces: list[float] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Journal":
        """Return the journal in a checkpoint, perhaps of another version of metalr."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: content[name] for name in known & content.keys()})

    def log(self, done: int, epoch: float, seconds: float) -> Row:
        """Make a row of the steps since the last one.

        Args:
          done: Steps so far.
          epoch: The same in epochs.
          seconds: That the steps since the last row, or the last save, took.
        """
        row = _summary(self.pending)
        seconds += self.spent
        self.paces.append(seconds / len(self.pending))
        self.pending, self.spent = [], 0.0
        self.seconds += seconds
        self.history.append({"step": done, "epoch": epoch, **row})
        return self.history[-1]

    def score(self, row: Row, metric: str) -> bool:
        """Keep an evaluation; return whether it is the best."""
        self.last = row
        self.history.append(row)
        self.stale += 1
        if self.best and _merit(row, metric) <= _merit(self.best, metric):
            return False
        self.best, self.stale = row, 0
        return True

    def waited(self, patience: int) -> bool:
        """Return whether the last `patience` evaluations were no new best; 0: never."""
        return bool(patience) and self.stale >= patience

    def content(self, done: int) -> dict[str, Any]:
        """Return the journal as JSON, after `done` steps.

        An unfinished interval is kept as well, so that the rows of a resumed run are
        those of the uninterrupted one. A loss in it that is not finite raises: such a
        state must not replace a good one.
        """
        self.pending = [_plain(row) for row in self.pending]
        for step, row in enumerate(self.pending, done + 1 - len(self.pending)):
            self.check_finite(row, step)
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def check_finite(self, row: Row, step: int) -> None:
        """Raise `Diverged` for a loss that is not finite and that nothing skips."""
        if not math.isfinite(row["loss"]) and "skipped_steps" not in row:
            raise Diverged(
                f"the loss is {row['loss']} at step {step}, learning rate "
                f"{row['learning_rate']:.3g}; take a smaller --learning-rate",
                self.outcome(None, step, "diverged"),
            )

    def outcome(self, params: Any, steps: int, stopped: str | None) -> Outcome:
        """Return the run as it ended."""
        seen = (self.history, self.best, self.last)
        pace = float(np.median(self.paces)) if self.paces else math.nan
        seconds = self.seconds + self.spent
        return Outcome(params, *seen, steps, seconds, pace, stopped)


def _merit(row: Row, metric: str) -> tuple[float, ...]:
    """Return what makes an evaluation better than another: score, then lower loss.

    Where one class is frequent, a score like accuracy is the same for many steps while
    the loss still falls: the first of them is hardly trained.
    """
    loss = -row.get("eval_loss", 0.0)
    score = loss if metric == "eval_loss" else row[metric]
    return tuple(x if math.isfinite(x) else -math.inf for x in (score, loss))


def _plain(row: Row) -> Row:
    """Return a logged row as Python floats, which JSON gives back bit for bit."""
    return {name: float(value) for name, value in row.items()}


def _summary(pending: list[Row]) -> Row:
    """Return the mean loss of an interval, and the last value of everything else.

    Where steps with a loss that is not finite are skipped, they are left out of the
    mean; where they are not, one of them shows.
    """
    rows = [_plain(row) for row in jax.device_get(pending)]
    losses = np.array([row["loss"] for row in rows])
    if "skipped_steps" in rows[-1] and np.isfinite(losses).any():
        losses = losses[np.isfinite(losses)]
    return {**rows[-1], "loss": float(losses.mean())}
