"""Settings go from flags to JSON and back, and bad ones get one clear line."""

import argparse
import dataclasses
import json

import pytest

from metalr.compare import comparison, plan
from metalr.data.tasks import TASKS
from metalr.errors import MetalrError
from metalr.finetune import config, config_rules, schedulers
from metalr.finetune.config import RunConfig
from tests.compare import synthetic_store

pytestmark = pytest.mark.fast


def parse(*argv):
    parser = argparse.ArgumentParser()
    config.add_flags(parser)
    return config_rules.from_flags(parser.parse_args(argv))


def test_defaults_are_the_experiment_plan():
    config = parse()
    assert config == RunConfig()
    plan = (
        schedulers.get(config.scheduler).learning_rate,  # where none is given
        config.batch_size,
        config.epochs,
        config.warmup_steps,
        config.weight_decay,
    )
    assert plan == (2e-5, 32, 3.0, 500, 0.01)


def test_settings_survive_json():
    config = parse("--task", "squad", "--learning-rate", "3e-4", "--max-steps", "7")
    assert RunConfig(**json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--batch-size", "0"], "--batch-size must be a finite number, at least 1"),
        (["--dropout", "1.5"], r"--dropout must be .* 0.0 to 0.9; got 1.5"),
        (["--learning-rate", "nan"], "--learning-rate must be a finite number"),
        (["--learning-rate", "inf"], "--learning-rate must be a finite number"),
        (["--null-threshold=-inf"], "--null-threshold must be a finite number"),
        (["--learning-rate", "0"], "must be above 0"),
        (["--epochs", "0"], "must be above 0"),
        (["--accumulate", "3"], "--accumulate must divide --batch-size, got 3 and 32"),
    ],
)
def test_number_out_of_range_names_flag_rule_and_value(argv, message):
    with pytest.raises(MetalrError, match=message):
        parse(*argv)


def test_changed_names_what_differs_but_not_the_folder():
    old = RunConfig(output="a").to_json()
    new = dataclasses.replace(RunConfig(), output="b", seed=3, task="rte").to_json()
    assert config_rules.changed(old, new) == ["seed", "task"]


FREE = {"log_to": "wandb", "eval_batch_size": 7, "save_every": 3, "remat": True}


@pytest.mark.parametrize("name", FREE)
def test_setting_that_changes_no_number_is_free_in_a_resume_a_store_and_a_report(name):
    new = dataclasses.replace(RunConfig(), **{name: FREE[name]})
    assert config_rules.changed(RunConfig().to_json(), new.to_json()) == []
    assert plan.key(new) == plan.key(RunConfig())
    linear = synthetic_store.a_run()
    other = synthetic_store.a_run(seed=1)
    other["settings"][name] = FREE[name]
    assert len(comparison.from_lines([linear, other]).runs) == 2


def test_rows_of_the_history_may_differ_between_stores_and_not_within_a_run():
    new = dataclasses.replace(RunConfig(), log_every=3)
    assert config_rules.changed(RunConfig().to_json(), new.to_json()) == ["log_every"]
    assert plan.key(new) == plan.key(RunConfig())


def test_setting_that_an_older_version_lacks_has_its_default():
    old = RunConfig().to_json()
    del old["batch_size"], old["metric"]
    assert config_rules.changed(old, RunConfig().to_json()) == []
    new = dataclasses.replace(RunConfig(), batch_size=8)
    assert config_rules.changed(old, new.to_json()) == ["batch_size"]


@pytest.mark.parametrize(
    "argv",
    [
        ["--predictor", "x", "--scheduler", "linear"],
        ["--eval-every", "3", "--evals-per-epoch", "2"],
        ["--lora", "4", "--reinit-layers", "1"],
    ],
)
def test_flags_that_do_not_go_together_are_refused(argv):
    with pytest.raises(MetalrError, match="(?s)one of them"):
        parse(*argv)


OF_OTHERS = {
    "stride": (16, "squad", "stsb", "--stride is read by tasks of questions"),
    "null_threshold": (1.0, "squad_v2", "squad", "questions may have no answer"),
    "threshold": (0.7, "go_emotions", "sst2", "--threshold.*several labels"),
}


@pytest.mark.parametrize("name", OF_OTHERS)
def test_flag_that_another_kind_of_task_reads_is_refused(name):
    value, reader, other, message = OF_OTHERS[name]
    config = dataclasses.replace(RunConfig(), **{name: value})
    config_rules.refuse_flags_of_others(config, TASKS[reader])
    config_rules.refuse_flags_of_others(RunConfig(), TASKS[other])
    with pytest.raises(MetalrError, match=message):
        config_rules.refuse_flags_of_others(config, TASKS[other])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"task": "rte"}, "rte-minilm-linear-0"),
        ({"model": "minilm:2", "seed": 5}, "sst2-minilm2-linear-5"),
        ({"model": "/a/b/../my model", "task": "rte"}, "rte-my model-linear-0"),
        ({"train_file": "../x.csv"}, "file-minilm-linear-0"),
        ({"data": __file__}, "file-minilm-linear-0"),
        ({"data": __file__, "task": "rte"}, "rte-minilm-linear-0"),
    ],
)
def test_run_name_stays_one_part_of_a_path(settings, name):
    assert dataclasses.replace(RunConfig(scheduler="linear"), **settings).name == name
