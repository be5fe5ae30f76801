"""Scores are those of the rows, however they are batched."""

import dataclasses

import pytest

from metalr.finetune.config import RunConfig
from metalr.finetune.preparation import prepare
from tests.models import small_models


def test_scores_do_not_depend_on_the_size_of_an_evaluation_batch(tmp_path):
    model = small_models.save_bert(tmp_path / "model")
    rows = {"train_rows": 8, "validation_rows": 13, "batch_size": 4}
    config = RunConfig(task="sst2", data="toy", model=str(model), **rows)
    scores = []
    for size in (None, 1, 5, 64):
        problem = prepare(dataclasses.replace(config, eval_batch_size=size)).problem
        scores.append(problem.evaluate(problem.params))
    for found in scores[1:]:
        assert found == pytest.approx(scores[0], rel=1e-5)
