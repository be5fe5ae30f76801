"""Rows to tokens: classification inputs and question windows.

A context that does not fit beside its question becomes several *windows* that
overlap; every window is an entry of its own, and `answers.decode` joins the windows of
one row again.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metalr.data.rows import Row, Task, well_formed
from metalr.errors import MetalrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tokenizer

_CHUNK = 2048  # rows a tokenizer call: bounds the Python lists that it returns


class Encoded(NamedTuple):
    """Tokenized rows; an entry is one input of the encoder, of any length."""

    input_ids: list[np.ndarray]  # n arrays [len] int32
    token_type_ids: list[np.ndarray]  # n arrays [len] int32
    labels: np.ndarray  # [n] int32 ids | [n] float32 | [n, 2] int32 start, end token
    example: np.ndarray  # [n] int32, the row each entry comes from
    offsets: list[np.ndarray] | None  # n arrays [len, 2] int32 chars; qa only


def encode(
    rows: Sequence[Row],
    task: Task,
    tokenizer: "Tokenizer",
    max_length: int,
    *,
    stride: int = 128,
    labelled: bool = True,
) -> Encoded:
    """Turns rows into token ids and labels.

    Texts that are too long lose their end (of a pair, the longer one first). Questions
    come with windows over the context; a question keeps at most a third of
    the room, so that a window always moves on.

    Args:
      rows: Checked rows with the columns that the task names; for questions the fields
        of SQuAD (`question`, `context`, `answers`).
      task: What the columns mean.
      tokenizer: A fast tokenizer of transformers; left as it was found.
      max_length: Tokens an entry has at most, special tokens included.
      stride: Tokens by which two neighbouring windows overlap, at most four fifths
        of what the longest question leaves to the context.
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
            found = _encode_questions(rows, tokenizer, max_length, stride, special)
        else:
            found = _encode_texts(rows, task, tokenizer, max_length)
    return found._replace(labels=_labels(rows, task, found)) if labelled else found


@contextlib.contextmanager
def _state_kept(tokenizer: "Tokenizer") -> Iterator[None]:
    """Puts back truncation and padding, which calls set and saving would write."""
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


def _chunks(rows: Sequence[Row]) -> Iterator[tuple[int, Sequence[Row]]]:
    for first in range(0, len(rows), _CHUNK):
        yield first, rows[first : first + _CHUNK]


def _column(rows: Sequence[Row], name: str) -> list[str]:
    return [well_formed(row[name]) for row in rows]


def _arrays(lists: Iterable[Sequence[int]]) -> list[np.ndarray]:
    return [np.asarray(values, np.int32) for values in lists]


def _token_types(batch: Any) -> list[np.ndarray]:
    """Returns the segment ids; all zero for models that have one segment (RoBERTa)."""
    if "token_type_ids" in batch:
        return _arrays(batch["token_type_ids"])
    return [np.zeros(len(ids), np.int32) for ids in batch["input_ids"]]


def _encode_texts(
    rows: Sequence[Row], task: Task, tokenizer: "Tokenizer", max_length: int
) -> Encoded:
    input_ids: list[np.ndarray] = []
    token_type_ids: list[np.ndarray] = []
    for _, chunk in _chunks(rows):
        batch = tokenizer(
            _column(chunk, task.text),
            _column(chunk, task.pair) if task.pair is not None else None,
            truncation="longest_first",
            max_length=max_length,
            return_attention_mask=False,
            verbose=False,
        )
        input_ids += _arrays(batch["input_ids"])
        token_type_ids += _token_types(batch)
    example = np.arange(len(rows), dtype=np.int32)
    labels = np.zeros(len(rows), np.int32)
    return Encoded(input_ids, token_type_ids, labels, example, None)


def _labels(rows: Sequence[Row], task: Task, encoded: Encoded) -> np.ndarray:
    if encoded.offsets is not None:
        return _span_labels(rows, encoded.example, encoded.offsets)
    if task.kind == "regression":
        return np.array([float(row[task.label]) for row in rows], np.float32)
    return np.array([_label_id(row[task.label], task) for row in rows], np.int32)


def _label_id(label: Any, task: Task) -> int:
    """Returns the id of a label that is given by name or by id."""
    if isinstance(label, str):
        if label in task.labels:
            return task.labels.index(label)
    elif 0 <= label < len(task.labels) and label == int(label):
        return int(label)
    raise MetalrError(
        f"label {label!r} is not one of task {task.name!r}: "
        f"{', '.join(task.labels)}, or their ids 0 to {len(task.labels) - 1}"
    )


def _encode_questions(
    rows: Sequence[Row],
    tokenizer: "Tokenizer",
    max_length: int,
    stride: int,
    special: int,
) -> Encoded:
    # The tokenizers library takes one stride for all rows and fails where it is no
    # shorter than the room that a question leaves. So the limit on questions comes
    # first, and the stride from it: at least a fifth of each window is new, and a
    # window never depends on what other rows hold.
    room = max_length - special
    question_limit = max(1, room // 3)
    overlap = max(0, min(stride, (room - question_limit) * 4 // 5))
    input_ids: list[np.ndarray] = []
    token_type_ids: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    example: list[int] = []
    for first, chunk in _chunks(rows):
        batch = tokenizer(
            _cut(_column(chunk, "question"), tokenizer, question_limit),
            _column(chunk, "context"),
            truncation="only_second",
            max_length=max_length,
            stride=overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        input_ids += _arrays(batch["input_ids"])
        token_type_ids += _token_types(batch)
        offsets += [
            _context_offsets(spans, batch.sequence_ids(i))
            for i, spans in enumerate(batch["offset_mapping"])
        ]
        example += [first + index for index in batch["overflow_to_sample_mapping"]]
    labels = np.zeros((len(example), 2), np.int32)
    return Encoded(
        input_ids, token_type_ids, labels, np.array(example, np.int32), offsets
    )


def _cut(texts: list[str], tokenizer: "Tokenizer", limit: int) -> list[str]:
    """Cuts each text before its token number `limit`, where it has so many."""
    batch = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    return [
        # A space left at the end could become a token of its own.
        text[: spans[limit][0]].rstrip() if len(spans) > limit else text
        for text, spans in zip(texts, batch["offset_mapping"], strict=True)
    ]


def _context_offsets(
    spans: Sequence[tuple[int, int]], sequence_ids: Sequence[int | None]
) -> np.ndarray:
    offsets = np.array(spans, np.int32).reshape(-1, 2)
    offsets[[index != 1 for index in sequence_ids]] = -1
    return offsets


def _span_labels(
    rows: Sequence[Row], example: np.ndarray, offsets: list[np.ndarray]
) -> np.ndarray:
    """Returns the first and last token of each row's first answer, by window."""
    labels = np.zeros((len(example), 2), np.int32)
    for i, index in enumerate(example):
        answers = rows[index]["answers"]
        if len(answers["text"]) == 0:  # unanswerable
            continue
        text, start = answers["text"][0], int(answers["answer_start"][0])
        labels[i] = _span_label(
            offsets[i],
            start + len(text) - len(text.lstrip()),
            start + len(text.rstrip()),
            is_first=i == 0 or example[i - 1] != index,
            is_last=i + 1 == len(example) or example[i + 1] != index,
        )
    return labels


def _span_label(
    offsets: np.ndarray, start: int, stop: int, *, is_first: bool, is_last: bool
) -> tuple[int, int]:
    """Returns the tokens that touch the characters start to stop, if all are here."""
    tokens = np.flatnonzero(offsets[:, 0] >= 0)
    begins, ends = offsets[tokens].T
    inside = tokens[(ends > start) & (begins < stop)]
    # What a normaliser drops (zero-width signs) has no token, so that the first and
    # the last window reach to the ends of the context, wherever their tokens end.
    if len(inside) == 0 or not (
        (is_first or begins[0] <= start) and (is_last or stop <= ends[-1])
    ):
        return 0, 0
    return int(inside[0]), int(inside[-1])


def used_ids(encodeds: Iterable[Encoded], always: Iterable[int] = ()) -> np.ndarray:
    """Returns the sorted token ids that occur, and those of `always`.

    >>> ids = [np.array([7, 2, 7], np.int32)]
    >>> used_ids([Encoded(ids, ids, np.zeros(1), np.zeros(1), None)], always=[0])
    array([0, 2, 7], dtype=int32)
    """
    arrays = [np.asarray(list(always), np.int32)]
    for encoded in encodeds:
        if encoded.input_ids:
            arrays.append(np.unique(np.concatenate(encoded.input_ids)))
    return np.unique(np.concatenate(arrays))


def remap_ids(encoded: Encoded, used: np.ndarray) -> Encoded:
    """Renames each token id to its place in the sorted `used`, for a cut vocabulary.

    Args:
      encoded: What to rename; not changed.
      used: Sorted ids as `used_ids` returns them.

    Raises:
      ValueError: An id of `encoded` is not in `used`.
    """
    if not np.isin(used_ids([encoded]), used).all():
        raise ValueError("`used` lacks ids that occur; take used_ids of all the data")
    renamed = [np.searchsorted(used, ids).astype(np.int32) for ids in encoded.input_ids]
    return encoded._replace(input_ids=renamed)
