"""A plan is run once and whole, whatever kills it, and says what is wrong with it."""

import dataclasses
import itertools
import json
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
from metalr.data.tasks import FRESH
from metalr.errors import MetalrError
from metalr.finetune import schedulers
from metalr.report import report
from metalr.runtime import hub
from tests.compare.synthetic_store import a_run
from tests.models import small_models

ROOT = Path(__file__).parents[2]
SMALL = {
    "models": ["minilm:1"],
    "schedulers": ["linear", "metalr", "prodigy"],
    "seeds": 2,
    "tuned": ["linear"],
    "rates": [2e-5, 1e-3],
    "rates_of": {"metalr": [1e-6]},
    "evaluations": 2,
    "settings": {"max_steps": 4, "batch_size": 4, "data": "toy"},
    "tasks": {"sst2": {}, "rte": {"max_steps": 6}},
}


def write(tmp_path, **changes):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(SMALL | changes))
    return str(path)


def rows(configs, **only):
    return [
        (c.scheduler, c.learning_rate)
        for c in configs
        if all(getattr(c, name) == value for name, value in only.items())
    ]


@pytest.mark.fast
def test_plan_expands_to_each_row_once_with_its_own_base_rate(tmp_path):
    runs = plan.expand(plan.read_plan(write(tmp_path)))
    assert rows(runs, task="sst2", seed=0) == [
        ("linear", 2e-5),
        ("metalr", 2e-5),
        ("prodigy", 1.0),
        ("linear", 1e-3),
        ("metalr", 1e-6),
    ]
    assert len(runs) == 2 * 2 * 5 == len({plan.key(config) for config in runs})
    assert [c.max_steps for c in runs if c.task == "rte"] == [6] * 10
    assert {c.eval_every for c in runs} == {2, 3}
    assert [c.seed for c in runs] == [0] * 10 + [1] * 10


@pytest.mark.fast
def test_rows_are_tuned_over_the_rates_that_are_given(tmp_path):
    chosen = {"schedulers": ["linear"], "tuned": ["wsd"], "rates": [1e-4, 3e-4]}
    runs = plan.expand(plan.override(plan.read_plan(write(tmp_path)), **chosen))
    expected = [("linear", 2e-5), ("wsd", 1e-4), ("wsd", 3e-4)]
    assert rows(runs, task="sst2", seed=0) == expected


@pytest.mark.fast
@pytest.mark.parametrize("name", ["small", "full"])
def test_shipped_plan_has_every_scheduler(name):
    runs = plan.expand(plan.read_plan(name))
    assert {config.scheduler for config in runs} == schedulers.SCHEDULERS.keys()


@pytest.mark.fast
def test_plan_of_the_targets_has_only_tasks_that_the_predictor_has_not_seen():
    found = plan.read_plan("targets")
    seen = json.loads((ROOT / "checkpoints/predictor/metadata.json").read_text())
    assert not found.tasks.keys() & seen["provenance"]["runs by task"].keys()
    assert len(plan.expand(found)) == 3 * 2 * 5 * (11 + 2 * 5 + 2)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "version"),
    [*dict.fromkeys(("small", "fresh", "targets", "long", "deep", "full"), 1).items()]
    + [("kinds", 2)],
)
def test_shipped_plan_follows_the_protocol_until_its_budget_is_changed(name, version):
    found = plan.read_plan(name)
    assert found.protocol == version and plan.expand(found)
    assert plan.override(found, seeds=1, schedulers=["linear"]).protocol == version
    assert plan.override(found, steps=3).protocol is None


@pytest.mark.fast
def test_plan_of_the_fresh_tasks_has_the_pairs_of_a_headline():
    found = plan.read_plan("fresh")
    assert tuple(found.tasks) == FRESH
    assert len(found.tasks) * len(found.models) * found.seeds >= 50


@pytest.mark.fast
@pytest.mark.parametrize("name", ["fresh", "kinds", "targets"])
def test_plan_has_no_task_that_the_predictor_was_fitted_to(name):
    seen = json.loads((ROOT / "checkpoints/predictor/metadata.json").read_text())
    seen = seen["provenance"]["runs by task"].keys()
    assert not plan.read_plan(name).tasks.keys() & seen and "sst2" in seen


@pytest.mark.fast
def test_flags_change_a_plan_and_keep_the_settings_of_its_tasks(tmp_path):
    found = plan.read_plan(write(tmp_path))
    fewer = plan.override(found, tasks=["rte", "cola"], schedulers=["static"], seeds=1)
    runs = plan.expand(fewer)
    assert [(c.task, c.max_steps) for c in runs] == [("rte", 6), ("cola", 4)]
    shorter = plan.expand(plan.override(found, steps=3, data="auto"))
    assert {(c.max_steps, c.data) for c in shorter} == {(3, "auto")}
    # As many epochs as that takes, however few rows one has.
    longer = plan.expand(plan.override(found, steps=5000))
    assert {(c.max_steps, c.epochs) for c in longer} == {(5000, 5000.0)}
    shipped = str(ROOT / "checkpoints/predictor")
    named = plan.expand(plan.override(found, predictor=shipped))
    assert {c.predictor for c in named} == {shipped}
    assert plan.override(found) == found


@pytest.mark.fast
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedulers": ["linaer"]}, "unknown scheduler 'linaer'; did you mean"),
        ({"tasks": {"sst": {}}}, "unknown task 'sst'"),
        ({"settings": {"bach_size": 3}}, "unknown setting 'bach_size'; did you mean"),
        ({"settings": {"batch_size": "4"}}, "batch_size cannot be '4'"),
        ({"settings": {"batch_size": -4}}, "--batch-size must be"),
        ({"settings": {"parallel": "pmpa"}}, "unknown --parallel 'pmpa'; did you mean"),
        ({"settings": {"max_steps": 0}}, "--max-steps must be"),
        ({"settings": {"seed": 4}}, "seed is varied by the plan"),
        ({"settings": {"eval_every": 4}}, "leave eval_every out of its settings"),
        ({"seeds": 0}, "seeds must be 1 to 100000, got 0"),
        ({"seeds": 10**99}, "seeds must be 1 to 100000, got 1000"),
        ({"seeds": 10**5}, "at most 100000 runs, got up to 1200000"),
        ({"seeds": "two"}, "seeds must be a int, got 'two'"),
        ({"tasks": ["sst2"]}, "tasks must be a dict"),
        ({"models": [3]}, "models must be a list of names"),
        ({"schedulers": [1e-3]}, "schedulers must be a list of names"),
        ({"tasks": {"sst2": 3}}, "each of tasks must be a table"),
        ({"rates_of": {"metalr": 1e-6}}, "metalr must have a list of rates"),
        ({"rates": [10**400]}, "rates must have a list of rates"),
        ({"rates": [[1e-3]]}, "rates must have a list of rates"),
        (
            {"seeds": 10**4, "rates_of": {"linear": [1 / n for n in range(1, 99)]}},
            "at most 100000 runs",
        ),
        ({"models": []}, "needs a task, a model and a scheduler"),
        ({"rates": ["fast"]}, "a list of rates, got .*fast"),
        ({"rates": []}, "needs `rates`"),
        ({"sceduler": []}, "unknown 'sceduler'"),
    ],
)
def test_what_no_plan_says_is_one_clear_line(changes, said, tmp_path):
    with pytest.raises(MetalrError, match=said):
        plan.expand(plan.read_plan(write(tmp_path, **changes)))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "text"),
    [("p.toml", "models = ["), ("p.json", "[" * 100_000), ("p.json", "3")],
)
def test_a_file_that_is_no_plan_is_one_clear_line(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(MetalrError, match="plan"):
        plan.read_plan(str(tmp_path / name))
    with pytest.raises(MetalrError, match="one of deep, fresh, full"):
        plan.read_plan("smal")


@pytest.mark.fast
def test_a_baseline_that_the_report_will_not_have_is_refused_before_the_runs(tmp_path):
    runs = plan.expand(plan.read_plan(write(tmp_path)))
    for name in ("linear tuned", "linear 2e-5", "prodigy", "metalr"):
        assert plan.choose_baseline(runs, name) == name
    assert plan.choose_baseline(runs, None) == "linear tuned"
    untuned = [config for config in runs if config.learning_rate != 1e-3]
    assert plan.choose_baseline(untuned, None) == "linear 2e-5"
    with pytest.raises(MetalrError, match="did you mean 'linear tuned'"):
        plan.choose_baseline(runs, "linear tune")


@pytest.mark.fast
def test_key_of_a_metalr_run_changes_with_the_predictor(tmp_path, monkeypatch):
    runs = plan.expand(plan.read_plan(write(tmp_path)))
    before = [plan.key(config) for config in runs]
    monkeypatch.setattr(schedulers, "_sha256", lambda path: "another")
    moved = [a != plan.key(config) for a, config in zip(before, runs, strict=True)]
    assert moved == [config.scheduler == "metalr" for config in runs]


@pytest.mark.fast
def test_key_of_the_control_at_one_depends_on_no_predictor_and_the_shuffled_ones_does(
    monkeypatch,
):
    found = plan.override(
        plan.read_plan("small"), schedulers=["metalr_fixed", "metalr_shuffled"], seeds=1
    )
    runs = plan.expand(found)
    before = [plan.key(config) for config in runs]
    for change, into in (("_sha256", lambda path: "x"), ("CONTROLLER_VERSION", -1)):
        with monkeypatch.context() as other:
            other.setattr(schedulers, change, into)
            after = [plan.key(config) for config in runs]
        moved = [a != b for a, b in zip(after, before, strict=True)]
        assert moved == [config.scheduler == "metalr_shuffled" for config in runs]


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


def tiny_plan(tmp_path, **changes):
    model = small_models.save_bert(tmp_path / "model")
    return write(
        tmp_path,
        models=[str(model)],
        tasks={"sst2": {}},
        schedulers=["linear", "dowg", "metalr"],
        tuned=[],
        rates_of={},
        settings=SMALL["settings"] | {"train_rows": 16, "validation_rows": 8},
        **changes,
    )


def test_auto_is_asked_once_for_all_runs(tmp_path, monkeypatch):
    answers = iter([False])  # a second question raises
    monkeypatch.setattr(hub, "answers", lambda: next(answers))
    runs = plan.expand(plan.override(plan.read_plan(tiny_plan(tmp_path)), data="auto"))
    settled, note = plan.resolve_data(runs)
    assert {run.data for run in settled} == {"toy"} and note.startswith("TOY DATA")
    assert [dataclasses.replace(run, data="auto") for run in settled] == runs
    assert plan.resolve_data(settled) == (settled, "")


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


def test_a_run_that_diverges_is_a_result(tmp_path):
    config = plan.expand(plan.read_plan(tiny_plan(tmp_path)))[0]
    huge = {"learning_rate": 1e30, "clip_norm": 0.0}
    result = execute.execute_run(type(config)(**config.to_json() | huge))
    assert "the loss is" in result["failed"] and result["stopped"] == "diverged"
    assert all(name in result for name in ("history", "versions", "chance"))
    store.append(tmp_path / "s", {"kind": "run", "key": "k", **result})
    assert store.read_lines(tmp_path / "s")[0]["failed"] == result["failed"]


@pytest.mark.fast
@pytest.mark.parametrize("model", ["minilm:two", "minilm:0", "somebody/else"])
def test_time_of_a_model_of_unknown_size_is_unknown(tmp_path, model):
    found = plan.override(plan.read_plan(write(tmp_path)), models=[model])
    assert math.isnan(execute.estimate_seconds(plan.expand(found)[0], []))


@pytest.mark.fast
@pytest.mark.parametrize(("flag", "value"), [("--pairs", "-1"), ("--steps", "0")])
def test_number_out_of_its_range_is_refused_before_anything_is_run(
    tmp_path, flag, value
):
    argv = command(write(tmp_path), tmp_path / "out", flag, value)
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 2 and len(said.stderr.splitlines()) == 1
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
