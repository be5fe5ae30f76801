"""The rates of schedulers are those of their sources."""

import jax
import numpy as np
import optax
import pytest

from metalr import optax_schedule
from metalr.finetune import schedulers
from metalr.finetune.rules import shapes
from tests.finetune.scheduler_rows import (
    INNERS,
    PLAN,
    build,
    run,
    start_params,
)


def optax_shape(name):
    """Compose the same rates from optax's own schedules."""
    peak, steps, w = PLAN.learning_rate, PLAN.total_steps, PLAN.warmup_steps
    ramp = optax.linear_schedule(peak / (w + 1), peak, w)
    fifth = steps // 5
    cooldown = optax.linear_schedule(peak, 0.0, fifth)
    hold = optax.join_schedules([optax.constant_schedule(peak), cooldown], [71])
    tail = {
        "static": lambda: optax.constant_schedule(peak),
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, steps - w),
        "cosine": lambda: optax.cosine_decay_schedule(peak, steps - w),
        "wsd": lambda: hold,
        "rex": lambda: lambda t: peak * (91 - t) / (45.5 + (91 - t) / 2),
    }[name]()
    return tail if name == "static" else optax.join_schedules([ramp, tail], [w])


@pytest.mark.parametrize(
    "name", ["static", "constant", "linear", "cosine", "wsd", "rex"]
)
def test_rates_are_those_of_optax_composition(name):
    _, _, rates = run(build(name), start_params(), PLAN.total_steps)
    expected = [float(optax_shape(name)(t)) for t in range(PLAN.total_steps)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-8)


def test_plateau_cuts_the_rate_when_100_steps_bring_less_than_one_percent():
    plan = schedulers.RunPlan(learning_rate=2e-5, total_steps=400, warmup_steps=0)
    tx = schedulers.SCHEDULERS["plateau"].build(INNERS["adamw"], plan)
    # Windows of 100 steps: first, 2 % lower (kept), 0.5 % lower (cut after it).
    losses = np.repeat([1.0, 0.98, 0.9751, 0.9], 100)
    _, _, rates = run(tx, start_params(), 400, losses)
    np.testing.assert_allclose(rates[:300], 2e-5, rtol=1e-6)
    np.testing.assert_allclose(rates[300:], 2e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["plateau", "greedylr"])
def test_a_loss_that_is_not_finite_does_not_reach_the_rate(name):
    losses = np.linspace(2, 1, 30)
    _, _, expected = run(build(name), start_params(), 30, losses)
    _, _, rates = run(
        build(name), start_params(), 32, np.insert(losses, 3, [np.nan, np.inf])
    )
    assert np.isfinite(rates).all()
    ramp = shapes.ramp(PLAN)
    factors = lambda n: np.array([float(ramp(t)) for t in range(n)])  # noqa: E731
    np.testing.assert_allclose(
        np.delete(rates / factors(32), [4, 5]), expected / factors(30), rtol=1e-6
    )


def test_greedylr_takes_the_rates_of_transformers():
    torch = pytest.importorskip("torch")
    from transformers.optimization import GreedyLR

    losses = np.concatenate(
        [np.linspace(3, 2, 40), np.linspace(2, 3, 160), np.linspace(3, 0.5, 60)]
    )
    losses += np.random.default_rng(0).normal(0, 0.02, len(losses))
    oracle_optimizer = torch.optim.SGD([torch.zeros(1)], lr=2e-5)
    # Their eps forbids steps below 1e-8, which only changes rates below 2e-7.
    oracle = GreedyLR(oracle_optimizer, smooth=True, min_lr=1e-7, eps=0.0)
    expected = []
    for loss in losses:
        expected.append(oracle_optimizer.param_groups[0]["lr"])
        oracle.step(float(np.float32(loss)))
    plan = schedulers.RunPlan(learning_rate=2e-5, total_steps=260, warmup_steps=0)
    _, _, rates = run(build("greedylr", plan=plan), start_params(), 260, losses)
    assert np.diff(expected).max() > 0 > np.diff(expected).min()  # up and down
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_control_with_the_multiplier_bound_to_1_is_the_shape_that_metalr_rides_on():
    held, _, _ = run(build("wsd"), start_params(), 50)
    fixed, _, _ = run(build("metalr_fixed"), start_params(), 50)
    for a, b in zip(jax.tree.leaves(held), jax.tree.leaves(fixed), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rate", [1e-4, 3e-2])
def test_wrap_row_has_the_rates_of_the_defaults_of_the_transformation(rate):
    plan = PLAN._replace(learning_rate=rate)
    held = shapes.hold_then_decay(plan)
    mine = optax_schedule.inject(
        optax.adamw, rate, total_steps=100, schedule=held, weight_decay=0.01
    )
    _, _, rates = run(build("metalr_wrap", plan=plan), start_params(), 50)
    _, _, expected = run(mine, start_params(), 50)
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    _, _, trusting_nobody = run(build("metalr", plan=plan), start_params(), 50)
    assert not np.allclose(rates, trusting_nobody, rtol=0.01)


def test_control_with_shuffled_features_takes_other_rates_from_the_same_numbers():
    _, _, rates = run(build("metalr"), start_params(), 50)
    _, _, shuffled = run(build("metalr_shuffled"), start_params(), 50)
    assert not np.allclose(rates[10:], shuffled[10:], rtol=0.01)
