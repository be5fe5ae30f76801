"""Tasks that are put together from GLUE's texts: every label can be checked by hand."""

import re
from collections import Counter

import pytest

from metalr.data import derived, hub_rows
from metalr.data.derived import SETS
from metalr.data.loading import load
from metalr.data.tasks import TASKS
from metalr.errors import MetalrError
from metalr.runtime import hub

pytestmark = pytest.mark.fast

SPANS = ("part", "cloze")
SET = tuple(SETS)  # by the id of its class


def texts(name: str) -> list[str]:
    """Return ten texts of 9 to 12 words that name their set in every word."""
    return [
        " ".join(f"{name}_{row}_{word}" for word in range(9 + row % 4))
        for row in range(10)
    ]


ROWS = {name: [{"text": text, "label": 0} for text in texts(name)] for name in SETS}


@pytest.mark.parametrize("name", ["origin", *SPANS])
def test_the_same_seed_makes_the_same_rows_and_another_others(name):
    made = derived.build(name, ROWS, 3)
    assert made == derived.build(name, ROWS, 3) != derived.build(name, ROWS, 4)


def test_origin_has_each_text_once_under_the_name_of_its_set():
    rows = derived.build("origin", ROWS, 0)
    assert sorted(row["text"] for row in rows) == sorted(sum(map(texts, SETS), []))
    assert all(row["text"].startswith(row["label"]) for row in rows)


def test_origin_is_balanced_where_the_sets_are_not():
    rows = derived.build("origin", {**ROWS, "rte": ROWS["rte"][:4]}, 0)
    assert Counter(row["label"] for row in rows) == dict.fromkeys(SETS, 4)


@pytest.mark.parametrize("name", SPANS)
def test_an_answer_stands_where_its_row_says(name):
    rows = derived.build(name, ROWS, 0)
    assert len(rows) == len(SETS) * 10 // 3
    for row in rows:
        (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(text)] == text
        assert row["context"].count(text) == 1
    # The place of the answer is no hint.
    assert len({row["answers"]["answer_start"][0] for row in rows}) > len(rows) / 3


def set_of(word: str) -> str:
    return word.split("_")[0]


def test_the_answer_of_part_is_all_of_the_text_that_the_question_names():
    for row in derived.build("part", ROWS, 0):
        asked = re.fullmatch(r"Which one is the (.*)\?", row["question"])
        assert asked
        words = row["context"].split()
        assert len({set_of(word) for word in words}) == 3
        own = [word for word in words if SETS[set_of(word)] == asked[1]]
        assert row["answers"]["text"] == [" ".join(own)]


def test_the_answer_of_cloze_is_what_the_question_leaves_out():
    for row in derived.build("cloze", ROWS, 0):
        around = row["question"].removesuffix(" ?")
        filled = around.replace("what", row["answers"]["text"][0])
        assert len(around.split()) == 7 and filled in row["context"]


def test_only_texts_between_the_lengths_are_taken():
    fitting = " ".join("abcdefghi")
    rows = [{"a": "too short", "b": f" {fitting}  j", "c": "long " * 21}]
    made = derived.build("origin", {**ROWS, "rte": rows}, 0)
    assert [r["text"] for r in made if r["label"] == "rte"] == [f"{fitting} j"]
    with pytest.raises(MetalrError, match="no text of rte has 9 to 20 words"):
        derived.build("part", {**ROWS, "rte": [{"a": "too short"}]}, 0)


@pytest.mark.parametrize("name", ["origin", *SPANS])
def test_they_load_from_toy_rows_with_the_checks_of_every_task(name):
    data = load(name, "toy", train_rows=30, validation_rows=20)
    assert len(data.train) == 30 and len(data.validation["validation"]) == 20
    assert data.origin.kind == "toy" and "(and qqp, qnli," in data.origin.where
    assert data.task is TASKS[name]


@pytest.mark.parametrize("name", ["origin", *SPANS])
@pytest.mark.parametrize("count", [5, 3200])
def test_there_are_as_many_toy_rows_as_are_asked_for(name, count):
    assert len(load(name, "toy", train_rows=count).train) == count


def test_the_note_on_toy_rows_names_the_task_itself(monkeypatch):
    monkeypatch.setattr(hub, "answers", lambda: False)
    note = load("cloze", "auto").origin.note
    assert note.startswith("TOY DATA") and note.endswith("the real cloze")


def test_no_text_of_training_is_scored_on():
    data = load("origin", "toy")
    trained, scored = (
        {row["text"] for row in rows}
        for rows in (data.train, data.validation["validation"])
    )
    assert scored and not trained & scored


def test_where_the_hub_answers_all_of_it_is_the_hubs(monkeypatch):
    def read(dataset_id: str, name: str, split: str) -> list[dict]:
        task = TASKS[name]
        columns = [column for column in (task.text, task.pair) if column]
        rows = [dict.fromkeys(columns, text) for text in texts(f"{name}{split[0]}")]
        return [{**row, "label": 0} for row in rows]

    monkeypatch.setattr(hub, "answers", lambda: True)
    monkeypatch.setattr(hub_rows, "read", read)
    data = load("origin", "auto")
    assert data.origin.kind == "hub" and len(data.train) == 70
    assert all(row["text"].startswith(SET[row["label"]]) for row in data.train)
