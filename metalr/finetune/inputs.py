"""Load the rows and the model of a run, as they are trained on."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from metalr.data import batches, encode, loading, reading, tasks, token_cache
from metalr.data.encoded import column_of
from metalr.data.schema import of_own_rows
from metalr.errors import MetalrError, unknown_name
from metalr.finetune import score_scale
from metalr.finetune.config import RunConfig
from metalr.finetune.usage import Usage
from metalr.models import huggingface


class Tokens(NamedTuple):
    """Rows as the model reads them."""

    train: encode.Encoded
    validation: dict[str, encode.Encoded]
    pad: int
    kept: tuple[str, ...] = ()  # notes on those that an earlier run left


class Inputs(NamedTuple):
    """Rows and model as they are trained on."""

    data: tasks.TaskData
    model: huggingface.Pretrained  # without the embeddings that no row uses
    tokens: Tokens
    usage: Usage
    restore: Callable[[Any], Any]  # parameters -> those with all embeddings
    scale: score_scale.ScoreScale | None  # that scores are learned in


def load(config: RunConfig, data: tasks.TaskData | None = None) -> Inputs:
    """Load what a run trains on.

    Args:
      config: The settings.
      data: Rows in place of those that the settings name.

    Raises:
      MetalrError: A setting, a file or the model is invalid.
    """
    data = data or _load_data(config)
    data = data._replace(task=_scored(data, config.metric))
    model = huggingface.load(
        config.model,
        data.task.kind,
        data.task.labels,
        seed=config.seed,
        dtype=config.dtype,
        dropout=config.dropout,
    )
    usage = _usage(config, data.task, model)
    tokens = _tokens(usage, data, model)
    data = data._replace(reading=_cut(usage, data, model, tokens))
    scale = score_scale.of_rows(data.train, data.task)
    if scale is not None:
        tokens = _scaled(tokens, data, scale)
        if huggingface.DRAWN not in model.origin.note:
            model = model._replace(params=scale.begun(model.params))
    model, tokens, restore = _trimmed(model, tokens)
    return Inputs(data, model, tokens, usage, restore, scale)


def _load_data(config: RunConfig) -> tasks.TaskData:
    return loading.load(
        config.task_name,
        config.data,
        train_file=config.train_file,
        validation_file=config.validation_file,
        text_column=config.text_column,
        pair_column=config.pair_column,
        label_column=config.label_column,
        label_separator=config.label_separator,
        kind=None if config.kind == "auto" else config.kind,
        encoding=config.encoding,
        header=not config.no_header,
        train_rows=config.train_rows,
        validation_rows=config.validation_rows,
    )


def _scored(data: tasks.TaskData, metric: str | None) -> tasks.Task:
    """Return the task with its scores, and with the one that picks the best step."""
    task, names = data.task, data.task.metrics
    if task.kind == "classification" and data.origin.kind == "file":
        names = of_own_rows(names)
    if metric is not None and metric not in (*names, "eval_loss"):
        raise unknown_name("metric", metric, (*names, "eval_loss"))
    _check_questions(data, metric)
    return dataclasses.replace(task, metrics=names, metric=metric or task.metric)


def _check_questions(data: tasks.TaskData, metric: str | None) -> None:
    """Refuse a score of questions that the rows to score on do not have."""
    for prefix, which in (("no_answer", "no"), ("has_answer", "an")):
        if not (metric or "").startswith(prefix):
            continue
        (split, rows), *_ = data.validation.items()
        known = column_of(rows, data.task.label)
        if not any(bool(answers["text"]) == (which == "an") for answers in known):
            raise MetalrError(
                f"--metric {metric} is of questions with {which} answer, and {split} "
                "has none of them; take f1"
            )


def _usage(config: RunConfig, task: tasks.Task, model: huggingface.Pretrained) -> Usage:
    return Usage(
        task=task,
        max_length=max_length_of(config, task, model),
        stride=config.stride,
        n_best=config.n_best,
        max_answer_length=config.max_answer_length,
        null_threshold=config.null_threshold,
        thresholds=(config.threshold,),
    )


def max_length_of(
    config: RunConfig, task: tasks.Task, model: huggingface.Pretrained
) -> int:
    """Return the longest input of a run, in tokens.

    Raises:
      MetalrError: The settings ask for more than the model reads.
    """
    positions = _positions(model)
    if config.max_length is not None and config.max_length > positions:
        raise MetalrError(
            f"--max-length must be at most {positions}, the positions that "
            f"{config.model} has; got {config.max_length}"
        )
    return min(config.max_length or task.max_length, positions)


def _positions(model: huggingface.Pretrained) -> int:
    # Rows are padded to a multiple, which has to fit as well.
    return model.config.max_length // batches.MULTIPLE * batches.MULTIPLE


def _tokens(
    usage: Usage, data: tasks.TaskData, model: huggingface.Pretrained
) -> Tokens:
    kept: list[str] = []

    def to_tokens(rows: Any) -> encode.Encoded:
        found, entry = token_cache.encoded(
            rows, usage.task, model.tokenizer, usage.max_length, stride=usage.stride
        )
        if entry is not None:
            kept.append(f"tokens of {len(rows)} rows as kept in {entry.parent}")
        return found

    validation = {split: to_tokens(rows) for split, rows in data.validation.items()}
    train = to_tokens(data.train)
    return Tokens(train, validation, model.config.pad_token_id, tuple(kept))


def _scaled(
    tokens: Tokens, data: tasks.TaskData, scale: score_scale.ScoreScale
) -> Tokens:
    scaled = lambda rows, entries: scale.scaled(rows, data.task, entries)  # noqa: E731
    return tokens._replace(
        train=scaled(data.train, tokens.train),
        validation={
            split: scaled(data.validation[split], entries)
            for split, entries in tokens.validation.items()
        },
    )


def _cut(
    usage: Usage,
    data: tasks.TaskData,
    model: huggingface.Pretrained,
    tokens: Tokens,
) -> reading.Reading:
    """Return what was read, with what the length leaves of it."""
    rows, lost = len(data.train), tokens.train.lost
    return reading.cut(data.reading, lost, rows, usage.max_length, _positions(model))


def _trimmed(
    model: huggingface.Pretrained, tokens: Tokens
) -> tuple[huggingface.Pretrained, Tokens, Callable[[Any], Any]]:
    """Leave out rows of the embedding that no text uses.

    They get no gradient. To leave them out is exact but for their weight decay, and
    saves memory, and time where memory is slow.
    """
    everything = [tokens.train, *tokens.validation.values()]
    used = encode.used_ids(everything, always=[tokens.pad])
    params, restore = huggingface.trim_vocabulary(model.params, used)
    ours = lambda encoded: encode.remap_ids(encoded, used)  # noqa: E731
    tokens = Tokens(
        ours(tokens.train),
        {split: ours(encoded) for split, encoded in tokens.validation.items()},
        int(np.searchsorted(used, tokens.pad)),
        tokens.kept,
    )
    return model._replace(params=params), tokens, restore
