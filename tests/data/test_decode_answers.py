"""Logits to answers, by brute force and on real questions."""

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from metalr.data import answers
from metalr.data.encode import Encoded, encode
from metalr.finetune import metrics
from tests.data.small_tokenizers import (
    CORPUS,
    QA,
    TOKENIZERS,
    each_tokenizer,
    minilm,
    question_row,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def decode_answers(*args, **how):
    return [answer.text for answer in answers.decode(*args, **how)]


def brute_force(starts, ends, encoded, rows, max_answer_length):
    """Try every pair of tokens; the first of the best wins."""
    best = [(-np.inf, "")] * len(rows)
    for entry, example in enumerate(encoded.example):
        spans = encoded.offsets[entry]
        for i, j in itertools.product(range(len(spans)), repeat=2):
            if not (
                i <= j < i + max_answer_length and min(spans[i, 0], spans[j, 0]) >= 0
            ):
                continue
            text = rows[example]["context"][spans[i, 0] : spans[j, 1]].strip()
            score = float(starts[entry][i]) + float(ends[entry][j])
            if text and score > best[example][0]:
                best[example] = (score, text)
    return [text for _, text in best]


@each_tokenizer
@pytest.mark.parametrize("levels", [3, None])  # whole numbers make ties
@pytest.mark.parametrize("max_answer_length", [1, 4, 100])
def test_decoding_finds_the_best_span_of_all(tokenizer, levels, max_answer_length):
    rows = [question_row(text, None, 0) for text in (" ".join(CORPUS), CORPUS[1])]
    encoded = encode(rows, QA, tokenizer, 32, stride=8)
    generator = np.random.default_rng(0)
    for _ in range(4):
        starts, ends = (
            [
                generator.normal(size=n)
                if levels is None
                else generator.integers(levels, size=n)
                for n in map(len, encoded.input_ids)
            ]
            for _ in range(2)
        )
        found = decode_answers(
            starts, ends, encoded, rows, max_answer_length=max_answer_length
        )
        assert found == brute_force(starts, ends, encoded, rows, max_answer_length)


def hand_made(context: str, spans: list[list[int]]) -> tuple[Encoded, list]:
    offsets = [np.array(spans, np.int32)]
    ids = [np.zeros(len(spans), np.int32)]
    zero = np.zeros(1, np.int32)
    return Encoded(ids, ids, zero, zero, offsets), [question_row(context, None, 0)]


def test_a_span_of_white_space_gives_way_to_the_next_best():
    encoded, rows = hand_made("ab  cd", [[-1, -1], [0, 2], [2, 4], [4, 6]])
    start, end = [np.array([9, 0, 5, 0])], [np.array([9, 0, 5, 1])]
    assert decode_answers(start, end, encoded, rows, n_best=2) == ["cd"]
    assert decode_answers(start, end, encoded, rows, n_best=1) == [""]


def test_logits_behind_the_end_of_an_entry_are_not_read():
    encoded, rows = hand_made("ab cd", [[-1, -1], [0, 2], [3, 5], [-1, -1]])
    logits = [np.array([0, 1, 0, 0, 99, 99])]
    assert decode_answers(logits, logits, encoded, rows) == ["ab"]


def test_nan_logits_give_an_empty_answer():
    encoded, rows = hand_made("ab cd", [[-1, -1], [0, 2], [3, 5]])
    broken, whole = [np.full(3, np.nan)], [np.zeros(3)]
    assert decode_answers(broken, whole, encoded, rows) == [""]
    broken[0][2] = 1.0
    assert decode_answers(broken, whole, encoded, rows) == ["cd"]


def test_answers_need_offsets():
    encoded, rows = hand_made("ab", [[0, 2]])
    with pytest.raises(ValueError, match="offsets"):
        decode_answers([], [], encoded._replace(offsets=None), rows)


@pytest.mark.parametrize("name", ["minilm", "bytes"])
def test_labels_of_real_questions_decode_to_the_answer(name):
    path = SHARED / "squad" / "validation.jsonl.gz"
    if not path.is_file():
        pytest.skip("no real rows here")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, 100)]
    real = minilm() if name == "minilm" else TOKENIZERS[name]
    encoded = encode(rows, QA, real, 384)
    starts, ends = (
        [np.eye(len(ids))[at] for ids, at in zip(encoded.input_ids, side, strict=True)]
        for side in encoded.labels.T
    )
    found = decode_answers(starts, ends, encoded, rows, max_answer_length=200)
    golds = [row["answers"]["text"] for row in rows]
    assert metrics.score(["exact_match"], found, golds)["exact_match"] >= 0.98
