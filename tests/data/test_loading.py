"""Loading a task from every source."""

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import pyarrow.feather
import pytest

from metalr.data import hub_rows, tasks
from metalr.data.loading import fingerprint, load
from metalr.data.schema import Task
from metalr.data.tasks import FRESH, TASKS
from metalr.errors import MetalrError
from metalr.runtime import hub
from tests.data.test_rows import QA

REAL = Path(
    os.environ.get("METALR_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
# Rows of each set there: train, then each validation split.
REAL_ROWS = {
    "sst2": (20_000, 872),
    "mnli": (20_000, 1_000, 1_000),
    "qqp": (19_833, 1_000),
    "qnli": (18_869, 3_000),
    "cola": (8_551, 1_043),
    "rte": (2_490, 277),
    "mrpc": (3_668, 408),
    "stsb": (5_748, 1_500),
    "imdb": (20_000, 3_000),
    "ag_news": (14_547, 3_000),
    "squad": (11_877, 1_190),
    "squad_v2": (3_924, 2_154),
    "conll2003": (14_041, 3_250),
    "mr": (8_268, 2_000),
    "sst5": (8_541, 2_210),
    "sick": (4_500, 5_427),
    "emotion": (16_000, 2_000),
    "financial_phrasebank": (3_838, 1_000),
}
SST2 = [{"sentence": f"text {n}", "label": n % 2} for n in range(10)]


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_arrow(path: Path, rows: list[dict]) -> Path:
    pyarrow.feather.write_feather(pyarrow.Table.from_pylist(rows), path)
    return path


def write_csv(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# ------------------------------------------------------------ the table


def test_every_task_is_complete():
    for name, task in TASKS.items():
        assert task.name == name and task.metric in task.metrics
        named = ("classification", "tokens", "multilabel")
        assert bool(task.labels) == (task.kind in named)
        assert task.validation[0].startswith("validation") and task.max_length % 8 == 0


# ------------------------------------------------------------ folder, toy, hub, auto


@pytest.mark.skipif(not REAL.is_dir(), reason="no real rows on this machine")
@pytest.mark.parametrize("name", REAL_ROWS)
def test_the_real_rows_load_whole(name):
    data = load(name, str(REAL))
    counts = (len(data.train), *map(len, data.validation.values()))
    assert counts == REAL_ROWS[name]
    assert tuple(data.validation) == TASKS[name].validation
    assert data.origin.kind == "folder" and str(REAL / name) == data.origin.where


def test_a_folder_of_the_hubs_fields_loads(tmp_path):
    write_lines(tmp_path / "sst2" / "train.jsonl", SST2)
    write_csv(tmp_path / "sst2" / "validation.csv", SST2[:4])
    data = load("sst2", str(tmp_path))
    # CSV has no types, and its labels still come out as ids.
    assert data.train == SST2 and data.validation == {"validation": SST2[:4]}


def test_a_folder_holds_any_format_that_a_file_may_have(tmp_path):
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "train.json").write_text(json.dumps(SST2))
    write_arrow(tmp_path / "sst2" / "validation.arrow", SST2[:4])
    data = load("sst2", str(tmp_path))
    assert data.train == SST2 and data.validation == {"validation": SST2[:4]}


def test_what_a_folder_lacks_is_said(tmp_path):
    with pytest.raises(MetalrError, match="has no folder 'sst2'; it holds nothing"):
        load("sst2", str(tmp_path))
    write_lines(tmp_path / "sst2" / "train.jsonl", SST2)
    with pytest.raises(MetalrError, match="no file validation{.*}; it holds train.js"):
        load("sst2", str(tmp_path))
    write_csv(tmp_path / "sst2" / "train.csv", SST2)
    with pytest.raises(MetalrError, match="train.jsonl and train.csv: leave one"):
        load("sst2", str(tmp_path))


@pytest.mark.parametrize("name", [n for n in TASKS if n not in FRESH])
def test_toy_rows_pass_the_checks_of_every_task(name):
    data = load(name, "toy", train_rows=30, validation_rows=20)
    assert len(data.train) == 30 and data.origin.kind == "toy"
    assert {s: len(r) for s, r in data.validation.items()} == dict.fromkeys(
        TASKS[name].validation, 20
    )


def test_toy_sizes_by_default():
    data = load("sst2", "toy")
    assert (len(data.train), len(data.validation["validation"])) == (960, 240)
    assert data == load("sst2", "toy")


def test_auto_says_loudly_that_it_runs_on_toy_rows(monkeypatch):
    monkeypatch.setattr(hub, "answers", lambda: False)
    data = load("sst2", "auto", train_rows=5)
    assert data.origin.kind == "toy"
    assert data.origin.note.startswith("TOY DATA: the hub does not answer")


def fake_hub(monkeypatch, splits: dict[str, list[dict]]) -> list[tuple]:
    """Let the hub answer with these splits; return the list of what was asked."""
    asked = []

    def read(dataset_id: str, name: str | None, split: str) -> list[dict]:
        asked.append((dataset_id, name, split))
        if split not in splits:
            raise MetalrError("broken off")
        return splits[split]

    monkeypatch.setattr(hub, "answers", lambda: True)
    monkeypatch.setattr(hub_rows, "read", read)
    return asked


@pytest.mark.parametrize("source", ["auto", "hub"])
def test_the_hub_is_taken_where_it_answers(monkeypatch, source):
    rows = [{**row, "idx": n} for n, row in enumerate(SST2)]
    asked = fake_hub(monkeypatch, {"train": rows, "validation": rows[:3]})
    data = load("sst2", source)
    assert asked == [("nyu-mll/glue", "sst2", s) for s in ("train", "validation")]
    assert data.train == SST2 and data.validation == {"validation": SST2[:3]}
    assert data.origin == ("hub", "nyu-mll/glue sst2", "", "")


def test_sets_without_a_validation_split_are_scored_on_test(monkeypatch):
    rows = [{"text": "x", "label": 1}]
    asked = fake_hub(monkeypatch, {"train": rows, "test": rows})
    assert list(load("imdb", "hub").validation) == ["validation"]
    assert asked[1] == ("stanfordnlp/imdb", None, "test")


def test_a_few_empty_texts_on_the_hub_are_left_out_and_counted(monkeypatch):
    rows = [*SST2, {"sentence": "", "label": 0}]
    fake_hub(monkeypatch, {"train": rows, "validation": SST2})
    data = load("sst2", "hub")
    assert data.train == SST2
    assert data.origin.note == "rows with an empty text left out: 1"


def test_a_hub_that_breaks_off_is_a_fault_or_in_auto_toy(monkeypatch):
    fake_hub(monkeypatch, {"train": SST2})
    with pytest.raises(MetalrError, match="broken off"):
        load("sst2", "hub")
    data = load("sst2", "auto", train_rows=5)
    assert data.origin.kind == "toy" and "broken off" in data.origin.note


def test_fingerprint_tells_rows_that_differ_in_a_label_order_or_split():
    def of(train, validation):
        data = load("sst2", "toy", train_rows=3)
        return fingerprint(data._replace(train=train, validation=validation))

    rows = [{"sentence": text, "label": 0} for text in "abc"]
    other = [*rows[:2], rows[2] | {"label": 1}]
    same = of(rows, {"validation": rows[:1]})
    assert of(list(rows), {"validation": rows[:1]}) == same
    for train, validation in [(other, rows[:1]), (rows[::-1], rows[:1]), (rows, [])]:
        assert of(train, {"validation": validation})["sha256"] != same["sha256"]
    assert of(rows[:2], {"validation": rows[2:]}) != of(
        rows[:1], {"validation": rows[1:]}
    )


def test_the_draw_depends_on_its_own_seed_alone(tmp_path):
    write_lines(tmp_path / "sst2" / "train.jsonl", SST2)
    write_lines(tmp_path / "sst2" / "validation.jsonl", SST2)
    few = load("sst2", str(tmp_path), train_rows=4, validation_rows=99)
    assert few.train == load("sst2", str(tmp_path), train_rows=4).train
    assert few.train == load("sst2", str(tmp_path), train_rows=6).train[:4]
    assert few.train != SST2[:4] and all(row in SST2 for row in few.train)
    assert few.validation["validation"] == SST2


# ------------------------------------------------------------ the user's own files


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


def test_a_task_is_frozen():
    with pytest.raises(AttributeError):
        TASKS["sst2"].name = "x"  # type: ignore[misc]
    assert isinstance(tasks.TASKS["sst2"], Task)
