"""Runs share what is compiled, and texts fit what they are padded to."""

import dataclasses
from types import SimpleNamespace

import pytest

from metalr.data.tasks import TASKS
from metalr.errors import MetalrError
from metalr.finetune import inputs, loop, preparation
from metalr.finetune.config import RunConfig
from tests.models import small_models

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("scheduler", ["linear", "metalr"])
def test_runs_of_other_seeds_need_no_compilation_of_their_own(scheduler, tmp_path):
    model = str(small_models.save_bert(tmp_path / "model"))

    def program(seed):
        rows = {"data": "toy", "train_rows": 64, "validation_rows": 8, "max_length": 16}
        config = RunConfig(
            task="sst2", model=model, scheduler=scheduler, seed=seed, **rows
        )
        made = preparation.prepare(config, max_shapes=1)
        problem, params = made.problem, made.problem.params
        step = loop.make_step(problem.loss_fn, made.tx, accumulate=1)
        state = loop.start(params, made.tx.init(params), seed)
        return step.lower(state, problem.batches.batch(0)).as_text()

    assert program(0) == program(1)


def test_longest_text_leaves_room_for_what_it_is_padded_to():
    model = SimpleNamespace(
        config=dataclasses.replace(small_models.BERT, max_position_embeddings=60)
    )
    most = lambda length: inputs.max_length_of(  # noqa: E731
        RunConfig(max_length=length), TASKS["squad"], model
    )
    assert (most(None), most(56), most(20)) == (56, 56, 20)
    with pytest.raises(MetalrError, match="at most 56"):
        most(60)
