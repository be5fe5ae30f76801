"""On steps unlike those of training the predictor abstains: the rate is the user's."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metalr
from metalr.features import NAMES
from tests.product.steering import (
    UNSURE,
    constant,
    drive,
    falling,
    knowing,
    multipliers,
)
from tests.product.steering import wrap_without_trust as wrap


def test_steps_unlike_those_of_training_are_counted():
    predictor = constant(0.5)
    row = np.zeros((len(NAMES), len(NAMES)), np.float32)
    row[0, NAMES.index("slope")] = np.sqrt(len(NAMES))
    centre = np.where(np.array(NAMES) == "slope", -1, 0).astype(np.float32)
    seen = predictor.seen._replace(centre=centre[None], whitening=row[None])
    usual = [(1.0, 1.0)] * 6  # the slope is -1
    strange = [((-1.0) ** step, 1.0) for step in range(1, 26)]  # now it is +1
    tx = wrap(optax.sgd(1e-3), predictor._replace(seen=seen))
    history = drive(tx, usual + strange)
    assert history[5][2].out_of_range_steps == 0
    assert history[-1][2].out_of_range_steps >= 15


def far_from(predictor, of="seen"):
    """Move all that a predictor has seen far away."""
    seen = getattr(predictor, of)
    size = seen.centre.shape[1]
    moved = seen._replace(
        centre=np.full((1, size), 50.0, np.float32),
        whitening=np.eye(size, dtype=np.float32)[None],
    )
    return predictor._replace(**{of: moved})


@pytest.mark.parametrize("sign", [1, -1])
def test_a_run_unlike_those_of_training_stays_at_the_rate_of_the_user(sign):
    predictor = far_from(knowing(-10.0)._replace(weights=constant(3.0 * sign).weights))
    predictor = predictor._replace(correlation=np.float32(1))
    state = drive(wrap(optax.sgd(1e-3), predictor), falling(60))[-1][2]
    assert state.out_of_range_steps == 59
    np.testing.assert_allclose(state.lr_multiplier, 1, atol=1e-6)
    assert state.lr_variance > 15.9


@pytest.mark.parametrize("trust", [0.0, 0.7])
def test_a_run_unlike_those_of_training_does_not_go_back_to_what_was_cut(trust):
    tx = metalr.wrap(optax.sgd(1e-3), far_from(knowing(-10.0)), trust=trust)
    steps = falling(12)
    steps[4:7] = [(float("nan"), 1.0)] * 3
    found = np.log2(multipliers(drive(tx, steps)))
    np.testing.assert_allclose(found, [0, 0, 0, 0, -1, -2, *[-3] * 6], atol=1e-6)


def test_a_prior_of_facts_unlike_those_of_training_abstains():
    near, far = (
        drive(wrap(optax.sgd(1e-3), predictor), falling(9))[-1][2].lr_log2_multiplier
        for predictor in (knowing(-3.0), far_from(knowing(-3.0), "prior_seen"))
    )
    assert near > 3 and far == 0


def test_the_prior_enters_once_however_long_a_run_is_out_of_range():
    row = np.zeros((len(NAMES), len(NAMES)), np.float32)
    row[0, NAMES.index("level")] = 10 * np.sqrt(len(NAMES))
    known = knowing(-3.0)  # within range at the peak
    known = known._replace(
        seen=known.seen._replace(whitening=row[None]),
        drift=np.float32(0.5),  # so that all that was known has faded in the end
    )
    level = lambda step: jnp.where(step < 20, 1.0, 0.5)  # noqa: E731
    tx = wrap(
        optax.sgd(lambda step: 1e-3 * level(step)),
        known,
        schedule=level,
        total_steps=90,
    )
    history = drive(tx, falling(90))
    state, found = history[-1][2], np.log2(multipliers(history))
    np.testing.assert_allclose(state.lr_variance, 16)
    np.testing.assert_allclose(state.lr_prior, history[1][2].lr_prior)
    assert found[19] > 3 and np.abs(np.diff(found[1:])).max() < 0.1


@pytest.mark.parametrize("far", [6.9, 1.2, 1.1])  # half of the way out as well
@pytest.mark.parametrize("out", [[1], [5], [1, 2, 3]])
def test_one_step_out_of_range_costs_a_run_no_prior_wherever_it_stands(out, far):
    predictor = knowing(-3.0)
    row = np.zeros((len(NAMES), len(NAMES)), np.float32)
    row[0, NAMES.index("level")] = far / np.log(2) * np.sqrt(len(NAMES))
    seen = predictor.seen._replace(whitening=row[None])  # within range at the peak
    level = lambda step: jnp.where(jnp.isin(step, jnp.array(out)), 0.5, 1.0)  # noqa: E731
    found = []
    for given in (predictor, predictor._replace(seen=seen)):
        tx = wrap(
            optax.sgd(lambda step: 1e-3 * level(step)),
            given,
            schedule=level,
            total_steps=60,
        )
        found.append(drive(tx, falling(60))[-1][2])
    whole, cut = found
    assert whole.lr_prior > 3 and cut.out_of_range_steps == len(out)
    if len(out) == 1:
        np.testing.assert_allclose(cut.lr_prior, whole.lr_prior, rtol=0.05)
        np.testing.assert_allclose(
            cut.lr_log2_multiplier, whole.lr_log2_multiplier, rtol=0.05
        )
    else:  # it enters at the first step within range, by what is known of the run
        assert 0 < cut.lr_prior < whole.lr_prior / 2


def test_a_few_steps_within_range_do_not_speak_for_the_run():
    predictor = constant(4.0, UNSURE)._replace(correlation=np.float32(20))
    row = np.zeros((len(NAMES), len(NAMES)), np.float32)
    row[0, NAMES.index("level")] = 10 * np.sqrt(len(NAMES))
    seen = predictor.seen._replace(whitening=row[None])  # within range at the peak
    found = {}
    for every in (1, 20):
        level = lambda step, n=every: jnp.where((step + 1) % n == 0, 1.0, 0.5)  # noqa: E731
        tx = wrap(
            optax.sgd(lambda step, f=level: 1e-3 * f(step)),
            predictor._replace(seen=seen),
            schedule=level,
            total_steps=200,
        )
        state = drive(tx, falling(200))[-1][2]
        found[every] = float(state.lr_log2_multiplier), int(state.out_of_range_steps)
    assert found[1][0] > 3 and found[1][1] == 0
    assert 0 <= found[20][0] < 0.25 and found[20][1] > 180
