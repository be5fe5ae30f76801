"""Words with tags become tokens, of which each word's first has the tag."""

import numpy as np
import pytest

from metalr.data import tagged, toy
from metalr.data.encode import encode
from metalr.data.schema import Task
from tests.data.small_tokenizers import TOKENIZERS, word_piece

TAGS = Task(name="t", kind="tokens", text="tokens", label="tags", hub=("", None),
            labels=("O", "B-X", "I-X"))  # fmt: skip


def tagged_rows(count=20, longest=30):
    rng = np.random.default_rng(0)
    words = [
        w for row in toy.generate("conll2003", "train", 50, 0) for w in row["tokens"]
    ]
    words += ["naïve", "a-b/c", "12,5", "…", "日本"]
    return [
        {"tokens": [*rng.choice(words, n)], "tags": [*map(int, rng.integers(0, 3, n))]}
        for n in rng.integers(1, longest, count)
    ]


def test_first_pieces_of_words_are_those_that_the_library_names():
    tokenizer, rows = word_piece(), tagged_rows()
    found = encode(rows, TAGS, tokenizer, 500)
    for i, row in enumerate(rows):
        theirs = tokenizer(row["tokens"], is_split_into_words=True)
        assert found.input_ids[i].tolist() == theirs["input_ids"]
        names, before = theirs.word_ids(), None
        for place, word in enumerate(names):
            first = word is not None and word != before
            assert found.words[i][place] == (word if first else -1)
            assert found.labels[i][place] == (row["tags"][word] if first else -1)
            before = word


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("length", [12, 24, 400])
def test_every_word_is_learned_and_read_back_once_however_long_the_row(name, length):
    tokenizer, rows = TOKENIZERS[name], tagged_rows(longest=60)
    found = encode(rows, TAGS, tokenizer, length, stride=6)
    assert max(map(len, found.input_ids)) <= length
    logits = [np.eye(3)[np.maximum(labels, 0)] for labels in found.labels]
    counts = [len(row["tokens"]) for row in rows]
    read = tagged.decode(logits, found, counts, missing=0)
    seen = np.zeros(len(rows), int)
    np.add.at(seen, found.example, [int((w >= 0).sum()) for w in found.words])
    for row, tags, words in zip(rows, read, seen, strict=True):
        assert words <= len(tags)
        if words == len(tags):  # a word of signs that are dropped has no token
            assert tags.tolist() == row["tags"]
    assert (seen == counts).mean() > 0.8
    np.testing.assert_array_equal(found.weights, [(x >= 0).sum() for x in found.labels])
