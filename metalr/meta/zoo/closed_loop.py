"""What a predictor does on a problem of the zoo, beside plain runs of the same rows.

A problem's tuned rate is the best of a grid of peaks on the same schedule, on a seed
that is used for nothing else. From it, from below and from above, runs under the
predictor and plain ones see the same rows in the same order. The predictor is an
argument of the compiled program: another one costs no compilation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.controller import MAX_MULTIPLIER
from metalr.meta import traces
from metalr.meta.zoo import sweeps
from metalr.meta.zoo.problem import Problem
from metalr.meta.zoo.sweeps import ZooSweep, row_order
from metalr.optax_schedule import TRUST, wrap
from metalr.predictor import Predictor


class Runs(NamedTuple):
    """Runs side by side, over seeds S and rates R."""

    losses: np.ndarray  # [S, R, E + 1] validation loss, the first before all
    observations: np.ndarray | None = None  # [S, R, T, K] of runs under a predictor
    multipliers: np.ndarray | None = None  # [S, R, T]


class Programs(NamedTuple):
    """Compiled functions of (params, train, validation, orders, rates, key, ...)."""

    plain: Callable[..., Any]
    learned: Callable[..., Any]  # and the predictor


def make_programs(
    sweep: ZooSweep, problem: Problem, shape: str = "linear", *, trust: float = TRUST
) -> Programs:
    """Prepare what sweeps of one program and warm-up share; it compiles when called.

    Args:
      sweep: One of them.
      problem: Its problem.
      shape: Of the schedule, as in `sweeps.level`.
      trust: As in `wrap`.
    """
    level = jnp.asarray(sweeps.level(shape, sweep.horizon, sweep.warmup))
    marks = sweeps.marks(sweep)

    def run(params, train, validation, order, rate, key, predictor=None):
        def schedule(step):
            return level[jnp.minimum(step, sweep.horizon - 1)]

        tx: Any = optax.chain(
            sweeps.optimizer(sweep.optimizer, sweep.weight_decay, sweep.clip),
            optax.scale_by_schedule(lambda step: rate * schedule(step)),
        )
        if predictor is not None:
            tx = wrap(
                tx,
                predictor,
                total_steps=sweep.horizon,
                schedule=schedule,
                max_multiplier=MAX_MULTIPLIER,
                trust=trust,
            )
        tx = optax.with_extra_args_support(tx)
        due = jnp.zeros(sweep.horizon, bool).at[marks[1:] - 1].set(True)

        def step(carry, index):
            params, state = carry
            batch = jax.tree.map(lambda x: x[order[index]], train)
            value, grads = jax.value_and_grad(problem.loss)(
                params, batch, jax.random.fold_in(key, index)
            )
            updates, state = tx.update(grads, state, params, value=value)
            params = optax.apply_updates(params, updates)
            loss = jax.lax.cond(
                due[index],
                lambda: problem.loss(params, validation, key),
                lambda: jnp.zeros(()),
            )
            if predictor is None:
                return (params, state), loss
            return (params, state), (loss, state.lr_observation, state.lr_multiplier)

        start = (params, tx.init(params))
        _, found = jax.lax.scan(step, start, jnp.arange(sweep.horizon))
        losses, *rest = found if predictor is not None else (found,)
        first = problem.loss(params, validation, key)
        return jnp.append(first[None], losses[marks[1:] - 1]), *rest

    def over(*axes: int | None) -> Callable[..., Any]:
        rates = jax.vmap(run, in_axes=(None, None, None, None, 0, None, *axes))
        return jax.jit(
            jax.vmap(rates, in_axes=(None, None, None, 0, None, None, *axes))
        )

    return Programs(over(), over(None))


def orders(sweep: ZooSweep, rows: int, seeds: range) -> np.ndarray:
    """Draw which rows each step of each seed takes: [S, T, B] int32."""
    draw = lambda seed: np.random.default_rng([sweep.seed, 7, sweep.number, seed])  # noqa: E731
    return np.array([row_order(sweep, rows, draw(seed)) for seed in seeds])


def carry_out(
    sweep: ZooSweep,
    problem: Problem,
    programs: Programs,
    rates: np.ndarray,
    seeds: range,
    predictor: Predictor | None = None,
) -> Runs:
    """Carry out the runs of all seeds at all peak rates.

    Args:
      sweep: The sweep.
      problem: Its problem.
      programs: Of `make_programs`, for this sweep or another one of its program with
        the same warm-up.
      rates: Peak rates: [R].
      seeds: Of the order of the rows.
      predictor: None: plain runs.
    """
    rows = len(next(iter(problem.train.values())))
    arguments = (
        problem.params,
        problem.train,
        problem.validation,
        orders(sweep, rows, seeds),
        jnp.asarray(rates, jnp.float32),
        jax.random.key(sweep.number),
    )
    if predictor is None:
        return Runs(*jax.device_get(programs.plain(*arguments)))
    return Runs(*jax.device_get(programs.learned(*arguments, predictor)))


def tuned_rate(sweep: ZooSweep, problem: Problem, programs: Programs) -> float:
    """Return the peak whose last validation loss is lowest, on a seed of its own."""
    half = sweep.octaves / 2
    peaks = 2 ** np.linspace(
        sweep.centre - half, sweep.centre + half, 2 * sweep.peaks - 1
    )
    found = carry_out(sweep, problem, programs, peaks, range(1))
    last = np.where(np.isfinite(found.losses[0, :, -1]), found.losses[0, :, -1], np.inf)
    return float(peaks[np.argmin(last)])


def policy_runs(
    sweep: ZooSweep,
    problem: Problem,
    programs: Programs,
    predictor: Predictor,
    count: int = 6,
    *,
    number: int = 1,
) -> list[traces.Run]:
    """Run the predictor from drawn base rates, as traces for the next fit.

    A fit to one set of traces drifts off them when it is applied: its own states have
    to be in the traces too (DAgger; Ross, Gordon and Bagnell 2011, arXiv 1011.0686).

    Args:
      sweep: The sweep.
      problem: Its problem.
      programs: As in `carry_out`.
      predictor: That of the rounds before.
      count: Of runs; their base rates lie within five octaves of the sweep's middle.
      number: Of the round: each has base rates and an order of the rows of its own.
    """
    drawn = [sweep.seed, 8, sweep.number]
    rng = np.random.default_rng(drawn if number == 1 else [*drawn, number])
    bases = 2 ** (sweep.centre + rng.uniform(-5, 5, count))
    seeds = range(number, number + 1)
    found = carry_out(sweep, problem, programs, bases, seeds, predictor)
    assert found.observations is not None and found.multipliers is not None
    level = sweeps.level("linear", sweep.horizon, sweep.warmup)
    marks = sweeps.marks(sweep)
    runs = []
    for k, base in enumerate(bases):
        observations = np.asarray(found.observations[0, k])
        multiplier = np.asarray(found.multipliers[0, k], np.float32)
        runs.append(
            traces.Run(
                about=traces.About(
                    **{
                        **sweeps.about(sweep, problem),
                        "kind": "policy",
                        "shape": "linear",
                        "base_rate": float(base),
                    }
                ),
                evaluations=sweeps.evaluations(marks, found.losses[0, k]),
                features=traces.features_of(observations),
                rate=(base * level * multiplier).astype(np.float32),
                multiplier=multiplier,
                loss=observations[:, 0],
                observations=observations,
            )
        )
    return runs
