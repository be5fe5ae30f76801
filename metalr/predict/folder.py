"""Where a fine-tuned model lies, and what it was fine-tuned for."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from metalr.data import cells
from metalr.data.schema import Task
from metalr.errors import MetalrError
from metalr.finetune import usage as usages
from metalr.models import huggingface, weights

# The columns that a model without metalr.json is taken to read, by kind of task.
_COLUMNS: dict[str, dict[str, Any]] = {
    "classification": {"text": "text"},
    "qa": {"text": "question", "pair": "context", "label": "answers"},
    "tokens": {"text": "tokens", "label": "tags"},
    "choice": {"text": "text", "pair": "choices"},
}
# And how the names of its classes in transformers end.
_HEADS = {f"For{huggingface.SORTS[kind]}": kind for kind in _COLUMNS}
_LONGEST = 512  # tokens, where a folder does not say how its model was fine-tuned


def read(folder: Path, dtype: str) -> tuple[usages.Usage, huggingface.Pretrained]:
    """Read a model and how it is used.

    Args:
      folder: Of a run or of a model.
      dtype: What the matrix products run in.

    Raises:
      MetalrError: There is none, or its head is missing.
    """
    place = locate(folder)
    raw = weights.read_json(place / "config.json")
    usage = usages.read(place) or guess(raw, place)
    task = usage.task
    model = huggingface.load(str(place), task.kind, task.labels, seed=0, dtype=dtype)
    if huggingface.DRAWN in (note := model.origin.note):
        raise MetalrError(
            f"{place} was not fine-tuned for {task.kind}: {note}. "
            f"Fine-tune it first: finetune.py --model {place}"
        )
    return usage, model


def locate(folder: Path) -> Path:
    """Return the folder of a run's model, or the folder itself if it is a model's.

    Raises:
      MetalrError: It is neither.
    """
    if not os.path.isdir(folder):
        raise MetalrError(f"{folder} is not a folder; name one of a run or of a model")
    for place in (folder / "model", folder):
        if (place / "config.json").is_file():
            return place
    if (folder / "settings.json").is_file():
        raise MetalrError(
            f"{folder} holds no finished run: {folder}/model/config.json is missing; "
            "finish it with finetune.py --resume"
        )
    raise MetalrError(f"{folder} holds neither a run nor a model (config.json)")


def guess(raw: dict[str, Any], place: Path) -> usages.Usage:
    """Return how a model of transformers is used, as far as config.json tells."""
    named = raw.get("architectures")
    head = str(named[0]) if isinstance(named, list) and named else "none"
    kind = next((kind for end, kind in _HEADS.items() if head.endswith(end)), None)
    if kind is None:
        raise MetalrError(
            f"{place}/config.json names the architecture {head:.60}, which is "
            f"fine-tuned for no task that metalr knows: {', '.join(_HEADS)}"
        )
    table = raw.get("id2label")
    table = table if isinstance(table, dict) else {}
    count = len(table) or 2  # what transformers leaves out where nobody named labels
    labels = tuple(str(table.get(str(i), f"LABEL_{i}")) for i in range(count))
    # Its labels are known by name and by id; where a name is a number, by name alone.
    numbers = any(cells.number(label) is not None for label in labels)
    name = "file" if numbers else "this model"
    task = Task(name=name, kind=kind, hub=("", None), **_COLUMNS[kind])
    problem = raw.get("problem_type")
    if kind == "classification" and problem == "multi_label_classification":
        task = dataclasses.replace(task, kind="multilabel", label="labels")
    elif kind == "classification" and (problem == "regression" or count == 1):
        task = dataclasses.replace(task, kind="regression")
    if task.kind in ("classification", "tokens", "multilabel"):
        task = dataclasses.replace(task, labels=labels)
    task = dataclasses.replace(task, metrics=usages.scores_of(task))
    positions = huggingface.read_config(raw, place / "config.json").max_length
    return usages.Usage(task=task, max_length=min(positions // 8 * 8, _LONGEST))
