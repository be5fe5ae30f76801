"""A step that is not finite moves nothing, halves the rate, and is no evidence."""

import jax
import numpy as np
import optax
import pytest

from metalr import features
from metalr.observe import Observation
from metalr.predictor import init_predictor
from tests.product.steering import DOORS, drive, falling, knowing
from tests.product.steering import inject_without_trust as inject
from tests.product.steering import wrap_without_trust as wrap

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
        kept = (earlier.observer, earlier.summary, earlier.lr_features)
        now = (state.observer, state.summary, state.lr_features)
        jax.tree.map(np.testing.assert_array_equal, now, kept)
    _, params, state = history[-1]
    assert state.skipped_steps == 5 and state.lr_step == 7
    assert np.all(params["w"] < history[-2][1]["w"])  # it goes on
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("skipped", [0, 1, 4])
def test_an_update_is_held_against_the_rate_that_it_was_taken_with(skipped):
    rate, share = 0.01, 16 / (16 + 4)  # of the prior beside the user's own rate
    relative = np.log2(rate / (1 - rate))
    tx = wrap(optax.sgd(rate), knowing(relative + 3, variance=4.0), total_steps=30)
    bad = [(float("nan"), 1.0)] * skipped
    state = drive(tx, [(1.0, 1.0), *bad, *falling(3)])[-1][2]
    # What was skipped cuts the user's rate, and not what the update says.
    expected = share * 3 + (1 - share) * -skipped
    np.testing.assert_allclose(state.lr_prior, expected, atol=1e-3)


def test_a_first_step_that_is_skipped_is_no_evidence_in_a_trace_either():
    steps = [(np.nan, np.nan), (1.0, np.nan), *falling(14)]
    history = drive(wrap(optax.sgd(0.01), init_predictor(), total_steps=16), steps)
    rows = np.array([state.lr_observation for *_, state in history])
    seen = Observation(*rows.T)
    assert not np.any(seen.update_norm[:2]) and np.all(seen.param_norm[:2] > 1)
    found = features.of_trace(seen, total_steps=16)
    expected = [state.lr_features for *_, state in history]
    np.testing.assert_allclose(found[2:], expected[2:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("door", DOORS)
def test_a_first_step_that_is_skipped_tells_the_inner_optimizer_no_loss(door):
    plateau = optax.contrib.reduce_on_plateau(patience=3)
    make = lambda learning_rate: optax.chain(optax.adam(learning_rate), plateau)  # noqa: E731
    if door == "wrap":
        tx = wrap(make(1e-2), init_predictor(), total_steps=30)
    else:
        tx = inject(make, 1e-2, init_predictor(), total_steps=30)
    down = [(1.0, 3.0 - 0.1 * step) for step in range(20)]
    first, *_, (_, _, last) = drive(tx, [(1.0, np.nan), *down])
    assert (
        not np.any(first[0]["w"]) and optax.tree.get(first[2], "best_value") == np.inf
    )
    assert optax.tree.get(last, "best_value") == np.float32(1.1)
    assert optax.tree.get(last, "scale") == 1
