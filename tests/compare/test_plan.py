"""A plan says each run once, by a key of its own, and what is wrong with it."""

import dataclasses
from pathlib import Path

import pytest

from metalr.compare import plan
from metalr.errors import MetalrError
from metalr.finetune import schedulers
from metalr.runtime import hub
from tests.compare.small_plans import tiny_plan, write

ROOT = Path(__file__).parents[2]


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


def test_auto_is_asked_once_for_all_runs(tmp_path, monkeypatch):
    answers = iter([False])  # a second question raises
    monkeypatch.setattr(hub, "answers", lambda: next(answers))
    runs = plan.expand(plan.override(plan.read_plan(tiny_plan(tmp_path)), data="auto"))
    settled, note = plan.resolve_data(runs)
    assert {run.data for run in settled} == {"toy"} and note.startswith("TOY DATA")
    assert [dataclasses.replace(run, data="auto") for run in settled] == runs
    assert plan.resolve_data(settled) == (settled, "")
