"""Words with tags as tokens: which token stands for which word, and back again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metalr.data.columns import Row
from metalr.data.encoded import Encoded, column_of
from metalr.data.ragged import Ragged, Writer, bounds_of
from metalr.data.rows import well_formed
from metalr.data.schema import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tokenizer

_CHUNK = 1024  # rows a tokenizer call


def encode(
    rows: Sequence[Row],
    task: Task,
    tokenizer: "Tokenizer",
    max_length: int,
    *,
    stride: int,
    labelled: bool,
) -> Encoded:
    """Turn rows of words into windows of tokens; `encode.encode` says which.

    The first token of a word has its tag; no other token has one. Where windows
    overlap, a word counts in the one that has most text on both sides of it, so that
    each word is learned and predicted once.
    """
    room = max_length - tokenizer.num_special_tokens_to_add(False)
    overlap = max(0, min(stride, room * 4 // 5))
    tokens, types = Writer(np.int32), Writer(np.int8)
    example: list[int] = []
    words = Writer(np.int32)
    for first in range(0, len(rows), _CHUNK):
        split = column_of(rows[first : first + _CHUNK], task.text)
        batch: Any = tokenizer(
            # Joined, and told apart again by their places: a tokenizer that is given
            # words would have to know that spaces stood between them.
            [" ".join(map(_word, row)) for row in split],
            truncation=True,
            max_length=max_length,
            stride=overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        tokens.extend(batch["input_ids"])
        types.extend(batch.get("token_type_ids"), batch["input_ids"])
        of = batch["overflow_to_sample_mapping"]
        words.extend_by_arrays(_firsts(split, of, batch["offset_mapping"]))
        example += [first + index for index in of]
    rows_of = np.array(example, np.int32)
    spoken = words.finish()
    labels = Ragged(np.full(len(spoken.flat), -1, np.int32), spoken.bounds)
    found = Encoded(
        tokens.finish(), types.finish(), labels, rows_of, None, words=spoken
    )
    return _labelled(found, column_of(rows, task.label)) if labelled else found


def _word(word: str) -> str:
    # White space within a word would make two of it; one without a sign would be none.
    return "_".join(well_formed(word).split()) or "_"


def _firsts(
    split: Sequence[Sequence[str]], of: Sequence[int], offsets: Sequence[Any]
) -> list[np.ndarray]:
    """Return, for each window, the word whose first token is there; -1 elsewhere."""
    found = []
    for index, spans in zip(of, offsets, strict=True):
        places = np.array(spans, np.int64).reshape(-1, 2)
        # A token may begin with the space before its word, so that its end tells.
        ends = bounds_of(len(_word(word)) + 1 for word in split[index])[1:]
        word = np.searchsorted(ends, places[:, 1])
        word[places[:, 0] == places[:, 1]] = -1  # special tokens, and what is dropped
        found.append(word)
    _keep_firsts(of, found)
    return [word.astype(np.int32) for word in found]


def _keep_firsts(of: Sequence[int], found: list[np.ndarray]) -> None:
    """Leave a word its first token, in the window where it has most around it."""
    best: dict[tuple[int, int], tuple[int, int, int]] = {}
    for window, (row, words) in enumerate(zip(of, found, strict=True)):
        before = -1
        for place, word in enumerate(words.tolist()):
            first, before = word >= 0 and word != before, max(word, before)
            if first:
                around = min(place, len(words) - place)
                if around > best.get((row, word), (0, 0, 0))[0]:
                    best[row, word] = (around, window, place)
        words[:] = -1
    for (_, word), (_, window, place) in best.items():
        found[window][place] = word


def _labelled(encoded: Encoded, tags: Sequence[Sequence[int]]) -> Encoded:
    words = Ragged.of(encoded.words or [])
    labels = np.full(len(words.flat), -1, np.int32)
    counts = np.zeros(len(words), np.float32)
    for entry, row in enumerate(encoded.example):
        part = slice(words.bounds[entry], words.bounds[entry + 1])
        here = words.flat[part] >= 0
        labels[part][here] = np.asarray(tags[row], np.int32)[words.flat[part][here]]
        counts[entry] = here.sum()
    # So that a word counts as much in a long row as in a short one.
    return encoded._replace(labels=Ragged(labels, words.bounds), weights=counts)


def decode(
    logits: Sequence[np.ndarray], encoded: Encoded, words: Sequence[int], missing: int
) -> list[np.ndarray]:
    """Return the most likely tag of each word, by row.

    Args:
      logits: One array [len or longer, tags] an entry of `encoded`.
      encoded: The windows.
      words: Number of words of each row.
      missing: The tag of words without a token, which a normaliser dropped.
    """
    if encoded.words is None:
        raise ValueError("tags are decoded with the words of an encoding of tokens")
    found = [np.full(count, missing, np.int32) for count in words]
    for entry, row in enumerate(encoded.example):
        spoken = encoded.words[entry]
        here = np.flatnonzero(spoken >= 0)
        found[row][spoken[here]] = np.argmax(logits[entry][here], axis=-1)
    return found


def entities(
    words: Sequence[str], spans: Sequence[tuple[int, int]], tags: Sequence[str]
) -> list[dict[str, Any]]:
    """Join the tags B-X, I-X, I-X ... of words to entities.

    Args:
      words: The words.
      spans: Where they stand, first character and past the last.
      tags: One a word; an I- that continues nothing begins an entity.

    >>> entities(["Al", "B", "x"], [(0, 2), (3, 4), (5, 6)], ["B-PER", "I-PER", "O"])
    [{'label': 'PER', 'start': 0, 'end': 4, 'words': ['Al', 'B']}]
    """
    found: list[dict[str, Any]] = []
    before = ""
    for word, (start, end), tag in zip(words, spans, tags, strict=True):
        sort, _, label = tag.partition("-")
        if label and (sort in tuple("BSU") or label != before):
            found.append({"label": label, "start": start, "end": end, "words": [word]})
        elif label:
            found[-1]["end"] = end
            found[-1]["words"].append(word)
        before = "" if sort in "ELSU" else label
    return found
