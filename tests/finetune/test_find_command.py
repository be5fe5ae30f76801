"""`metalr find` and `metalr suggest` as a person uses them."""

import re

import numpy as np
import pytest

from metalr import cli, find_command, fine_tuning, stored_predictor
from metalr.finding import finder
from metalr.finetune import run_folder
from metalr.finetune.config import add_flags
from metalr.finetune.config_rules import from_flags
from tests.models import small_models

SMALL = (
    "--data", "toy", "--train-rows", "64", "--validation-rows", "16", "--epochs", "8",
    "--max-steps", "24", "--batch-size", "8", "--max-length", "16",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(small_models.save_bert(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METALR_CACHE", str(tmp_path.parent / "cache"))


def knows_all(path=None, load=stored_predictor.load_predictor):
    """Load a predictor with limits that no run lies beyond."""
    shipped = load(path)
    wide = {
        name: getattr(shipped, name)._replace(limit=np.float32(1e6))
        for name in ("seen", "prior_seen")
    }
    return shipped._replace(**wide)


def test_find_prints_a_rate_with_its_interval_and_use_trains_at_it(
    tiny, capsys, tmp_path, monkeypatch
):
    begun = []

    def fine_tune(config, **how):
        begun.append((config, how["overwrite"]))
        return fine_tuning.FineTuned(tmp_path, {"stopped": None})

    monkeypatch.setattr(fine_tuning, "fine_tune", fine_tune)
    flags = ("--model", tiny, *SMALL, "--scheduler", "linear", "--seed", "3")
    shipped = str(stored_predictor.folder_of())  # of the probe, not of the run
    flags += ("--predictor", shipped)
    monkeypatch.setattr(stored_predictor, "load_predictor", knows_all)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/settings.json").write_text("{}")  # of some other run
    use = ("--use", "--overwrite", "--output", "full")
    assert cli.main(["find", *flags, "--png", "probe.png", *use]) == 0
    said = capsys.readouterr().out
    found = re.search(r"rate (\S+), between (\S+) and (\S+) \(80% of", said)
    assert found, said
    rate, low, high = map(float, found.groups())
    assert low < rate < high and "for 24 steps of linear decay" in said
    assert "from 20 steps of a copy" in said and "4x lower: " in said
    assert "final loss about" in said and "after the probe)" in said
    assert (tmp_path / "probe.png").stat().st_size > 5_000
    ((config, overwrite),) = begun
    assert overwrite and config.learning_rate == pytest.approx(rate, rel=0.05)
    assert (config.scheduler, config.seed) == ("linear", 3)
    assert config.predictor is None


@pytest.mark.parametrize(
    ("name", "message"),
    [("none/probe.png", "there is no folder none"), ("probe.txt", "ends in .png")],
)
def test_a_picture_that_cannot_be_written_is_refused_before_the_probe(
    name, message, capsys, monkeypatch
):
    monkeypatch.setattr(finder, "find", lambda **run: pytest.fail("probed"))
    assert cli.main(["find", "--task", "sst2", "--png", name]) == 2
    assert message in capsys.readouterr().err


LENGTHS = {
    "twice": (("--steps", "9", "--max-steps", "8"), "say the same"),
    "none": (("--steps", "1"), "--steps must be at least 2, got 1"),
    "most": (("--max-steps", "1"), "--max-steps must be at least 2, got 1"),
}


@pytest.mark.parametrize(
    ("command", "name"), [*(("suggest", name) for name in LENGTHS), ("find", "most")]
)
def test_a_length_that_is_none_is_refused_by_its_flag(command, name, capsys):
    argv, message = LENGTHS[name]
    assert cli.main([command, "--task", "sst2", *argv]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scheduler", "shape"),
    [("metalr", "a hold and linear decay"), ("metalr_linear", "linear decay")],
)
def test_suggest_takes_length_and_shape_of_the_run(tiny, scheduler, shape, capsys):
    flags = ("--model", tiny, "--task", "sst2", "--scheduler", scheduler, *SMALL[:6])
    flags += ("--output", "kept")
    assert cli.main(["suggest", *flags, "--steps", "900", "--max-length", "16"]) == 0
    said = capsys.readouterr().out
    assert f"for 900 steps of {shape} (no step was taken)" in said
    assert "so --output is not used; `metalr find --use` trains" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--scheduler", "prodigy"), "finds or sets its rate itself"),
        (("--scheduler", "lr_find_valley"), "finds or sets its rate itself"),
        (("--scheduler", "linaer"), "linear"),
        (("--batch-size", "0"), "at least 1"),
    ],
)
def test_what_has_no_rate_to_find_is_refused(flags, said, capsys):
    assert cli.main(["find", *flags]) == 2
    assert said in capsys.readouterr().err


USES = {
    "folder": (("--seed", "7"), "holds a run with other settings (learning_rate)"),
    "unread": (("--scheduler", "static", "--warmup-steps", "9"), "is not read under"),
    "logger": (("--log-to", "wandbb"), "did you mean 'wandb'"),
    "task": (("--stride", "9"), "--stride is read by tasks of questions"),
}


@pytest.mark.parametrize("name", USES)
def test_use_refuses_before_the_probe_what_the_run_would_refuse(
    name, tiny, capsys, monkeypatch
):
    monkeypatch.setattr(finder, "find", lambda **run: pytest.fail("probed"))
    flags, message = USES[name]
    argv = ("--model", tiny, *SMALL, "--task", "sst2", *flags)
    if name == "folder":  # of a run at its default rate
        parser = cli.Parser()
        add_flags(parser)
        begun = from_flags(parser.parse_args(argv))
        run_folder.take(run_folder.of(begun), begun, {}, overwrite=False)
    assert cli.main(["find", *argv, "--use"]) == 2
    assert message in capsys.readouterr().err


def test_overwrite_without_a_run_to_begin_is_refused(capsys):
    assert cli.main(["find", "--data", "toy", "--overwrite"]) == 2
    assert "--overwrite is of the run that --use begins" in capsys.readouterr().err


def test_a_loss_in_parts_is_that_of_the_whole_batch():
    import jax
    import jax.numpy as jnp
    import numpy as np

    from metalr.finetune import sharding

    rng = np.random.default_rng(0)
    batch = {
        "x": rng.normal(size=(8, 3)).astype(np.float32),
        "weights": np.array([1, 1, 1, 0, 1, 1, 0, 0], np.float32),
    }

    def loss(params, batch, key):
        del key
        each = jnp.tanh(batch["x"] @ params) ** 2 * batch["weights"]
        return jnp.sum(each) / jnp.sum(batch["weights"])

    params, key = jnp.ones(3), jax.random.key(0)
    in_parts = find_command._in_parts(loss, 2, sharding.ONE)
    whole = jax.value_and_grad(loss)(params, batch, key)
    parts = jax.value_and_grad(in_parts)(params, batch, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, parts)
