"""Loading a task from every source."""

import json
import os
from pathlib import Path

import pytest

from metalr.data import hub_rows, tasks
from metalr.data.loading import fingerprint, load
from metalr.data.schema import Task
from metalr.data.tasks import FRESH, TASKS
from metalr.errors import MetalrError
from metalr.runtime import hub
from tests.data.written_rows import write_arrow, write_csv, write_lines

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


def test_a_task_is_frozen():
    with pytest.raises(AttributeError):
        TASKS["sst2"].name = "x"  # type: ignore[misc]
    assert isinstance(tasks.TASKS["sst2"], Task)
