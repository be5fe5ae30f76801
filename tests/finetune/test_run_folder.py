"""A run's folder has one owner at a time, and a killed start leaves no riddle."""

import os
import socket
import subprocess
import sys

import pytest

from metalr import stored_predictor
from metalr.errors import MetalrError
from metalr.finetune import run_folder
from metalr.finetune.config import RunConfig
from metalr.predictor import init_predictor
from metalr.runtime import files, locks

pytestmark = pytest.mark.fast

CONFIG = RunConfig()
SAME = {"kind": "hub", "where": "nyu-mll/glue sst2", "sha256": "1f"}
KEPT = {run_folder.SETTINGS, run_folder.CONFIG, run_folder.ROWS, run_folder.FILES}
HOLDER = """
import sys, time
from pathlib import Path
from metalr.finetune import run_folder
with run_folder.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def check(folder, **flags):
    flags = {"resume": False, "overwrite": False, **flags}
    run_folder.check(folder, flags.pop("config", CONFIG), **flags)


def test_second_program_is_told_who_holds_the_folder_until_that_one_is_killed(tmp_path):
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        said = rf"in use by process {holder.pid} on {socket.gethostname()}; wait"
        with pytest.raises(MetalrError, match=said), run_folder.held(folder):
            pass
        holder.kill()
        holder.wait(timeout=200)
    with run_folder.held(folder):
        content = locks.owner_file(folder / run_folder.LOCK).read_text()
    assert content.startswith(f"process {os.getpid()} on")


def test_folder_that_nothing_was_put_into_goes_again(tmp_path):
    with pytest.raises(ZeroDivisionError), run_folder.held(tmp_path / "a" / "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "a" / "run").exists()


def test_folder_that_was_there_or_was_filled_stays(tmp_path):
    (tmp_path / "old").mkdir()
    with run_folder.held(tmp_path / "old"), run_folder.held(tmp_path / "new"):
        (tmp_path / "new/file").touch()
    assert (tmp_path / "old").is_dir() and (tmp_path / "new/file").exists()


def test_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MetalrError, match="cannot write to .*--output"):
        with run_folder.held(tmp_path / "file" / "run"):
            pass


def test_start_that_was_killed_before_its_settings_were_written_can_begin_again(
    tmp_path,
):
    (tmp_path / run_folder.LOCK).touch()
    (tmp_path / ".settings.json.draft-12").write_text("{")
    check(tmp_path)
    with pytest.raises(MetalrError, match="nothing to resume"):
        check(tmp_path, resume=True)
    run_folder.take(tmp_path, CONFIG, SAME, overwrite=False)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {run_folder.LOCK, *KEPT}
    assert files.read_json(tmp_path / run_folder.SETTINGS) == CONFIG.to_json()


def test_overwriting_that_is_killed_leaves_a_folder_that_can_be_overwritten(
    tmp_path, monkeypatch
):
    run_folder.take(tmp_path, CONFIG, SAME, overwrite=False)
    (tmp_path / "zz").touch()
    (tmp_path / "checkpoints").mkdir()

    def dies(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            run_folder.take(tmp_path, CONFIG, SAME, overwrite=True)
    check(tmp_path, overwrite=True)
    run_folder.take(tmp_path, CONFIG, SAME, overwrite=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == KEPT


def test_start_that_is_killed_between_its_two_files_can_begin_again(
    tmp_path, monkeypatch
):
    write, written = files.write_json, []

    def once(path, content):
        if written:
            raise KeyboardInterrupt
        written.append(write(path, content))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", once)
        with pytest.raises(KeyboardInterrupt):
            run_folder.take(tmp_path, CONFIG, SAME, overwrite=False)
    check(tmp_path)
    run_folder.take(tmp_path, CONFIG, SAME, overwrite=False)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"kind": "toy", "where": "metalr's own"}, "now toy metalr's own"),
        ({"sha256": "2e"}, "the same place"),
    ],
)
def test_run_that_was_begun_on_other_rows_is_refused_and_not_to_be_overwritten(
    now, said, tmp_path
):
    run_folder.take(tmp_path, CONFIG, SAME, overwrite=False)
    run_folder.take(tmp_path, CONFIG, SAME, overwrite=False)
    with pytest.raises(MetalrError, match=said) as told:
        run_folder.take(tmp_path, CONFIG, SAME | now, overwrite=False)
    assert "begun on other rows (hub nyu-mll/glue sst2" in str(told.value)
    assert "--overwrite" not in str(told.value)
    run_folder.take(tmp_path, CONFIG, SAME | now, overwrite=True)
    assert files.read_json(tmp_path / run_folder.ROWS) == SAME | now


MODEL = {"where": "tiny", "config": "1", "weights": "2", "tokenizer": "3"}


@pytest.mark.parametrize("part", ["config", "weights", "tokenizer"])
def test_run_that_was_begun_with_another_model_of_the_name_is_refused(part, tmp_path):
    run_folder.take(tmp_path, CONFIG, SAME, MODEL, overwrite=False)
    run_folder.take(tmp_path, CONFIG, SAME, MODEL, overwrite=False)
    other = MODEL | {part: "9"}
    with pytest.raises(MetalrError, match=rf"begun with other .* tiny \({part}\)"):
        run_folder.take(tmp_path, CONFIG, SAME, other, overwrite=False)
    run_folder.take(tmp_path, CONFIG, SAME, other, overwrite=True)
    assert files.read_json(tmp_path / run_folder.MODEL) == other


def test_run_of_a_version_that_kept_no_model_file_goes_on(tmp_path):
    run_folder.take(tmp_path, CONFIG, SAME, overwrite=False)
    run_folder.take(tmp_path, CONFIG, SAME, MODEL, overwrite=False)
    assert files.read_json(tmp_path / run_folder.MODEL) == MODEL


def test_run_whose_files_have_changed_is_refused_even_where_it_is_finished(tmp_path):
    rows, weights = tmp_path / "rows.csv", tmp_path / "weights.json"
    rows.write_text("text,label\na,b\n")
    weights.write_text('{"a": 1}')
    config = RunConfig(train_file=str(rows), class_weights=str(weights))
    folder = tmp_path / "run"
    run_folder.take(folder, config, SAME, overwrite=False)
    check(folder, config=config)
    for path, flag in ((rows, "train-file"), (weights, "class-weights")):
        before = path.read_text()
        path.write_text(before + " ")
        for name in (run_folder.SETTINGS, run_folder.RESULT):
            (folder / name).touch()
            with pytest.raises(MetalrError, match=f"other contents of --{flag}; bring"):
                check(folder, config=config)
        check(folder, config=config, overwrite=True)
        path.write_text(before)
        (folder / run_folder.RESULT).unlink()
    rows.unlink()  # nothing is known of what it held
    check(folder, config=config)


@pytest.mark.parametrize("task", [None, "sst2"], ids=["left out", "sst2"])
def test_changed_rows_of_a_data_folder_are_refused_however_the_task_is_said(
    task, tmp_path
):
    data, folder = tmp_path / "data", tmp_path / "run"
    (data / "sst2").mkdir(parents=True)
    rows = data / "sst2" / "train.jsonl"
    rows.write_text('{"sentence": "a", "label": 0}\n')
    config = RunConfig(task=task, data=str(data))
    run_folder.take(folder, config, SAME, overwrite=False)
    (folder / run_folder.RESULT).touch()
    check(folder, config=config)
    rows.write_text('{"sentence": "b", "label": 1}\n')
    with pytest.raises(MetalrError, match="other contents of --data; bring"):
        check(folder, config=config)


def test_run_that_was_begun_under_another_predictor_does_not_go_on(
    tmp_path, monkeypatch
):
    own = tmp_path / "predictor"
    stored_predictor.save_predictor(own, init_predictor(0), {})
    for number, path in enumerate((str(own), None)):
        folder = tmp_path / f"run{number}"
        config = RunConfig(scheduler="metalr", predictor=path)
        run_folder.take(folder, config, SAME, overwrite=False)
        with monkeypatch.context() as patch:
            patch.setattr(stored_predictor, "read_metadata", lambda of: {"sha256": "1"})
            with pytest.raises(MetalrError, match="other contents of --predictor"):
                check(folder, config=config)
            # What an earlier metalr did to the end is shown by a newer one.
            (folder / run_folder.RESULT).touch()
            if path is None:
                check(folder, config=config)
