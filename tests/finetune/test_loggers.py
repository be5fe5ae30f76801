"""Runs are logged to tools by name; each is held to what the tool itself reads back."""

import sys
import types

import pytest

from metalr.errors import MetalrError
from metalr.finetune import display, loggers
from metalr.finetune.config import RunConfig

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def play(shown, first=2, last=40):
    """Show 40 steps in rows of 2, with four evaluations, or a part of them."""
    shown.start(["task   sst2 [toy]", "model  minilm"], 40)
    for step in range(first, last + 1, 2):
        row = {"step": step, "epoch": 3 * step / 40, "loss": 0.5}
        shown.logged(row | {"learning_rate": 2e-5}, 10.0)
        if step % 10 == 0:
            scores = {"accuracy": 0.875, "eval_loss": 0.4}
            shown.evaluated({"step": step, "epoch": 3 * step / 40, **scores})
    shown.note("saved")
    shown.close()
    shown.close()


def logger(folder, name):
    config = RunConfig(task="rte", log_to=name)
    return display.create(True, loggers.create(folder, config))


@pytest.mark.fast
@pytest.mark.parametrize("name", PACKAGES)
def test_tool_that_is_not_installed_is_one_line_with_what_to_install(
    name, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(MetalrError, match=f"--log-to {name}.*pip install"):
        logger(tmp_path / "run", name)
    assert not (tmp_path / "run").exists()


@pytest.mark.fast
def test_wrong_name_is_told_with_the_nearest_ones(tmp_path):
    with pytest.raises(MetalrError, match="did you mean 'wandb'"):
        logger(tmp_path, "wandbb")
    assert loggers.create(tmp_path, RunConfig()) == []


class FakeWandb(types.ModuleType):
    """Keeps what it is called with."""

    def __init__(self):
        super().__init__("wandb")
        self.begun, self.rows, self.ended = [], [], []

    def init(self, **given):
        self.begun.append(given)
        run = types.SimpleNamespace(id=given["id"] or "abc")
        run.log = lambda values, step: self.rows.append((step, values))
        run.finish = lambda exit_code: self.ended.append(exit_code)
        return run


@pytest.mark.fast
def test_resumed_run_goes_on_in_the_run_that_the_folder_began(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    play(logger(tmp_path, "wandb"), last=20)
    play(logger(tmp_path, "wandb"), first=22)
    assert [given["id"] for given in fake.begun] == [None, "abc"]
    assert fake.begun[0]["config"]["task"] == "rte"
    assert fake.begun[0]["project"] == "metalr"
    steps = [step for step, row in fake.rows if "train/loss" in row]
    assert steps == list(range(2, 41, 2))
    scores = {
        step: row["validation/accuracy"]
        for step, row in fake.rows
        if step % 10 == 0 and "validation/accuracy" in row
    }
    assert scores == dict.fromkeys((10, 20, 30, 40), 0.875)
    assert fake.ended == [0, 0]


@pytest.mark.fast
def test_run_that_an_exception_ends_has_failed(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    shown = logger(tmp_path, "wandb")
    shown.close()  # refused before it began: nothing was opened
    assert fake.begun == fake.ended == []
    shown.start([], 1)
    try:
        raise ValueError
    except ValueError:
        shown.close()
    assert fake.ended == [1]


def test_several_tools_are_shown_the_same(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    play(logger(tmp_path, "tensorboard, wandb"))
    assert len(fake.rows) == 24
    assert len(list((tmp_path / "events").iterdir())) == 1


def test_tensorboard_reads_back_what_was_written(tmp_path):
    pytest.importorskip("tensorboardX")
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    play(logger(tmp_path, "tensorboard"))
    events = accumulator.EventAccumulator(str(tmp_path / "events")).Reload()
    loss = events.Scalars("train/loss")
    assert [event.step for event in loss] == list(range(2, 41, 2))
    assert {event.value for event in loss} == {0.5}
    assert [e.step for e in events.Scalars("validation/accuracy")] == [10, 20, 30, 40]
    assert set(events.Tags()["scalars"]) == {
        "train/epoch",
        "train/learning_rate",
        "train/loss",
        "train/steps_per_second",
        "validation/accuracy",
        "validation/epoch",
        "validation/eval_loss",
    }


@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_mlflow_reads_back_what_was_written(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    play(logger(tmp_path / "run", "mlflow"), last=20)
    play(logger(tmp_path / "run", "mlflow"), first=22)
    client = mlflow.MlflowClient()
    (experiment,) = [e for e in client.search_experiments() if e.name == "metalr"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["task"] == "rte"
    assert run.data.metrics["validation/eval_loss"] == 0.4
    loss = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(m.step for m in loss) == list(range(2, 41, 2))
    assert {m.value for m in loss} == {0.5}


@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_wandb_takes_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    play(logger(tmp_path / "run", "wandb"))
    assert list((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
