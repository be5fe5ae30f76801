"""What to collect: banks of fine-tunes, drawn from a seed.

A *bank* is one task, model, seed, batch, length and horizon. It is run at several peak
rates with the same warm-up and decay, so that the outcomes tell, in hindsight, which
peak was best; that labels every step of every run of the bank. Further runs of the
same bank visit other states: random walks of the rate, and the current predictor
starting from a random base rate.

Everything here is a pure function of (index, sources, seed): a collection that was
killed draws the same again and finds in its files what is done.
"""

from typing import Any, NamedTuple

import numpy as np

from metalr.predictor import Predictor, init_predictor

PRIORS = ("linear", "cosine", "constant")  # what follows the warm-up
# Octaves between a run's base rate and its peak. 10 are possible; a walk over the 7 of
# the peaks needs some to spare.
_REACH = 7.0


class Sources(NamedTuple):
    """What banks are drawn from; of several values each is as likely."""

    tasks: tuple[str, ...]
    models: tuple[str, ...]
    data: str  # hub, toy or a folder
    batches: tuple[int, ...] = (8, 16, 16, 32)
    lengths: tuple[int, ...] = (32, 32, 48, 64)
    horizons: tuple[int, ...] = (60, 100, 100, 150, 200, 300)
    epochs: tuple[int, ...] = (1, 1, 2, 4)  # passes over a bank's rows
    # None: the model's own. None and no dropout are the two that people use.
    dropouts: tuple[float | None, ...] = (None, None, 0.0, 0.2)
    peaks: int = 7
    walks: int = 2
    # Middle of the peaks: small encoders want more than BERT-base, by up to 30x.
    centre: float = 2e-4
    octaves: float = 7.0  # from the lowest peak to the highest
    evaluations: int = 10
    validation_rows: int = 200
    shapes: int = 2  # lengths of a bank's batches; each compiles
    # Shares of the banks with what keeps a predictor from knowing a model by its scale.
    rescaled: float = 0.3
    frozen: float = 0.15
    shuffled: float = 0.1


# So small that a demonstration on generated rows takes minutes.
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


class Bank(NamedTuple):
    """The settings that a bank's runs share."""

    bank_id: int
    task: str
    model: str
    data: str
    seed: int  # of rows, order, dropout, head, walks
    batch: int
    length: int  # in tokens
    horizon: int  # steps
    epochs: int
    prior: str  # a row of PRIORS
    warmup: int  # steps
    dropout: float | None
    rescaled: float  # sigma of the log scale of each leaf; 0: as they are
    frozen: bool  # embeddings get no gradient
    shuffled: bool  # weights permuted within each leaf: random, of the same scale
    peaks: tuple[float, ...]
    walks: int
    evaluations: int
    validation_rows: int
    shapes: int


class Plan(NamedTuple):
    """One run of a bank: the rate is `rate * exp(controller + explore)`."""

    about: dict[str, Any]  # kind, base_rate and, for a bank's own rates, peak
    rate: np.ndarray  # [T] float32, base rate by prior
    explore: np.ndarray  # [T] float32, added to the log multiplier
    predictor: Predictor  # the controller


class Job(NamedTuple):
    """Runs of one bank that go into one file."""

    bank: Bank
    round: int = 0  # 0: the bank's own rates and walks; above: those of a predictor
    predictor: Predictor | None = None
    runs: int = 0  # of a predictor

    @property
    def name(self) -> str:
        """Name of the file, without an ending."""
        prefix = f"round-{self.round}-" if self.round else ""
        return f"{prefix}bank-{self.bank.bank_id:05d}"


def draw(index: int, sources: Sources, seed: int) -> Bank:
    """Returns bank number `index`: tasks take turns, all else is drawn.

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
    return Bank(
        bank_id=index,
        task=sources.tasks[index % len(sources.tasks)],
        model=of(sources.models),
        data=sources.data,
        seed=int(rng.integers(2**31)),
        batch=of(sources.batches),
        length=of(sources.lengths),
        horizon=horizon,
        epochs=of(sources.epochs),
        prior=str(rng.choice(PRIORS, p=(0.6, 0.2, 0.2))),
        # Two in three as metalr's default: a tenth of the run.
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
    )


def prior(bank: Bank) -> np.ndarray:
    """Returns the factor of the peak rate at each step: [T] float32."""
    step, w, total = np.arange(bank.horizon), bank.warmup, bank.horizon
    ramp = np.minimum(1.0, (step + 1) / (w + 1))
    left = np.clip((total - step) / max(1, total - w), 0, 1)
    after = {
        "linear": left,
        "cosine": 0.5 - 0.5 * np.cos(np.pi * left),
        "constant": np.ones(total),
    }
    return np.minimum(ramp, after[bank.prior]).astype(np.float32)


def evaluated_at(bank: Bank) -> list[int]:
    """Returns the numbers of steps after which the bank's runs are evaluated."""
    share = bank.horizon / bank.evaluations
    return [round(share * (k + 1)) for k in range(bank.evaluations)]


def plans(job: Job) -> list[Plan]:
    """Returns the runs of a job, in the order of the file."""
    bank = job.bank
    rng = np.random.default_rng([bank.seed, 1 + job.round])
    if job.predictor is not None:
        return [_policy(bank, job.predictor, rng, k) for k in range(job.runs)]
    rates = [_constant(bank, peak, rng) for peak in bank.peaks]
    return rates + [_walk(bank, rng) for _ in range(bank.walks)]


def recording() -> Predictor:
    """Returns the predictor that never moves: what `explore` says is applied.

    But for the octave that a step without a finite loss takes from the multiplier.
    """
    return init_predictor()._replace(correlation=np.float32(np.inf))


def _constant(bank: Bank, peak: float, rng: np.random.Generator) -> Plan:
    """Runs at one peak rate.

    It is made of a base rate and a multiplier that say nothing about where the peak
    lies among the others, or the multiplier would give the answer away.
    """
    offset = rng.uniform(-_REACH, _REACH)
    base = float(peak * 2**-offset)
    about = {"kind": "peak", "peak": peak, "base_rate": base}
    explore = np.full(bank.horizon, offset * np.log(2), np.float32)
    return Plan(about, _rate(bank, base), explore, recording())


def _walk(bank: Bank, rng: np.random.Generator) -> Plan:
    """Runs along a piecewise-linear walk of the log rate between the peaks."""
    low, high = np.log2(bank.peaks[0]), np.log2(bank.peaks[-1])
    walk = _piecewise(bank.horizon, rng, lambda n: rng.uniform(low, high, n))
    # All of the walk has to lie within reach of the base rate.
    middle = (walk.min() + walk.max()) / 2
    spare = max(0.0, _REACH - (walk.max() - walk.min()) / 2)
    base = float(2 ** (middle + rng.uniform(-spare, spare)))
    explore = ((walk - np.log2(base)) * np.log(2)).astype(np.float32)
    about = {"kind": "walk", "base_rate": base}
    return Plan(about, _rate(bank, base), explore, recording())


def _policy(
    bank: Bank, predictor: Predictor, rng: np.random.Generator, number: int
) -> Plan:
    """Runs with a predictor; every other run explores by about an octave."""
    base = float(10 ** rng.uniform(-6.0, -2.7))
    sigma = np.log(2) * (number % 2)
    noise = _piecewise(bank.horizon, rng, lambda n: rng.normal(0, sigma, n))
    about = {"kind": "policy", "base_rate": base}
    return Plan(about, _rate(bank, base), noise.astype(np.float32), predictor)


def _rate(bank: Bank, base: float) -> np.ndarray:
    return np.float32(base) * prior(bank)


def _piecewise(horizon: int, rng: np.random.Generator, values: Any) -> np.ndarray:
    """Returns a line through 3 to 7 drawn values at drawn steps: [T] float64."""
    knots = np.sort(rng.uniform(0, horizon, rng.integers(1, 6)))
    knots = np.concatenate([[0], knots, [horizon]])
    return np.interp(np.arange(horizon), knots, values(len(knots)))
