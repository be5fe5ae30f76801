"""From a configuration to a finished run: data, model, optimizer, loop, files.

`finetune.py`, the trace collection and the comparison all go through `run`, so that
every one of them trains in the very same way.
"""

import dataclasses
import os
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from metalr import evaluate, loop, metrics, run_folder, schedulers
from metalr.checkpoint import Checkpoints
from metalr.config import RunConfig
from metalr.data import batches, encode, tasks
from metalr.errors import MetalrError
from metalr.models import heads, huggingface


class Display(loop.Display, Protocol):
    """What a run tells the user."""

    def start(self, title_lines: list[str], total_steps: int) -> None:
        """Shows what runs on what, and starts the progress bar."""
        ...


class Prepared(NamedTuple):
    """A run that is ready for the loop."""

    config: RunConfig
    data: tasks.TaskData
    model: huggingface.Pretrained
    problem: loop.Problem
    pace: loop.Pace
    tx: Any
    restore: Callable[[Any], Any]  # parameters in training -> those of the model
    notes: list[str]


def prepare(
    config: RunConfig,
    *,
    data: tasks.TaskData | None = None,
    max_shapes: int | None = None,
) -> Prepared:
    """Loads data and model and lays out the run.

    Args:
      config: The settings.
      data: Rows in place of those that the settings name.
      max_shapes: The most lengths that batches are padded to; None: by the number of
        steps, since each compiles.

    Raises:
      MetalrError: Something that the user gave does not fit.
    """
    scheduler = schedulers.get(config.scheduler)
    rate = config.learning_rate or scheduler.learning_rate
    config = dataclasses.replace(config, learning_rate=rate)
    data = data or tasks.load(
        config.task or ("file" if config.train_file else "sst2"),
        config.data,
        train_file=config.train_file,
        validation_file=config.validation_file,
        text_column=config.text_column,
        pair_column=config.pair_column,
        label_column=config.label_column,
        train_rows=config.train_rows,
        validation_rows=config.validation_rows,
    )
    task = data.task
    model = huggingface.load(
        config.model,
        task.kind,
        task.labels,
        seed=config.seed,
        dtype=config.dtype,
        dropout=config.dropout,
    )
    notes = [
        origin["note"] for origin in (data.origin, model.origin) if origin.get("note")
    ]
    max_length = _max_length(config, task, model)
    to_tokens = lambda rows: encode.encode(  # noqa: E731
        rows, task, model.tokenizer, max_length, stride=config.stride
    )
    train = to_tokens(data.train)
    validation = {split: to_tokens(rows) for split, rows in data.validation.items()}

    # Rows of the embedding that no text uses get no gradient; to leave them out is
    # exact, and saves a third of a small model's step where memory is slow.
    restore: Callable[[Any], Any] = lambda params: params  # noqa: E731
    pad = model.config.pad_token_id
    if jax.default_backend() == "cpu":
        used = encode.used_ids([train, *validation.values()], always=[pad])
        params, restore = huggingface.trim_vocabulary(model.params, used)
        model = model._replace(params=params)
        train = encode.remap_ids(train, used)
        validation = {k: encode.remap_ids(v, used) for k, v in validation.items()}
        pad = int(np.searchsorted(used, pad))

    if max_shapes is None:
        steps = config.epochs * len(train.input_ids) / config.batch_size
        max_shapes = _shapes(min(steps, config.max_steps or steps))
    feed = batches.TrainBatches(
        train,
        config.batch_size,
        seed=config.seed,
        pad_token_id=pad,
        max_shapes=max_shapes,
    )
    pace, shortened = _pace(config, feed.steps_per_epoch)
    notes += shortened
    inner = schedulers.adamw(config.weight_decay, config.clip_norm)
    tx = scheduler.build(
        inner,
        schedulers.Plan(
            learning_rate=rate,
            total_steps=pace.total_steps,
            warmup_steps=schedulers.warmup(pace.total_steps, config.warmup_steps),
            predictor=config.predictor,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        ),
    )
    graphdef = model.graphdef

    def loss_fn(params: Any, batch: loop.Batch, key: jax.Array) -> jax.Array:
        logits = heads.apply(graphdef, params, batch, dropout_key=key)
        return heads.loss(task.kind, logits, batch)

    problem = loop.Problem(
        params=model.params,
        loss_fn=loss_fn,
        batches=feed,
        evaluate=evaluate.scorer(config, data, graphdef, validation, pad, max_shapes),
        metric=task.metric,
        served=scheduler.served,
    )
    return Prepared(config, data, model, problem, pace, tx, restore, notes)


def _shapes(steps: float) -> int:
    """Returns how many lengths a run is worth: a compilation costs some 20 steps."""
    return min(4, 1 + int(steps) // 100)


def _max_length(
    config: RunConfig, task: tasks.Task, model: huggingface.Pretrained
) -> int:
    positions = model.config.max_length
    if config.max_length is not None and config.max_length > positions:
        raise MetalrError(
            f"--max-length must be at most {positions}, the positions that "
            f"{config.model} has; got {config.max_length}"
        )
    return min(config.max_length or task.max_length, positions)


def _pace(config: RunConfig, steps_per_epoch: int) -> tuple[loop.Pace, list[str]]:
    """Returns the run's lengths and intervals, and what had to be shortened."""
    total = max(1, round(config.epochs * steps_per_epoch))
    total = min(total, config.max_steps or total)
    notes = []
    ramp = schedulers.warmup(total, config.warmup_steps)
    if ramp < config.warmup_steps:
        notes.append(
            f"warm-up shortened from {config.warmup_steps} to {ramp} of {total} steps"
        )
    per_epoch = min(steps_per_epoch, total)
    pace = loop.Pace(
        total_steps=total,
        eval_every=config.eval_every or -(-per_epoch // config.evals_per_epoch),
        log_every=config.log_every,
        save_every=config.save_every or steps_per_epoch,
        early_stopping=config.early_stopping,
        accumulate=config.accumulate,
        seed=config.seed,
    )
    return pace, notes


def title(prepared: Prepared) -> list[str]:
    """Returns the first lines of a run: what it learns, on what, with what."""
    config, data, model = prepared.config, prepared.data, prepared.model
    validation = sum(len(rows) for rows in data.validation.values())
    size = sum(x.size for x in jax.tree.leaves(model.params)) / 1e6
    device = jax.devices()[0]
    kind = getattr(device, "device_kind", device.platform)
    return [
        f"task   {data.task.name}: {len(data.train)} training and {validation} "
        f"validation rows, {origin_line(data.origin)}",
        f"model  {config.model}: {model.config.family}, {size:.1f} M parameters in "
        f"training, {origin_line(model.origin)}",
        f"rate   {config.scheduler}, base {config.learning_rate:g}, batch "
        f"{config.batch_size}, {prepared.pace.total_steps} steps on {kind}",
        *(f"note   {note}" for note in prepared.notes),
    ]


def origin_line(origin: dict[str, str]) -> str:
    """Returns where data or weights come from, in words."""
    return " ".join(part for part in (origin["kind"], origin.get("where")) if part)


def run(
    config: RunConfig,
    display: Display,
    *,
    folder: Path | None = None,
    overwrite: bool = False,
    stop: Callable[[], bool] = lambda: False,
    record_failure: bool = False,
) -> dict[str, Any]:
    """Carries out a run.

    Args:
      config: The settings.
      display: Told what goes on.
      folder: Where checkpoints and the model go; None keeps nothing.
      overwrite: Empty the folder first, once the settings are known to be good.
      stop: Asked after each step; True saves and ends.
      record_failure: A run that diverges is a result too, with "failed" saying why.

    Returns:
      The content of `result.json`.

    Raises:
      MetalrError: Something that the user gave does not fit.
    """
    prepared = prepare(config)
    if folder:
        run_folder.take(folder, config, overwrite=overwrite)
    display.start(title(prepared), prepared.pace.total_steps)
    checkpoints = Checkpoints(folder / "checkpoints") if folder else None
    abstract = jax.eval_shape(lambda: prepared.problem.params)
    try:
        outcome = loop.train(
            prepared.problem,
            prepared.tx,
            prepared.pace,
            display=display,
            checkpoints=checkpoints,
            stop=stop,
        )
        if folder and checkpoints and outcome.stopped != "asked":
            best = checkpoints.best(abstract)
            huggingface.export(
                folder / "model",
                prepared.model._replace(params=prepared.restore(best)),
                prepared.data.task.kind,
                prepared.data.task.labels,
            )
    except loop.Diverged as fault:
        if not record_failure:
            raise
        return _result(prepared, fault.outcome) | {"failed": str(fault)}
    finally:
        if checkpoints:
            checkpoints.close()
    return _result(prepared, outcome)


def _result(prepared: Prepared, outcome: loop.Outcome) -> dict[str, Any]:
    data, model = prepared.data, prepared.model
    scores = lambda row: {  # noqa: E731
        k: v for k, v in row.items() if k not in ("step", "epoch")
    }
    references = {name: metrics.chance(name, _gold(data)) for name in data.task.metrics}
    return {
        "task": data.task.name,
        "model": prepared.config.model,
        "data": data.origin,
        "weights": model.origin,
        "scheduler": prepared.config.scheduler,
        "seed": prepared.config.seed,
        "settings": prepared.config.to_json(),
        "versions": versions(),
        "metric": data.task.metric,
        "metrics": scores(outcome.best),
        "last_metrics": scores(outcome.last),
        "chance": references,
        "best_step": outcome.best.get("step"),
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 3),
        "stopped": outcome.stopped,
        "notes": prepared.notes + _counts(outcome),
        "history": outcome.history,
    }


def _counts(outcome: loop.Outcome) -> list[str]:
    """Returns in words what the transformation counted, where it counts."""
    logged = [row for row in outcome.history if "loss" in row]
    said = {
        "skipped_steps": "skipped: the loss or the gradient was not finite",
        "relaxed_steps": "unlike any in training: the multiplier moved toward 1",
        "braked_steps": "with a loss far above its start: the multiplier fell",
    }
    found = {name: int(logged[-1].get(name, 0)) for name in said} if logged else {}
    return [
        f"{count} of {outcome.steps} steps {said[name]}"
        for name, count in found.items()
        if count
    ]


def _gold(data: tasks.TaskData) -> list[Any]:
    rows = next(iter(data.validation.values()))
    return [row[data.task.label] for row in rows]


def versions() -> dict[str, str]:
    """Returns the versions of what a number may depend on."""
    names = ("metalr", "jax", "flax", "optax", "transformers", "orbax-checkpoint")
    found = {name: metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


def keep_compilations() -> None:
    """Keeps compiled steps on disk, so that a second start begins at once."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = os.environ.get("METALR_CACHE", str(default / "metalr" / "jax"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
