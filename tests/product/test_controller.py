"""The controller: bounded, braked, and calm where it knows nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import inject, wrap
from metalr.features import NAMES
from metalr.predictor import init_predictor
from tests.product.steering import constant, drive

DOORS = ("inject", "wrap")


@pytest.mark.parametrize("total_steps", [50, 100_000, None])
def test_later_steps_move_the_rate_less(total_steps):
    # A twentieth of an octave at each step, so that no limit or bound is met.
    tx = wrap(optax.sgd(0.1), constant(0.05), total_steps=total_steps)
    history = drive(tx, [(1.0, 1.0)] * 400)
    log_m = np.log([float(state.lr_multiplier) for *_, state in history])
    moves = np.diff(log_m, prepend=0) / (0.12 * 0.05)
    for step, share in ((1, 1), (30, 1), (60, 1 / 2), (150, 1 / 5), (400, 1 / 10)):
        np.testing.assert_allclose(moves[step - 1], share, rtol=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_multiplier_never_leaves_its_bounds(sign):
    tx = wrap(optax.sgd(1e-3), constant(sign * 100.0), total_steps=30, max_multiplier=8)
    *_, (_, _, state) = drive(tx, [(1.0, 1.0)] * 12)
    np.testing.assert_allclose(state.lr_multiplier, 8.0**sign, rtol=1e-5)


BAD = [(np.nan, 1.0), (np.inf, 1.0), (1e30, 1.0), (1.0, np.nan), (1.0, np.inf)]


@pytest.mark.parametrize("door", DOORS)
def test_a_step_that_is_not_finite_moves_nothing_and_halves_the_rate(door):
    settings = {"predictor": init_predictor(), "total_steps": 30}
    if door == "wrap":
        tx = wrap(optax.adamw(1e-2), **settings)
    else:
        tx = inject(optax.adamw, 1e-2, **settings)
    good = (1.0, 1.0)
    history = drive(tx, [good, *BAD, good])
    for (_, before, earlier), (updates, after, state) in zip(
        history, history[1:-1], strict=False
    ):
        assert not np.any(updates["w"])
        np.testing.assert_array_equal(after["w"], before["w"])
        np.testing.assert_allclose(state.lr_multiplier, earlier.lr_multiplier / 2)
        kept = (earlier.feature_state, earlier.lr_features)
        now = (state.feature_state, state.lr_features)
        jax.tree.map(np.testing.assert_array_equal, now, kept)
    _, params, state = history[-1]
    assert state.skipped_steps == 5 and state.lr_step == 7
    assert np.all(params["w"] < history[-2][1]["w"])  # it goes on
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


def test_features_outside_of_the_trained_range_let_the_multiplier_return_to_1():
    predictor = constant(5.0)
    high = np.where(np.array(NAMES) == "slope", -0.5, predictor.high)
    narrow = predictor._replace(high=high.astype(np.float32))
    usual = [(1.0, 1.0)] * 6  # the slope is -1
    strange = [((-1.0) ** step, 1.0) for step in range(1, 26)]  # now it is +1
    history = drive(wrap(optax.sgd(1e-3), narrow), usual + strange)
    multipliers = [float(state.lr_multiplier) for _, _, state in history]
    assert multipliers[5] > 1.1
    assert history[5][2].relaxed_steps <= 1  # before the first update there is no slope
    assert history[-1][2].relaxed_steps >= 15
    assert 1 < multipliers[-1] < max(multipliers)


@pytest.mark.parametrize(("push", "start"), [(5.0, 2.0), (-5.0, 0.5)])
def test_a_loss_above_its_start_never_raises_the_rate(push, start):
    tx = wrap(optax.sgd(1e-6), constant(push), total_steps=30)
    calm = [(1.0, 1.0)] * 8
    diverging = [(1.0, 10.0 + step) for step in range(8)]
    history = drive(tx, calm + diverging)
    multipliers = [float(state.lr_multiplier) for _, _, state in history]
    assert (multipliers[7] - 1) * (start - 1) > 0
    assert np.all(np.diff(multipliers[7:]) < 1e-7)
    assert history[-1][2].braked_steps == 8


@pytest.mark.parametrize(("start", "end"), [(-0.01, 0.02), (-10.0, -0.1), (0.5, -0.5)])
def test_a_loss_that_is_not_positive_never_brakes(start, end):
    tx = wrap(optax.sgd(1e-6), constant(5.0), total_steps=30)
    history = drive(tx, [(1.0, value) for value in np.linspace(start, end, 24)])
    assert history[-1][2].braked_steps == 0


@pytest.mark.parametrize("door", DOORS)
def test_a_first_step_that_is_skipped_tells_the_inner_optimizer_no_loss(door):
    plateau = optax.contrib.reduce_on_plateau(patience=3)
    make = lambda learning_rate: optax.chain(optax.adam(learning_rate), plateau)  # noqa: E731
    if door == "wrap":
        tx = wrap(make(1e-2), init_predictor(), total_steps=30)
    else:
        tx = inject(make, 1e-2, init_predictor(), total_steps=30)
    falling = [(1.0, 3.0 - 0.1 * step) for step in range(20)]
    first, *_, (_, _, last) = drive(tx, [(1.0, np.nan), *falling])
    assert (
        not np.any(first[0]["w"]) and optax.tree.get(first[2], "best_value") == np.inf
    )
    assert optax.tree.get(last, "best_value") == np.float32(1.1)
    assert optax.tree.get(last, "scale") == 1


def test_recording_needs_no_predictor_and_exploring_is_bounded():
    forced = optax.linear_schedule(0.0, 1.0, 4)
    tx = wrap(optax.sgd(0.1), log_multiplier=forced)
    for step, (_, _, state) in enumerate(drive(tx, [(1.0, 1.0)] * 4)):
        np.testing.assert_allclose(state.lr_multiplier, np.exp(step / 4), rtol=1e-6)
    *_, (_, _, state) = drive(
        wrap(optax.sgd(1e-3), init_predictor(), explore=lambda step: 9.0 * step),
        [(1.0, 1.0)] * 3,
    )
    np.testing.assert_allclose(state.lr_multiplier, 1024, rtol=1e-5)
    assert state.lr_log_multiplier == 0


def test_exact_curvature_is_that_of_the_applied_step():
    hessian, rate = jnp.array([1.0, 4.0]), 0.3
    tx = wrap(optax.sgd(rate), init_predictor(), curvature_every=2)
    grad_fn = lambda params: hessian * params  # noqa: E731
    params = jnp.array([1.0, 1.0])
    state, curvatures = tx.init(params), []
    for _ in range(4):
        g = grad_fn(params)
        curvatures.append(rate * jnp.vdot(g, hessian * g) / jnp.vdot(g, g))
        updates, state = tx.update(g, state, params, value=1.0, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
    exact = state.feature_state.exact_curvature
    np.testing.assert_allclose(exact, curvatures[2], rtol=1e-4)
