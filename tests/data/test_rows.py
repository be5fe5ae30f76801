"""Every kind of row that is refused, and the forms that are understood."""

import math
from collections import Counter

import pytest

from metalr.data.rows import check_rows
from metalr.data.tasks import TASKS
from metalr.errors import MetalrError
from tests.data.question_row import QA

PAIR = {"sentence1": "a", "sentence2": "b", "label": 1}


BAD_ROWS: dict[str, tuple[str, dict, str]] = {
    "label": (
        "sst2",
        {"sentence": "a", "label": 7},
        r"column 'label' holds 7; sst2 knows 0, 1 \(negative, positive\); leave",
    ),
    "-2": ("sst2", {"sentence": "a", "label": -2}, "holds -2; sst2 knows"),
    "half label": ("sst2", {"sentence": "a", "label": 0.5}, "holds 0.5; sst2 knows"),
    "NaN label": ("sst2", {"sentence": "a", "label": math.nan}, "holds nan; sst2"),
    "no label": ("sst2", {"sentence": "a", "label": None}, "holds None; sst2"),
    "two labels": (
        "sst2",
        {"sentence": "a", "label": [1, 0]},
        r"holds \[1, 0\]; sst2",
    ),
    "huge label": ("sst2", {"sentence": "a", "label": "1e999"}, "holds '1e999'; sst2"),
    "empty text": ("sst2", {"sentence": " \n", "label": 1}, "'sentence' is empty"),
    "no text": ("sst2", {"sentence": None, "label": 1}, "'sentence' is empty"),
    "NaN text": ("sst2", {"sentence": math.nan, "label": 1}, "is empty .holds nan"),
    "number as text": (
        "sst2",
        {"sentence": 5, "label": 1},
        "holds 5, which is not text",
    ),
    "column": (
        "sst2",
        {"text": "a", "label": 1},
        "'sentence' is missing; .* text, label",
    ),
    "second text": ("rte", {**PAIR, "sentence2": ""}, "'sentence2' is empty"),
    "NaN score": (
        "stsb",
        {**PAIR, "label": math.nan},
        "nan, which is not a finite number",
    ),
    "infinite score": ("stsb", {**PAIR, "label": "inf"}, "'inf', which is not"),
    "score in words": ("stsb", {**PAIR, "label": "high"}, "'high', which is not"),
    "true as score": ("stsb", {**PAIR, "label": True}, "True, which is not a finite"),
    "huge score": ("stsb", {**PAIR, "label": 10**400}, "which is not a finite"),
    "answer elsewhere": (
        "squad",
        {**QA, "answers": {"text": ["blue"], "answer_start": [6]}},
        "'answers' says that 'blue' starts at 6, where the context has ' blu'",
    ),
    "answer behind": (
        "squad",
        {**QA, "answers": {"text": ["blue"], "answer_start": [99]}},
        "starts at 99, where the context has ''",
    ),
    "no answer": (
        "squad",
        {**QA, "answers": {"text": [], "answer_start": []}},
        "has no answer",
    ),
    "empty answer": (
        "squad",
        {**QA, "answers": {"text": [""], "answer_start": [0]}},
        "an answer without text",
    ),
    "negative start": (
        "squad",
        {**QA, "answers": {"text": ["."], "answer_start": [-1]}},
        "the answer_start -1, which is not an offset",
    ),
    "one start short": (
        "squad",
        {**QA, "answers": {"text": ["blue"], "answer_start": []}},
        "has 1 texts and 0 answer_start",
    ),
    "answer as text": (
        "squad",
        {**QA, "answers": "blue"},
        "holds 'blue'; SQuAD's form",
    ),
    "empty context": ("squad", {**QA, "context": ""}, "'context' is empty"),
}


@pytest.mark.parametrize("name, row, message", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_with_its_fault(name, row, message):
    good = QA if name == "squad" else {"sentence": "a", **PAIR}
    with pytest.raises(MetalrError, match=rf"^somewhere row 2: .*{message}"):
        check_rows([good, row], TASKS[name], "somewhere")


def test_no_rows_are_refused():
    with pytest.raises(MetalrError, match="somewhere is empty"):
        check_rows([], TASKS["sst2"], "somewhere")


def test_answers_in_squads_own_form_are_understood():
    row = {**QA, "answers": [{"text": "blue", "answer_start": 7}]}
    assert check_rows([row], TASKS["squad"], "x") == [QA]


def test_a_known_sets_labels_may_be_ids_names_or_their_text():
    labels = [1, "1", 1.0, True, "positive"]
    rows = [{"sentence": "a", "label": label} for label in labels]
    found = check_rows(rows, TASKS["sst2"], "x")
    assert [row["label"] for row in found] == [1] * 5
    assert Counter(type(row["label"]) for row in found) == {int: 5}


def test_checking_leaves_the_callers_rows_alone():
    row = {"sentence": "a", "label": "1", "more": 0}
    check_rows([row], TASKS["sst2"], "x")
    assert row == {"sentence": "a", "label": "1", "more": 0}
