"""The training loop: step, log, evaluate, save, resume.

It is handed an optax transformation and knows no scheduler: the rate that a step was
taken with, and a multiplier if there is one, are read from the optimizer's state by
name. The loss is always passed on as `value`, for those that want it, and as the
functions of the parameters `value_fn` and `grad_fn`, of the same batch and dropout.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.errors import MetalrError
from metalr.finetune.checkpoint import Checkpoints
from metalr.finetune.display import Display
from metalr.finetune.sharding import ONE, DeviceLayout
from metalr.runtime import hosts

Batch = dict[str, Any]
Row = dict[str, Any]

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


class Workload(NamedTuple):
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


class Outcome(NamedTuple):
    """A run that ended."""

    params: Any  # the last parameters; None where the run diverged
    history: list[Row]
    best: Row  # the evaluation with the best score
    last: Row  # the last evaluation
    steps: int
    seconds: float  # in steps, without evaluation and saving
    step_seconds: float  # median over the logged intervals; NaN where there is none
    stopped: str | None  # None: ran to its end; "early"; "asked"; "diverged"


class Diverged(MetalrError):
    """The loss is not finite, and the transformation does not skip such steps."""

    def __init__(self, message: str, outcome: Outcome):
        super().__init__(message)
        self.outcome = outcome  # the run up to there


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
        parts = {name: layout.split(x, accumulate) for name, x in batch.items()}
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


@dataclasses.dataclass
class _Journal:
    """The history of a run; a checkpoint holds it, as JSON, beside the state."""

    history: list[Row] = dataclasses.field(default_factory=list)
    best: Row = dataclasses.field(default_factory=dict)
    last: Row = dataclasses.field(default_factory=dict)
    stale: int = 0  # evaluations since the best
    seconds: float = 0.0
    # Logged values since the last row, still on the device.
    pending: list[Row] = dataclasses.field(default_factory=list)
    # Seconds a step of each interval that began and ended with a row.
    paces: list[float] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "_Journal":
        """Return the journal in a checkpoint, perhaps of another version of metalr."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: content[name] for name in known & content.keys()})

    def log(self, done: int, epoch: float, seconds: float) -> Row:
        """Make a row of the steps since the last one, which took so long."""
        row = _summary(self.pending)
        self.paces.append(seconds / len(self.pending))
        self.pending = []
        self.seconds += seconds
        self.history.append({"step": done, "epoch": epoch, **row})
        return self.history[-1]

    def score(self, row: Row, metric: str) -> bool:
        """Keep an evaluation; return whether it is the best."""
        self.last = row
        self.history.append(row)
        self.stale += 1
        if self.best and _merit(row, metric) <= _merit(self.best, metric):
            return False
        self.best, self.stale = row, 0
        return True

    def waited(self, patience: int) -> bool:
        """Return whether the last `patience` evaluations were no new best; 0: never."""
        return bool(patience) and self.stale >= patience

    def content(self, done: int) -> dict[str, Any]:
        """Return the journal as JSON, after `done` steps.

        An unfinished interval is kept as well, so that the rows of a resumed run are
        those of the uninterrupted one. A loss in it that is not finite raises: such a
        state must not replace a good one.
        """
        self.pending = [_plain(row) for row in self.pending]
        for step, row in enumerate(self.pending, done + 1 - len(self.pending)):
            self.check_finite(row, step)
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def check_finite(self, row: Row, step: int) -> None:
        """Raise `Diverged` for a loss that is not finite and that nothing skips."""
        if not math.isfinite(row["loss"]) and "skipped_steps" not in row:
            raise Diverged(
                f"the loss is {row['loss']} at step {step}, learning rate "
                f"{row['learning_rate']:.3g}; take a smaller --learning-rate",
                self.outcome(None, step, "diverged"),
            )

    def outcome(self, params: Any, steps: int, stopped: str | None) -> Outcome:
        """Return the run as it ended."""
        seen = (self.history, self.best, self.last)
        pace = float(np.median(self.paces)) if self.paces else math.nan
        return Outcome(params, *seen, steps, self.seconds, pace, stopped)


def train(
    workload: Workload,
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
      workload: Parameters, loss, batches and evaluation.
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
    params = layout.put_state(workload.params)
    state = start(params, layout.init(tx.init, params), pace.seed, layout)
    step_fn = make_step(
        workload.loss_fn,
        tx,
        accumulate=pace.accumulate,
        layout=layout,
        state=state,
    )
    before, state, journal = _resumed(checkpoints, state, display)

    done, asked = before, False
    # It may have stopped early and been killed before its result was written.
    stopped = "early" if journal.waited(pace.early_stopping) else None
    batch = layout.put(workload.batches.batch(before))
    clock, since = time.perf_counter(), before
    for done in range(before + 1, 1 + (before if stopped else pace.total_steps)):
        state, logged = step_fn(state, batch)
        journal.pending.append(logged)
        on_step(done, logged)
        at_end = done == pace.total_steps
        if not at_end:  # made and sent while the device computes
            batch = layout.put(workload.batches.batch(done))
        asked = stop() or asked
        epoch = round(done / workload.batches.steps_per_epoch, 4)

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
            served = workload.served(state.opt_state, state.params)
            row = {"step": done, "epoch": epoch, **workload.evaluate(served)}
            display.evaluated(row)
            if journal.score(row, workload.metric) and checkpoints is not None:
                checkpoints.save_best(done, served)
            if journal.waited(pace.early_stopping) and not at_end:
                stopped = "early"

        # ---- Save. Processes agree on a stop where they wait for one another anyway.
        if (log or hosts.alone()) and hosts.any_of(asked) and not at_end:
            stopped = "asked"
        save = done % pace.save_every == 0 or at_end or stopped
        if checkpoints is not None and save:
            if not log:
                jax.block_until_ready(logged)
                journal.seconds += time.perf_counter() - clock
            checkpoints.save(done, state, journal.content(done))
        if stopped:
            break
        if log or save:  # evaluation and saving are not timed
            clock, since = time.perf_counter(), done

    return journal.outcome(state.params, done, stopped)


def _resumed(
    checkpoints: Checkpoints | None, state: TrainState, display: Display
) -> tuple[int, TrainState, _Journal]:
    """Return the steps done, the state and the journal of the newest checkpoint.

    Where there is none they are 0, the given state and an empty journal.
    """
    saved = checkpoints.latest(abstract(state)) if checkpoints is not None else None
    if saved is None:
        return 0, state, _Journal()
    for fault in saved.passed_over:
        display.note(f"passed over the checkpoint of {fault}")
    display.note(f"going on from step {saved.step}")
    return saved.step, saved.state, _Journal.of(saved.journal)


def _merit(row: Row, metric: str) -> tuple[float, ...]:
    """Return what makes an evaluation better than another: score, then lower loss.

    Where one class is frequent, a score like accuracy is the same for many steps while
    the loss still falls: the first of them is hardly trained.
    """
    loss = -row.get("eval_loss", 0.0)
    score = loss if metric == "eval_loss" else row[metric]
    return tuple(x if math.isfinite(x) else -math.inf for x in (score, loss))


def abstract(tree: Any) -> Any:
    """Return shapes, dtypes and places of a tree of arrays, to restore into."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )


def _is_array(path: Any, value: Any) -> bool:
    del path
    return isinstance(value, jax.Array)


def _plain(row: Row) -> Row:
    """Return a logged row as Python floats, which JSON gives back bit for bit."""
    return {name: float(value) for name, value in row.items()}


def _summary(pending: list[Row]) -> Row:
    """Return the mean loss of an interval, and the last value of everything else.

    Where steps with a loss that is not finite are skipped, they are left out of the
    mean; where they are not, one of them shows.
    """
    rows = [_plain(row) for row in jax.device_get(pending)]
    losses = np.array([row["loss"] for row in rows])
    if "skipped_steps" in rows[-1] and np.isfinite(losses).any():
        losses = losses[np.isfinite(losses)]
    return {**rows[-1], "loss": float(losses.mean())}
