"""Record the runs of a sweep: observations, rates, losses and evaluations.

A run goes through the same step as in `metalr.finetune.loop`. What differs between the
runs of a sweep (rates, exploration, predictor) lies in the state of the optimizer, so
that a sweep compiles once per shape of its batches, whatever is run on it.
"""

import functools
import math
import operator
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import controller, optax_schedule
from metalr.controller import MAX_MULTIPLIER
from metalr.data import loading, tasks
from metalr.finetune import loop, preparation, schedulers
from metalr.finetune.config import RunConfig
from metalr.meta import sweeps, traces
from metalr.meta.sweeps import PlannedRun, Sweep
from metalr.predictor import Predictor

_READ = ("learning_rate", "lr_multiplier", "lr_features", "lr_observation")

Stop = Callable[[], bool]


class RecorderState(NamedTuple):
    """The inputs of a planned run, as arrays, and the state of metalr itself."""

    run_rate: jax.Array  # [T] float32
    run_explore: jax.Array  # [T] float32
    run_predictor: Predictor
    run_state: controller.MetalrState


class LoadedSweep(NamedTuple):
    """What the runs of a sweep share, loaded."""

    sweep: Sweep
    about: dict[str, Any]  # JSON that every run of the sweep is written with
    params: Any
    inner: schedulers.Inner
    step: Callable[[loop.TrainState, loop.Batch], Any]  # [R] of each leaf of a state
    batches: loop.Batches
    evaluate: Callable[[Any], dict[str, Any]]
    first: dict[str, Any]  # the evaluation before the first step


def recorder(inner: schedulers.Inner) -> optax.GradientTransformationExtraArgs:
    """Return metalr's transformation; its state from `start` holds a planned run."""

    def init(params):
        raise TypeError(
            f"init needs a planned run besides the {type(params)}: call `start`"
        )

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any):
        tx = _transformation(inner, *state[:3])
        updates, run_state = tx.update(updates, state.run_state, params, **extra_args)
        return updates, state._replace(run_state=run_state)

    return optax.GradientTransformationExtraArgs(init, update)


def start(inner: schedulers.Inner, params: Any, planned: PlannedRun) -> RecorderState:
    """Return the state of `recorder(inner)` before the first step of a run."""
    rate, explore, predictor = jax.tree.map(
        lambda x: jnp.array(x, jnp.float32),
        (planned.rate, planned.explore, planned.predictor),
    )
    first: Any = _transformation(inner, rate, explore, predictor).init(params)
    return RecorderState(rate, explore, predictor, first)


def _transformation(inner, rate, explore, predictor):
    return optax_schedule.inject(
        inner,
        lambda step: jnp.take(rate, step, mode="clip"),
        predictor,
        total_steps=len(rate),
        explore=lambda step: jnp.take(explore, step, mode="clip"),
        max_multiplier=MAX_MULTIPLIER,
        trust=0.0,  # base rates are drawn at random, and finetune.py trusts none
    )


def load_sweep(sweep: Sweep) -> LoadedSweep:
    """Load rows and model of a sweep, and evaluate the model before the first step.

    Raises:
      MetalrError: The data or the model cannot be loaded.
    """
    config = RunConfig(
        task=sweep.task,
        model=sweep.model,
        data=sweep.data,
        batch_size=sweep.batch,
        epochs=float(sweep.horizon),  # more than enough: `max_steps` ends the run
        max_steps=sweep.horizon,
        max_length=sweep.length,
        dropout=sweep.dropout,
        seed=sweep.seed,
        scheduler="constant",  # replaced by the rates of the planned runs
        parallel="one",  # other devices train other sweeps
    )
    prepared = preparation.prepare(config, data=_rows(sweep), max_shapes=sweep.shapes)
    problem, model = prepared.problem, prepared.model
    params, loss_fn, plain = _reparametrised(sweep, problem.params, problem.loss_fn)
    inner = schedulers.adamw(config.weight_decay, config.clip_norm)

    def evaluate(params: Any) -> dict[str, Any]:
        scores = problem.evaluate(plain(params))
        # JSON has no NaN; readers take null for a loss that is not finite.
        return {k: v if math.isfinite(v) else None for k, v in scores.items()}

    return LoadedSweep(
        sweep=sweep,
        about={
            **sweep._asdict(),
            "depth": model.config.num_hidden_layers,
            "width": model.config.hidden_size,
            "family": model.config.family,
            "origin": prepared.data.origin.kind,
        },
        params=params,
        inner=inner,
        step=_side_by_side(
            loop.make_step(loss_fn, recorder(inner), accumulate=1, read=_READ)
        ),
        batches=problem.batches,
        evaluate=evaluate,
        first={"step": 0, **evaluate(params)},
    )


def _side_by_side(step: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return the step of several runs, [R, ...] a leaf, on the same batch."""
    return jax.jit(jax.vmap(step, in_axes=(0, None)), donate_argnums=0)


def record_runs(
    loaded: LoadedSweep, planned: Sequence[PlannedRun], stop: Stop = lambda: False
) -> list[traces.Run] | None:
    """Train runs of a sweep side by side; return None if `stop` became true."""
    begun = time.perf_counter()
    sweep = loaded.sweep
    starts = [
        loop.start(loaded.params, start(loaded.inner, loaded.params, run), sweep.seed)
        for run in planned
    ]
    # Copies, so that the step may donate them and the next runs start from the same.
    state = jax.tree.map(lambda *of_runs: jnp.stack(of_runs), *starts)
    marks = set(sweeps.evaluated_at(sweep))
    logged: list[dict[str, Any]] = []
    evaluations = [[loaded.first] for _ in planned]
    for index in range(sweep.horizon):
        state, row = loaded.step(state, loaded.batches.batch(index))
        logged.append(row)
        if stop():
            return None
        if index + 1 in marks:
            for run, of_run in enumerate(evaluations):
                params = jax.tree.map(operator.itemgetter(run), state.params)
                of_run.append({"step": index + 1, **loaded.evaluate(params)})
    rows = jax.device_get(logged)
    columns = {k: np.array([row[k] for row in rows], np.float32) for k in rows[0]}
    seconds = round((time.perf_counter() - begun) / len(planned), 2)
    return [
        traces.Run(
            about=traces.About(**loaded.about, **planned[run].about, seconds=seconds),
            evaluations=evaluations[run],
            features=columns["lr_features"][:, run],
            rate=columns["learning_rate"][:, run],
            multiplier=columns["lr_multiplier"][:, run],
            loss=columns["loss"][:, run],
            observations=columns["lr_observation"][:, run],
        )
        for run in range(len(planned))
    ]


@functools.lru_cache(maxsize=16)
def _loaded(task: str, source: str) -> tasks.TaskData:
    return loading.load(task, source)


def _rows(sweep: Sweep) -> tasks.TaskData:
    """Return the rows that a sweep trains on, and a few to evaluate on."""
    data = _loaded(sweep.task, sweep.data)
    rng = np.random.default_rng([sweep.seed, 101])

    def some(rows: Any, count: int) -> list[Any]:
        chosen = rng.permutation(len(rows))[:count]
        return [rows[index] for index in chosen]

    split, rows = next(iter(data.validation.items()))
    needed = math.ceil(sweep.horizon * sweep.batch / sweep.epochs)
    return data._replace(
        train=some(data.train, needed),
        validation={split: some(rows, sweep.validation_rows)},
    )


def _reparametrised(sweep: Sweep, params: Any, loss_fn: Callable):
    """Return parameters, loss and the inverse map, by the settings of the sweep.

    With theta = s * phi for each leaf, phi is trained: the loss is the same, but the
    best learning rate is not. Weights that are permuted within their leaf are random,
    with the scale of the trained ones.
    """
    rng = np.random.default_rng([sweep.seed, 102])
    if sweep.shuffled:
        shuffled = lambda x: jnp.array(rng.permutation(np.ravel(x)).reshape(x.shape))  # noqa: E731
        params = jax.tree.map(shuffled, params)
    if not (sweep.rescaled or sweep.frozen):
        return params, loss_fn, lambda params: params
    # Python floats: they have no dtype of their own.
    scales = jax.tree.map(lambda _: math.exp(sweep.rescaled * rng.normal()), params)
    plain = lambda params: jax.tree.map(lambda x, s: x * s, params, scales)  # noqa: E731

    def reparametrised_loss(
        params: Any, batch: loop.Batch, key: jax.Array
    ) -> jax.Array:
        params = plain(params)
        if sweep.frozen:
            params = jax.tree_util.tree_map_with_path(_frozen_embedding, params)
        return loss_fn(params, batch, key)

    return jax.tree.map(lambda x, s: x / s, params, scales), reparametrised_loss, plain


def _frozen_embedding(path: Any, leaf: jax.Array) -> jax.Array:
    frozen = "embeddings" in jax.tree_util.keystr(path)
    return jax.lax.stop_gradient(leaf) if frozen else leaf
