"""A store of results loses no whole line, keeps no torn one, and says what is wrong."""

import json
import multiprocessing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalr.compare import store
from metalr.errors import MetalrError
from metalr.finetune.result import FIELDS

pytestmark = pytest.mark.fast


def line(key="a", **changes):
    empty = {dict: {}, list: [], str: "x", int: 0}
    fields = {name: empty[kind] for name, (kind, *_) in FIELDS.items()}
    fields |= {"chance": {"x": 0.5}, "settings": {"learning_rate": 2e-5}}
    return {"kind": "run", "key": key, **fields, **changes}


def test_lines_come_back_in_order_with_numbers_that_json_has(tmp_path):
    path = tmp_path / "runs.jsonl"
    store.append(path, line("a", seconds=1.5))
    store.append(path, line("b", metrics={"f1": float("nan")}))
    found = store.read_lines(path)
    assert [row["key"] for row in found] == ["a", "b"]
    assert found[0]["seconds"] == 1.5 and found[1]["metrics"] == {"f1": None}


def test_stores_of_two_machines_merge_by_concatenation_and_the_last_line_counts(
    tmp_path,
):
    for name, seed in (("one", 1), ("two", 2)):
        store.append(tmp_path / name, line("a", seed=seed))
    store.append(tmp_path / "two", line("b"))
    both = tmp_path / "both"
    both.write_bytes((tmp_path / "one").read_bytes() + (tmp_path / "two").read_bytes())
    assert {row["key"]: row["seed"] for row in store.read_lines(both)} == {
        "a": 2,
        "b": 0,
    }


@given(cut=st.integers(1, 200))
def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_append(
    cut, tmp_path_factory
):
    path = tmp_path_factory.mktemp("torn") / "runs.jsonl"
    store.append(path, line("a"))
    store.append(path, line("b"))
    path.write_bytes(path.read_bytes()[:-cut])
    assert [row["key"] for row in store.read_lines(path)] == ["a"]
    store.append(path, line("c"))
    assert [row["key"] for row in store.read_lines(path)] == ["a", "c"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{not json}", "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ("3", "not a result"),
        ('{"kind": "run"}', "not a result"),
        ('{"key": "a", "version": 7}', "version 7"),
        ('{"key": "a", "version": 1, "kind": "?"}', "neither a run nor"),
        ('{"key": "a", "version": 1, "kind": "run"}', "missing task, model"),
    ],
)
def test_a_broken_line_is_named_with_the_way_out(text, said, tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(MetalrError, match=said):
        store.read_lines(path)


def test_an_endless_line_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LONGEST_LINE", 1000)
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps({"key": "a" * 2000}) + "\n")
    with pytest.raises(MetalrError, match="too long"):
        store.read_lines(path)


def test_a_missing_store_is_one_clear_line(tmp_path):
    with pytest.raises(MetalrError, match="cannot read .*No such file"):
        store.read_lines(tmp_path / "none")


def _append_many(path, name):
    for number in range(50):
        store.append(path, line(f"{name}-{number}", notes=["x" * 5000]))


def test_two_processes_that_append_at_once_lose_no_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(path, n)) for n in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(store.read_lines(path)) == 100


def test_key_tells_settings_apart_and_not_folders():
    one = {"seed": 1, "learning_rate": 2e-5, "output": "a"}
    assert store.key(one) == store.key({**one, "output": None})
    assert store.key(one) != store.key({**one, "seed": 2})
    assert store.key(one) != store.key(one, predictor_sha256="0")
