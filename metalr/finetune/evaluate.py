"""Scores of a model on its validation rows: predict, decode, compare."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from metalr.data import answers, batches, encode, tasks
from metalr.finetune import loop, metrics
from metalr.finetune.config import RunConfig
from metalr.finetune.sharding import ONE, Layout
from metalr.models import heads


def scorer(
    config: RunConfig,
    data: tasks.TaskData,
    graphdef: Any,
    encoded: dict[str, encode.Encoded],
    pad_token_id: int,
    max_shapes: int = 4,
    layout: Layout = ONE,
) -> Callable[[Any], dict[str, float]]:
    """Return `params -> scores`: the first split's by name, others' as split_name."""
    task = data.task
    batch_size = config.eval_batch_size or 4 * config.batch_size
    places = layout.places(batch_size)

    @layout.compile
    def forward(params: Any, batch: loop.Batch) -> tuple[jax.Array, jax.Array]:
        logits = heads.apply(graphdef, params, batch)
        return logits, heads.loss(task.kind, logits, batch)

    def predict(params: Any, entries: encode.Encoded) -> tuple[list[np.ndarray], float]:
        """Return logits by entry, cut to its length for QA, and the mean loss."""
        logits: list[np.ndarray] = [np.empty(0)] * len(entries.input_ids)
        total = 0.0
        feed = batches.eval_batches(
            entries,
            batch_size,
            pad_token_id=pad_token_id,
            max_shapes=max_shapes,
            places=places,
        )
        for index, batch in feed:
            found, loss = jax.device_get(forward(params, layout.put(batch)))
            total += float(loss) * int(np.sum(index >= 0))
            for row, entry in enumerate(index):
                if entry >= 0:
                    logits[entry] = found[row]
        return logits, total / len(logits)

    def score(params: Any) -> dict[str, float]:
        scores: dict[str, float] = {}
        for position, (split, rows) in enumerate(data.validation.items()):
            logits, loss = predict(params, encoded[split])
            given, gold = _answers(config, task, logits, encoded[split], rows)
            found = metrics.score(task.metrics, given, gold)
            prefix = "" if position == 0 else f"{split}_"
            scores |= {prefix + name: value for name, value in found.items()}
            scores[prefix + "eval_loss"] = loss
        return scores

    return score


def _answers(
    config: RunConfig,
    task: tasks.Task,
    logits: list[np.ndarray],
    encoded: encode.Encoded,
    rows: list[dict[str, Any]],
) -> tuple[Any, Any]:
    """Turn logits into predictions, and pair them with the references."""
    if task.kind == "classification":
        return np.argmax(np.stack(logits), axis=-1), encoded.labels
    if task.kind == "regression":
        return np.stack(logits)[:, 0], encoded.labels
    lengths = [len(ids) for ids in encoded.input_ids]
    cut = [found[:length] for found, length in zip(logits, lengths, strict=True)]
    found = answers.decode(
        [found[:, 0] for found in cut],
        [found[:, 1] for found in cut],
        encoded,
        rows,
        n_best=config.n_best,
        max_answer_length=config.max_answer_length,
    )
    return [answer.text for answer in found], [row[task.label]["text"] for row in rows]
