"""The same command goes on with its own run alone, and touches no folder of another."""

import json
import os
import shutil
import sys

import pytest

from metalr import cli
from metalr.finetune import run_folder
from tests.finetune.commands import FAST, SMALL


def test_same_command_again_shows_the_finished_run_and_changes_nothing(
    run, tmp_path, capsys
):
    argv = ("--task", "sst2", *SMALL, *FAST, "--output", "out")
    assert run(*argv) == 0
    before = (tmp_path / "out/result.json").read_bytes()
    assert run(*argv) == 0
    assert "finished run" in capsys.readouterr().out
    assert (tmp_path / "out/result.json").read_bytes() == before
    assert run(*argv[:-2], "--seed", 1, "--output", "out") == 2
    assert "other settings (seed)" in capsys.readouterr().err
    assert run(*argv[:-2], "--seed", 1, "--output", "out", "--overwrite") == 0
    assert json.loads((tmp_path / "out/result.json").read_text())["seed"] == 1


def test_run_whose_rows_have_changed_does_not_go_on(run, tmp_path, capsys):
    rows = [{"sentence": f"good {n}", "label": n % 2} for n in range(24)]

    def write(rows):
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / "rows.jsonl").write_text(text)

    argv = ("--train-file", "rows.jsonl", "--epochs", 1, *FAST, "--output", "out")
    write(rows)
    assert run(*argv) == 0
    (tmp_path / "out/result.json").unlink()  # as of a run that was killed at its end
    write([row | {"label": 1 - row["label"]} for row in rows])
    assert run(*argv) == 2
    assert "begun with other contents of --train-file" in capsys.readouterr().err


def test_model_or_tokenizer_that_was_replaced_under_its_name_is_refused(
    tiny, run, tmp_path, capsys
):
    model = tmp_path / "mine"
    shutil.copytree(tiny, model)
    argv = ("--task", "sst2", *SMALL, *FAST, "--output", "out")
    assert run(*argv, model=model) == 0
    (tmp_path / "out/result.json").unlink()  # as of a run that was killed at its end
    config = json.loads((model / "tokenizer_config.json").read_text())
    changed = json.dumps(config | {"do_lower_case": False})
    (model / "tokenizer_config.json").write_text(changed)
    assert run(*argv, model=model) == 2
    assert "begun with other files of the model" in capsys.readouterr().err
    shutil.copy(tiny / "tokenizer_config.json", model)
    assert run(*argv, model=model) == 0


def test_second_run_on_a_folder_in_use_is_refused_and_the_first_untouched(
    run, tmp_path, capsys
):
    with run_folder.held(tmp_path / "out"):
        assert run("--task", "sst2", *SMALL, "--output", "out") == 2
        assert f"in use by process {os.getpid()} on" in capsys.readouterr().err
        assert run_folder.contents(tmp_path / "out") == []


def test_folder_that_is_no_run_is_never_touched(run, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    for flags in ((), ("--overwrite",), ("--resume",)):
        assert run("--task", "sst2", *SMALL, "--output", "thesis", *flags) == 2
        assert "is not a run of metalr" in capsys.readouterr().err
    assert (tmp_path / "thesis/chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_way_to_go_on_never_deletes_what_was_saved(flags, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["finetune.py", *flags])
    without = " without --overwrite" * len(flags)
    assert cli.how_to_resume() == f"the same command{without} resumes"
