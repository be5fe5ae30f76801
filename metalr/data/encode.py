"""Rows to tokens: classification inputs and question windows.

A context that does not fit beside its question becomes several *windows* that
overlap; every window is an entry of its own, and `answers.decode` joins the windows of
one row again.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metalr.data import choices, cutting, ragged, tagged, windows
from metalr.data.columns import Row
from metalr.data.cutting import Lost
from metalr.data.encoded import Encoded, column_of, parts, remap_ids, used_ids
from metalr.data.schema import Task
from metalr.errors import MetalrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tokenizer

__all__ = ["Encoded", "encode", "remap_ids", "used_ids"]


def encode(
    rows: Sequence[Row],
    task: Task,
    tokenizer: "Tokenizer",
    max_length: int,
    *,
    stride: int = 128,
    labelled: bool = True,
) -> Encoded:
    """Turn rows into token ids and labels.

    Texts that are too long lose their end (of a pair, the longer one first). Questions
    come with windows over the context; a question keeps at most a third of
    the room, so that a window always moves on. Words with tags come in windows too.

    Args:
      rows: Checked rows with the columns that the task names; for questions the fields
        of SQuAD (`question`, `context`, `answers`).
      task: What the columns mean.
      tokenizer: A fast tokenizer of transformers; left as it was found.
      max_length: Tokens an entry has at most, special tokens included.
      stride: Tokens by which two neighbouring windows overlap, at most four fifths
        of what special tokens and the limit on a question leave.
      labelled: Whether the rows have labels; without them all of the result's are 0.

    Returns:
      The entries, rows in order. In `offsets`, a token outside the context is at
      (-1, -1). A window that lacks the answer is labelled (0, 0), its first token.

    Raises:
      MetalrError: `max_length` has no room for text, or a label is not of the task.
    """
    special = tokenizer.num_special_tokens_to_add(task.pair is not None)
    least = special + (3 if task.kind == "qa" else 1 + (task.pair is not None))
    if max_length < least:
        raise MetalrError(
            f"max_length must be at least {least} for task {task.name!r} with this "
            f"tokenizer, got {max_length}"
        )
    with _state_kept(tokenizer):
        if task.kind == "qa":
            found = windows.encode(rows, tokenizer, max_length, stride)
        elif task.kind == "tokens":
            return tagged.encode(
                rows, task, tokenizer, max_length, stride=stride, labelled=labelled
            )
        elif task.kind == "choice":
            found = choices.encode(rows, task, tokenizer, max_length)
        else:
            found = _encode_texts(rows, task, tokenizer, max_length)
    return found._replace(labels=_labels(rows, task, found)) if labelled else found


@contextlib.contextmanager
def _state_kept(tokenizer: "Tokenizer") -> Iterator[None]:
    """Put back truncation and padding, which calls set and saving would write."""
    backend = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding
    try:
        yield
    finally:
        backend.no_truncation()
        backend.no_padding()
        if truncation:
            backend.enable_truncation(**truncation)
        if padding:
            backend.enable_padding(**padding)


def _encode_texts(
    rows: Sequence[Row], task: Task, tokenizer: "Tokenizer", max_length: int
) -> Encoded:
    names = [task.text] if task.pair is None else [task.text, task.pair]
    tokens, types = ragged.Writer(np.int32), ragged.Writer(np.int8)
    lost = Lost()
    for columns in parts(rows, names):
        found = cutting.tokenize(columns, tokenizer, max_length)
        tokens.extend(found.ids)
        types.extend(found.types, found.ids)
        lost += found.lost
    example = np.arange(len(rows), dtype=np.int32)
    labels = np.zeros(len(rows), np.int32)
    return Encoded(tokens.finish(), types.finish(), labels, example, None, lost)


def _labels(rows: Sequence[Row], task: Task, encoded: Encoded) -> np.ndarray:
    if encoded.offsets is not None:
        return windows.labels(rows, encoded.example, encoded.offsets)
    values = column_of(rows, task.label)
    if task.kind == "regression":
        return np.array([float(value) for value in values], np.float32)
    if task.kind == "multilabel":
        found = np.zeros((len(values), len(task.labels)), np.int32)
        for row, ids in enumerate(values):
            found[row, ids] = 1
        return found
    if task.kind == "choice":
        return np.array(values, np.int32)
    return np.array([_label_id(value, task) for value in values], np.int32)


def _label_id(label: Any, task: Task) -> int:
    """Return the id of a label that is given by name or by id."""
    if isinstance(label, str):
        if label in task.labels:
            return task.labels.index(label)
    elif 0 <= label < len(task.labels) and label == int(label):
        return int(label)
    raise MetalrError(
        f"label {label!r} is not one of task {task.name!r}: "
        f"{', '.join(task.labels)}, or their ids 0 to {len(task.labels) - 1}"
    )
