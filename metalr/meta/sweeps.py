"""What to collect: sweeps of fine-tunes, drawn from a seed.

A *sweep* is one task, model, seed, batch, length and horizon. It is run at several peak
rates with the same warm-up and decay, and on other shapes where `Sources` says so. The
outcomes show which rate was best at which part of the run, and that labels every step
of every run of the sweep. Further runs of the same sweep reach states that these
schedules do not: random walks of the rate, and runs of the current predictor from a
random base rate.

Everything here is a pure function of (index, sources, seed), so a collection that was
killed draws the same sweeps again, and its files show which of them are done.
"""

from typing import Any, NamedTuple

import numpy as np

from metalr.meta.zoo import sweeps as zoo
from metalr.predictor import Predictor, init_predictor

DECAYS = ("linear", "cosine", "constant")  # after the warm-up; rows of `zoo.level`
# Octaves between a run's base rate and its peak. The multiplier allows 10; the rest is
# left to a walk over the 7 octaves of the peaks.
_REACH = 7.0


class Sources(NamedTuple):
    """What sweeps are drawn from; the values of a field are equally likely."""

    tasks: tuple[str, ...]
    models: tuple[str, ...]
    data: str  # hub, toy or a folder
    batches: tuple[int, ...] = (8, 16, 16, 32)
    lengths: tuple[int, ...] = (32, 32, 48, 64)
    horizons: tuple[int, ...] = (60, 100, 100, 150, 200, 300)
    epochs: tuple[int, ...] = (1, 1, 2, 4)  # passes over a sweep's rows
    # None: the model's own, which is what most people use; the others use none.
    dropouts: tuple[float | None, ...] = (None, None, 0.0, 0.2)
    # Some sweeps run every peak on these shapes besides; finetune.py's metalr rides on
    # a hold, and only a sweep with two shapes tells what a shape changes.
    also: tuple[str, ...] = ("wsd",)
    paired: float = 0.25  # share of the sweeps that do
    peaks: int = 7
    walks: int = 2
    # Middle of the peaks. Small encoders need up to 30 times the rate of BERT-base.
    centre: float = 2e-4
    octaves: float = 7.0  # from the lowest peak to the highest
    evaluations: int = 10
    validation_rows: int = 200
    shapes: int = 2  # distinct lengths of a sweep's batches; each is compiled
    # Shares of the sweeps whose model is changed, to hide which one it is.
    rescaled: float = 0.3
    frozen: float = 0.15
    shuffled: float = 0.1


# Small enough that a demonstration on generated rows takes minutes.
SMALL: dict[str, Any] = {
    "batches": (8,),
    "lengths": (32,),
    "horizons": (40,),
    "peaks": 5,
    "walks": 1,
    "evaluations": 5,
    "validation_rows": 100,
    "shapes": 1,
}


class Sweep(NamedTuple):
    """The settings that the runs of a sweep share."""

    sweep_id: int
    task: str
    model: str
    data: str
    seed: int  # of rows, order, dropout, head, walks
    batch: int
    length: int  # in tokens
    horizon: int  # steps
    epochs: int
    decay: str  # a row of DECAYS; walks and runs of a predictor have it too
    also: tuple[str, ...]  # the other shapes of its peaks; of `zoo.level`
    warmup: int  # steps
    dropout: float | None
    rescaled: float  # sigma of the log scale of each leaf; 0: not rescaled
    frozen: bool  # embeddings get no gradient
    shuffled: bool  # weights permuted within each leaf: random, of the same scale
    peaks: tuple[float, ...]
    walks: int
    evaluations: int
    validation_rows: int
    shapes: int

    @property
    def runs(self) -> int:
        """Number of its runs at peaks and walks."""
        return len(self.peaks) * (1 + len(self.also)) + self.walks


class PlannedRun(NamedTuple):
    """One run of a sweep: its rate is `rate * exp(controller + explore)`."""

    about: dict[str, Any]  # kind, shape, base_rate and, for a run at a peak, peak
    rate: np.ndarray  # [T] float32, base rate by decay
    explore: np.ndarray  # [T] float32, added to the log multiplier
    predictor: Predictor  # the controller


class Job(NamedTuple):
    """Runs of one sweep that are written to one file."""

    sweep: Sweep
    round: int = 0  # 0: peaks and walks; above: runs of a predictor
    predictor: Predictor | None = None
    runs: int = 0  # of the predictor

    @property
    def name(self) -> str:
        """Name of the file, without its extension."""
        prefix = f"round-{self.round}-" if self.round else ""
        return f"{prefix}sweep-{self.sweep.sweep_id:05d}"


def draw(index: int, sources: Sources, seed: int) -> Sweep:
    """Draw sweep number `index`: tasks take turns, all else is random.

    >>> sources = Sources(("sst2", "rte"), ("minilm:1",), "toy")
    >>> draw(3, sources, 0) == draw(3, sources, 0), draw(3, sources, 0).task
    (True, 'rte')
    """
    rng = np.random.default_rng([seed, index])
    of = lambda values: values[rng.integers(len(values))]  # noqa: E731
    horizon = of(sources.horizons)
    middle = np.log2(sources.centre) + rng.uniform(-0.5, 0.5)
    half = sources.octaves / 2
    peaks = 2 ** np.linspace(middle - half, middle + half, sources.peaks)
    return Sweep(
        sweep_id=index,
        task=sources.tasks[index % len(sources.tasks)],
        model=of(sources.models),
        data=sources.data,
        seed=int(rng.integers(2**31)),
        batch=of(sources.batches),
        length=of(sources.lengths),
        horizon=horizon,
        epochs=of(sources.epochs),
        decay=str(rng.choice(DECAYS, p=(0.6, 0.2, 0.2))),
        # Two in three have metalr's default: a tenth of the run.
        warmup=int(of((0.1, 0.1, rng.uniform(0, 0.3))) * horizon),
        dropout=of(sources.dropouts),
        rescaled=float(of((0.3, 0.6, 1.0)) * (rng.random() < sources.rescaled)),
        frozen=bool(rng.random() < sources.frozen),
        shuffled=bool(rng.random() < sources.shuffled),
        peaks=tuple(float(f"{peak:.4g}") for peak in peaks),
        walks=sources.walks,
        evaluations=min(sources.evaluations, horizon),
        validation_rows=sources.validation_rows,
        shapes=sources.shapes,
        # Drawn last: the other settings are those of a collection without it.
        also=sources.also if rng.random() < sources.paired else (),
    )


def draw_runs(runs: int, sources: Sources, seed: int) -> list[Sweep]:
    """Draw sweeps 0, 1, 2, ... until they have so many runs, or a few more."""
    drawn: list[Sweep] = []
    while sum(sweep.runs for sweep in drawn) < runs:
        drawn.append(draw(len(drawn), sources, seed))
    return drawn


def level(sweep: Sweep, shape: str = "") -> np.ndarray:
    """Return the share of the peak rate at each step: [T] float32.

    Args:
      sweep: The sweep.
      shape: Of the schedule after the warm-up; the sweep's own where it is empty.
    """
    return zoo.level(shape or sweep.decay, sweep.horizon, sweep.warmup)


def evaluated_at(sweep: Sweep) -> list[int]:
    """Return the step counts after which the runs of a sweep are evaluated."""
    share = sweep.horizon / sweep.evaluations
    return [round(share * (k + 1)) for k in range(sweep.evaluations)]


def planned_runs(job: Job) -> list[PlannedRun]:
    """Return the runs of a job, in the order of its file."""
    sweep = job.sweep
    rng = np.random.default_rng([sweep.seed, 1 + job.round])
    if job.predictor is not None:
        return [_policy(sweep, job.predictor, rng, k) for k in range(job.runs)]
    shapes = (sweep.decay, *sweep.also)
    rates = [_constant(sweep, x, peak, rng) for x in shapes for peak in sweep.peaks]
    return rates + [_walk(sweep, rng) for _ in range(sweep.walks)]


def constant_predictor() -> Predictor:
    """Return a predictor that leaves the multiplier to `explore`.

    A step without a finite loss still halves it, and a loss far above its start brakes
    it: such a peak is too high in either case.
    """
    return init_predictor()._replace(correlation=np.float32(np.inf))


def _constant(
    sweep: Sweep, shape: str, peak: float, rng: np.random.Generator
) -> PlannedRun:
    """Plan a run at one peak rate on one shape.

    The peak is the product of a random base rate and a multiplier. Neither depends on
    where the peak lies among the others, or the multiplier would reveal the label.
    """
    offset = rng.uniform(-_REACH, _REACH)
    base = float(peak * 2**-offset)
    about = {"kind": "peak", "shape": shape, "peak": peak, "base_rate": base}
    explore = np.full(sweep.horizon, offset * np.log(2), np.float32)
    rate = np.float32(base) * level(sweep, shape)
    return PlannedRun(about, rate, explore, constant_predictor())


def _walk(sweep: Sweep, rng: np.random.Generator) -> PlannedRun:
    """Plan a piecewise-linear walk of the log rate between the peaks."""
    low, high = np.log2(sweep.peaks[0]), np.log2(sweep.peaks[-1])
    walk = _piecewise(sweep.horizon, rng, lambda n: rng.uniform(low, high, n))
    # The whole walk has to lie within `_REACH` of the base rate.
    middle = (walk.min() + walk.max()) / 2
    spare = max(0.0, _REACH - (walk.max() - walk.min()) / 2)
    base = float(2 ** (middle + rng.uniform(-spare, spare)))
    explore = ((walk - np.log2(base)) * np.log(2)).astype(np.float32)
    about = {"kind": "walk", "shape": sweep.decay, "base_rate": base}
    rate = np.float32(base) * level(sweep)
    return PlannedRun(about, rate, explore, constant_predictor())


def _policy(
    sweep: Sweep, predictor: Predictor, rng: np.random.Generator, number: int
) -> PlannedRun:
    """Plan a run of a predictor; every other run explores by about an octave."""
    base = float(10 ** rng.uniform(-6.0, -2.7))
    sigma = np.log(2) * (number % 2)
    noise = _piecewise(sweep.horizon, rng, lambda n: rng.normal(0, sigma, n))
    about = {"kind": "policy", "shape": sweep.decay, "base_rate": base}
    rate = np.float32(base) * level(sweep)
    return PlannedRun(about, rate, noise.astype(np.float32), predictor)


def _piecewise(horizon: int, rng: np.random.Generator, values: Any) -> np.ndarray:
    """Return a line through 3 to 7 random values at random steps: [T] float64."""
    knots = np.sort(rng.uniform(0, horizon, rng.integers(1, 6)))
    knots = np.concatenate([[0], knots, [horizon]])
    return np.interp(np.arange(horizon), knots, values(len(knots)))
