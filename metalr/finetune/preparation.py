"""What a run needs before its first step: data, model, batches, optimizer."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from metalr.data import batches, tasks
from metalr.data.encoded import column_of
from metalr.errors import MetalrError
from metalr.finetune import (
    balance,
    decode,
    evaluate,
    inputs,
    loop,
    schedulers,
    sharding,
)
from metalr.finetune import trained as training
from metalr.finetune.config import RunConfig
from metalr.finetune.inputs import Inputs
from metalr.finetune.score_scale import ScoreScale
from metalr.finetune.usage import Usage
from metalr.models import heads, huggingface
from metalr.optax_schedule import warmup_of
from metalr.stored_predictor import load_predictor


class Prepared(NamedTuple):
    """A run that is ready for the loop."""

    config: RunConfig
    data: tasks.TaskData
    model: huggingface.Pretrained
    problem: loop.TrainingProblem
    pace: loop.Pace
    tx: Any
    restore: Callable[[Any], Any]  # parameters in training -> those of the model
    scale: ScoreScale | None  # that scores are learned in
    notes: list[str]
    layout: sharding.DeviceLayout
    usage: Callable[[Any], Usage]  # of a model with these parameters in training
    trained: training.Trained
    kept: tuple[str, ...]  # notes on what an earlier run left: of the screen alone


def prepare(
    config: RunConfig,
    *,
    data: tasks.TaskData | None = None,
    max_shapes: int | None = None,
    layout: sharding.DeviceLayout | None = None,
) -> Prepared:
    """Load data and model and lay out the run.

    Args:
      config: The settings.
      data: Rows in place of those that the settings name.
      max_shapes: The most lengths that batches are padded to; None: by the number of
        steps, since each is compiled.
      layout: On devices, in place of what the settings say.

    Raises:
      MetalrError: A setting, a file or a model is invalid.
    """
    scheduler = schedulers.get(config.scheduler)
    config = dataclasses.replace(
        config, learning_rate=config.learning_rate or scheduler.learning_rate
    )
    layout = layout or sharding.create_layout(
        config.parallel, shard_params=config.shard_params, model=config.model_shards
    )
    loaded = inputs.load(config, data)
    data, model, task = loaded.data, loaded.model, loaded.data.task
    most = max_shapes or _shapes(config, loaded.tokens.train.size)
    of = training.choose(config, model)
    merge = of.model if of.pairs is None else layout.compile(of.model)
    feed, weights = _batches(config, loaded, layout, most)
    pace, shortened = _pace(config, feed.steps_per_epoch)
    score = _scorer(config, loaded, layout, most)
    tuned = _tuned(config, loaded, layout, most)
    problem = loop.TrainingProblem(
        params=of.params,
        loss_fn=of.loss(_loss_fn(config, task.kind, model.graphdef, weights)),
        batches=feed,
        evaluate=lambda params: score(merge(params)),
        metric=task.metric,
        served=training.served(config, scheduler, of),
    )
    sources = (data.origin, model.origin, loaded.scale)
    notes = [source.note for source in sources if source and source.note]
    return Prepared(
        config,
        data,
        model,
        problem,
        pace,
        _transformation(config, scheduler, pace, of),
        lambda params: loaded.restore(of.model(params)),
        loaded.scale,
        [*notes, *of.notes, *shortened, *_lopsided(data, config.metric)],
        layout,
        lambda params: tuned(merge(params)),
        of,
        loaded.tokens.kept,
    )


def _batches(
    config: RunConfig, loaded: Inputs, layout: sharding.DeviceLayout, max_shapes: int
) -> tuple[batches.TrainBatches, np.ndarray | None]:
    """Return the batches of training, and the weights of the classes, if any."""
    task, tokens = loaded.data.task, loaded.tokens
    balance.check_smoothing(config.label_smoothing, task)
    weights = balance.class_weights(config.class_weights, task, tokens.train)
    found = batches.TrainBatches(
        balance.weighted(tokens.train, task, weights),
        config.batch_size,
        seed=config.seed,
        pad_token_id=tokens.pad,
        max_shapes=max_shapes,
        places=layout.places(config.batch_size, config.accumulate),
        draws=balance.draws(config.balanced_sampling, task, tokens.train),
    )
    return found, weights


def _scorer(
    config: RunConfig, loaded: Inputs, layout: sharding.DeviceLayout, max_shapes: int
) -> Callable[[Any], dict[str, float]]:
    return evaluate.scorer(
        config,
        loaded.data,
        loaded.model.graphdef,
        loaded.tokens.validation,
        loaded.tokens.pad,
        max_shapes,
        layout,
        usage=loaded.usage,
    )


def _tuned(
    config: RunConfig, loaded: Inputs, layout: sharding.DeviceLayout, max_shapes: int
) -> Callable[[Any], Usage]:
    """Return `params -> usage`, with tuned thresholds where the settings ask for it."""
    data, usage, task = loaded.data, loaded.usage, loaded.data.task
    if not config.tune_thresholds:
        return lambda params: usage
    if task.kind != "multilabel" and not task.null:
        raise MetalrError(
            "--tune-thresholds is for several labels and for questions that may have "
            f"no answer; {task.name} is a task of {task.kind}: leave it out"
        )
    predict = evaluate.predictor(
        config, task, loaded.model.graphdef, loaded.tokens.pad, max_shapes, layout
    )
    split, rows = next(iter(data.validation.items()))
    encoded = loaded.tokens.validation[split]

    def tuned(params: Any) -> Usage:
        logits, _ = predict(params, encoded)
        return dataclasses.replace(usage, **decode.tuned(usage, logits, encoded, rows))

    return tuned


_MOST = 0.8  # of one class: "always this one" scores that much


def _lopsided(data: tasks.TaskData, metric: str | None) -> list[str]:
    """Return a note on which step is kept, and why, where one class is frequent."""
    task = data.task
    if task.kind != "classification":
        return []
    splits = {
        "training": data.train,
        "validation": next(iter(data.validation.values())),
    }
    for split, rows in splits.items():
        counts = collections.Counter(column_of(rows, task.label))
        frequent, count = counts.most_common(1)[0]
        if count <= _MOST * len(rows):
            continue
        why = "as --metric says" if metric else "the task's own score"
        kept = f"the best {task.metric} ({why}), of equal ones the lowest eval_loss"
        if task.metric == "eval_loss":
            kept = f"the lowest eval_loss ({why})"
        others = [name for name in (*task.metrics, "eval_loss") if name != task.metric]
        return [
            f"{count / len(rows):.0%} of the {split} rows are "
            f"{task.labels[frequent]!r}: kept is the step with {kept}; --metric also "
            f"takes {', '.join(others)}"
        ]
    return []


def _transformation(
    config: RunConfig,
    scheduler: schedulers.Scheduler,
    pace: loop.Pace,
    of: training.Trained,
) -> Any:
    assert config.learning_rate is not None  # `prepare` has set it
    plan = schedulers.RunPlan(
        learning_rate=config.learning_rate,
        total_steps=pace.total_steps,
        warmup_steps=warmup_of(pace.total_steps, config.warmup_steps),
        predictor=functools.partial(load_predictor, config.predictor),
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        layers=of.layers,
    )
    adamw = schedulers.adamw(config.weight_decay, config.clip_norm)
    inner = training.inner(config, adamw, of.layers)
    tx = schedulers.at_a_rate(scheduler.build, inner, plan)
    return training.wrapped(config, tx, of)


def _loss_fn(
    config: RunConfig, kind: str, graphdef: Any, class_weights: np.ndarray | None
) -> Callable[..., jax.Array]:
    def loss_fn(params: Any, batch: loop.Batch, key: jax.Array) -> jax.Array:
        logits = heads.apply(
            graphdef,
            params,
            batch,
            dropout_key=key,
            first_row=batch.get("first_row", 0),
            scan=config.scan_layers,
            remat=config.remat,
        )
        return heads.loss(
            kind,
            logits,
            batch,
            smoothing=config.label_smoothing,
            class_weights=class_weights,
        )

    return loss_fn


def _shapes(config: RunConfig, rows: int) -> int:
    """Return the number of lengths that are worth a compilation each.

    One costs some 20 steps on a CPU, and more of the short steps elsewhere.
    """
    steps = config.epochs * rows / config.batch_size
    worth = 100 if jax.default_backend() == "cpu" else 1000
    return min(4, 1 + int(min(steps, config.max_steps or steps)) // worth)


_MOST_STEPS = 2**31  # which the counter on the device holds


def _pace(config: RunConfig, steps_per_epoch: int) -> tuple[loop.Pace, list[str]]:
    """Return the run's lengths and intervals, and what had to be shortened."""
    total = max(1, round(config.epochs * steps_per_epoch))
    total = min(total, config.max_steps or total)
    if total >= _MOST_STEPS:
        raise MetalrError(
            f"a run has fewer than {_MOST_STEPS} steps, got {total}; take fewer "
            "--epochs, or set --max-steps"
        )
    notes = []
    if config.max_steps and total < config.max_steps:
        notes.append(
            f"--max-steps {config.max_steps} is not reached: --epochs "
            f"{config.epochs:g} are {total} steps"
        )
    ramp = warmup_of(total, config.warmup_steps)
    unread = "warmup_steps" in schedulers.get(config.scheduler).ignores
    if ramp < config.warmup_steps and not unread:
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
