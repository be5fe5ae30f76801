"""One run of a bank, recorded: what the controller saw, what was done, what came of it.

A run goes through the very step of `metalr.finetune.loop`. What changes between the
runs of a bank, rates, exploration and predictor alike, lies in the optimizer's state,
so that a bank compiles once per shape of its batches whatever is run on it.
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
from metalr.meta import banks, traces
from metalr.meta.banks import Bank, Plan
from metalr.predictor import Predictor

_READ = ("learning_rate", "lr_multiplier", "lr_features", "lr_observation")

Stop = Callable[[], bool]


class RecorderState(NamedTuple):
    """What a run is made of, as data, and metalr's own state."""

    run_rate: jax.Array  # [T] float32
    run_explore: jax.Array  # [T] float32
    run_predictor: Predictor
    run_state: controller.MetalrState


class Opened(NamedTuple):
    """A bank that is loaded: what its runs share."""

    bank: Bank
    about: dict[str, Any]  # what every run says about itself
    params: Any
    inner: schedulers.Inner
    step: Callable[[loop.TrainState, loop.Batch], Any]  # [R] of each leaf of a state
    batches: loop.Batches
    evaluate: Callable[[Any], dict[str, Any]]
    first: dict[str, Any]  # the evaluation before the first step


def recorder(inner: schedulers.Inner) -> optax.GradientTransformationExtraArgs:
    """Returns metalr's own transformation, with the run in the state `start` makes."""

    def init(params):
        raise TypeError(f"a run is needed besides the {type(params)}: call `start`")

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any):
        tx = _transformation(inner, *state[:3])
        updates, run_state = tx.update(updates, state.run_state, params, **extra_args)
        return updates, state._replace(run_state=run_state)

    return optax.GradientTransformationExtraArgs(init, update)


def start(inner: schedulers.Inner, params: Any, plan: Plan) -> RecorderState:
    """Returns the state of `recorder(inner)` before the first step of a run."""
    rate, explore, predictor = jax.tree.map(
        lambda x: jnp.array(x, jnp.float32), (plan.rate, plan.explore, plan.predictor)
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
    )


def open_bank(bank: Bank) -> Opened:
    """Loads rows and model of a bank, and scores the model before the first step.

    Raises:
      MetalrError: Data or model cannot be had.
    """
    config = RunConfig(
        task=bank.task,
        model=bank.model,
        data=bank.data,
        batch_size=bank.batch,
        epochs=float(bank.horizon),  # more than enough: `max_steps` ends the run
        max_steps=bank.horizon,
        max_length=bank.length,
        dropout=bank.dropout,
        seed=bank.seed,
        scheduler="constant",  # the bank's own rates take its place
        parallel="one",  # other devices have banks of their own
    )
    prepared = preparation.prepare(config, data=_rows(bank), max_shapes=bank.shapes)
    problem, model = prepared.problem, prepared.model
    params, loss_fn, plain = _disguised(bank, problem.params, problem.loss_fn)
    inner = schedulers.adamw(config.weight_decay, config.clip_norm)

    def evaluate(params: Any) -> dict[str, Any]:
        scores = problem.evaluate(plain(params))
        # JSON has no NaN; whoever reads takes a null for a loss without bounds.
        return {k: v if math.isfinite(v) else None for k, v in scores.items()}

    return Opened(
        bank=bank,
        about={
            **bank._asdict(),
            "depth": model.config.num_hidden_layers,
            "width": model.config.hidden_size,
            "family": model.config.family,
            "origin": prepared.data.origin["kind"],
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
    """Returns the step of several runs, [R] of each leaf, on the same batch."""
    return jax.jit(jax.vmap(step, in_axes=(0, None)), donate_argnums=0)


def take(
    opened: Opened, plans: Sequence[Plan], stop: Stop = lambda: False
) -> list[traces.Run] | None:
    """Carries out runs of a bank side by side; None if `stop` said so on the way."""
    begun = time.perf_counter()
    bank = opened.bank
    starts = [
        loop.start(opened.params, start(opened.inner, opened.params, plan), bank.seed)
        for plan in plans
    ]
    # Copies, so that the step may donate them and the next runs start from the same.
    state = jax.tree.map(lambda *of_runs: jnp.stack(of_runs), *starts)
    marks = set(banks.evaluated_at(bank))
    logged: list[dict[str, Any]] = []
    evaluations = [[opened.first] for _ in plans]
    for index in range(bank.horizon):
        state, row = opened.step(state, opened.batches.batch(index))
        logged.append(row)
        if stop():
            return None
        if index + 1 in marks:
            for run, of_run in enumerate(evaluations):
                params = jax.tree.map(operator.itemgetter(run), state.params)
                of_run.append({"step": index + 1, **opened.evaluate(params)})
    rows = jax.device_get(logged)
    columns = {k: np.array([row[k] for row in rows], np.float32) for k in rows[0]}
    seconds = round((time.perf_counter() - begun) / len(plans), 2)
    return [
        traces.Run(
            about={**opened.about, **plans[run].about, "seconds": seconds},
            evaluations=evaluations[run],
            features=columns["lr_features"][:, run],
            rate=columns["learning_rate"][:, run],
            multiplier=columns["lr_multiplier"][:, run],
            loss=columns["loss"][:, run],
            observations=columns["lr_observation"][:, run],
        )
        for run in range(len(plans))
    ]


@functools.lru_cache(maxsize=16)
def _loaded(task: str, source: str) -> tasks.TaskData:
    return loading.load(task, source)


def _rows(bank: Bank) -> tasks.TaskData:
    """Returns the bank's draw of a task: all rows it trains on, a few to score on."""
    data = _loaded(bank.task, bank.data)
    rng = np.random.default_rng([bank.seed, 101])

    def some(rows: Any, count: int) -> list[Any]:
        chosen = rng.permutation(len(rows))[:count]
        return [rows[index] for index in chosen]

    split, rows = next(iter(data.validation.items()))
    needed = math.ceil(bank.horizon * bank.batch / bank.epochs)
    return data._replace(
        train=some(data.train, needed),
        validation={split: some(rows, bank.validation_rows)},
    )


def _disguised(bank: Bank, params: Any, loss_fn: Callable):
    """Returns parameters, loss and the way back, as the bank's settings say.

    With theta = s * phi for each leaf, phi is trained: the loss is the same, and the
    best learning rate is another one. Weights that are permuted within their leaf are
    random, of the scale that training gave them.
    """
    rng = np.random.default_rng([bank.seed, 102])
    if bank.shuffled:
        shuffled = lambda x: jnp.array(rng.permutation(np.ravel(x)).reshape(x.shape))  # noqa: E731
        params = jax.tree.map(shuffled, params)
    if not (bank.rescaled or bank.frozen):
        return params, loss_fn, lambda params: params
    # Python floats: they have no dtype of their own.
    scales = jax.tree.map(lambda _: math.exp(bank.rescaled * rng.normal()), params)
    plain = lambda params: jax.tree.map(lambda x, s: x * s, params, scales)  # noqa: E731

    def disguised_loss(params: Any, batch: loop.Batch, key: jax.Array) -> jax.Array:
        params = plain(params)
        if bank.frozen:
            params = jax.tree_util.tree_map_with_path(_frozen_embedding, params)
        return loss_fn(params, batch, key)

    return jax.tree.map(lambda x, s: x / s, params, scales), disguised_loss, plain


def _frozen_embedding(path: Any, leaf: jax.Array) -> jax.Array:
    frozen = "embeddings" in jax.tree_util.keystr(path)
    return jax.lax.stop_gradient(leaf) if frozen else leaf
