"""Fits the predictor to traces, and checks it on tasks and sizes it has not seen.

The first output is regressed on the hindsight of `metalr.labels`; the second is the
logit of the chance that to follow the first would bring the rate closer to the best.

All of it is computed in float64 and rounded at the end: an order of summation that
differs between machines then does not reach the weights.

What was tried, on a task that none had seen (AG News, `finetune.py --model minilm:2
--max-length 32 --batch-size 16 --max-steps 150 --train-rows 2400 --validation-rows
400`; one seed, so 2 points are noise; linear decay had 0.850 at the best of 3 rates).
Accuracy from base rates of 2e-5, 1.25e-6 and 3.2e-4:

- 16 banks of one to four layers, 60 to 100 steps: 0.818, 0.670, 0.830, where the
  multiplier was bound to 64.
- 41 banks of one to six layers, the 16 among them; 7 of the 25 new ones told nothing
  (a signal below 0.1), both of MNLI below six layers and both of QNLI among these:
  0.785, 0.625, 0.802.
- The 16 under a bound of 1024 in place of 64: on SST-2 from 1.25e-6, as
  `metalr compare --plan small` runs it, 0.730 in place of 0.500.
- These 16 and 25 others, of 100 to 400 steps of 8 to 32 rows, with encoders of widths
  128 and 256 among them (all of these 25 but two tell); then a round of the
  predictor's own runs on the banks that tell: 0.805, 0.787, 0.818. Shipped. The same
  runs on SST-2 end at 0.710, 0.700 and 0.767, where linear decay has 0.773 at the best
  of 6 rates; on tasks in no traces see the README.

The encoders of other widths come from `metalr pretrain`, two layers each: BERT 128 wide
(2,000 steps, which guesses 11 % of the hidden words), RoBERTa 128 wide (800) and BERT
256 wide (300). Most of their banks tell, little as they were pre-trained.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import collect, executors, labels, recipe, traces
from metalr.banks import Bank, Job
from metalr.errors import MetalrError
from metalr.features import FEATURES
from metalr.predictor import Predictor, apply, init_predictor, save_predictor

NAMES = [row.name for row in FEATURES]
_TELLING = 0.1  # signal of a bank that is worth a round's runs
# A feature that hardly moved in the traces says little about what is far or strange:
# its scale and its range are at least these shares of what it can be at all.
_LEAST_STD, _LEAST_RANGE = 0.01, 0.05


class Settings(NamedTuple):
    """How the predictor is fitted."""

    steps: int = 1500
    batch: int = 2048
    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    feature_dropout: float = 0.1  # share of inputs replaced by their mean
    noise: float = 0.1  # sigma added to standardised inputs
    huber: float = 2.0  # octaves: beyond, errors count linearly
    confidence: float = 0.3  # weight of the second output's loss
    unknown_horizon: float = 0.15  # share of the steps whose clock is hidden
    hidden: tuple[str, ...] = ()  # features that are not shown to the predictor
    quantile: float = 0.002  # left out on either side of the range seen in training
    seed: int = 0


def label(runs: Sequence[traces.Run], settings: Settings | None = None):
    """Labels every step of the runs, as `labels.examples` with these settings."""
    settings = settings or Settings()
    return labels.examples(
        runs, unknown_horizon=settings.unknown_horizon, seed=settings.seed
    )


# ------------------------------------------------------------------ the fit


def fit(
    data: labels.Examples,
    settings: Settings | None = None,
    *,
    kept: np.ndarray | None = None,
) -> Predictor:
    """Fits a predictor; the same examples and settings give the same weights.

    Args:
      data: The examples.
      settings: Of the fit.
      kept: [N] bool, the examples to fit to; None: all. The others are not looked at,
        and save compiling again for another number of them.

    Raises:
      MetalrError: A hidden feature is unknown.
    """
    settings = settings or Settings()
    kept = np.ones(len(data.target), bool) if kept is None else kept
    blank = _scaled(init_predictor(settings.seed), data.features[kept], settings)
    with jax.enable_x64(True):
        double = lambda x: jnp.asarray(x, jnp.float64)  # noqa: E731
        arrays = (blank, data.features, data.target, data.weight * kept)
        shown = settings._replace(hidden=())  # by now infinite scales; one compilation
        weights = jax.device_get(_descend(*jax.tree.map(double, arrays), shown))
    weights = jax.tree.map(lambda x: np.asarray(x, np.float32), weights)
    return blank._replace(weights=weights)


def _scaled(blank: Predictor, features: np.ndarray, settings: Settings) -> Predictor:
    """Sets scales and ranges; a feature that is hidden or constant is not looked at."""
    unknown = set(settings.hidden) - set(NAMES)
    if unknown:
        raise MetalrError(f"no such feature: {', '.join(sorted(unknown))}")
    double = features.astype(np.float64)
    std = double.std(axis=0)
    unseen = np.isin(NAMES, settings.hidden) | (std < 1e-6)
    possible = (blank.high - blank.low).astype(np.float64)
    ends = np.quantile(double, [settings.quantile, 1 - settings.quantile], axis=0)
    lacking = np.maximum(_LEAST_RANGE * possible - (ends[1] - ends[0]), 0) / 2
    ends += np.stack([-lacking, lacking])
    low, high = (
        np.where(np.isin(NAMES, settings.hidden), full, end)
        for full, end in zip((blank.low, blank.high), ends, strict=True)
    )
    return blank._replace(
        mean=double.mean(axis=0).astype(np.float32),
        std=np.where(unseen, np.inf, np.maximum(std, _LEAST_STD * possible)).astype(
            np.float32
        ),
        low=low.astype(np.float32),
        high=high.astype(np.float32),
    )


@functools.partial(jax.jit, static_argnames="settings")
def _descend(
    predictor: Predictor,
    features: jax.Array,
    target: jax.Array,
    weight: jax.Array,
    settings: Settings,
) -> Any:
    """Returns the weights after all steps of Adam on drawn batches."""
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    tx = optax.adamw(rate, weight_decay=settings.weight_decay)
    # A feature with an infinite scale gets no noise: inf / inf is NaN.
    sigma = jnp.where(jnp.isfinite(predictor.std), predictor.std, 0) * settings.noise

    def disturbed(x, drop, shake):
        x += sigma[None] * jax.random.normal(shake, x.shape, jnp.float32)
        # No feature may be trusted alone: each is missing now and then.
        missing = jax.random.bernoulli(drop, settings.feature_dropout, x.shape)
        return jnp.where(missing, predictor.mean[None], x)

    def loss(weights, x, y, w):
        correction, confidence = apply(predictor._replace(weights=weights), x)
        error = optax.huber_loss(correction, y, delta=settings.huber)
        closer = jnp.abs(y - correction) < jnp.abs(y)
        chance = jnp.clip(confidence, 1e-9, 1 - 1e-9)
        doubt = -jnp.log(jnp.where(closer, chance, 1 - chance))
        return jnp.mean(w * (error + settings.confidence * doubt))

    def step(carry, key):
        weights, state = carry
        draw, drop, shake = jax.random.split(key, 3)
        rows = jax.random.randint(draw, (settings.batch,), 0, len(target))
        x = disturbed(features[rows], drop, shake)
        grads = jax.grad(loss)(weights, x, target[rows], weight[rows])
        updates, state = tx.update(grads, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    keys = jax.random.split(jax.random.key(settings.seed), settings.steps)
    start = (predictor.weights, tx.init(predictor.weights))
    return jax.lax.scan(step, start, keys)[0][0]


# ------------------------------------------------------------------ the check


def score(predictor: Predictor, data: labels.Examples) -> dict[str, float]:
    """Returns how well a predictor corrects, each step by its weight.

    Returns:
      sign: share of the right direction, where the target is over an octave;
      rmse: of the correction in octaves; still: the same for no correction at all.
    """
    found = np.asarray(apply(predictor, jnp.asarray(data.features))[0], np.float64)
    far = np.abs(data.target) > 1
    mean = lambda x, w: float(np.sum(x * w) / max(np.sum(w), 1e-12))  # noqa: E731
    return {
        "steps": len(found),
        "sign": mean((found * data.target > 0)[far], data.weight[far]),
        "rmse": mean((found - data.target) ** 2, data.weight) ** 0.5,
        "still": mean(data.target**2, data.weight) ** 0.5,
    }


def leave_one_out(
    data: labels.Examples, column: str, settings: Settings | None = None
) -> list[dict[str, Any]]:
    """Fits without each value of a column in turn, and scores on it.

    Args:
      data: The examples.
      column: "task" or "size".
      settings: Of the fit.

    Returns:
      One row per value, as `score` with "out"; none if there is only one value.
    """
    of = getattr(data, column)
    values = [str(value) for value in np.unique(of)]
    if len(values) < 2:
        return []

    def without(value: str) -> dict[str, Any]:
        predictor = fit(data, settings, kept=of != value)
        held = labels.Examples(*(column[of == value] for column in data))
        return {"out": value, **score(predictor, held)}

    # A fit has little to do in parallel within; jax lets threads run side by side.
    with futures.ThreadPoolExecutor(len(executors.cores())) as pool:
        return list(pool.map(without, values))


# ------------------------------------------------------------------ the rounds


def gather(
    chosen: Sequence[Bank],
    output: Path,
    *,
    rounds: int,
    per_bank: int = 2,
    seconds: float = math.inf,
    executor: str = "processes",
    workers: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], object] = lambda line: None,
    settings: Settings | None = None,
) -> bool:
    """Collects the banks, then rounds of what the predictor so far does on them.

    A fit to one set of traces drifts off them when it is applied: its own states have
    to be in the traces too (DAgger). Round r is made with the predictor of all traces
    of the rounds before it, so that a round which was cut goes on with the same one.

    Args:
      chosen: The banks.
      output: Folder for the traces.
      rounds: Rounds after the banks' own.
      per_bank: Runs of a round on each bank; every other one explores.
      seconds: For all of it; seven tenths of them for the banks' own rates.
      executor: As in `collect.collect`.
      workers: As in `collect.collect`.
      stop: As in `collect.collect`.
      tell: Told what goes on.
      settings: Of the fits.

    Returns:
      Whether all is done.
    """
    share = seconds * 0.7 if rounds else seconds
    tell(f"{len(chosen)} banks of {len(chosen[0].peaks) + chosen[0].walks} runs")
    options: dict[str, Any] = {"executor": executor, "workers": workers, "stop": stop}
    whole = collect.collect(list(map(Job, chosen)), output, seconds=share, **options)
    share = (seconds - share) / rounds if rounds and share < math.inf else math.inf
    for number in range(1, rounds + 1):
        if stop():
            return False
        paths = [p for p in traces.files(output / "traces") if round_of(p) < number]
        _, runs = traces.read_all(paths)
        telling = _telling(runs)
        predictor = fit(label(runs, settings), settings)
        jobs = [
            Job(bank, number, predictor, per_bank)
            for bank in chosen
            if bank.bank_id in telling
        ]
        tell(f"round {number}: the predictor so far on {len(jobs)} banks")
        whole &= collect.collect(jobs, output, seconds=share, **options)
    return whole


def _telling(runs: Sequence[traces.Run]) -> set[int]:
    """Returns the banks that hindsight tells something about, or else all whole ones.

    The others' runs would get no weight.
    """
    signals = {k: labels.judge(of).signal for k, of in labels.by_bank(runs).items()}
    return {k for k, signal in signals.items() if signal > _TELLING} or set(signals)


def round_of(path: Path) -> int:
    """Returns the round that a trace file is of.

    >>> [round_of(Path(f"{name}.parquet")) for name in ("bank-02", "round-3-bank-02")]
    [0, 3]
    """
    found = re.match(r"round-(\d+)-", path.name)
    return int(found[1]) if found else 0


# ------------------------------------------------------------------ the whole


class Made(NamedTuple):
    """A predictor and what is known of it."""

    predictor: Predictor
    tables: dict[str, list[dict[str, Any]]]  # trained, task, size
    provenance: dict[str, Any]


def make(
    paths: Sequence[Path],
    settings: Settings | None = None,
    *,
    check: bool = True,
    skip: Callable[[str], object] | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> Made:
    """Fits a predictor to trace files and checks it.

    Args:
      paths: The files.
      settings: Of the fit.
      check: Also leave out one task and one size at a time.
      skip: Told of each file that is refused, which is then left out; None raises.
      tell: Told what goes on.

    Raises:
      MetalrError: A file is refused and `skip` is None, or there is no bank.
    """
    settings = settings or Settings()
    used, runs = traces.read_all(paths, skip=skip)
    data = label(runs, settings)
    tell(f"fitting to {len(data.target)} steps of {len(runs)} runs")
    predictor = fit(data, settings)
    tables = {"trained": [{"out": "nothing", **score(predictor, data)}]}
    for column in ("task", "size") if check else ():
        tell(f"checking: one {column} left out at a time")
        tables[column] = leave_one_out(data, column, settings)
    about = _provenance(used, runs, settings)
    if about["signal"] < _TELLING:
        tell(
            "note: on these banks one rate is about as good as another (mean signal "
            f"{about['signal']:.2f} of 1), so this predictor has learned little; take "
            "longer runs, more layers or other tasks"
        )
    return Made(predictor, tables, about | {"check": tables})


def save(folder: Path, made: Made) -> None:
    """Writes the predictor with its provenance; see `save_predictor`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_predictor(folder, made.predictor, made.provenance)


def _provenance(
    paths: Sequence[Path], runs: Sequence[traces.Run], settings: Settings
) -> dict[str, Any]:
    signals = [labels.judge(of).signal for of in labels.by_bank(runs).values()]
    count = lambda name: dict(  # noqa: E731
        sorted(Counter(str(run.about.get(name)) for run in runs).items())
    )
    return {
        "traces": {"files": len(paths), "sha256": traces.digest(paths)},
        "runs": len(runs),
        "steps": sum(run.steps for run in runs),
        "banks": len(signals),
        "signal": round(float(np.mean(signals)), 4),
        **{
            f"runs by {name}": count(name)
            for name in ("task", "model", "kind", "origin")
        },
        "seeds": sorted({run.about["seed"] for run in runs}),
        "settings": settings._asdict() | {"hidden": list(settings.hidden)},
        "versions": recipe.versions(),
    }


def show(made: Made) -> str:
    """Returns the check as Markdown: what was left out, and how it went."""
    lines = [
        "| left out | steps | right direction | error, octaves | without metalr |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, rows in made.tables.items():
        kind = "" if name == "trained" else f"{name} "
        lines += [
            f"| {kind}{r['out']} | {r['steps']} | {r['sign']:.0%} | {r['rmse']:.2f} "
            f"| {r['still']:.2f} |"
            for r in rows
        ]
    return "\n".join(lines)
