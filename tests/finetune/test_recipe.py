"""What is compiled is kept within bounds and used again, and versions are told."""

import dataclasses
import os
from importlib import metadata
from types import SimpleNamespace

import jax
import pytest

from metalr.data.tasks import TASKS
from metalr.errors import MetalrError
from metalr.finetune import loop, preparation, recipe
from metalr.finetune.config import RunConfig
from tests.models import small_models

pytestmark = pytest.mark.fast


def test_cache_over_its_bound_loses_the_oldest_programs_alone(tmp_path):
    for age in range(5):
        path = tmp_path / f"jit_{age}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    recipe._prune(tmp_path, 250)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["jit_0", "jit_1"]
    recipe._prune(tmp_path, 250)
    recipe._prune(tmp_path / "none", 250)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("scheduler", ["linear", "metalr"])
def test_runs_of_other_seeds_need_no_compilation_of_their_own(scheduler, tmp_path):
    model = str(small_models.save_bert(tmp_path / "model"))

    def program(seed):
        rows = {"data": "toy", "train_rows": 64, "validation_rows": 8, "max_length": 16}
        config = RunConfig(
            task="sst2", model=model, scheduler=scheduler, seed=seed, **rows
        )
        made = recipe.prepare(config, max_shapes=1)
        problem, params = made.problem, made.problem.params
        step = loop.make_step(problem.loss_fn, made.tx, accumulate=1)
        state = loop.start(params, made.tx.init(params), seed)
        return step.lower(state, problem.batches.batch(0)).as_text()

    assert program(0) == program(1)


def test_longest_text_leaves_room_for_what_it_is_padded_to():
    model = SimpleNamespace(
        config=dataclasses.replace(small_models.BERT, max_position_embeddings=60)
    )
    most = lambda length: preparation._max_length(  # noqa: E731
        RunConfig(max_length=length), TASKS["squad"], model
    )
    assert (most(None), most(56), most(20)) == (56, 56, 20)
    with pytest.raises(MetalrError, match="at most 56"):
        most(60)


def test_copy_that_was_never_installed_does_not_fail_when_its_run_ends(monkeypatch):
    of_others = metadata.version

    def version(name):
        if name == "metalr":
            raise metadata.PackageNotFoundError(name)
        return of_others(name)

    monkeypatch.setattr(metadata, "version", version)
    found = recipe.versions()
    assert (found["metalr"], found["jax"]) == ("not installed", jax.__version__)
