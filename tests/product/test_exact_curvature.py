"""Exact curvature is that of the Hessian, along the step that was taken."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metalr
from metalr import coordinates, observe
from metalr.curvature import line_curvature
from metalr.predictor import init_predictor
from tests.product.descents import quadratic
from tests.product.steering import wrap_without_trust as wrap


def test_exact_line_curvature_equals_the_hessian_form():
    hessian, theta, _ = quadratic()
    step = np.random.default_rng(1).normal(size=theta.size)
    expected = step @ hessian @ step / abs(theta @ hessian @ step)
    h = jnp.asarray(hessian, jnp.float32)
    theta, step = (jnp.asarray(x, jnp.float32) for x in (theta, step))
    ours = line_curvature(lambda x: h @ x, theta, h @ theta, step)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("turned", [1.0, 1j, 0.6 + 0.8j])
def test_exact_line_curvature_of_complex_parameters_is_that_of_their_real_parts(turned):
    hessian, theta = jnp.array([1.0, 3.0]), jnp.array([2.0, -1.0])
    grad_fn = lambda params: hessian * params  # noqa: E731
    step = -0.1 * hessian * theta
    expected = line_curvature(grad_fn, theta, grad_fn(theta), step)
    theta, step = theta * turned, step * turned
    found = line_curvature(grad_fn, theta, grad_fn(theta), step)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_exact_curvature_takes_the_place_of_that_of_two_batches():
    params, grads = {"w": jnp.ones(2)}, {"w": jnp.asarray([3.0, 4.0])}
    where = coordinates.layout(params)
    _, past = observe.observe(
        grads, observe.init(params, where), params, where, value=1.0
    )
    moved = {"w": params["w"] - 0.1 * grads["w"]}
    seen, _ = observe.observe(
        grads, past, moved, where, value=1.0, exact_curvature=jnp.float32(3.0)
    )
    # |u| = 0.5, so g.u = -0.1 * 25 changes by 1.5 of its size: half of it is left,
    # behind the minimum of the line.
    assert float(seen.slope_before) == pytest.approx(-2.5, rel=1e-5)
    assert float(seen.slope) == pytest.approx(1.25, rel=1e-5)


def test_exact_curvature_is_that_of_the_applied_step():
    hessian, rate = jnp.array([1.0, 4.0]), 0.3
    tx = wrap(optax.sgd(rate), init_predictor(), curvature_every=2)
    grad_fn = lambda params: hessian * params  # noqa: E731
    params = jnp.array([1.0, 1.0])
    state, curvatures = tx.init(params), []
    for _ in range(4):
        g = grad_fn(params)
        # For each unit of the update's norm, which is rate * |g|.
        norm = jnp.linalg.norm(g)
        curvatures.append(jnp.vdot(g, hessian * g) / jnp.vdot(g, g) / norm)
        updates, state = tx.update(g, state, params, value=1.0, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
    _, exact = state.observer
    np.testing.assert_allclose(exact, curvatures[2], rtol=1e-4)


def test_exact_curvature_is_that_of_a_step_that_was_taken():
    tx = wrap(optax.sgd(0.3), init_predictor(), curvature_every=2)
    grad_fn = lambda params: jnp.array([1.0, 4.0]) * params  # noqa: E731
    params = jnp.array([1.0, 1.0])
    state, found = tx.init(params), []
    for value in (1.0, 1.0, np.nan, 1.0, 1.0):
        g = grad_fn(params)
        updates, state = tx.update(g, state, params, value=value, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
        found.append(float(state.observer[1]))
    first, made_up = found[0], found[3]
    assert first > 0 and found[1:3] == [first, first]  # kept where a step is skipped
    assert made_up > 0 and made_up != first and found[4] == made_up


@pytest.mark.parametrize("every", [0, 1])
def test_curvature_is_of_what_moves_wherever_the_rate_stands(every):
    settings: dict = {"log_multiplier": 0.0, "curvature_every": every}
    flat = optax.constant_schedule(1.0)
    whole = wrap(optax.sgd(1e-3), schedule=flat, **settings)
    link = optax.chain(metalr.scale_by_metalr(**settings), optax.scale(-1e-3))
    grad_fn = lambda params: jnp.array([1.0, 3.0]) * params  # noqa: E731
    seen = []
    for tx in (whole, link):
        params = jnp.array([1.0, 1.0])
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(
                grad_fn(params), state, params, value=1.0, grad_fn=grad_fn
            )
            params = optax.apply_updates(params, updates)
        seen.append(optax.tree.get(state, "lr_features"))
    np.testing.assert_allclose(*seen, rtol=1e-3, atol=1e-6)
