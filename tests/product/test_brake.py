"""A run that diverges is cut, at once if it explodes, and noise is no divergence."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import brake, features
from tests.product.steering import (
    DOORS,
    constant,
    drive,
    multipliers,
    of_a_step,
    opinionated,
)
from tests.product.steering import inject_without_trust as inject
from tests.product.steering import wrap_without_trust as wrap


@pytest.mark.parametrize(("push", "start"), [(5.0, 2.0), (-0.2, 0.5)])
def test_while_the_loss_is_above_its_start_the_rate_is_cut_at_every_step(push, start):
    tx = wrap(optax.sgd(1e-6), constant(push), total_steps=30)
    calm = [(1.0, 1.0)] * 8
    diverging = [(1.0, 10.0 + step) for step in range(8)]
    history = drive(tx, calm + diverging)
    log2_m = np.log2(multipliers(history))
    assert log2_m[7] * np.log2(start) > 0
    assert np.all(np.diff(log2_m[8:]) <= -0.25 + 1e-5)  # also below 1
    assert history[-1][2].braked_steps >= 7


@pytest.mark.parametrize(("start", "end"), [(-0.01, 0.02), (-10.0, -0.1), (0.5, -0.5)])
def test_the_brake_is_of_a_rise_and_not_of_a_sign(start, end):
    tx = wrap(optax.sgd(1e-6), constant(0.0), total_steps=30)
    history = drive(tx, [(1.0, value) for value in np.linspace(start, end, 24)])
    assert (history[-1][2].braked_steps > 0) == (end > start)


def descend(tx, hessian, steps):
    """Return losses and states of every step on a parabola, from ones."""

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(lambda p: jnp.sum(hessian * p**2) / 2)(
                params
            )
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), (value, state)

        return jax.lax.scan(step, (params, tx.init(params)), None, steps)[1]

    return run(jnp.ones(len(hessian)))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("excess", [2.5, 4.0])
def test_a_run_that_diverges_is_cut_until_its_loss_is_back(door, excess):
    hessian = jnp.array([1.0, 0.3])
    rate = excess  # 2 is the edge of stability
    predictor = opinionated(push=0.5)
    if door == "wrap":
        tx = wrap(optax.sgd(rate), predictor, total_steps=700)
    else:
        one = optax.constant_schedule(1.0)
        tx = inject(optax.sgd, rate, predictor, total_steps=700, schedule=one)
    values, states = descend(tx, hessian, 700)
    assert max(values) > 2 * values[0] and states.braked_steps[-1] > 0
    assert np.all(np.isfinite(values)) and min(values[100:]) < values[0]
    assert values[-1] < 0.1 * max(values)


@pytest.mark.parametrize("excess", [5.5, 41.0, 1001.0])
def test_a_run_that_explodes_is_cut_before_it_overflows(excess):
    hessian = jnp.geomspace(1.0, 0.01, 6)
    settings = {"total_steps": 300, "max_multiplier": 1024}
    tx = wrap(optax.sgd(excess), opinionated(push=0.5), **settings)
    values, states = descend(tx, hessian, 300)
    first = int(np.argmax(states.braked_steps > 0))
    assert first <= 9 and states.skipped_steps[-1] == 0
    assert np.all(np.isfinite(values)) and values[-1] < values[0]
    if excess > 40:  # two updates show it, and the third is already right
        assert first == 2 and values[3] < values[2]
        np.testing.assert_allclose(states.lr_multiplier[2] * excess, 1, rtol=0.3)


@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_run_of_micro_batches_that_explodes_is_cut_as_any_other(every):
    hessian = jnp.array([1.0, 10.0, 100.0])
    inner = optax.MultiSteps(optax.sgd(1.0), every)
    tx = wrap(inner, constant(0.0), total_steps=200 * every, max_multiplier=1024)
    values, states = descend(tx, hessian, 200 * every)
    assert states.braked_steps[-1] > 0 and states.skipped_steps[-1] == 0
    assert values[-1] < values[0]


def test_slopes_that_lie_along_no_gradient_are_noise_however_much_they_grow():
    # From a fine-tune in batches of 8 that did well until it was cut by 11 octaves.
    size = {"update_norm": 0.03, "mean_norm_before": 0.4}
    last = of_a_step(value=0.847, slope=6e-3, slope_before=1e-4, **size)
    seen = of_a_step(value=1.192, slope=4e-3, slope_before=1.5e-6, **size)
    summary = features.init()._replace(initial_value=jnp.float32(0.69))
    assert brake.octaves(seen, last, summary, summary) == 0
    # The same growth of a slope that the update lay along is a run that explodes.
    last = last._replace(slope=6e-1, slope_before=-6e-3)
    seen = seen._replace(slope=8 * 6e-1, slope_before=-6e-1)
    np.testing.assert_allclose(brake.octaves(seen, last, summary, summary), 3)


def test_noise_in_the_first_steps_is_no_divergence():
    rng = np.random.default_rng(0)
    tx = wrap(optax.sgd(1e-3), constant(0.0), total_steps=30)
    for _ in range(40):  # gradients and losses of heavy tails, of either sign
        sizes = np.exp(1.5 * rng.normal(size=(9, 2))) * rng.choice([1, -1], (9, 2))
        state = drive(tx, [tuple(row) for row in sizes])[-1][2]
        assert state.braked_steps == 0
