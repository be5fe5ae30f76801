"""finetune.py as a person uses it: a run, its files, its end, and each wrong word."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import finetune
from metalr import cli
from metalr.finetune import run_folder
from metalr.runtime import hub
from tests.models import small_models
from tests.tiers import some

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return small_models.save_bert(tmp_path_factory.mktemp("models") / "tiny")


def call(*argv, monkeypatch):
    """Run finetune.py's main in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["finetune.py", *map(str, argv)])
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        return cli.guarded(finetune.main)
    except SystemExit as stop:
        return stop.code
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METALR_CACHE", str(tmp_path.parent / "cache"))

    def run(*argv, model=tiny):
        return call("--model", model, *argv, monkeypatch=monkeypatch)

    return run


SMALL = ("--data", "toy", "--train-rows", 64, "--validation-rows", 32, "--epochs", 2)
FAST = ("--learning-rate", "3e-3", "--scheduler", "linear", "--log-every", 1)


@pytest.mark.parametrize("task", some(["sst2", "mnli", "stsb", "squad"], "sst2"))
def test_run_leaves_result_curves_and_a_model_that_transformers_loads(
    task, run, tmp_path, capsys
):
    if task == "squad":
        more = ("--max-length", 64, "--stride", 16)
    else:
        more = ()
    assert run("--task", task, *SMALL, *FAST, *more, "--output", "out") == 0
    assert "sst2" in capsys.readouterr().out or task != "sst2"
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["task"] == task and result["data"]["kind"] == "toy"
    rows = [row for row in result["history"] if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, result["steps"] + 1))
    assert np.isfinite([row["loss"] for row in rows]).all()
    assert result["best_step"] in {row["step"] for row in result["history"]}
    assert (tmp_path / "out/curves.png").stat().st_size > 10_000

    torch = pytest.importorskip("torch")
    del torch
    from transformers import (
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
    )

    qa = task == "squad"
    auto = AutoModelForQuestionAnswering if qa else AutoModelForSequenceClassification
    model, info = auto.from_pretrained(tmp_path / "out/model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    names = {"sst2": "negative", "mnli": "entailment"}
    assert names.get(task, model.config.id2label[0]) == model.config.id2label[0]


def test_loss_falls_and_score_beats_chance_on_real_language(run, tmp_path):
    rows = [
        {"sentence": f"{'the film is' if i % 2 else 'it was'} {word}", "label": label}
        for i in range(40)
        for word, label in (("great", 1), ("good", 1), ("bad", 0), ("awful", 0))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = ("--epochs", 20, "--learning-rate", "1e-2", "--dropout", 0)
    more += ("--scheduler", "linear")
    status = run("--train-file", "rows.jsonl", *more, "--output", "out")
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert status == 0
    assert result["metrics"]["accuracy"] == 1.0


FREQUENT = [
    {"text": f"{word} {n}", "label": label}
    for n in range(12)
    for word, label in [("good", "ok")] * 19 + [("bad", "fault")]
]


def test_where_one_class_is_frequent_the_kept_step_is_the_trained_one_and_said(
    run, tmp_path, capsys
):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, FREQUENT)))
    more = ("--learning-rate", "1e-3", "--scheduler", "linear", "--output", "out")
    files = ("--train-file", "rows.jsonl", "--validation-file", "rows.jsonl")
    assert run(*files, *more, "--epochs", 4, "--early-stopping", 3) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "95% of the training rows are 'ok': kept is the step with the best accuracy"
        in said
    )
    result = json.loads((tmp_path / "out/result.json").read_text())
    rows = [row for row in result["history"] if "accuracy" in row]
    assert {"accuracy", "macro_f1", "matthews", "eval_loss"} <= rows[0].keys()
    best = max(rows, key=lambda row: (row["accuracy"], -row["eval_loss"]))
    assert result["best_step"] == best["step"] > rows[0]["step"]
    assert result["stopped"] is None


def test_metric_is_one_of_the_task_or_the_loss(run, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, FREQUENT)))
    argv = ("--train-file", "rows.jsonl", "--epochs", 1, *FAST, "--metric")
    assert run(*argv, "f1_macro") == 2
    said = capsys.readouterr().err
    assert "did you mean 'macro_f1'" in said and "eval_loss" in said
    for metric in ("macro_f1", "eval_loss"):
        assert run(*argv, metric, "--output", metric) == 0
        result = json.loads((tmp_path / metric / "result.json").read_text())
        assert result["metric"] == metric and result["metrics"][metric] is not None
        assert "as --metric says" in " ".join(result["notes"])


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


def test_rate_that_is_far_too_high_is_told_with_the_way_out(run, capsys):
    argv = ("--learning-rate", "1e30", "--scheduler", "static", "--task", "sst2")
    assert run(*argv, *SMALL) == 2
    said = capsys.readouterr().err
    assert "take a smaller --learning-rate, or --scheduler metalr" in said


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_way_to_go_on_never_deletes_what_was_saved(flags, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["finetune.py", *flags])
    without = " without --overwrite" * len(flags)
    assert cli.how_to_resume() == f"the same command{without} resumes"


def test_folder_that_is_no_run_is_never_touched(run, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    for flags in ((), ("--overwrite",), ("--resume",)):
        assert run("--task", "sst2", *SMALL, "--output", "thesis", *flags) == 2
        assert "is not a run of metalr" in capsys.readouterr().err
    assert (tmp_path / "thesis/chapter.txt").read_text() == "years of work"


LONG = ("--task", "sst2", *SMALL, *FAST, "--train-rows", 960, "--epochs", 5)
LONG += ("--scheduler", "metalr")  # its state has most to lose


@pytest.fixture(scope="module")
def command(tiny, tmp_path_factory):
    """Return a run of 150 steps as a command line, and its environment."""
    argv = [sys.executable, ROOT / "finetune.py", "--model", tiny, *LONG]
    cache = tmp_path_factory.mktemp("cache")  # compiled once for all of them
    env = {**os.environ, "METALR_CACHE": str(cache)}
    return [*map(str, argv), "--save-every", "20"], env


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """Return the folder of that run, never interrupted."""
    argv, env = command
    folder = tmp_path_factory.mktemp("whole") / "run"
    argv = [*argv, "--output", str(folder)]
    subprocess.run(argv, env=env, check=True, capture_output=True, timeout=300)
    return folder


def what_counts(folder):
    result = json.loads((folder / "result.json").read_text())
    weights = (folder / "model/model.safetensors").read_bytes()
    timed = ("seconds", "step_seconds", "settings")
    return {k: result[k] for k in result if k not in timed}, weights


@pytest.mark.robust
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_run_that_was_killed_goes_on_to_the_result_of_the_uninterrupted(
    signum, command, whole, tmp_path
):
    argv, env = command
    argv = [*argv, "--output", str(tmp_path / "cut")]
    process = subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    saved = tmp_path / "cut/checkpoints/last/40"
    deadline = time.monotonic() + 200
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signum)
    out, err = process.communicate(timeout=100)
    assert not (tmp_path / "cut/result.json").exists(), "finished before the signal"
    if signum == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + signum
        assert "the same command resumes" in out
    assert "Traceback" not in err

    argv.append("--resume")
    again = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert what_counts(tmp_path / "cut") == what_counts(whole)


def test_run_whose_reader_has_gone_ends_all_the_same(command, tmp_path):
    argv, env = command
    pipe = subprocess.PIPE
    argv = [*argv, "--epochs", "1", "--output", str(tmp_path / "out")]
    with subprocess.Popen(argv, env=env, stdout=pipe, stderr=pipe) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert what_counts(tmp_path / "out")[0]["steps"] == 30


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


def test_help_names_every_flag_with_its_default(capsys, monkeypatch):
    assert call("--help", monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    for flag in ("--task", "--learning-rate", "--resume", "--predictor", "--quiet"):
        assert flag in text
    assert "(default: 2e-5;" in text and "questions:" in text


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


@pytest.mark.parametrize("command", ["tasks", "schedulers"])
def test_metalr_command_lists_its_tables(command, capsys):
    assert cli.main([command]) == 0
    out = capsys.readouterr().out
    expected = {"tasks": ["sst2", "squad", "ag_news"], "schedulers": ["linear"]}
    assert all(name in out for name in expected[command])


def test_metalr_export_copies_the_best_model(run, tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), str(tmp_path / "x")]) == 2
    assert "no finished run" in capsys.readouterr().err
    assert run("--task", "sst2", *SMALL, *FAST, "--output", "out") == 0
    left = tmp_path / "out/model/.files.draft-1"  # by a kill
    left.mkdir()
    (left / ".tmpAbC").touch()
    (tmp_path / "out/model/link").symlink_to(tmp_path / "nowhere")
    assert cli.main(["export", str(tmp_path / "out"), str(tmp_path / "x")]) == 0
    names = {path.name for path in (tmp_path / "x").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if "link" in name or name[0] == "."]
    assert len({path.stat().st_mode for path in (tmp_path / "x").iterdir()}) == 1
    written = [p for p in (tmp_path / "out/model").iterdir() if p.is_file()]
    assert len({path.stat().st_mode for path in written}) == 1
    assert cli.main(["export", str(tmp_path / "out"), str(tmp_path / "x")]) == 2


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


def test_token_of_the_hub_is_in_no_file_and_no_line(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_averysecretword")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:averysecretword@127.0.0.1:1")
    monkeypatch.setattr(hub, "answers", lambda *a, **k: False)
    auto = [x for x in SMALL if x not in ("--data", "toy")]
    assert run("--task", "sst2", *auto, *FAST, "--output", "out") == 0
    assert run("--task", "sst2", model="bert-base-uncased") == 2
    told = capsys.readouterr()
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any(p.name == "result.json" for p in files)
    assert all(b"averysecretword" not in p.read_bytes() for p in files)
    assert "averysecretword" not in told.out + told.err
