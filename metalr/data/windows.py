"""Questions with windows over their contexts, and the tokens of their answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metalr.data import ragged
from metalr.data.columns import Row
from metalr.data.encoded import Encoded, column_of, parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tokenizer


def encode(
    rows: Sequence[Row], tokenizer: "Tokenizer", max_length: int, stride: int
) -> Encoded:
    """Turn questions into windows; `metalr.data.encode.encode` says which."""
    # The tokenizers library takes one stride for all rows and fails where it is no
    # shorter than the room that a question leaves. So the limit on questions comes
    # first, and the stride from it: at least a fifth of each window is new, and a
    # window never depends on what other rows hold.
    room = max_length - tokenizer.num_special_tokens_to_add(True)
    question_limit = max(1, room // 3)
    overlap = max(0, min(stride, (room - question_limit) * 4 // 5))
    tokens, types = ragged.Writer(np.int32), ragged.Writer(np.int8)
    offsets = ragged.Writer(np.int32, width=2)
    example: list[int] = []
    first = 0
    for questions, contexts in parts(rows, ["question", "context"]):
        batch: Any = tokenizer(
            _cut(questions, tokenizer, question_limit),
            contexts,
            truncation="only_second",
            max_length=max_length,
            stride=overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        tokens.extend(batch["input_ids"])
        types.extend(batch.get("token_type_ids"), batch["input_ids"])
        offsets.extend_by_arrays(
            [
                _context_offsets(spans, batch.sequence_ids(i))
                for i, spans in enumerate(batch["offset_mapping"])
            ]
        )
        example += [first + index for index in batch["overflow_to_sample_mapping"]]
        first += len(questions)
    none = np.zeros((len(example), 2), np.int32)
    of = np.array(example, np.int32)
    return Encoded(tokens.finish(), types.finish(), none, of, offsets.finish())


def _cut(texts: list[str], tokenizer: "Tokenizer", limit: int) -> list[str]:
    """Cut each text before its token number `limit`, where it has so many."""
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


def labels(
    rows: Sequence[Row], example: np.ndarray, offsets: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the first and last token of each row's first answer, by window."""
    found = np.zeros((len(example), 2), np.int32)
    known = column_of(rows, "answers")
    for i, index in enumerate(example):
        answers = known[index]
        if len(answers["text"]) == 0:  # unanswerable
            continue
        text, start = answers["text"][0], int(answers["answer_start"][0])
        found[i] = _span_label(
            offsets[i],
            start + len(text) - len(text.lstrip()),
            start + len(text.rstrip()),
            is_first=i == 0 or example[i - 1] != index,
            is_last=i + 1 == len(example) or example[i + 1] != index,
        )
    return found


def _span_label(
    offsets: np.ndarray, start: int, stop: int, *, is_first: bool, is_last: bool
) -> tuple[int, int]:
    """Return the tokens that touch the characters start to stop, if all are here."""
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
