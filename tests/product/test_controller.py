"""The multiplier is where the prior and the evidence of the steps put it, in bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr.meta.sweeps import constant_predictor
from metalr.predictor import init_predictor
from tests.product.steering import SURE, constant, drive, falling, knowing, multipliers
from tests.product.steering import wrap_without_trust as wrap


def test_the_multiplier_is_that_of_a_kalman_filter_by_hand():
    # Each step says 0.3 octaves more, with variance 4; the loss falls from the start.
    said, noise, tau, width, drift = 0.3, 4.0, 10.0, 16.0, 1e-3
    predictor = constant(said, np.log(noise))._replace(
        correlation=np.float32(tau), aim=np.float32(0.5)
    )
    tx = wrap(optax.sgd(0.01), predictor, total_steps=60)
    found = np.log2(multipliers(drive(tx, falling(60))))
    log2_m, mean, variance, expected = 0.0, 0.0, width, [0.0]
    for step in range(1, 60):
        grown = variance + drift
        gain = grown / (grown + tau * noise)
        mean, variance = mean + gain * (log2_m + said - mean), (1 - gain) * grown
        target = mean - 0.5 * np.sqrt(variance) * (1 - variance / width)
        move = target - log2_m
        log2_m += move if step == 1 else np.clip(move, -0.5, 0.5)
        expected.append(log2_m)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_prior_sets_the_rate_at_the_first_update():
    # |u| = rate * |g|, |theta| is that after the step: both by hand.
    rate, params = 0.01, {"w": jnp.ones(3)}
    relative = np.log2(rate / (1 - rate))
    tx = wrap(optax.sgd(rate), knowing(relative + 3, variance=4.0), total_steps=30)
    history = drive(tx, falling(12), params)
    found = np.log2(multipliers(history))
    assert found[0] == 0  # nothing has moved yet
    # The user's own rate is a guess with a variance of 16: 16 / (16 + 4) of the way.
    np.testing.assert_allclose(found[1:], 3 * 0.8, atol=1e-3)
    np.testing.assert_allclose(history[-1][2].lr_prior, 3 * 0.8, atol=1e-3)
    np.testing.assert_allclose(history[-1][2].lr_variance, 16 * 0.2, rtol=1e-3)


def test_before_the_loss_has_left_its_start_m_stays_within_an_octave_of_the_prior():
    tx = wrap(optax.sgd(1e-4), constant(4.0), total_steps=60)
    flat = [(1.0, 1.0 + 0.01 * (-1) ** step) for step in range(12)]
    history = drive(tx, [*flat, *falling(6, end=0.2)])
    found = np.log2(multipliers(history))
    np.testing.assert_allclose(found[1:12], 1, atol=1e-5)
    assert found[-1] > 2


def test_no_step_moves_the_rate_by_more_than_its_limit():
    tx = wrap(optax.sgd(1e-3), constant(6.0), total_steps=60)
    found = np.log2(multipliers(drive(tx, falling(30))))
    assert np.max(np.diff(found)[1:]) <= 0.5 + 1e-5


@pytest.mark.parametrize("sign", [1, -1])
def test_the_multiplier_never_leaves_its_bounds(sign):
    tx = wrap(optax.sgd(1e-3), constant(sign * 100.0), total_steps=30, max_multiplier=8)
    *_, (_, _, state) = drive(tx, [(1.0, 1.0)] * 9 + [(1.0, 0.5)] * 9)
    np.testing.assert_allclose(state.lr_multiplier, 8.0**sign, rtol=1e-5)


STILL = {
    "a rate of 0": lambda: optax.sgd(lambda t: 0.1 * (t >= 40)),
    "micro-batches": lambda: optax.MultiSteps(optax.sgd(0.1), 50),
    "set_to_zero": optax.set_to_zero,
    "all frozen": lambda: optax.chain(
        optax.sgd(0.1), optax.masked(optax.set_to_zero(), {"w": True})
    ),
}


@pytest.mark.parametrize("push", [4.0, -4.0])
@pytest.mark.parametrize("still", STILL)
def test_where_nothing_moves_the_multiplier_stays(still, push):
    schedule = optax.constant_schedule(1.0)
    tx = wrap(STILL[still](), constant(push), total_steps=60, schedule=schedule)
    # Whatever the loss does: a rise is no sign of a rate that is too high.
    history = drive(tx, [(1.0, 1.0 + 0.1 * step) for step in range(40)])
    np.testing.assert_array_equal(multipliers(history), 1)
    state = history[-1][2]
    assert (state.braked_steps, state.out_of_range_steps) == (0, 0)
    assert state.lr_variance == 16 and state.summary.counted_steps == 1


def test_frozen_leaves_are_no_part_of_what_is_observed():
    def run(params, inner):
        tx = wrap(inner, init_predictor(), total_steps=30)
        state, found = tx.init(params), []
        update = jax.jit(tx.update)
        for value in np.geomspace(1, 0.5, 12):
            grads = jax.tree.map(lambda x: 0.1 * x, params)
            updates, state = update(grads, state, params, value=value)
            params = optax.apply_updates(params, updates)
            found.append(state.lr_observation)
        return np.array(found[1:])  # at the first step it is not known what moves

    own = {"w": jnp.arange(1.0, 7.0).reshape(2, 3)}
    plain = run(own, optax.sgd(0.1))
    labels = {"w": "train", "other": "freeze"}
    groups = {"train": optax.sgd(0.1), "freeze": optax.set_to_zero()}
    both = run(own | {"other": 7 * jnp.ones((4, 4))}, optax.partition(groups, labels))
    np.testing.assert_allclose(both, plain, rtol=1e-5, atol=1e-6)


def test_a_multiplier_that_is_given_needs_no_predictor():
    forced = optax.linear_schedule(0.0, 1.0, 4)
    tx = wrap(optax.sgd(0.1), log_multiplier=forced)
    for step, (_, _, state) in enumerate(drive(tx, [(1.0, 1.0)] * 4)):
        np.testing.assert_allclose(state.lr_multiplier, np.exp(step / 4), rtol=1e-6)


def test_exploring_is_bounded_and_no_part_of_what_was_decided():
    tx = wrap(
        optax.sgd(1e-3),
        constant_predictor(),
        explore=lambda step: 9.0 * step,
        max_multiplier=1024,
    )
    *_, (_, _, state) = drive(tx, [(1.0, 1.0)] * 3)
    np.testing.assert_allclose(state.lr_multiplier, 1024, rtol=1e-5)
    assert state.lr_log2_multiplier == 0


def test_what_exploration_added_is_taken_off_the_evidence():
    # The correction is of the rate as it was explored: the mean is where it would be.
    predictor = constant(0.0, SURE)
    tx = wrap(optax.sgd(1e-3), predictor, explore=lambda step: jnp.log(4.0))
    _, (_, _, state) = drive(tx, falling(2))
    np.testing.assert_allclose(state.lr_mean, 2.0, atol=0.1)  # log2 of 4, it says
