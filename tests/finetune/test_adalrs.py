"""AdaLRS's trials, against what its paper says of them."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr.finetune.rules import (
    adalrs,
)
from tests.finetune.bowl import FALSE, PLAN, TRUE, take


def losses_of(slopes, size=10):
    """Return a loss that falls at these speeds, `size` steps each."""
    falls = np.repeat(slopes, size)
    return 5 - np.r_[0, np.cumsum(falls)[:-1]]


def test_adalrs_keeps_a_trial_that_falls_faster_and_undoes_one_that_falls_slower():
    plan = PLAN._replace(total_steps=200)
    tx = adalrs.adalrs(optax.sgd, plan)
    shape = np.linspace(1, 0, 200, endpoint=False)
    start = {"w": jnp.array([1.0, -0.5])}
    # Windows of ten: before the search, then a trial that is faster, and one slower.
    losses = losses_of([0.01, 0.01, 0.01, 0.02, 0.005, 0.02, 0.02])
    seen, _, rates = take(tx, start, 70, losses)
    factors = rates / (0.1 * shape[:70])
    np.testing.assert_allclose(factors[:30], 1.0, rtol=1e-4)
    np.testing.assert_allclose(factors[30:40], 3.0, rtol=1e-4)
    np.testing.assert_allclose(factors[40:50], 3 * 3 * 0.99, rtol=1e-4)
    np.testing.assert_allclose(factors[50:60], 3 / (2 * 0.99), rtol=1e-4)
    # Back to before the trial, but for the rounding of a difference.
    np.testing.assert_allclose(seen[49], seen[39], rtol=1e-4)
    assert not np.allclose(seen[48], seen[39], rtol=0.1)


def test_adalrs_searches_in_its_part_of_the_run_alone():
    tx = adalrs.adalrs(optax.sgd, PLAN)
    losses = losses_of([0.01] * 20)
    _, _, rates = take(tx, {"w": jnp.array([1.0, -0.5])}, 200, losses)
    factors = rates[:-1] / (0.1 * np.linspace(1, 0, 200, endpoint=False)[:-1])
    np.testing.assert_allclose(factors[:20], 1.0, rtol=1e-4)
    assert factors[20:90].max() > 2
    np.testing.assert_allclose(factors[90:], factors[90], rtol=1e-3)


def of_adalrs(window, **numbers):
    numbers = {"filled": len(window), "trial": False, "factor": 1.0} | numbers
    return adalrs.AdalrsState(
        step=jnp.int32(50),
        factor=jnp.float32(numbers["factor"]),
        changes=jnp.int32(numbers.get("changes", 0)),
        window=jnp.asarray(window, jnp.float32),
        filled=jnp.int32(numbers["filled"]),
        trial=jnp.asarray(numbers["trial"]),
        velocity=jnp.float32(numbers.get("velocity", np.nan)),
        highest=jnp.float32(9.0),
        saved=None,
        inner_state=None,
    )


def test_adalrs_lowers_the_rate_where_the_loss_rises_over_two_windows():
    window = np.linspace(0, 1, 10)  # without noise: e is 0
    state = of_adalrs(window, velocity=-0.1)
    after, back, begun = adalrs._decided(state, TRUE, FALSE, 10)
    assert float(after.factor) == pytest.approx(1 / 2) and int(after.changes) == 1
    assert not back and not begun and not after.trial
    # After a window that fell it rises in one alone, and a trial begins.
    state = of_adalrs(window, velocity=0.1)
    after, back, begun = adalrs._decided(state, TRUE, FALSE, 10)
    assert float(after.factor) == pytest.approx(3) and begun and not back


def test_adalrs_ends_a_trial_whose_loss_is_above_all_before_it():
    state = of_adalrs(np.ones(10), filled=4, trial=True, factor=3.0, velocity=0.1)
    after, back, begun = adalrs._decided(state, TRUE, TRUE, 10)
    assert back and not begun and not after.trial and int(after.filled) == 0
    assert float(after.factor) == pytest.approx(1 / 2)
    after, back, _ = adalrs._decided(state, TRUE, FALSE, 10)
    assert not back and after.trial and int(after.filled) == 4


def test_adalrs_measures_a_slope_and_its_standard_error():
    losses = jnp.asarray([2.0, 1.6, 1.2, 0.8, 0.4], jnp.float32)
    velocity, error = adalrs._velocity(losses)
    assert float(velocity) == pytest.approx(0.4) and float(error) < 1e-6
    bent = jnp.asarray([1.0, 0.0, 1.0, 0.0, 1.0], jnp.float32)
    velocity, error = adalrs._velocity(bent)
    assert float(velocity) == pytest.approx(0, abs=1e-6)
    # Squares of the rests add up to 1.2, those of the steps to 10; 5 - 2 are free.
    assert float(error) == pytest.approx((1.2 / 3 / 10) ** 0.5, rel=1e-5)
