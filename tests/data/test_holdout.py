"""What is held out of a training file: groups whole, classes in their shares."""

import json
from collections import Counter

import pytest

from metalr.data import holdout
from metalr.data.columns import Rows
from metalr.data.loading import load
from metalr.data.schema import Task
from tests.data.question_row import QA


def held(tmp_path, rows, **more):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load("file", train_file=path, **more)
    return data, data.train, data.validation["validation"]


@pytest.mark.parametrize("seed", range(5))
def test_questions_of_a_paragraph_stay_on_one_side(tmp_path, seed):
    rows = [
        {**QA, "id": str(n), "context": f"It was blue. {n // 7}", "question": f"{n}?"}
        for n in range(140)
    ]
    data, train, validation = held(tmp_path, rows, seed=seed)
    assert not set(train.column("context")) & set(validation.column("context"))
    assert len(validation) == 14 and len(train) == 126
    assert "questions of one paragraph on one side" in data.origin.note


def test_a_file_of_one_paragraph_is_split_by_question(tmp_path):
    rows = [{**QA, "id": str(n), "question": f"{n}?"} for n in range(20)]
    _, train, validation = held(tmp_path, rows)
    assert (len(train), len(validation)) == (18, 2)


@pytest.mark.parametrize("seed", range(5))
def test_equal_texts_stay_on_one_side(tmp_path, seed):
    rows = [
        {"text": f"{'Text' if n % 2 else 'text '} {n // 4}", "label": n % 2}
        for n in range(200)
    ]
    data, train, validation = held(tmp_path, rows, seed=seed)
    sides = [
        {text.lower().split()[1] for text in s.column("text")}
        for s in (train, validation)
    ]
    assert not sides[0] & sides[1] and len(validation) == 20
    assert "equal texts on one side" in data.origin.note


def test_a_premise_stays_on_one_side(tmp_path):
    rows = [
        {"premise": f"a long premise {n // 3}", "hypothesis": f"h {n}", "label": n % 3}
        for n in range(300)
    ]
    _, train, validation = held(tmp_path, rows)
    assert not set(train.column("premise")) & set(validation.column("premise"))


@pytest.mark.parametrize("seed", range(10))
def test_every_class_stays_in_training_and_thin_ones_are_said(tmp_path, seed):
    counts = {"common": 93, "usual": 90, "few": 8, "rare": 2, "single": 1}
    labels = [name for name, count in counts.items() for _ in range(count)]
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    data, train, validation = held(tmp_path, rows, seed=seed)
    names = data.task.labels
    kept = Counter(names[i] for i in train.column("label"))
    out = Counter(names[i] for i in validation.column("label"))
    assert out == {"common": 9, "usual": 9, "few": 1}
    assert all(kept[name] == counts[name] - out[name] > 0 for name in counts)
    said = "\n".join(data.reading.lines())
    assert "thin: 'few' (8 rows, 1 held out), 'rare' (2 rows, 0 held out)" in said
    assert "'single' (1 rows, 0 held out)" in said


def test_the_draw_follows_its_seed(tmp_path):
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(100)]
    drawn = [held(tmp_path, rows, seed=seed)[2].column("text") for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("kind", ["multilabel", "tokens"])
def test_no_label_of_several_is_lost_to_training(kind):
    rows = [{"text": f"t {n}", "labels": [0, 1] if n % 2 else [1]} for n in range(60)]
    rows += [{"text": f"rare {n}", "labels": [0, 2]} for n in range(2)]
    if kind == "tokens":
        rows = [
            {"text": r["text"].split(), "labels": [*r["labels"], 1][:2]} for r in rows
        ]
    task = Task(name="t", kind=kind, text="text", label="labels", hub=("", None),
                labels=("a", "b", "c"))  # fmt: skip
    for seed in range(5):
        parts = holdout.split(Rows.of(rows), task, "x", seed)
        found = {i for row in Rows.of(rows).select(parts.train) for i in row["labels"]}
        assert found == {0, 1, 2} and len(parts.held_out) >= 6


def test_where_only_large_groups_could_go_the_one_that_ends_no_class_does():
    texts = ["a"] + ["b"] * 2 + ["c"] * 4  # equal ones stay together
    rows = [{"text": text, "label": int(text != "a")} for text in texts]
    task = Task(name="t", text="text", labels=("x", "y"), hub=("", None))
    parts = holdout.split(Rows.of(rows), task, "x", 0)
    assert parts.held_out.tolist() == [1, 2]


def test_questions_of_one_paragraph_are_said_to_be_on_both_sides():
    row = {"question": "q", "context": "c", "answers": {"text": [], "answer_start": []}}
    rows = Rows.of([{**row, "question": f"q{n}"} for n in range(20)])
    task = Task(name="t", kind="qa", text="question", pair="context", label="answers",
                hub=("", None))  # fmt: skip
    assert "both sides have some" in holdout.split(rows, task, "x", 0).notes[-1]
