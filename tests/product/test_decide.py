"""One decision of the controller on a state and an observation made by hand."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import controller, wrap
from metalr.features import NAMES
from metalr.observe import Observation
from tests.product.steering import (
    constant,
    drive,
    falling,
    knowing,
    of_a_step,
    summary_of,
)

TRUE = jnp.asarray(True)
CALM = {"start": 1.0, "spread": 0.1}


def fixed_by(predictor, **settings):
    more = {"total_steps": 60, "max_multiplier": 8.0, "trust": 0.0, "explore": None}
    more |= {"log_multiplier": None, "curvature_every": 0, "stride": 1}
    return controller.new_controller(predictor, **(more | settings))


def decided(predictor, seen, summary, **state):
    fixed = fixed_by(predictor)
    begun = controller.zero_state(fixed, None, None)._replace(**state)
    vector = jnp.zeros(len(NAMES), jnp.float32)
    return controller.decide(fixed, begun, seen, vector, summary, TRUE)


def test_the_mean_stays_within_the_bounds_of_the_multiplier():
    seen, summary = of_a_step(), summary_of(0.5, **CALM)
    for asked, bound in ((100.0, 3.0), (-100.0, -3.0)):
        state = decided(constant(asked), seen, summary, lr_prior_entered=TRUE)
        assert float(state.lr_mean) == pytest.approx(bound, abs=1e-4)


def test_a_prior_beyond_the_bounds_is_taken_for_one_at_them():
    # Ten octaves are asked for, three are allowed; 16 / (16 + 4) of them.
    state = decided(knowing(10.0, variance=4.0), of_a_step(), summary_of(0.5, **CALM))
    assert float(state.lr_prior) == pytest.approx(0.8 * 3, rel=1e-4)


def test_a_step_before_which_nothing_moved_is_not_braked_while_a_run_diverges():
    summary = summary_of(10.0, **CALM)
    still, moved = of_a_step(update_norm=0.0), of_a_step()
    state = decided(constant(0.0), still, summary, lr_prior_entered=TRUE)
    assert float(state.lr_log2_multiplier) == 0 and state.braked_steps == 0
    state = decided(constant(0.0), moved, summary, lr_prior_entered=TRUE)
    assert float(state.lr_log2_multiplier) == -0.25 and state.braked_steps == 1


def test_the_brake_holds_up_no_fall_that_is_steeper():
    # The evidence asks for two octaves less, of which a step takes half an octave.
    summary = summary_of(10.0, **CALM)
    state = decided(constant(-2.0), of_a_step(), summary, lr_prior_entered=TRUE)
    assert float(state.lr_log2_multiplier) == pytest.approx(-0.5, abs=1e-4)
    assert state.braked_steps == 1


@pytest.mark.parametrize("shown", [-3.0, -2.0, 0.0])
def test_a_tuned_rate_that_was_cut_is_looked_for_where_it_is_now(shown):
    """Of a measurement with variance 2 under N(-2, 0.25) and under N(0, 16)."""
    noise, wide, narrow, trust, cut = 2.0, 16.0, 0.25, 0.5, -2.0
    variance = 1 / (1 / noise + 1 / wide)
    begun = controller.zero_state(fixed_by(constant(0.0)), None, None)
    state = begun._replace(
        lr_mean=jnp.float32(variance * shown / noise),
        lr_variance=jnp.float32(variance),
        lr_trusted=jnp.float32(cut),
    )

    def likely(centre, spread):
        spread += noise
        return math.exp(-((shown - centre) ** 2) / (2 * spread)) / math.sqrt(spread)

    tuned, any_ = trust * likely(cut, narrow), (1 - trust) * likely(0.0, wide)
    found = float(controller._tuned(trust, wide, state))
    assert found == pytest.approx(tuned / (tuned + any_), rel=1e-4)


def test_observed_multiplier_is_that_of_the_last_step_that_was_taken():
    tx = wrap(optax.sgd(1e-3), constant(1.0), total_steps=30, trust=0.0)
    steps = falling(12)
    steps[9] = (math.nan, 1.0)
    history = drive(tx, steps)
    place = Observation._fields.index("log_multiplier")
    taken, skipped, after = (history[n][2] for n in (8, 9, 10))
    np.testing.assert_allclose(taken.lr_multiplier, 2 * skipped.lr_multiplier)
    # The update that step 10 sees is that of step 8: nothing moved in step 9.
    found = after.lr_observation[place]
    np.testing.assert_allclose(found, np.log(taken.lr_multiplier), atol=1e-5)
