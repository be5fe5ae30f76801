"""The training loop: step, log, evaluate, save, resume.

It is handed an optax transformation and knows no scheduler: the rate that a step was
taken with, and a multiplier if there is one, are read from the optimizer's state by
name. The loss is always passed on as `value`, for those that want it.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.checkpoint import Checkpoints
from metalr.errors import MetalrError

Batch = dict[str, Any]
Row = dict[str, Any]

# Fields of the optimizer's state that the history keeps, where they exist.
READ_FROM_STATE = (
    "learning_rate",
    "lr_multiplier",
    "skipped_steps",
    "relaxed_steps",
    "braked_steps",
)


class Batches(Protocol):
    """Training batches as a pure function of the step."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the rows."""
        ...

    def batch(self, step: int) -> Batch:
        """Returns the batch of that step, counted from 0."""
        ...


class Display(Protocol):
    """What the loop tells the user as it goes."""

    def logged(self, row: Row, steps_per_second: float) -> None:
        """Shows a row of the history."""
        ...

    def evaluated(self, row: Row) -> None:
        """Shows the scores of an evaluation."""
        ...

    def note(self, line: str) -> None:
        """Shows a line of text."""
        ...


class Problem(NamedTuple):
    """What is optimised."""

    params: Any  # pytree of float32 arrays; the loop donates it
    loss_fn: Callable[[Any, Batch, jax.Array], jax.Array]  # params, batch, key -> []
    batches: Batches
    evaluate: Callable[[Any], dict[str, float]]  # params -> scores and eval_loss
    metric: str  # the score that picks the best step; higher is better


class Pace(NamedTuple):
    """How long to train, and when to look."""

    total_steps: int
    eval_every: int
    log_every: int
    save_every: int
    early_stopping: int = 0  # evaluations without a new best; 0: never
    accumulate: int = 1
    seed: int = 0


class Outcome(NamedTuple):
    """A run that ended."""

    params: Any  # the last parameters
    history: list[Row]
    best: Row  # the evaluation with the best score
    last: Row  # the last evaluation
    steps: int
    seconds: float  # in steps, without evaluation and saving
    stopped: str | None  # None: ran to its end; "early"; "asked"


class Diverged(MetalrError):
    """The loss is not finite, and the transformation does not skip such steps."""


class TrainState(NamedTuple):
    """What a step changes."""

    params: Any
    opt_state: Any
    step: jax.Array  # [] int32


def make_step(
    loss_fn: Callable[[Any, Batch, jax.Array], jax.Array],
    tx: optax.GradientTransformation,
    *,
    accumulate: int,
    seed: int,
    read: tuple[str, ...] = READ_FROM_STATE,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the jitted step `(state, batch) -> (state, logged)`, state donated.

    Dropout is keyed by (seed, step), so a resumed run draws what the uninterrupted
    one drew. With `accumulate` parts, loss and gradient are those of the whole
    batch: each part counts by the weight of its rows. Besides the loss, `logged` has
    the fields of the optimizer's state that `read` names, where they exist.
    """
    tx = optax.with_extra_args_support(tx)

    def whole(params: Any, batch: Batch, key: jax.Array):
        return jax.value_and_grad(loss_fn)(params, batch, key)

    def in_parts(params: Any, batch: Batch, key: jax.Array):
        split = lambda x: x.reshape(accumulate, -1, *x.shape[1:])  # noqa: E731
        parts = jax.tree.map(split, batch)
        keys = jax.random.split(key, accumulate)
        share = jnp.sum(parts["weights"], axis=1) / jnp.sum(batch["weights"])

        def add(total, part):
            rows, key, share = part
            found = whole(params, rows, key)
            # A part may hold filling rows alone, whose mean is 0/0.
            plus = lambda t, f: jnp.where(share > 0, t + share * f, t)  # noqa: E731
            return jax.tree.map(plus, total, found), None

        zero = jax.tree.map(jnp.zeros_like, (jnp.float32(0), params))
        return jax.lax.scan(add, zero, (parts, keys, share))[0]

    value_and_grad = whole if accumulate == 1 else in_parts

    def step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss, grads = value_and_grad(state.params, batch, key)
        updates, opt_state = tx.update(grads, state.opt_state, state.params, value=loss)
        params = optax.apply_updates(state.params, updates)
        logged = {"loss": loss}
        for name in read:
            # inject_hyperparams has a schedule's state under the same name.
            found = optax.tree.get(opt_state, name, filtering=_is_array)
            if found is not None:
                logged[name] = found
        return TrainState(params, opt_state, state.step + 1), logged

    return jax.jit(step, donate_argnums=0)


def train(
    problem: Problem,
    tx: optax.GradientTransformation,
    pace: Pace,
    *,
    display: Display,
    checkpoints: Checkpoints | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Trains to the end of `pace`, going on from the newest checkpoint if any.

    Args:
      problem: Parameters, loss, batches and evaluation.
      tx: The optimizer with its schedule.
      pace: Lengths and intervals in steps.
      display: Told of each logged row and evaluation.
      checkpoints: Where states go; None keeps nothing.
      stop: Asked after each step; True ends the run after saving.

    Raises:
      Diverged: The loss is not finite and `tx` keeps no count of skipped steps. What
        was saved before stays.
    """
    step_fn = make_step(problem.loss_fn, tx, accumulate=pace.accumulate, seed=pace.seed)
    state = TrainState(
        problem.params, tx.init(problem.params), jnp.zeros((), jnp.int32)
    )
    history: list[Row] = []
    best: Row = {}
    last: Row = {}
    pending: list[Row] = []  # logged values, still on the device, since the last row
    stale, seconds, start = 0, 0.0, 0

    # ---- Go on from a checkpoint.
    abstract = jax.eval_shape(lambda: state)
    if checkpoints is not None and (saved := checkpoints.latest(abstract)):
        start, state, journal, passed_over = saved
        history, best, last = journal["history"], journal["best"], journal["last"]
        stale, seconds = journal["stale"], journal["seconds"]
        pending = journal["pending"]
        for fault in passed_over:
            display.note(f"passed over the checkpoint of {fault}")
        display.note(f"going on from step {start}")

    stopped = None
    if pace.early_stopping and stale >= pace.early_stopping:
        stopped = "early"  # and killed before its result was written
    done = start
    clock = time.perf_counter()
    for index in range(start, start if stopped else pace.total_steps):
        state, logged = step_fn(state, problem.batches.batch(index))
        pending.append(logged)
        done = index + 1
        at_end = done == pace.total_steps
        asked = stop()
        epoch = round(done / problem.batches.steps_per_epoch, 4)

        # ---- Log: here the host waits for the device.
        look = done % pace.eval_every == 0 or at_end
        if done % pace.log_every == 0 or look:
            row = _summary(pending)
            now = time.perf_counter()
            rate, seconds = len(pending) / (now - clock), seconds + now - clock
            clock, pending = now, []
            history.append({"step": done, "epoch": epoch, **row})
            display.logged(history[-1], rate)
            _check_finite(row, done)

        # ---- Evaluate, keep the best.
        if look:
            last = {"step": done, "epoch": epoch, **problem.evaluate(state.params)}
            history.append(last)
            display.evaluated(last)
            stale += 1
            if not best or last[problem.metric] > best[problem.metric]:
                best, stale = last, 0
                if checkpoints is not None:
                    checkpoints.save_best(done, state.params)
            if pace.early_stopping and stale >= pace.early_stopping and not at_end:
                stopped = "early"

        # ---- Save.
        if asked and not at_end:
            stopped = "asked"
        if checkpoints is not None and (
            done % pace.save_every == 0 or at_end or stopped
        ):
            # Half an interval is kept as well, so that the rows of a resumed run are
            # those of the uninterrupted one.
            pending = [_plain(row) for row in pending]
            for step, row in enumerate(pending, done + 1 - len(pending)):
                _check_finite(row, step)  # or the good states would go
            journal = {"history": history, "best": best, "last": last, "stale": stale}
            journal |= {"seconds": seconds, "pending": pending}
            checkpoints.save(done, state, journal)
        if stopped:
            break
        if not pending:
            clock = time.perf_counter()  # evaluation and saving are not timed

    return Outcome(state.params, history, best, last, done, seconds, stopped)


def _check_finite(row: Row, step: int) -> None:
    """Raises `Diverged` for a loss that is not finite where nothing skips the step."""
    if not math.isfinite(row["loss"]) and "skipped_steps" not in row:
        raise Diverged(
            f"the loss is {row['loss']} at step {step}, learning rate "
            f"{row['learning_rate']:.3g}; take a smaller --learning-rate or "
            "--scheduler metalr, which skips such steps"
        )


def _is_array(path: Any, value: Any) -> bool:
    del path
    return isinstance(value, jax.Array)


def _plain(row: Row) -> Row:
    """Returns a logged row as Python floats, which JSON gives back bit for bit."""
    return {name: float(value) for name, value in row.items()}


def _summary(pending: list[Row]) -> Row:
    """Returns the mean loss of an interval, and the last value of everything else.

    Where steps with a loss that is not finite are skipped, they are left out of the
    mean; where they are not, one of them shows.
    """
    rows = [_plain(row) for row in jax.device_get(pending)]
    losses = np.array([row["loss"] for row in rows])
    if "skipped_steps" in rows[-1] and np.isfinite(losses).any():
        losses = losses[np.isfinite(losses)]
    return {**rows[-1], "loss": float(losses.mean())}
