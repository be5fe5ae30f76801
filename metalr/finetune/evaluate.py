"""Scores of a model on its validation rows: predict, decode, compare."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from metalr.data import batches, encode, tasks
from metalr.finetune import decode, loop
from metalr.finetune.config import RunConfig
from metalr.finetune.sharding import ONE, DeviceLayout
from metalr.finetune.usage import Usage
from metalr.models import heads


def scorer(
    config: RunConfig,
    data: tasks.TaskData,
    graphdef: Any,
    encoded: dict[str, encode.Encoded],
    pad_token_id: int,
    max_shapes: int = 4,
    layout: DeviceLayout = ONE,
    *,
    usage: Usage,
) -> Callable[[Any], dict[str, float]]:
    """Return `params -> scores`: the first split's by name, others' as split_name."""
    predict = predictor(config, data.task, graphdef, pad_token_id, max_shapes, layout)

    def score(params: Any) -> dict[str, float]:
        scores: dict[str, float] = {}
        for position, (split, rows) in enumerate(data.validation.items()):
            logits, loss = predict(params, encoded[split])
            found = decode.scores(usage, logits, encoded[split], rows)
            prefix = "" if position == 0 else f"{split}_"
            scores |= {prefix + name: value for name, value in found.items()}
            scores[prefix + "eval_loss"] = loss
        return scores

    return score


Predict = Callable[[Any, encode.Encoded], tuple[list[np.ndarray], float]]


def predictor(
    config: RunConfig,
    task: tasks.Task,
    graphdef: Any,
    pad_token_id: int,
    max_shapes: int,
    layout: DeviceLayout,
) -> Predict:
    """Return `(params, encoded) -> (logits by entry, mean loss)`."""
    batch_size = config.eval_batch_size or 4 * config.batch_size
    places = layout.places(batch_size)

    @layout.compile
    def forward(params: Any, batch: loop.Batch) -> tuple[jax.Array, jax.Array]:
        logits = heads.apply(graphdef, params, batch)
        return logits, heads.loss(task.kind, logits, batch)

    def predict(params: Any, entries: encode.Encoded) -> tuple[list[np.ndarray], float]:
        logits: list[np.ndarray] = [np.empty(0)] * entries.size
        weights = np.ones(entries.size) if entries.weights is None else entries.weights
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
            total += float(loss) * float(weights[index[index >= 0]].sum())
            for row, entry in enumerate(index):
                if entry >= 0:
                    logits[entry] = found[row]
        return logits, total / float(weights.sum())

    return predict
