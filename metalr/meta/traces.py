"""Traces of runs: what each step was, and what a fit looks at.

Observations (`metalr.observe`) are what outlives a change of the features: these are
computed from them by the same code as in a running fine-tune. `thin` keeps the features
of a sample of steps, in an eighth of the bytes, for shipping. `trace_files` reads and
writes them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from metalr import features
from metalr.observe import Observation
from metalr.read_schedule import log_area

SCALARS = ("rate", "multiplier", "loss")
EARLY, LATE = 12, 36  # steps of a run that are learned from: these, and of the others


class _Always(TypedDict):
    sweep_id: int
    kind: str  # "peak", "walk" (a random one) or "policy" (the predictor's own)
    base_rate: float  # learning rate that the multiplier is on
    seed: int
    task: str
    model: str
    depth: int  # layers
    width: int
    horizon: int  # steps of the run


class About(_Always, total=False):
    """What belongs to a whole run, as JSON; files and the zoo know different things."""

    run: int  # its number in the sweep
    round: int  # of the predictor's own runs; 0: swept
    peak: float  # learning rate at the schedule's peak; of a walk of the zoo, its first
    problem: str  # its kind, of the zoo alone
    architecture: list[str]  # of it
    family: str  # as "bert"
    optimizer: str  # missing: adamw
    shape: str  # of the schedule after the warm-up
    decay: str  # the same, in older files
    warmup: int  # steps of it
    batch: int  # rows
    length: int  # tokens, at most
    dropout: float | None  # None: the model's own
    clip: float  # norm that gradients are clipped at
    weight_decay: float
    seconds: float
    origin: str  # of the rows
    data: str  # where they are


class Run(NamedTuple):
    """One fine-tune."""

    about: About
    evaluations: list[dict[str, Any]]  # JSON: step, eval_loss, scores; in order
    features: np.ndarray  # [n, F] float32, inputs of the predictor at each step
    rate: np.ndarray  # [n] float32, learning rate of the step
    multiplier: np.ndarray  # [n] float32, its factor on base rate and schedule
    loss: np.ndarray  # [n] float32, training loss before the step
    observations: np.ndarray | None = None  # [n, K] float32; None: features alone
    # Of a thinned run; None: the rows are all steps.
    step: np.ndarray | None = None  # [n] int32, the number of the step
    multiplier_before: np.ndarray | None = None  # [n] float32, of the step before it

    @property
    def steps(self) -> int:
        """Number of rows: of all steps unless the run is thinned."""
        return len(self.loss)

    @property
    def peak(self) -> float:
        """Learning rate at the peak of the schedule, of runs of kind "peak"; else nan.

        A walk of the zoo has its first rate here.
        """
        return self.about.get("peak", np.nan)


def chosen_steps(steps: np.ndarray) -> np.ndarray:
    """Choose, of step numbers in order, all early ones and a sample of the others.

    >>> len(chosen_steps(np.arange(1, 500)))
    47
    """
    late = steps[steps >= EARLY]
    if len(late) > LATE:
        late = late[np.linspace(0, len(late) - 1, LATE).astype(int)]
    return np.concatenate([steps[steps < EARLY], late])


def thin(runs: Sequence[Run]) -> list[Run]:
    """Keep the features of a sample of steps, the same ones for all runs of a sweep.

    Args:
      runs: Of one sweep, with a row for every step.
    """
    rows = chosen_steps(np.arange(1, max(run.steps for run in runs)))
    found = []
    for run in runs:
        own = rows[rows < run.steps]
        found.append(
            Run(
                about=run.about,
                evaluations=run.evaluations,
                features=run.features[own],
                rate=run.rate[own],
                multiplier=run.multiplier[own],
                loss=run.loss[own],
                step=own.astype(np.int32),
                multiplier_before=run.multiplier[own - 1],
            )
        )
    return found


def held(run: Run) -> Run:
    """Give a thinned run a row for every step, each the last one that was kept.

    Features are running means, and little lies between two rows that were kept.
    """
    if run.step is None:
        return run
    rows = np.searchsorted(run.step, np.arange(run.about["horizon"]), "right") - 1
    rows = np.maximum(rows, 0)
    return run._replace(
        **{name: getattr(run, name)[rows] for name in ("features", *SCALARS)},
        step=None,
        multiplier_before=None,
    )


def features_of(observations: np.ndarray) -> np.ndarray:
    """Compute the features of a run of known length: [n, F] float32.

    Args:
      observations: Of its steps: [n, K].
    """
    levels = np.exp(observations[:, Observation._fields.index("log_level")])
    area = log_area(levels)
    # Padded to a power of two: one compilation for runs of about the same length.
    steps = len(observations)
    padded = np.zeros((1 << max(steps - 1, 1).bit_length(), observations.shape[1]))
    padded[:steps] = observations
    columns = Observation(*padded.T.astype(np.float32))
    return np.asarray(_of_trace(columns, steps, area))[:steps]


@functools.cache
def _compiled() -> Callable[..., Any]:
    import jax

    return jax.jit(features.of_trace)


def _of_trace(columns: Observation, steps: int, area: float) -> Any:
    return _compiled()(columns, np.float32(steps), np.float32(area))
