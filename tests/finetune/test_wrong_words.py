"""A wrong word, file or model gets one line and status 2."""

import json
import re
from importlib import metadata

import pytest

import metalr
from metalr import cli
from metalr.runtime import hub
from tests.finetune.commands import call

GOOD_LINE = json.dumps({"sentence": "a good film", "label": 1}) + "\n"


QA_ROW = {
    "id": "1",
    "question": "what is good ?",
    "context": "the film is good",
    "answers": {"text": ["film"], "answer_start": [3]},
}


WRONG_FILES = {
    "empty file": ("rows.jsonl", "", "empty|no rows"),
    "broken JSON line": ("rows.jsonl", GOOD_LINE + '{"sentence": ', r"line 2"),
    "missing column": ("rows.jsonl", '{"review": "x", "label": 1}', "review"),
    "NaN text": ("rows.jsonl", GOOD_LINE + '{"sentence": NaN, "label": 1}', "row 2"),
    "empty text": ("rows.jsonl", GOOD_LINE + '{"sentence": " ", "label": 1}', "row 2"),
    "label outside": ("rows.jsonl", '{"sentence": "x", "label": 7}', "7.*positive"),
    "answer elsewhere": (
        "rows.jsonl",
        json.dumps(QA_ROW),
        "starts at 3, where the context has",
    ),
}


@pytest.mark.parametrize("fault", WRONG_FILES)
def test_wrong_file_gets_one_line_and_status_2(fault, run, tmp_path, capsys):
    name, content, message = WRONG_FILES[fault]
    (tmp_path / name).write_text(content)
    task = "squad" if fault == "answer elsewhere" else "sst2"
    assert run("--task", task, "--train-file", name) == 2
    err = capsys.readouterr().err
    assert re.search(message, err) and err.count("\n") == 1, err
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").rglob("ck*"))


LONG_NAME = "x" * 300  # file systems take 255 bytes


PLACE = ("--processes", "2", "--process-id", "1")


WRONG_WORDS = {
    "task": (("--task", "sst22"), "unknown task 'sst22'; did you mean 'sst2'"),
    "scheduler": (("--scheduler", "linaer"), "did you mean 'linear'"),
    "flag": (("--lerning-rate", "1"), "unknown flag --lerning-rate; did you mean"),
    "number": (("--batch-size", "0"), "--batch-size must be"),
    "no number": (("--seed", "x"), "invalid int value: 'x'"),
    "length": (("--max-length", "65"), "at most 64"),
    "data": (("--data", "nowhere"), "nowhere"),
    "file": (("--train-file", "nothing.csv"), "nothing.csv"),
    "nothing to resume": (("--resume", "--data", "toy"), "nothing to resume"),
    "epochs": (("--epochs", "1e308"), "--epochs must be a finite number, at most 1"),
    "seed": (("--seed", 2**63), "--seed must be a finite number, at most 4294967295"),
    "batch": (("--batch-size", 10**12), "--batch-size must be a finite number, at"),
    "steps": (("--max-steps", 2**31), "--max-steps must be a finite number, at most"),
    "no port": (
        ("--coordinator", "nowhere", *PLACE),
        "--coordinator must be HOST:PORT",
    ),
    "port": (("--coordinator", "here:0", *PLACE), "--coordinator must be HOST:PORT"),
    "host": (("--coordinator", "no.invalid:80", *PLACE), "a host that is not known"),
    "long output": (("--output", LONG_NAME), "File name too long"),
    "long model": (("--model", LONG_NAME), "File name too long"),
    "long folder": (("--model", f"./{LONG_NAME}"), "File name too long"),
    "long weights": (("--model", f"{LONG_NAME}.safetensors"), "File name too long"),
    "long predictor": (("--predictor", LONG_NAME), "File name too long"),
    "long task": (("--task", LONG_NAME), "unknown task"),
    "long data": (("--data", LONG_NAME), "a folder or file that exists"),
    "long file": (("--train-file", f"{LONG_NAME}.csv"), "does not exist"),
    "both": (("--resume", "--overwrite"), "and --overwrite begins it again; give one"),
    "not pushed": (("--private",), "--private is of --push-to-hub NAME"),
    "ignored warm-up": (
        ("--scheduler", "static", "--warmup-steps", "9"),
        "--warmup-steps is not read under --scheduler static",
    ),
    "no such home": (("--model", "~nobody-here/x"), "no such file or folder"),
}


@pytest.mark.parametrize("what", WRONG_WORDS)
def test_wrong_word_gets_one_line_and_status_2(what, run, capsys):
    argv, message = WRONG_WORDS[what]
    own = "--data" in argv or "--train-file" in argv
    given = argv if own else (*argv, "--data", "toy")
    assert run(*given) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and err.count("\n") == 1, err


WRONG_COMMANDS = {
    "command": (("fnd",), "metalr: error: unknown command 'fnd'; did you mean 'find'?"),
    "flag": (
        ("suggest", "--max-step", "5"),
        "metalr suggest: error: unknown flag --max-step; did you mean --max-steps",
    ),
    "word": (("schedulers", "x"), "metalr schedulers: error: unexpected word x"),
    "choice": (("find", "--dtype", "float33"), "did you mean 'float32'"),
}


@pytest.mark.parametrize("what", WRONG_COMMANDS)
def test_a_wrong_word_of_a_command_is_told_with_the_nearest_of_it(what, capsys):
    argv, message = WRONG_COMMANDS[what]
    with pytest.raises(SystemExit, match="2"):
        cli.main(argv)
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1, err


WRONG_MODELS = {
    "unknown": ("minlim", "minilm"),
    "no folder": ("./nothing", "nothing"),
    "too many layers": ("minilm:7", "1.*6"),
}


@pytest.mark.parametrize("what", WRONG_MODELS)
def test_wrong_model_gets_one_line_and_status_2(what, run, capsys, monkeypatch):
    monkeypatch.setattr(hub, "answers", lambda *a, **k: False)
    name, message = WRONG_MODELS[what]
    assert run("--data", "toy", model=name) == 2
    err = capsys.readouterr().err
    assert re.search(message, err) and err.count("\n") == 1, err


def test_dead_hub_is_said_in_one_line(run, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "answers", lambda *a, **k: False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert run("--data", "toy", model="bert-base-uncased") == 2
    err = capsys.readouterr().err
    assert "does not answer" in err and "minilm" in err and err.count("\n") == 1
    assert run("--data", "hub", "--task", "sst2") == 2
    err = capsys.readouterr().err
    assert "does not answer" in err and "toy" in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["show", LONG_NAME], "File name too long"),
        (["export", LONG_NAME, "x"], "File name too long"),
        (["compare", "--plan", LONG_NAME], "File name too long"),
        (["compare", "--output", LONG_NAME, "--data", "toy", "--dry-run"], "too long"),
        (["compare", "--output", LONG_NAME, "--report-only"], "File name too long"),
        (["pretrain", LONG_NAME], "File name too long"),
        (["compare", "--workers", "-1"], "--workers must be at least 1, got -1"),
        (["compare", "--workers", "0"], "--workers must be at least 1, got 0"),
        (["compare", "--schedulers", "wsd", "--rates", "1e-4"], "none is tuned"),
    ],
)
def test_wrong_word_of_the_metalr_command_gets_one_line_and_status_2(
    argv, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1, err


def test_help_names_every_flag_with_its_default(capsys, monkeypatch):
    assert call("--help", monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    for flag in ("--task", "--learning-rate", "--resume", "--predictor", "--quiet"):
        assert flag in text
    assert "(default: 2e-5;" in text and "questions:" in text


@pytest.mark.parametrize("command", ["tasks", "schedulers"])
def test_metalr_command_lists_its_tables(command, capsys):
    assert cli.main([command]) == 0
    out = capsys.readouterr().out
    expected = {"tasks": ["sst2", "squad", "ag_news"], "schedulers": ["linear"]}
    assert all(name in out for name in expected[command])


def test_version_is_that_of_the_installed_package(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    installed = metadata.version("metalr")
    assert capsys.readouterr().out == f"metalr {installed}\n"
    assert metalr.__version__ == installed
