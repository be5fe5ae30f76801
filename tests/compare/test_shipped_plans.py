"""The plans that metalr ships are whole and hold what their tables promise."""

import json
from pathlib import Path

import pytest

from metalr.compare import plan
from metalr.data.tasks import FRESH
from metalr.finetune import schedulers

ROOT = Path(__file__).parents[2]


@pytest.mark.fast
@pytest.mark.parametrize("name", ["small", "full"])
def test_shipped_plan_has_every_scheduler(name):
    runs = plan.expand(plan.read_plan(name))
    assert {config.scheduler for config in runs} == schedulers.SCHEDULERS.keys()


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
@pytest.mark.parametrize("name", ["fresh", "kinds", "targets"])
def test_plan_has_no_task_that_the_predictor_was_fitted_to(name):
    seen = json.loads((ROOT / "checkpoints/predictor/metadata.json").read_text())
    seen = seen["provenance"]["runs by task"].keys()
    assert not plan.read_plan(name).tasks.keys() & seen and "sst2" in seen


@pytest.mark.fast
def test_plan_of_the_targets_runs_each_of_its_rows_on_every_task_and_model():
    assert len(plan.expand(plan.read_plan("targets"))) == 3 * 2 * 5 * (11 + 2 * 5 + 2)


@pytest.mark.fast
def test_plan_of_the_fresh_tasks_has_the_pairs_of_a_headline():
    found = plan.read_plan("fresh")
    assert tuple(found.tasks) == FRESH
    assert len(found.tasks) * len(found.models) * found.seeds >= 50
