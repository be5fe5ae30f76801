"""Scores of any size are learned alike, and come out as the rows have them."""

import json

import numpy as np
import pytest

import metalr
from metalr.data.tasks import TASKS
from metalr.finetune import run as running
from metalr.finetune import score_scale
from metalr.finetune.config import RunConfig
from metalr.finetune.display import Together
from tests.models import small_models

RNG = np.random.default_rng(0)
WORDS = [" ".join(RNG.choice(["good", "bad", "film"], 6)) for _ in range(48)]
SCORES = np.array([text.count("good") for text in WORDS], float)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return str(small_models.save_bert(tmp_path_factory.mktemp("models") / "tiny"))


def train(model, folder, scores, **more):
    rows = [{"text": t, "score": y} for t, y in zip(WORDS, scores, strict=True)]
    folder.mkdir()
    file = folder / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    settings = {"scheduler": "linear", "learning_rate": 1e-2, "max_length": 16}
    settings |= {"batch_size": 16, "max_steps": 30, "model": str(model), **more}
    of_file = {"train_file": str(file), "validation_file": str(file)}
    config = RunConfig(**settings, **of_file, kind="regression")
    result = running.run(config, Together(), folder=folder / "run")
    said = metalr.load(folder / "run", batch_size=16)(WORDS)
    return result, np.array([row["predicted_score"] for row in said])


@pytest.mark.parametrize("more", [{}, {"lora": 2}], ids=["whole", "lora"])
def test_the_same_scores_in_another_unit_are_learned_as_well(model, tmp_path, more):
    same = (SCORES - SCORES.mean()) / SCORES.std()
    plain, expected = train(model, tmp_path / "plain", same, **more)
    large, found = train(model, tmp_path / "large", 1000 + 250 * same, **more)
    assert large["metrics"] == pytest.approx(plain["metrics"], abs=1e-4)
    np.testing.assert_allclose(found, 1000 + 250 * expected, atol=0.1)
    assert any("have mean 1000 and deviation 250" in note for note in large["notes"])
    assert not any("deviation" in note for note in plain["notes"])


def test_a_model_that_knows_the_unit_goes_on_in_it(model, tmp_path):
    scores = 1000 + 250 * SCORES
    _, known = train(model, tmp_path / "first", scores)
    saved = tmp_path / "first" / "run" / "model"
    _, found = train(
        saved, tmp_path / "second", scores, max_steps=1, learning_rate=1e-9
    )
    np.testing.assert_allclose(found, known, rtol=1e-4)


@pytest.mark.parametrize(
    ("scores", "mean", "deviation"),
    [
        ([0.0, 5.0], None, None),  # as STS-B has them
        ([3.0, 3.0], None, None),
        ([60.0, 100.0], 80.0, 20.0),
        ([1e-3, 3e-3], 2e-3, 1e-3),
        ([-3e4, 1e4], -1e4, 2e4),
    ],
)
def test_scale_is_taken_where_scores_are_far(scores, mean, deviation):
    task = TASKS["stsb"]
    found = score_scale.of_rows([{task.label: x} for x in scores], task)
    if mean is None:
        assert found is None
    else:
        assert found == pytest.approx((mean, deviation))
