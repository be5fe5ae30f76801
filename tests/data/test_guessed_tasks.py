"""What columns and labels are taken for is said, and the user may say otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metalr.data.loading import load
from metalr.errors import MetalrError
from tests.data.rows_of_files import csv_of, write

ROOT = Path(__file__).parents[2]
UNDERSTOOD = {
    "percent": ([f"{n % 50}%" for n in range(99)], "regression", "from 0% to 49%"),
    "ignored": ([0, 1, 2] * 9 + [-100] * 2, "classification", "2 no gold label (-100)"),
    "no score": ([0.5, 1.5, "-"] * 5, "regression", "left out: 5 no gold label (-)"),
    "minus one of scores": ([0.5, 1.5, -1] * 5, "regression", "5 of 15 rows have it"),
    "nan among words": (["yes", "no", "nan"] * 5, "classification", "'nan' is a class"),
    "case": (["yes", "Yes", "no"] * 5, "classification", "for their case: Yes and yes"),
    "zeros before": (["7", "07", "8"] * 5, "classification", "as numbers: 07 and 7"),
    "one row each": ([f"t{n}" for n in range(40)], "classification", "have one row"),
    "control characters": (["a\x1b[2J", "\u202eb"] * 5, "classification", "\\u202eb 4"),
    "scores to 100": (
        [n * 37 % 101 for n in range(80)],
        "regression",
        "taken for scores",
    ),
    "ids without gap": ([n % 30 for n in range(300)], "classification", "30 classes"),
    "three of each id": ([n % 30 for n in range(90)], "classification", "30 classes"),
    "not three of each": ([n % 30 for n in range(89)], "regression", "for scores"),
    "codes": ([f"0{n % 30}" for n in range(99)], "classification", "30 classes"),
    "stars": ([n % 5 + 1 for n in range(50)], "classification", "5 classes"),
    "fractions": ([0.5, 1, 2] * 5, "regression", "regression of text"),
    "decimal commas": (['"3,5"', '"4,0"', "2"] * 5, "regression", "decimal comma"),
    "true": (
        ["true", "True", "FALSE", "false"] * 5,
        "classification",
        "2 classes: false 9,",
    ),
    "sentiment": ([-1, 0, 1] * 9, "classification", "-1 taken for a class: 33%"),
    "plus and minus": (["+", "-"] * 9, "classification", "2 classes: + "),
    "minus one of two": ([-1, 1] * 9, "classification", "2 classes: -1 "),
    "dashes": (
        ["yes", "no", "-"] * 9,
        "classification",
        "left out: 9 no gold label (-)",
    ),
    "hidden": ([0, 1, 2] * 9 + [-1] * 2, "classification", "2 no gold label (-1)"),
    "header again": (["yes", "no", "label"] * 5, "classification", "'label' is named"),
    "accents": (["caf\u00e9", "cafe\u0301", "tea"] * 5, "classification", "2 classes"),
}


@pytest.mark.parametrize("labels, kind, said", UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_what_labels_are_taken_for_is_said(tmp_path, labels, kind, said):
    data = load("file", train_file=csv_of(tmp_path, labels))
    assert data.task.kind == kind
    assert said in "\n".join(data.reading.lines())
    assert data.reading.to_json()["kind"] == kind


@pytest.mark.parametrize(
    ("more", "guessed"),
    [({}, True), ({"label_separator": "|"}, False), ({"kind": "multilabel"}, False)],
)
def test_a_kind_is_said_to_be_guessed_only_where_it_was(more, guessed, tmp_path):
    rows = [{"text": f"t{n}", "labels": ["joy", "fear"][n % 2 :]} for n in range(4)]
    path = write(tmp_path / "x.json", rows)
    data = load("file", train_file=path, validation_file=path, **more)
    assert data.task.kind == "multilabel"
    assert ("taken for multilabel" in "\n".join(data.reading.lines())) is guessed


def test_the_user_says_what_the_rows_are(tmp_path):
    path = csv_of(tmp_path, [n * 37 % 101 for n in range(80)])
    data = load("file", train_file=path, kind="classification")
    assert data.task.kind == "classification" and len(data.task.labels) == 80
    path = csv_of(tmp_path, [1, 2, 3] * 9)
    assert load("file", train_file=path, kind="regression").task.kind == "regression"
    path = csv_of(tmp_path, ["low", "high"] * 9)
    with pytest.raises(MetalrError, match="'low', which is not a finite number"):
        load("file", train_file=path, kind="regression")
    with pytest.raises(MetalrError, match="column 'question' is missing"):
        load("file", train_file=path, kind="qa")
    with pytest.raises(MetalrError, match="sst2 is a classification; --kind"):
        load("sst2", train_file=path, kind="regression")


@pytest.mark.parametrize(
    "pair",
    [
        ("text", "text_pair"),
        ("question", "sentence"),
        ("premise", "hypothesis"),
        ("sentence1", "sentence2"),
        ("question1", "question2"),
        ("Sentence_A", "Sentence_B"),
        ("text_1", "text_2"),
        ("textA", "textB"),
        ("s1", "s2"),
        ("text", "text2"),
        ("query", "document"),
        ("claim", "evidence"),
    ],
)
@pytest.mark.parametrize("label", ["label", "gold_label"])
def test_pairs_are_known_by_their_columns(tmp_path, pair, label):
    rows = [{"id": n, pair[0]: "a", pair[1]: f"b{n}", label: n % 2} for n in range(20)]
    data = load("file", train_file=write(tmp_path / "x.json", rows))
    assert (data.task.text, data.task.pair, data.task.label) == (*pair, label)
    assert data.reading.columns == (*pair, label) and data.reading.unread == ("id",)


def test_what_is_left_out_of_a_known_set_is_counted(tmp_path):
    rows = [{"sentence": f"t{n}", "label": n % 3 - 1} for n in range(30)]
    path = write(tmp_path / "x.json", rows)
    data = load("sst2", train_file=path, validation_file=path)
    assert len(data.train) == 20
    assert data.reading.left_out == {"no gold label (-1)": 20}  # of both


def test_the_order_of_classes_does_not_hang_on_hashes(tmp_path):
    path = csv_of(tmp_path, ["7", "07", "12", "7.0", "007"] * 6)
    script = (
        "import sys; from metalr.data.loading import load; "
        "print(load('file', train_file=sys.argv[1]).task.labels)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script, str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert said == {"('007', '07', '7', '12')\n"}
