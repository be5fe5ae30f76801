"""The training loop: step, log, evaluate, save, resume.

It is handed an optax transformation and knows no scheduler: the rate that a step was
taken with, and a multiplier if there is one, are read from the optimizer's state by
name. The loss is always passed on as `value`, for those that want it, and as the
functions of the parameters `value_fn` and `grad_fn`, of the same batch and dropout.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from metalr.finetune.checkpoint import Checkpoints
from metalr.finetune.display import Display
from metalr.finetune.journal import Journal, Outcome, Row
from metalr.finetune.sharding import ONE, DeviceLayout
from metalr.runtime import hosts

Batch = dict[str, Any]

# Fields of the optimizer's state that the history keeps, where they exist.
READ_FROM_STATE = (
    "learning_rate",
    "lr_multiplier",
    "estim_lr",  # what Prodigy and D-Adaptation multiply their rate by
    "skipped_steps",
    "out_of_range_steps",
    "braked_steps",
)


class Batches(Protocol):
    """Training batches as a pure function of the step."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the rows."""
        ...

    def batch(self, step: int) -> Batch:
        """Return the batch of that step, counted from 0."""
        ...


class TrainingProblem(NamedTuple):
    """What is optimised."""

    params: Any  # pytree of float32 arrays; the loop donates it
    loss_fn: Callable[[Any, Batch, jax.Array], jax.Array]  # params, batch, key -> []
    batches: Batches
    evaluate: Callable[[Any], dict[str, float]]  # params -> scores and eval_loss
    metric: str  # picks the best step: a score, higher is better, or "eval_loss"
    # (optimizer state, params) -> what is scored and kept: an average, say
    served: Callable[[Any, Any], Any] = lambda opt_state, params: params


class Pace(NamedTuple):
    """How long to train, and when to look."""

    total_steps: int
    eval_every: int
    log_every: int
    save_every: int
    early_stopping: int = 0  # evaluations without a new best; 0: never
    accumulate: int = 1
    seed: int = 0


class TrainState(NamedTuple):
    """What a step changes."""

    params: Any
    opt_state: Any
    step: jax.Array  # [] int32
    key: jax.Array  # [2] uint32: runs that differ in their seed are one program


def start(
    params: Any, opt_state: Any, seed: int, layout: DeviceLayout = ONE
) -> TrainState:
    """Return the state before the first step, given placed parameters and states."""
    key = jax.random.key_data(jax.random.key(seed))
    return TrainState(
        params, opt_state, *layout.put_state((jnp.zeros((), jnp.int32), key))
    )


def parts_of(
    batch: Batch, key: jax.Array, count: int, layout: DeviceLayout
) -> tuple[Batch, jax.Array, jax.Array]:
    """Cut a batch into parts; each has a key for dropout and a share of the loss.

    Args:
      batch: Arrays of B rows.
      key: Of the whole batch.
      count: Of the parts.
      layout: Where the rows lie.

    Returns:
      Arrays of [count, B / count] rows; [count] keys; [count] shares, of the weights of
      the rows.
    """
    parts = {name: layout.split(x, count) for name, x in batch.items()}
    share = jnp.sum(parts["weights"], axis=1) / jnp.sum(batch["weights"])
    return parts, jax.random.split(key, count), share


def make_step(
    loss_fn: Callable[[Any, Batch, jax.Array], jax.Array],
    tx: optax.GradientTransformation,
    *,
    accumulate: int,
    read: tuple[str, ...] = READ_FROM_STATE,
    layout: DeviceLayout = ONE,
    state: TrainState | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Return the jitted step `(state, batch) -> (state, logged)`, state donated.

    Dropout is keyed by (seed, step), so a resumed run draws what the uninterrupted
    one drew. With `accumulate` parts, loss and gradient are those of the whole
    batch: each part counts by the weight of its rows. Besides the loss, `logged` has
    the fields of the optimizer's state that `read` names, where they exist. On
    several devices the new state lies as the given `state` does.
    """
    tx = optax.with_extra_args_support(tx)

    def whole(params: Any, batch: Batch, key: jax.Array):
        return jax.value_and_grad(loss_fn)(params, batch, key)

    def in_parts(params: Any, batch: Batch, key: jax.Array):
        def add(total, part):
            rows, key, share = part
            found = whole(params, rows, key)
            # A part may hold filling rows alone, whose mean is 0/0.
            plus = lambda t, f: jnp.where(share > 0, t + share * f, t)  # noqa: E731
            return jax.tree.map(plus, total, found), None

        zero = jax.tree.map(jnp.zeros_like, (jnp.float32(0), params))
        parts = parts_of(batch, key, accumulate, layout)
        return jax.lax.scan(add, zero, parts)[0]

    value_and_grad = layout.of_whole_batch(whole if accumulate == 1 else in_parts)

    def step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        again = lambda params: value_and_grad(params, batch, key)  # noqa: E731
        loss, grads = again(state.params)
        updates, opt_state = tx.update(
            grads,
            state.opt_state,
            state.params,
            value=loss,
            # Not computed unless asked for.
            value_fn=lambda params: again(params)[0],
            grad_fn=lambda params: again(params)[1],
        )
        params = optax.apply_updates(state.params, updates)
        logged = {"loss": loss}
        for name in read:
            # inject_hyperparams has a schedule's state under the same name.
            found = optax.tree.get(opt_state, name, filtering=_is_array)
            if found is not None:
                logged[name] = found
        return TrainState(params, opt_state, state.step + 1, state.key), logged

    return layout.compile_step(step, state, accumulate)


def train(
    problem: TrainingProblem,
    tx: optax.GradientTransformation,
    pace: Pace,
    *,
    display: Display,
    checkpoints: Checkpoints | None = None,
    stop: Callable[[], bool] = lambda: False,
    layout: DeviceLayout = ONE,
    on_step: Callable[[int, Row], object] = lambda done, logged: None,
) -> Outcome:
    """Train to the end of `pace`, from the newest checkpoint if there is one.

    Args:
      problem: Parameters, loss, batches and evaluation.
      tx: The optimizer with its schedule.
      pace: Lengths and intervals in steps.
      display: Shown each logged row and evaluation.
      checkpoints: Where states are saved; None saves nothing.
      stop: Called after each step; True saves and ends the run.
      layout: Of batches and states on devices.
      on_step: Called after a step is dispatched, with the number of steps so far and
        what the last one logs.

    Raises:
      Diverged: The loss is not finite and `tx` keeps no count of skipped steps. What
        was saved before stays.
    """
    params = layout.put_state(problem.params)
    state = start(params, layout.init(tx.init, params), pace.seed, layout)
    step_fn = make_step(
        problem.loss_fn,
        tx,
        accumulate=pace.accumulate,
        layout=layout,
        state=state,
    )
    before, state, journal = _resumed(checkpoints, state, display)

    done, asked = before, False
    # It may have stopped early and been killed before its result was written.
    stopped = "early" if journal.waited(pace.early_stopping) else None
    batch = layout.put(problem.batches.batch(before))
    clock, since = time.perf_counter(), before
    for done in range(before + 1, 1 + (before if stopped else pace.total_steps)):
        state, logged = step_fn(state, batch)
        journal.pending.append(logged)
        on_step(done, logged)
        at_end = done == pace.total_steps
        if not at_end:  # made and sent while the device computes
            batch = layout.put(problem.batches.batch(done))
        asked = stop() or asked
        epoch = round(done / problem.batches.steps_per_epoch, 4)

        # ---- Log: here the host waits for the device.
        look = done % pace.eval_every == 0 or at_end
        log = done % pace.log_every == 0 or look
        if log:
            jax.block_until_ready(logged)
            now = time.perf_counter()
            row = journal.log(done, epoch, now - clock)
            display.logged(row, (done - since) / (now - clock))
            journal.check_finite(row, done)

        # ---- Evaluate, keep the best.
        if look:
            served = problem.served(state.opt_state, state.params)
            row = {"step": done, "epoch": epoch, **problem.evaluate(served)}
            display.evaluated(row)
            if journal.score(row, problem.metric) and checkpoints is not None:
                checkpoints.save_best(done, served)
            if journal.waited(pace.early_stopping) and not at_end:
                stopped = "early"

        # ---- Save. Processes agree on a stop where they wait for one another anyway.
        if (log or hosts.alone()) and hosts.any_of(asked) and not at_end:
            stopped = "asked"
        due = done % pace.save_every == 0 or at_end or stopped
        save = checkpoints is not None and due
        if checkpoints is not None and save:
            if not log:
                jax.block_until_ready(logged)
                journal.spent += time.perf_counter() - clock
            checkpoints.save(done, state, journal.content(done))
        if stopped:
            break
        if log or save:  # evaluation and saving are not timed
            clock, since = time.perf_counter(), done

    return journal.outcome(state.params, done, stopped)


def _resumed(
    checkpoints: Checkpoints | None, state: TrainState, display: Display
) -> tuple[int, TrainState, Journal]:
    """Return the steps done, the state and the journal of the newest checkpoint.

    Where there is none they are 0, the given state and an empty journal.
    """
    saved = checkpoints.latest(abstract(state)) if checkpoints is not None else None
    if saved is None:
        return 0, state, Journal()
    for fault in saved.passed_over:
        display.note(f"passed over the checkpoint of {fault}")
    display.note(f"resuming from step {saved.step}")
    return saved.step, saved.state, Journal.of(saved.journal)


def abstract(tree: Any) -> Any:
    """Return shapes, dtypes and places of a tree of arrays, to restore into."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )


def _is_array(path: Any, value: Any) -> bool:
    del path
    return isinstance(value, jax.Array)
