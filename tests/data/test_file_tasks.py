"""What a file of rows says of its task, and what is refused."""

import math
from typing import Any

import pytest

from metalr.data.loading import load
from metalr.errors import MetalrError
from tests.data.question_row import QA
from tests.data.written_rows import write_csv, write_lines


@pytest.mark.parametrize(
    "write, name", [(write_lines, "x.jsonl"), (write_csv, "x.csv")]
)
@pytest.mark.parametrize(
    "labels, names",
    [
        (["pos", "neg", "pos"], ("neg", "pos")),
        ([10, 2, 2], ("2", "10")),
        ([2.0, 1.0, 1.0], ("1", "2")),
        (["3 stars", 1, 1], ("1", "3 stars")),
    ],
)
def test_a_files_labels_define_the_task(tmp_path, write, name, labels, names):
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    path = write(tmp_path / name, rows)
    data = load("file", train_file=path, validation_file=path)
    assert data.task.labels == names and data.task.kind == "classification"
    spelled = [names[row["label"]] for row in data.train]
    assert spelled == [str(int(v) if isinstance(v, float) else v) for v in labels]
    assert data.origin.kind == "file" and data.origin.note == ""


def test_fractions_make_a_regression(tmp_path):
    rows = [{"sentence": "a", "label": 1}, {"sentence": "b", "label": 2.5}]
    path = write_csv(tmp_path / "x.csv", rows)
    data = load("file", train_file=path, validation_file=path)
    assert data.task.kind == "regression" and data.task.metric == "pearson"
    assert [row["label"] for row in data.train] == [1.0, 2.5]


def test_squads_columns_make_a_task_of_questions(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [QA, QA])
    data = load("file", train_file=path, validation_file=path)
    assert (data.task.kind, data.task.name) == ("qa", "file")
    assert data.train[0] == QA


def test_columns_may_be_named_and_pairs_are_guessed(tmp_path):
    rows = [{"premise": "a", "hypothesis": f"b{n}", "label": n % 2} for n in range(20)]
    guessed = load("file", train_file=write_lines(tmp_path / "x.jsonl", rows))
    assert (guessed.task.text, guessed.task.pair) == ("premise", "hypothesis")
    named = load(
        "file",
        train_file=tmp_path / "x.jsonl",
        text_column="hypothesis",
        pair_column="premise",
    )
    assert (named.task.text, named.task.pair) == ("hypothesis", "premise")


def test_a_tenth_is_held_out_where_there_is_no_validation_file(tmp_path):
    path = write_lines(
        tmp_path / "x.jsonl", [{"text": f"t{n}", "label": n % 2} for n in range(50)]
    )
    data = load("file", train_file=path)
    validation = data.validation["validation"]
    assert (len(data.train), len(validation)) == (45, 5)
    assert len({row["text"] for row in [*data.train, *validation]}) == 50
    assert data.origin.note == "5 rows of the training file held out for validation"
    # Naming the file as the data is the same.
    assert load("file", str(path)) == data


def test_a_task_named_beside_a_file_keeps_its_labels(tmp_path):
    rows = [{"review": "a", "label": "positive"}, {"review": "b", "label": 1}]
    path = write_lines(tmp_path / "x.jsonl", rows)
    data = load("sst2", train_file=path, validation_file=path, text_column="review")
    assert data.task.labels == ("negative", "positive") and data.task.text == "review"
    assert data.train == [{"review": "a", "label": 1}, {"review": "b", "label": 1}]


BAD_FILES: dict[str, tuple[list[dict], dict[str, Any], str]] = {
    "no text": ([{"body": "a", "label": 1}], {}, "it has body, label. Name it with"),
    "no label": ([{"text": "a", "y": 1}], {}, "it has text, y. Name it with --la"),
    "no such text": (
        [{"text": "a", "label": 1}],
        {"text_column": "txt"},
        "row 1: column 'txt' is missing; the row has text, label",
    ),
    "one label": ([{"text": "a", "label": 1}], {}, "holds '1' in every row"),
    "no label value": (
        [{"text": "a", "label": "x"}, {"text": "a", "label": None}],
        {},
        "row 2: column 'label' holds None, which is not a label",
    ),
    "NaN label": (
        [{"text": "a", "label": 1.5}, {"text": "a", "label": math.nan}],
        {},
        "row 2: column 'label' holds nan",
    ),
    "a label in an object": (
        [{"text": "a", "label": {"of": 1}}],
        {},
        r"holds \{'of': 1\}, which is not a label",
    ),
    "too many labels": (
        [{"text": "a", "label": f"l{n}"} for n in range(1001)],
        {},
        "holds 1001 different labels",
    ),
    "one row": ([QA], {}, "has one row, and none to hold out"),
    "qa columns": ([QA], {"pair_column": "x"}, "SQuAD's columns"),
}


@pytest.mark.parametrize("rows, more, message", BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_defines_no_task_is_refused(tmp_path, rows, more, message):
    path = write_lines(tmp_path / "x.jsonl", rows)
    with pytest.raises(MetalrError, match=message):
        load("file", train_file=path, **more)


def test_a_validation_label_that_training_lacks_is_refused(tmp_path):
    train = write_lines(
        tmp_path / "x.jsonl", [{"text": "a", "label": "p"}, {"text": "b", "label": "n"}]
    )
    for label in ("maybe", 0):
        other = write_lines(tmp_path / "y.jsonl", [{"text": "a", "label": label}])
        message = f"y.jsonl row 1: .* holds {label!r}; the training file knows n, p"
        with pytest.raises(MetalrError, match=message):
            load("file", train_file=train, validation_file=other)


# The labels of training, one of validation, and the end of the error.
WITHOUT_LABEL: dict[str, tuple[list[Any], Any, str]] = {
    "class": (["n", "p"], None, "or write - for a row without a gold label"),
    "dash is a class": (["-", "+"], "x", "knows +, -; leave the row out"),
    "score": ([0.25, 0.5], None, "or write - for a row without a gold label"),
    "other tag": ([["O", "B-X"]] * 2, ["O", "B-Y"], "knows O, B-X; leave the row out"),
    "no tags": ([["O", "B-X"]] * 2, None, "not a list of labels; leave the row out"),
    "many": ([f"{n:02}" for n in range(25)], "x", " 19 and 5 more; leave the row out"),
}


@pytest.mark.parametrize("name", WITHOUT_LABEL)
def test_a_validation_row_without_a_label_is_refused_with_a_way_out(tmp_path, name):
    known, label, message = WITHOUT_LABEL[name]
    tags = isinstance(known[0], list)
    row = {"tokens": ["a", "b"]} if tags else {"text": "a"}
    column = "tags" if tags else "label"
    train = [{**row, column: one} for one in known]
    files = {
        "train_file": write_lines(tmp_path / "x.jsonl", train),
        "validation_file": write_lines(tmp_path / "y.jsonl", [{**row, column: label}]),
    }
    with pytest.raises(MetalrError, match="y.jsonl row 1") as fault:
        load("file", **files)
    assert message in str(fault.value)


BAD_CALLS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "task": ("sst22", "toy", {}, "unknown task 'sst22'; did you mean 'sst2'"),
    "task of a file": ("sst", "auto", {"train_file": "x"}, "unknown task 'sst'"),
    "source": ("sst2", "hubb", {}, "got 'hubb'; did you mean 'hub'"),
    "long source": ("sst2", "x" * 5000, {}, "a folder or file that exists"),
    "long file": ("sst2", "auto", {"train_file": "x" * 5000 + ".csv"}, "not exist"),
    "rows": ("sst2", "toy", {"train_rows": 0}, "train rows must be at least 1, got 0"),
    "columns alone": ("sst2", "toy", {"text_column": "x"}, "go with --train-file"),
    "validation alone": (
        "sst2",
        "toy",
        {"validation_file": "x"},
        "go with --train-file",
    ),
    "two sources": ("sst2", "toy", {"train_file": "x.csv"}, "or --data toy, not both"),
    "no toy": ("mr", "toy", {}, "no generated rows in the form of mr"),
    "not on the hub": ("sick", "hub", {}, "has sick only behind a script"),
    "no file": ("sst2", "auto", {"train_file": "no.csv"}, "no.csv does not exist"),
}


@pytest.mark.parametrize(
    "name, source, more, message", BAD_CALLS.values(), ids=BAD_CALLS
)
def test_what_does_not_go_together_is_refused(name, source, more, message):
    with pytest.raises(MetalrError, match=message):
        load(name, source, **more)
