"""Result files are whole, plain JSON, and checked when they are read."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from metalr.errors import MetalrError
from metalr.finetune.result import read_result
from metalr.runtime import files
from tests.runtime.a_result import RESULT

pytestmark = pytest.mark.fast


def test_result_survives_the_way_through_the_file(tmp_path):
    files.write_json(tmp_path / "result.json", RESULT)
    assert read_result(tmp_path / "result.json") == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32("nan"), None),
        (np.float32(0.5), 0.5),
        (jnp.float32(0.25), 0.25),
        (np.array([1, 2]), [1, 2]),
        ((1, math.inf), [1, None]),
        ("gr\udcf6\xdf", "gr\udcf6\xdf"),  # a file name that is no UTF-8
        (Path("a/b"), "a/b"),
        (True, True),
    ],
)
def test_values_become_what_any_json_parser_reads(tmp_path, value, plain):
    path = tmp_path / "result.json"
    files.write_json(path, {"deep": [{"value": value}]})

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found == {"deep": [{"value": plain}]}


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "result.json"
    files.write_json(path, RESULT)
    before = path.read_bytes()

    def dies(draft):
        draft.write_text("half of")
        raise OSError(28, "No space left on device")

    with pytest.raises(MetalrError, match=r"cannot write .*result\.json: No space"):
        files.replace(path, dies)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_writing_into_a_missing_folder_is_one_clear_line(tmp_path):
    with pytest.raises(MetalrError, match="cannot write .*No such file"):
        files.write_json(tmp_path / "none" / "result.json", RESULT)


UNWRITABLE = {
    "there": ("old.json", "exists; name a new file"),
    "a link": ("link.json", "exists; name a new file"),
    "no folder": ("none/new.json", "there is no folder"),
    "a file for a folder": ("old.json/new.json", "there is no folder"),
    "a long name": ("x" * 300, "File name too long"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_new_file_that_cannot_be_is_refused_beforehand(name, tmp_path):
    (tmp_path / "old.json").touch()
    (tmp_path / "link.json").symlink_to("nowhere")
    path, message = UNWRITABLE[name]
    with pytest.raises(MetalrError, match=message):
        files.check_new(tmp_path / path)
    files.check_new(tmp_path / "new.json")
    assert {path.name for path in tmp_path.iterdir()} == {"old.json", "link.json"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"task": "ss', "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[1, 2]", "must hold a JSON object, got list"),
        (b'{"epochs": 3}', "is not a result of metalr: missing task"),
        (json.dumps(RESULT | {"history": 3}).encode(), "history has type int"),
        (json.dumps(RESULT | {"history": [{}]}).encode(), "rows without a step"),
    ],
)
def test_broken_and_foreign_files_are_named(tmp_path, content, message):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(MetalrError, match=message) as fault:
        read_result(path)
    assert str(path) in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MetalrError, match="cannot read .*none.json: No such file"):
        files.read_json(tmp_path / "none.json")


def write_two(draft):
    (draft / "a").write_text("new")
    (draft / "b").write_text("new")
    (draft / "b").chmod(0o600)


def test_filled_folder_has_whole_files_with_the_rights_of_new_ones(tmp_path):
    folder = tmp_path / "model"
    (folder / ".files.draft-12").mkdir(parents=True)  # of a kill
    (folder / ".files.draft-12/.tmpAbC").write_text("half of")
    (folder / "a").write_text("old")
    (folder / "mine").write_text("old")
    files.fill(folder, write_two)
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {"a": "new", "b": "new", "mine": "old"}
    (tmp_path / "plain").touch()
    assert {p.stat().st_mode for p in (folder / "a", folder / "b")} == {
        (tmp_path / "plain").stat().st_mode
    }


def test_filling_that_fails_leaves_the_old_files_and_no_draft(tmp_path):
    (tmp_path / "a").write_text("old")

    def dies(draft):
        write_two(draft)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.fill(tmp_path, dies)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]
