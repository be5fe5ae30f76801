"""Sweeps of the zoo: one problem at many rates and shapes, as one program.

A sweep is a problem, an optimizer, a batch and a horizon; its runs differ in their
peak rate and in what follows the warm-up, and go side by side under `vmap`. What a
program does not depend on (rows, initial parameters, rates) is handed to it, so that
several sweeps share a compilation.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from metalr import coordinates, observe
from metalr.finetune.rules.shapes import COOLDOWN
from metalr.meta import traces
from metalr.meta.zoo.problem import Problem
from metalr.meta.zoo.problems import KINDS

SHAPES = ("linear", "hold", "cosine", "constant")
EVALUATIONS = 20
FIRST_ID = 100_000  # of the zoo's sweeps; encoders have those below
PER_PROGRAM = 3  # sweeps that share a compilation
HOLD = 0.7  # share of the budget before `hold` begins to fall
WSD = 1 - COOLDOWN  # the same of `wsd`
# A rate in the middle of what may be right, by optimizer.
CENTRES = {
    "adamw": 2e-3,
    "adam": 2e-3,
    "sgd": 1e-1,
    "momentum": 3e-2,
    "lion": 2e-4,
    "rmsprop": 1e-3,
    "adafactor": 1e-2,
    "muon": 1e-2,
}
_SHARES = (0.3, 0.12, 0.1, 0.14, 0.08, 0.08, 0.08, 0.1)  # of the draws


class ZooSweep(NamedTuple):
    """The settings of a sweep, drawn by `draw`."""

    number: int
    program: int  # sweeps of one program share a compilation
    seed: int
    kind: str  # a row of KINDS
    optimizer: str
    batch: int  # rows; at least all of them: full batches
    horizon: int  # steps
    warmup: int  # steps
    clip: float  # of the gradient's norm; 0: none
    weight_decay: float
    centre: float  # log2 of the middle of the peaks
    peaks: int = 13
    octaves: float = 13.0


def draw(index: int, seed: int) -> ZooSweep:
    """Return sweep number `index`; kinds take turns, all else is drawn.

    >>> draw(5, 0) == draw(5, 0), draw(3, 0).kind == draw(5, 0).kind
    (True, True)
    """
    program = index // PER_PROGRAM
    shape = np.random.default_rng([seed, 1, program])
    rng = np.random.default_rng([seed, 2, index])
    kinds = list(KINDS)
    optimizer = str(shape.choice(list(CENTRES), p=_SHARES))
    horizon = int(shape.choice([60, 100, 150, 250, 400, 700, 1200], p=_HORIZONS))
    batch = int(shape.choice([1, 8, 16, 32, 64, 128, 4096], p=_BATCHES))
    kind = kinds[program % len(kinds)]
    batch = min(batch, max(1, _MOST_ROWS.get(kind, 10**9) // horizon))
    return ZooSweep(
        number=index,
        program=program,
        seed=seed,
        kind=kind,
        optimizer=optimizer,
        batch=batch,
        horizon=horizon,
        warmup=int(rng.choice([0, 0.1, 0.1, 0.05]) * horizon),
        clip=float(shape.choice([0.0, 1.0])),
        weight_decay=float(shape.choice([0.0, 0.01, 0.1])),
        centre=math.log2(CENTRES[optimizer]) + float(rng.uniform(-1, 1)),
    )


# Rows of a whole run of a transformer: a sweep has some forty runs.
_MOST_ROWS = {"language": 6400, "tuned": 1600}
_HORIZONS = (0.1, 0.2, 0.2, 0.2, 0.15, 0.1, 0.05)
_BATCHES = (0.04, 0.16, 0.2, 0.2, 0.2, 0.1, 0.1)


def level(shape: str, horizon: int, warmup: int) -> np.ndarray:
    """Return the factor on the peak rate at each step: [T] float32."""
    step = np.arange(horizon)
    ramp = np.minimum(1.0, (step + 1) / (warmup + 1))
    left = np.clip((horizon - step) / max(1, horizon - warmup), 0, 1)
    after = {
        "linear": left,
        "hold": _until(HOLD, horizon),
        "wsd": _until(WSD, horizon),
        "cosine": 0.5 - 0.5 * np.cos(np.pi * left),
        "constant": np.ones(horizon),
    }
    return np.minimum(ramp, after[shape]).astype(np.float32)


def _until(share: float, horizon: int) -> np.ndarray:
    """Stay at 1 for a share of the steps, then fall linearly to 0."""
    left = horizon - np.arange(horizon)
    return np.minimum(1.0, left / max(1, (1 - share) * horizon))


def optimizer(name: str, weight_decay: float, clip: float) -> Any:
    """Build an optimizer at a rate of 1: every one is linear in its rate."""
    made: Any = {
        "adamw": lambda: optax.adamw(1.0, weight_decay=weight_decay),
        "adam": lambda: optax.adam(1.0),
        "sgd": lambda: optax.sgd(1.0),
        "momentum": lambda: optax.sgd(1.0, momentum=0.9, nesterov=True),
        "lion": lambda: optax.lion(1.0, weight_decay=weight_decay),
        "rmsprop": lambda: optax.rmsprop(1.0),
        "adafactor": lambda: optax.adafactor(1.0),
        "muon": lambda: contrib.muon(1.0),
    }[name]()
    return optax.chain(optax.clip_by_global_norm(clip), made) if clip else made


def schedules(sweep: ZooSweep) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """Return what each run is, its log level and its rate at each step.

    All peaks with linear decay and with a hold, every second one with the other two
    shapes, and walks between the peaks, which visit what no schedule does.

    Returns:
      One dict a run; log(schedule / its peak) [R, T]; rates [R, T].
    """
    half = sweep.octaves / 2
    peaks = 2 ** np.linspace(sweep.centre - half, sweep.centre + half, sweep.peaks)
    runs, logs, rates = [], [], []
    for shape in SHAPES:
        step = 1 if shape in ("linear", "hold") else 2
        factor = level(shape, sweep.horizon, sweep.warmup)
        for peak in peaks[::step]:
            runs.append({"kind": "peak", "shape": shape, "peak": float(peak)})
            logs.append(np.log(factor))
            rates.append(peak * factor)
    rng = np.random.default_rng([sweep.seed, 3, sweep.number])
    factor = level("linear", sweep.horizon, sweep.warmup)
    for _ in range(4):
        knots = np.sort(rng.uniform(0, sweep.horizon, rng.integers(1, 5)))
        knots = np.concatenate([[0], knots, [sweep.horizon]])
        middle = sweep.centre + rng.uniform(-3, 3)
        values = middle + rng.uniform(-2.5, 2.5, len(knots))
        walk = 2 ** np.interp(np.arange(sweep.horizon), knots, values)
        runs.append({"kind": "walk", "shape": "linear", "peak": float(walk[0])})
        logs.append(np.log(factor))
        rates.append(walk * factor)
    return runs, np.array(logs, np.float32), np.array(rates, np.float32)


def build(sweep: ZooSweep) -> Problem:
    """Make the problem of a sweep."""
    shape = np.random.default_rng([sweep.seed, 4, sweep.program])
    return KINDS[sweep.kind](
        shape, np.random.default_rng([sweep.seed, 5, sweep.number])
    )


def make_program(sweep: ZooSweep, problem: Problem) -> Callable[..., Any]:
    """Compile what the sweeps of a program share.

    Returns:
      A function of (params, train, validation, order [T, B], rates [R, T], multipliers
      [R, T], key) that returns the first validation loss [], those after each part of
      the run [R, EVALUATIONS] and the observations [R, T].
    """
    tx = optimizer(sweep.optimizer, sweep.weight_decay, sweep.clip)
    at = marks(sweep)
    length = int(np.max(np.diff(at)))

    def one(params, train, validation, order, rate, log_multiplier, log_level, key):
        where = coordinates.layout(params)

        def step(carry, index):
            params, state, seen, last = carry
            batch = jax.tree.map(lambda x: x[order[index]], train)
            value, grads = jax.value_and_grad(problem.loss)(
                params, batch, jax.random.fold_in(key, index)
            )
            observation, seen = observe.observe(
                grads,
                seen,
                params,
                where,
                value=value,
                log_level=log_level[index],
                log_multiplier=last,
            )
            updates, state = tx.update(grads, state, params)
            updates = jax.tree.map(lambda u: u * rate[index], updates)
            params = optax.apply_updates(params, updates)
            return (params, state, seen, log_multiplier[index]), observation

        def part(carry, bounds):
            # Parts differ by a step in length: a step past the end changes nothing.
            def guarded(carry, offset):
                index = bounds[0] + offset
                return jax.lax.cond(
                    index < bounds[1],
                    lambda: step(carry, index),
                    lambda: (carry, jax.tree.map(jnp.zeros_like, blank)),
                )

            carry, found = jax.lax.scan(guarded, carry, jnp.arange(length))
            return carry, (problem.loss(carry[0], validation, key), found)

        start = (
            params,
            tx.init(params),
            observe.init(params, where),
            jnp.zeros((), jnp.float32),
        )
        blank = jax.eval_shape(step, start, jnp.int32(0))[1]
        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), blank)
        parts = jnp.stack([jnp.asarray(at[:-1]), jnp.asarray(at[1:])], 1)
        _, (losses, found) = jax.lax.scan(part, start, parts)
        # Out of the padded parts, the steps in their order.
        rows = [
            k * length + j for k in range(EVALUATIONS) for j in range(np.diff(at)[k])
        ]
        found = jax.tree.map(lambda x: x.reshape(-1)[jnp.asarray(rows)], found)
        return problem.loss(params, validation, key), losses, found

    return jax.jit(jax.vmap(one, in_axes=(None, None, None, None, 0, 0, 0, None)))


def row_order(sweep: ZooSweep, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw which of so many rows each step takes, pass by pass: [T, B] int32."""
    batch = min(sweep.batch, rows)
    needed = sweep.horizon * batch
    passes = [rng.permutation(rows) for _ in range(-(-needed // rows))]
    order = np.concatenate(passes)[:needed].reshape(sweep.horizon, batch)
    return order.astype(np.int32)


def run(
    sweep: ZooSweep, problem: Problem, program: Callable[..., Any]
) -> list[traces.Run]:
    """Carry out the runs of a sweep."""
    runs, logs, rates = schedules(sweep)
    peaks = np.array([about["peak"] for about in runs], np.float32)
    multipliers = rates / np.maximum(peaks[:, None] * np.exp(logs), 1e-30)
    rows = len(next(iter(problem.train.values())))
    rng = np.random.default_rng([sweep.seed, 6, sweep.number])
    order = row_order(sweep, rows, rng)
    first, losses, found = jax.device_get(
        program(
            problem.params,
            problem.train,
            problem.validation,
            jnp.asarray(order),
            rates,
            np.log(multipliers),
            logs,
            jax.random.key(int(rng.integers(2**31))),
        )
    )
    at = marks(sweep)
    observations = np.stack(found, -1)  # [R, T, K]
    return [
        traces.Run(
            about=traces.About(**about(sweep, problem), **own, base_rate=own["peak"]),
            evaluations=evaluations(at, [first[k], *losses[k]]),
            features=traces.features_of(observations[k]),
            rate=rates[k],
            multiplier=multipliers[k],
            loss=observations[k, :, 0],
            observations=observations[k],
        )
        for k, own in enumerate(runs)
    ]


def marks(sweep: ZooSweep) -> np.ndarray:
    """Return the steps before which a run is evaluated: [EVALUATIONS + 1]."""
    return np.round(np.linspace(0, sweep.horizon, EVALUATIONS + 1)).astype(int)


def evaluations(steps: Iterable[int], losses: Iterable[float]) -> list[dict[str, Any]]:
    """Return validation losses as traces hold them; what is not finite is None."""
    return [
        {"step": int(step), "eval_loss": float(x) if math.isfinite(x) else None}
        for step, x in zip(steps, losses, strict=True)
    ]


def about(sweep: ZooSweep, problem: Problem) -> dict[str, Any]:
    """Return what the runs of a sweep say about themselves, as JSON."""
    return {
        "sweep_id": FIRST_ID + sweep.number,
        "task": sweep.kind,
        "problem": sweep.kind,  # an encoder's runs have none
        "model": "zoo",
        "origin": "zoo",
        "depth": 0,
        "width": 0,
        "architecture": list(map(str, problem.architecture)),
        **{
            name: getattr(sweep, name)
            for name in (
                "seed",
                "optimizer",
                "batch",
                "horizon",
                "warmup",
                "clip",
                "weight_decay",
            )
        },
    }
