"""A rate that is trusted to be tuned stays, unless the run shows that it is far off."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import metalr
from metalr import controller
from metalr.errors import MetalrError
from metalr.predictor import init_predictor
from tests.product.steering import drive, falling, knowing, multipliers
from tests.product.steering import wrap_without_trust as wrap


@pytest.mark.parametrize("trust", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("shown", [-5.0, -0.4, 1.5, 4.0])
def test_the_probability_of_a_tuned_rate_is_that_of_bayes(trust, shown):
    """Of a measurement with variance 2 under N(0, 0.25) and under N(0, 16)."""
    noise, wide, narrow = 2.0, 16.0, 0.25
    variance = 1 / (1 / noise + 1 / wide)
    state = (
        wrap(optax.sgd(0.1), init_predictor())
        .init({"w": jnp.ones(3)})
        ._replace(
            lr_mean=jnp.float32(variance * shown / noise),
            lr_variance=jnp.float32(variance),
        )
    )
    found = controller._tuned(trust, wide, state)
    likely = [stats.norm.pdf(shown, scale=np.sqrt(noise + x)) for x in (narrow, wide)]
    expected = trust * likely[0] / (trust * likely[0] + (1 - trust) * likely[1])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("octaves", [1.0, 4.0])
def test_trusted_rate_is_left_where_the_run_shows_that_it_is_far_off(octaves):
    rate, params = 0.01, {"w": jnp.ones(3)}
    knows = knowing(np.log2(rate / (1 - rate)) + octaves, variance=0.5)
    found = {}
    for trust in (0.0, 0.8):
        tx = metalr.wrap(optax.sgd(rate), knows, total_steps=30, trust=trust)
        found[trust] = np.log2(multipliers(drive(tx, falling(12), params))[-1])
    if octaves == 1:
        assert 0 <= found[0.8] < 0.2 * found[0.0]
    else:
        assert found[0.8] > 0.9 * found[0.0]


def test_trust_does_not_bring_back_what_was_cut():
    silent = init_predictor()._replace(correlation=np.float32(np.inf))
    tx = metalr.wrap(optax.sgd(0.01), silent, total_steps=30, trust=0.9)
    steps = falling(20)
    steps[10] = (float("nan"), 1.0)
    found = np.log2(multipliers(drive(tx, steps)))
    np.testing.assert_allclose(found, np.where(np.arange(20) < 10, 0, -1), atol=1e-6)


def test_trust_is_a_probability():
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(MetalrError, match="`trust` must be a probability"):
            metalr.wrap(optax.sgd(0.1), init_predictor(), trust=wrong)
