"""The facts of a run, its probe and its range test."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metalr
from metalr.errors import MetalrError
from metalr.finding import finder, probe
from tests.product.probed_problems import STEPS, TABLE, knowing, loss_fn, problem

# ------------------------------------------------------------------- what it finds


def test_facts_of_micro_batches_are_those_of_the_update_that_moves():
    found = []
    for every in (1, 4):
        tx = optax.adam(1e-2)
        tx = tx if every == 1 else optax.MultiSteps(tx, every)
        params, batches = problem()
        given = {"steps": STEPS, "predictor": knowing(), "experience": TABLE}
        found.append(metalr.suggest(loss_fn, params, tx, batches, **given))
    assert found[0].known and found[1].known
    np.testing.assert_allclose(found[1].rate, found[0].rate, rtol=0.05)


def test_an_optimizer_that_moves_nothing_is_said():
    params, batches = problem()
    given = {"steps": STEPS, "schedule": lambda step: 1.0, "predictor": knowing()}
    with pytest.raises(MetalrError, match="needs an optimizer that moves the param"):
        metalr.suggest(loss_fn, params, optax.set_to_zero(), batches, **given)


def test_a_probe_ends_when_it_is_sure_where_the_evidence_agrees_with_the_prior():
    params, batches = problem()
    found = metalr.find(
        loss_fn, params, optax.sgd, batches, steps=400,
        predictor=knowing(variance=0.01), experience=TABLE,
    )  # fmt: skip
    assert found.steps == finder.LEAST_STEPS
    # An untrained network asks for no correction, so that the rate stays the prior's.
    np.testing.assert_allclose([found.rate, *found.rates], found.prior, rtol=0.02)
    assert f"rate {found.rate:.2g}, between {found.low:.2g} and" in found.text


def test_an_unknown_kind_gets_the_curve_of_a_range_test_and_no_rate():
    params, batches = problem()
    shape = optax.linear_schedule(0.0, 1.0, 5)
    found = metalr.find(
        loss_fn, params, optax.sgd(shape), batches, steps=400, learning_rate=1.0,
        predictor=knowing(far=True), experience=TABLE,
    )  # fmt: skip
    assert found.rate is None and found.low is None and not found.costs
    assert found.distance > 1 and "no rate" in found.text
    rates, losses = map(np.array, zip(*found.curve, strict=True))
    assert len(rates) > 20 and np.all(np.diff(np.log(rates)) > 0)
    state, expected = params, []
    for step, rate in enumerate(rates):
        grads = jax.grad(loss_fn)(state, batches[step % 7])
        moves = step > 0  # at a schedule's zero nothing can be raised
        state = jax.tree.map(lambda p, g, r=rate * moves: p - r * g, state, grads)
        expected.append(float(loss_fn(state, batches[(step + 1) % 7])))
    np.testing.assert_allclose(losses, expected, rtol=0.02)


def test_a_run_that_is_too_short_for_a_range_test_says_so():
    params, batches = problem()
    short = {"steps": 30, "predictor": knowing(far=True), "experience": TABLE}
    found = metalr.find(loss_fn, params, optax.adam, batches, **short)
    assert found.curve == () and "no range test: too few steps" in found.text
    long = {**short, "steps": 80}
    assert metalr.find(loss_fn, params, optax.adam, batches, **long).curve


def test_a_range_test_of_losses_that_are_not_finite_has_no_points():
    params, batches = problem()
    broken = {k: np.full_like(v, np.nan) for k, v in batches[0].items()}
    found = metalr.find(
        loss_fn, params, optax.adam, lambda step: broken if step else batches[0],
        steps=STEPS, predictor=knowing(far=True), experience=TABLE,
    )  # fmt: skip
    assert not found.known and found.text.startswith("no rate")
    assert "nan" not in found.text


def test_weights_of_zero_give_no_rate_since_every_update_is_as_large_beside_them():
    params, batches = problem()
    params = {"w": params["w"] * 0}
    found = metalr.find(
        lambda p, batch: jnp.mean((batch["x"] @ p["w"] - 1) ** 2),
        params, optax.adam, batches, steps=200, predictor=knowing(), experience=TABLE,
    )  # fmt: skip
    assert found.rate is None and "weights are zero at the start" in found.text
    losses = np.array(found.curve)[:, 1]
    assert losses.min() < 0.9 * losses[0] and losses.max() > losses[0]


# ------------------------------------------------------------------------- its parts


def test_the_probe_rises_fast_and_then_follows_the_schedule():
    levels = np.array([metalr.default_schedule(1.0, 600, 60)(k) for k in range(600)])
    own = probe.probe_levels(levels)
    assert own[9] == pytest.approx(10 / 11) and np.all(own[10:61] == levels.max())
    np.testing.assert_array_equal(own[60:], levels[60:].astype(np.float32))
