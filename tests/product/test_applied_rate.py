"""The rate that is applied is the schedule times the multiplier, through every door."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import inject, scale_by_metalr, wrap
from metalr.features import NAMES
from metalr.optax_schedule import default_schedule
from metalr.predictor import init_predictor
from tests.product.steering import drive, opinionated, train


def test_the_rate_in_the_state_is_what_was_applied_in_that_step():
    tx = inject(optax.sgd, 0.1, opinionated(), total_steps=20)
    seen = set()
    for updates, _, state in drive(tx, [(2.0, 1.0)] * 20):
        rate = state.hyperparams["learning_rate"]
        assert rate == optax.tree.get(state, "learning_rate")
        np.testing.assert_array_equal(updates["w"], -rate * jnp.full(3, 2.0))
        seen.add(float(state.lr_multiplier))
    assert len(seen) > 10


def test_the_rate_shown_is_that_of_the_multiplier_from_the_first_step_on():
    tx = inject(optax.sgd, 1.0, init_predictor(), schedule=lambda t: 1.0)
    for _, _, state in drive(tx, [(np.nan, np.nan)] * 3):
        assert state.hyperparams["learning_rate"] == state.lr_multiplier < 1


def test_wrap_multiplies_the_updates_of_the_inner_optimizer():
    tx = wrap(optax.sgd(0.1), opinionated(), total_steps=20)
    for updates, _, state in drive(tx, [(2.0, 1.0)] * 5):
        expected = -0.1 * 2.0 * state.lr_multiplier
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-6)


def test_a_schedule_of_one_s_own_is_followed_and_its_level_is_seen():
    schedule = optax.warmup_cosine_decay_schedule(0.01, 0.1, 5, 20)
    tx = inject(optax.sgd, schedule, init_predictor(), total_steps=20)
    for step, (_, _, state) in enumerate(drive(tx, [(1.0, 1.0)] * 12)):
        rate = state.hyperparams["learning_rate"]
        np.testing.assert_allclose(rate, schedule(step), rtol=1e-6)
        level = np.log(schedule(step) / 0.1)
        np.testing.assert_allclose(
            state.lr_features[NAMES.index("level")], level, atol=1e-3
        )


def test_inject_multiplies_a_schedule_with_the_peak_rate():
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    tx = inject(optax.sgd, 0.5, init_predictor(), schedule=schedule)
    *_, (_, _, state) = drive(tx, [(1.0, 1.0)] * 4)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.5 * 0.7)


@pytest.mark.parametrize("total_steps", [1, 7, 100, 20_000])
def test_the_default_schedule_is_optax_s_composition(total_steps):
    warmup = min(500, total_steps // 10)
    optax_s = optax.join_schedules(
        [
            optax.linear_schedule(2 / (warmup + 1), 2.0, max(1, warmup)),
            optax.linear_schedule(2.0, 0.0, total_steps - warmup),
        ],
        [warmup],
    )
    steps = jnp.unique(jnp.linspace(0, total_steps, 50).astype(int))
    np.testing.assert_allclose(
        jax.vmap(default_schedule(2.0, total_steps))(steps),
        jax.vmap(optax_s)(steps),
        rtol=1e-4,
        atol=1e-6,
    )


def test_an_unknown_horizon_warms_up_and_stays():
    schedule = default_schedule(2.0)
    assert schedule(0) < 0.02 + 1e-6 and schedule(100) == schedule(10**6) == 2


@pytest.mark.parametrize("total_steps", [30, None])
def test_all_doors_take_the_same_run(total_steps):
    schedule = optax.warmup_cosine_decay_schedule(1e-3, 3e-2, 4, 30)
    settings = {"predictor": opinionated(push=0.3), "total_steps": total_steps}
    settings["trust"] = 0.0
    decay = {"weight_decay": 0.01}
    doors = {
        "wrap": wrap(optax.adamw(schedule, **decay), **settings),
        "inject": inject(optax.adamw, schedule, **settings, **decay),
        "link": optax.chain(
            scale_by_metalr(
                optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.01)),
                schedule=schedule,
                **settings,
            ),
            optax.scale_by_learning_rate(schedule),
        ),
    }
    found = {name: train(tx, steps=20) for name, tx in doors.items()}
    expected, plain = found["inject"]
    assert abs(np.log2(plain.lr_multiplier)) > 0.1
    for params, state in found.values():
        m = optax.tree.get(state, "lr_multiplier")
        np.testing.assert_allclose(m, plain.lr_multiplier, rtol=2e-3)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-4),
            params,
            expected,
        )
