"""What is known of runs besides the best rate: forecasts, and whose intervals hold."""

import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metalr
from metalr.errors import MetalrError
from metalr.finding import experience
from metalr.predictor import init_predictor
from metalr.stored_predictor import load_predictor, save_predictor


def test_forecasts_are_the_weights_times_what_was_seen():
    known = experience.Experience(0.8, 1.28, 1.0, 1.0, {}, {})._replace(
        losses={"any": ([2.0], 0.1)},
        scores=([0.5], 0.03),
        lost={"any": {"w": (0, 1, 2)}},
    )
    losses = np.r_[np.full(30, 2.0), np.full(10, 1.0)]
    low, middle, high = known.final_loss("encoder", losses)
    np.testing.assert_allclose(
        [low, middle, high], 2 * np.exp([-0.1, 0, 0.1]) * 0.25, rtol=1e-6
    )
    assert known.final_loss("any", -losses) is None
    low, middle, high = known.final_score("f1", 0.6, 1 / np.e)
    np.testing.assert_allclose([low, middle, high], [0.77, 0.8, 0.83])
    assert known.final_score("pearson", 0.6, 1 / np.e) is None
    assert known.costs("encoder") == {"w": (0, 1, 2)}


def test_a_table_of_other_weights_is_read_without_its_narrower_intervals(tmp_path):
    save_predictor(tmp_path, init_predictor(), {})
    assert experience.load_experience(tmp_path).scale == 1.0
    assert experience.load_experience(tmp_path).coverage is None
    table = {
        "predictor_sha256": "of another",
        "coverage": 0.8,
        "width": 1.28,
        "scale": 0.5,
        "prior_scale": 1.5,
        "lost": {},
        "losses": {"any": {"weights": [1.0], "error": 0.2}},
        "scores": None,
    }
    (tmp_path / experience.FILE).write_text(json.dumps(table))
    known = experience.load_experience(tmp_path)
    assert (known.coverage, known.scale, known.prior_scale) == (None, 1.0, 1.5)
    assert known.losses == {"any": ([1.0], 0.2)}
    for wrong in ({}, table | {"scale": None}, table | {"losses": {"any": [1]}}):
        (tmp_path / experience.FILE).write_text(json.dumps(wrong))
        experience._load.cache_clear()
        with pytest.raises(MetalrError, match="no table of metalr's probes"):
            experience.load_experience(tmp_path)


def test_how_often_an_interval_holds_is_said_of_the_measured_weights_alone():
    shipped = load_predictor()
    other = shipped._replace(aim=shipped.aim + 1)
    load = experience.load_experience
    assert load().coverage == load(predictor=shipped).coverage
    assert load(predictor=other).coverage is None

    def loss_fn(params, batch):
        return jnp.mean((batch @ params["w"] - 1) ** 2)

    given = (loss_fn, {"w": jnp.full(3, 0.1)}, optax.adam, [jnp.eye(3)])
    measured = metalr.suggest(*given, steps=40, predictor=shipped)
    assert f"({measured.coverage:.0%} of such intervals hold" in measured.text
    others = " in runs of known kinds, and this is of none"
    for known in (True, False):
        assert (others in measured._replace(known=known).text) is not known
    own = metalr.suggest(*given, steps=40, predictor=other)
    assert own.coverage is None
    assert "not measured with this predictor" in own.text
