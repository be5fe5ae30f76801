"""Rows to tokens, against the tokenizers library and by brute force."""

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from metalr.data import answers
from metalr.data.encode import Encoded, encode, remap_ids, used_ids
from metalr.errors import MetalrError
from tests.data.small_tokenizers import (
    CORPUS,
    QA,
    TOKENIZERS,
    each_tokenizer,
    minilm,
    question_row,
    task,
)

WORDS = "the film Danube flooded 1990, naïve  towns; “Rivers” who\tÉlise wrote".split(
    " "
)
tokenizer_names = st.sampled_from(sorted(TOKENIZERS))


def span_text(encoded: Encoded, rows, entry: int) -> str:
    """Return the text between the labelled tokens of an entry."""
    assert encoded.offsets is not None
    first, last = encoded.labels[entry]
    start, stop = encoded.offsets[entry][first, 0], encoded.offsets[entry][last, 1]
    return rows[encoded.example[entry]]["context"][start:stop].strip()


# ---- Classification and regression.


@each_tokenizer
@pytest.mark.parametrize("pair", [None, "other"])
@pytest.mark.parametrize("max_length", [8, 20, 200])
def test_rows_become_what_the_tokenizer_makes_of_each(tokenizer, pair, max_length):
    rows = [
        {"text": " ".join(CORPUS[:n]), "other": CORPUS[2], "label": 0} for n in range(3)
    ]
    found = encode(
        rows, task("classification", pair, ("no", "yes")), tokenizer, max_length
    )
    for ids, types, row in zip(
        found.input_ids, found.token_type_ids, rows, strict=True
    ):
        backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.enable_truncation(max_length, strategy="longest_first")
        expected = backend.encode(row["text"], row["other"] if pair else None)
        assert ids.tolist() == expected.ids and ids.dtype == np.int32
        has_types = "token_type_ids" in tokenizer.model_input_names
        assert types.tolist() == (expected.type_ids if has_types else [0] * len(ids))
        assert max(types) == bool(pair and has_types)
    assert found.offsets is None and found.example.tolist() == [0, 1, 2]


def test_labels_are_taken_by_name_or_by_id():
    rows = [{"text": "a", "label": label} for label in ("yes", "no", 1, np.int64(0))]
    found = encode(
        rows, task("classification", None, ("no", "yes")), TOKENIZERS["bytes"], 8
    )
    assert found.labels.tolist() == [1, 0, 1, 0] and found.labels.dtype == np.int32


def test_scores_stay_floats():
    rows = [{"text": "a", "label": value} for value in (0.5, 4)]
    found = encode(rows, task("regression"), TOKENIZERS["bytes"], 8)
    assert found.labels.tolist() == [0.5, 4.0] and found.labels.dtype == np.float32


@pytest.mark.parametrize("label", ["maybe", 2, -1, 0.5, float("nan")])
def test_a_label_outside_the_task_is_named(label):
    with pytest.raises(MetalrError, match=r"is not one of task 'own': no, yes"):
        encode(
            [{"text": "a", "label": label}],
            task("classification", None, ("no", "yes")),
            TOKENIZERS["bytes"],
            8,
        )


@pytest.mark.parametrize(
    ("own", "least"),
    [(task("regression"), 3), (task("regression", "other"), 5), (QA, 6)],
)
def test_a_length_without_room_is_refused_and_the_least_is_named(own, least):
    row = question_row("a b", "b", 2) | {"text": "a b", "other": "a b", "label": 1}
    with pytest.raises(MetalrError, match=f"at least {least} .* got {least - 1}"):
        encode([row], own, TOKENIZERS["word pieces"], least - 1)
    found = encode([row], own, TOKENIZERS["word pieces"], least)
    assert all(len(ids) <= least for ids in found.input_ids)


@each_tokenizer
@pytest.mark.parametrize("own", [task("regression", "other"), QA])
def test_no_rows_give_no_entries(tokenizer, own):
    found = encode([], own, tokenizer, 16)
    assert found.input_ids == [] and len(found.labels) == len(found.example) == 0


def test_the_tokenizer_is_left_as_it_was():
    # Its file sets truncation and padding; an export must write them unchanged.
    own = minilm()
    before = own.backend_tokenizer.to_str()
    encode([question_row("a b", "b", 2)], QA, own, 32)
    assert own.backend_tokenizer.to_str() == before


@each_tokenizer
def test_half_a_surrogate_pair_is_a_sign_like_any_other(tokenizer):
    row = question_row("so \ud83d many towns", "towns", 10, "\ude00 how many?")
    found = encode([row], QA, tokenizer, 64)
    assert span_text(found, [row], 0) == "towns"


# ---- Windows.


@each_tokenizer
@pytest.mark.parametrize(("max_length", "stride"), [(40, 4), (40, 0), (48, 100)])
def test_windows_slide_over_the_whole_context(tokenizer, max_length, stride):
    context, question = " ".join(CORPUS * 2), "who was?"
    row = question_row(context, None, 0, question)
    found = encode([row, row], QA, tokenizer, max_length, stride=stride)
    backend = tokenizer.backend_tokenizer
    tokens = backend.encode(context, add_special_tokens=False)
    asked = backend.encode(question, add_special_tokens=False).ids
    frame = backend.encode("", "").ids  # special tokens: one, then middle, then one
    room = max_length - len(frame)
    overlap = min(stride, (room - room // 3) * 4 // 5)
    room -= len(asked)
    windows = found.input_ids[: len(found.input_ids) // 2]
    first = 0
    for entry, ids in enumerate(windows):
        part = slice(first, first + room)
        expected = [frame[0], *asked, *frame[1:-1], *tokens.ids[part], frame[-1]]
        assert ids.tolist() == expected
        assert found.offsets is not None
        spans = found.offsets[entry]
        inside = spans[:, 0] >= 0
        assert inside.sum() == len(tokens.ids[part])
        assert spans[inside].tolist() == [list(s) for s in tokens.offsets[part]]
        assert (spans[~inside] == -1).all()
        first += room - overlap
    assert len(windows) > 1 and first + overlap >= len(tokens.ids)
    assert found.example.tolist() == [0] * len(windows) + [1] * len(windows)


@settings(deadline=None)
@given(
    tokenizer_names,
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=40),
    st.data(),
)
def test_labelled_tokens_hold_the_answer_in_some_window(name, words, data):
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 2, len(words) - 1)))
    context, answer = " ".join(words), " ".join(words[first : last + 1])
    start = len(" ".join([*words[:first], ""])) if first else 0
    row = question_row(context, answer, start)
    tokenizer = TOKENIZERS[name]
    found = encode([row], QA, tokenizer, 120, stride=60)
    labelled = np.flatnonzero(found.labels[:, 1]).tolist()
    if not answer.strip():
        return
    assert len(labelled) > 0  # 60 tokens of overlap hold every answer of three words
    for entry in labelled:
        assert span_text(found, [row], entry) == answer.strip()


@each_tokenizer
def test_a_window_without_the_whole_answer_points_at_its_first_token(tokenizer):
    context = " ".join(CORPUS * 3)
    row = question_row(context, "The film", 0)
    found = encode([row], QA, tokenizer, 40, stride=0)
    assert len(found.labels) > 2
    assert found.labels[0, 0] > 0 and not found.labels[1:].any()
    cut = encode([question_row(context, context, 0)], QA, tokenizer, 40)
    assert not cut.labels.any()


@each_tokenizer
@pytest.mark.parametrize(
    "row",
    [
        question_row("some towns", None, 0),
        question_row("\u200b", "\u200b", 0),  # no tokens at all under BERT
        question_row("   ", " ", 1),
    ],
)
def test_odd_questions_have_a_label_and_an_answer(tokenizer, row):
    found = encode([row], QA, tokenizer, 32)
    assert found.labels.shape == (1, 2)
    logits = [np.ones(len(ids), np.float32) for ids in found.input_ids]
    assert answers.decode(logits, logits, found, [row])[0].text in row["context"]


@settings(deadline=None, max_examples=60)
@given(
    tokenizer_names,
    st.lists(st.tuples(st.text(max_size=60), st.text(max_size=90)), max_size=3),
    st.integers(7, 40),
    st.integers(0, 50),
)
def test_no_question_or_stride_is_too_long(name, texts, max_length, stride):
    tokenizer = TOKENIZERS[name]
    rows = [question_row(context, None, 0, question) for question, context in texts]
    found = encode(rows, QA, tokenizer, max_length, stride=stride)
    assert found.offsets is not None
    assert set(found.example.tolist()) == set(range(len(rows)))
    special = tokenizer.num_special_tokens_to_add(True)
    for ids, spans in zip(found.input_ids, found.offsets, strict=True):
        assert len(ids) <= max_length
        question = len(ids) - special - (spans[:, 0] >= 0).sum()
        assert question <= max(1, (max_length - special) // 3)


@each_tokenizer
def test_a_long_question_keeps_its_beginning(tokenizer):
    row = question_row("the film", "film", 4, " ".join(CORPUS))
    found = encode([row], QA, tokenizer, 30)
    whole = tokenizer.backend_tokenizer.encode(CORPUS[0], add_special_tokens=False).ids
    limit = (30 - tokenizer.num_special_tokens_to_add(True)) // 3
    assert found.input_ids[0][1 : limit + 1].tolist() == whole[:limit]
    assert span_text(found, [row], 0) == "film"


# ---- Vocabulary.


@each_tokenizer
def test_a_cut_vocabulary_stands_for_the_same_tokens(tokenizer):
    rows = [{"text": text, "label": 0.0} for text in CORPUS]
    parts = [encode(rows[:2], task("regression"), tokenizer, 16)]
    parts.append(encode(rows[2:], task("regression"), tokenizer, 16))
    used = used_ids(parts, always=[tokenizer.pad_token_id, 149])
    assert {tokenizer.pad_token_id, 149} <= set(used.tolist())
    for part in parts:
        for ids, new in zip(
            part.input_ids, remap_ids(part, used).input_ids, strict=True
        ):
            assert (used[new] == ids).all() and new.dtype == np.int32


def test_an_id_outside_the_cut_vocabulary_is_refused():
    ids = [np.array([3, 5], np.int32)]
    encoded = Encoded(ids, ids, np.zeros(1), np.zeros(1), None)
    with pytest.raises(ValueError, match="lacks ids"):
        remap_ids(encoded, np.array([3, 4]))


# ---- Long texts, which are cut before they are tokenized.


@each_tokenizer
@pytest.mark.parametrize("pair", [None, "other"])
@pytest.mark.parametrize("long", ["text", "other", "both"])
def test_a_very_long_text_gives_the_tokens_that_it_would_give_whole(
    tokenizer, pair, long
):
    texts = {
        "words": "the film Danube, flooded 1990! " * 30,
        "no spaces": "flooded1990" * 80,
        "few tokens, then many": " " * 3000 + "the film Danube " * 20,
        "short": "the film",
    }
    rows = [
        {
            "text": text if long != "other" else "so many towns",
            "other": text if long != "text" else "so many towns",
        }
        for text in texts.values()
    ]
    found = encode(rows, task("regression", pair), tokenizer, 16, labelled=False)
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(16, strategy="longest_first")
    for ids, row in zip(found.input_ids, rows, strict=True):
        expected = backend.encode(row["text"], row["other"] if pair else None)
        assert ids.tolist() == expected.ids


@each_tokenizer
@pytest.mark.parametrize("pair", [None, "other"])
def test_what_is_lost_of_long_texts_is_counted(tokenizer, pair):
    rows = [
        {"text": "the film Danube flooded " * n, "other": "so many towns " * n}
        for n in (1, 2, 5, 8)
    ]
    found = encode(rows, task("regression", pair), tokenizer, 16, labelled=False)
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    whole = [
        len(backend.encode(row["text"], add_special_tokens=False))
        + (len(backend.encode(row["other"], add_special_tokens=False)) if pair else 0)
        for row in rows
    ]
    kept = 16 - tokenizer.num_special_tokens_to_add(pair is not None)
    assert found.lost.rows == sum(n > kept for n in whole) > 0
    assert found.lost.total == sum(whole)
    assert found.lost.tokens == sum(max(0, n - kept) for n in whole)


def test_a_row_of_megabytes_is_cut_before_it_is_tokenized(monkeypatch):
    seen = []
    tokenizer = TOKENIZERS["word pieces"]
    whole = type(tokenizer).__call__

    def spy(self, texts, *args, **kwargs):
        seen.extend(texts)
        return whole(self, texts, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "__call__", spy)
    rows = [{"text": "the film flooded " * 200_000, "label": 0}]
    found = encode(rows, task("regression"), tokenizer, 128, labelled=False)
    assert max(map(len, seen)) < 3000 and len(found.input_ids[0]) == 128
    assert found.lost.tokens > 500_000  # of some 600,000, guessed
