"""A plan is run once and whole, whatever kills it, and its time is told before."""

import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metalr import cli
from metalr.compare import execute, overhead, plan, store
from metalr.report import report
from tests.compare.small_plans import tiny_plan, write
from tests.compare.synthetic_store import a_run

ROOT = Path(__file__).parents[2]


def command(plan_file, output, *more):
    return [
        *(sys.executable, "-m", "metalr", "compare", "--plan", plan_file),
        *("--output", str(output), "--workers", "1", *more),
    ]


def scores(path):
    return {line["key"]: line["history"] for line in store.read_lines(path)}


@pytest.mark.robust
def test_a_comparison_that_is_killed_goes_on_and_ends_with_the_same_numbers(tmp_path):
    plan_file = tiny_plan(tmp_path, seeds=1)
    path = tmp_path / "out" / "runs.jsonl"
    begun = subprocess.Popen(
        command(plan_file, path.parent), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    while not (path.exists() and path.stat().st_size) and begun.poll() is None:
        time.sleep(0.05)
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    first = scores(path)
    runs = plan.expand(plan.read_plan(plan_file))
    assert 0 < len(first) < len(runs), "it was killed too late or never began"
    todo = execute.pending(runs, path)
    assert len(todo) == len(runs) - len(first)
    ended = subprocess.run(
        command(plan_file, path.parent, "--pairs", "0"),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "| metalr |" in (path.parent / "table.md").read_text().replace("*", "")
    assert execute.pending(runs, path) == []
    again = tmp_path / "again.jsonl"
    assert execute.execute(runs, again, workers=1)
    assert scores(path) == scores(again)
    assert len(path.read_text().splitlines()) == len(runs)  # none was done twice


def test_a_run_that_diverges_is_a_result(tmp_path):
    config = plan.expand(plan.read_plan(tiny_plan(tmp_path)))[0]
    huge = {"learning_rate": 1e30, "clip_norm": 0.0}
    result = execute.execute_run(type(config)(**config.to_json() | huge))
    assert "the loss is" in result["failed"] and result["stopped"] == "diverged"
    assert all(name in result for name in ("history", "versions", "chance"))
    store.append(tmp_path / "s", {"kind": "run", "key": "k", **result})
    assert store.read_lines(tmp_path / "s")[0]["failed"] == result["failed"]


def test_overhead_is_told_of_each_scheduler_once_with_its_state(tmp_path):
    runs = plan.expand(plan.read_plan(tiny_plan(tmp_path)))
    lines = list(overhead.measure(runs, pairs=5))
    assert [line["scheduler"] for line in lines] == ["metalr", "dowg", "linear"]
    found = {line["scheduler"]: line for line in lines}
    for line in lines:
        store.append(tmp_path / "s", line)
        assert len(line["step_ratio"]) == 5 and min(line["step_ratio"]) > 0
    assert len(store.read_lines(tmp_path / "s")) == 3
    # AdamW keeps two copies of the parameters, DoWG one; metalr adds its sample.
    assert found["dowg"]["state_ratio"] == pytest.approx(0.5, abs=0.01)
    assert found["linear"]["state_ratio"] == pytest.approx(1, abs=0.001)
    assert found["metalr"]["state_ratio"] > 1


@pytest.mark.fast
def test_time_left_is_told_by_runs_of_the_same_shape(tmp_path):
    config = plan.expand(plan.read_plan(write(tmp_path)))[0]
    settings = config.to_json()
    done = [
        {"kind": "run", "settings": settings, "steps": 4, "wall_seconds": 8.0},
        {
            "kind": "run",
            "settings": settings | {"max_length": 99},
            "steps": 1,
            "wall_seconds": 100.0,
        },
    ]
    assert execute.estimate_seconds(config, done) == 8.0
    assert execute.estimate_seconds(config, done[1:]) > 20  # on paper
    changed = dataclasses.replace
    assert math.isnan(execute.estimate_seconds(changed(config, model="x"), done))
    assert math.isnan(execute.estimate_seconds(changed(config, max_steps=None), done))


@pytest.mark.fast
@pytest.mark.parametrize("model", ["minilm:two", "minilm:0", "somebody/else"])
def test_time_of_a_model_of_unknown_size_is_unknown(tmp_path, model):
    found = plan.override(plan.read_plan(write(tmp_path)), models=[model])
    assert math.isnan(execute.estimate_seconds(plan.expand(found)[0], []))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("model", "layers", "width"),
    [
        ("minilm", 6, 384),
        ("minilm:2", 2, 384),
        ("bert-base-uncased", 12, 768),
        ("FacebookAI/roberta-large", 24, 1024),
    ],
)
def test_name_of_a_model_tells_its_size(model, layers, width):
    found = execute._encoder_by_name(model)
    assert (found.num_hidden_layers, found.hidden_size) == (layers, width)


@pytest.mark.fast
def test_dry_run_counts_and_runs_nothing(tmp_path):
    output = tmp_path / "out"
    said = subprocess.run(
        command(write(tmp_path), output, "--dry-run"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "20" in said.stdout and "core hours" in said.stdout
    assert not output.exists() and said.stderr == ""


@pytest.mark.fast
@pytest.mark.parametrize(("flag", "value"), [("--pairs", "-1"), ("--steps", "0")])
def test_number_out_of_its_range_is_refused_before_anything_is_run(
    tmp_path, flag, value
):
    argv = command(write(tmp_path), tmp_path / "out", flag, value)
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 2 and len(said.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


NOWHERE = {
    "folder": (["--data", "nowhere"], "a folder or file that exists, got 'nowhere'"),
    "task": (
        ["--data", "rows", "--tasks", "sst2", "cola"],
        "rows has no folder 'cola'",
    ),
    "made of": (["--data", "rows", "--tasks", "origin"], "rows has no folder 'qqp'"),
    "model": (["--models", "minilm:1", "minlim"], "unknown model 'minlim'"),
    "layers": (["--models", "minilm:1", "minilm:7"], "got minilm:7"),
    "files": (["--models", "./nowhere"], "there is no such file or folder"),
}


@pytest.mark.fast
@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("name", NOWHERE)
def test_rows_and_models_that_are_not_there_are_refused_before_the_first_run(
    name, dry, tmp_path, capsys, monkeypatch
):
    flags, message = NOWHERE[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows/sst2").mkdir(parents=True)
    monkeypatch.setattr(execute, "execute", lambda *args, **more: pytest.fail("ran"))
    argv = ["compare", "--output", "out", *flags, *["--dry-run"] * dry]
    data = [] if "--data" in flags else ["--data", "toy"]
    assert cli.main([*argv, *data]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.fast
def test_a_report_alone_is_of_the_tasks_that_are_named(tmp_path, monkeypatch):
    seen: list = []
    fake = lambda lines, folder, **more: seen.extend(lines) or folder  # noqa: E731
    monkeypatch.setattr(report, "write_report", fake)
    for task, model in itertools.product(("sst2", "cola"), ("minilm:1", "minilm:2")):
        store.append(tmp_path / execute.STORE, a_run(task, model))
    argv = ["compare", "--output", str(tmp_path), "--report-only"]
    named = [("sst2", "minilm:1"), ("sst2", "minilm:2")]
    others = [("cola", "minilm:1"), ("cola", "minilm:2")]
    for flags, wanted in (
        ([], named + others),
        (["--tasks", "sst2"], named),
        (["--tasks", "sst2", "--models", "minilm:1"], named[:1]),
    ):
        seen.clear()
        assert cli.main([*argv, *flags]) == 0
        assert [(line["task"], line["model"]) for line in seen] == wanted


@pytest.mark.fast
@pytest.mark.parametrize(
    "flags", [["--schedulers", "linear", "metalr"], ["--seeds", "1"], ["--steps", "9"]]
)
def test_a_report_alone_refuses_flags_that_choose_runs(tmp_path, capsys, flags):
    store.append(tmp_path / execute.STORE, a_run())
    argv = ["compare", "--output", str(tmp_path), "--report-only", *flags]
    assert cli.main(argv) == 2
    assert f"does not read {flags[0]};" in capsys.readouterr().err
    assert not (tmp_path / "report.md").exists()


@pytest.mark.fast
def test_a_report_alone_has_no_runs_to_forecast(tmp_path, capsys):
    argv = ["compare", "--output", str(tmp_path), "--report-only", "--dry-run"]
    assert cli.main(argv) == 2
    assert "give one of them" in capsys.readouterr().err
