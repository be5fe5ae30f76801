"""metalr inside other transformations of optax, and they inside metalr."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import scale_by_metalr, wrap
from metalr.errors import MetalrError
from metalr.features import NAMES
from metalr.predictor import init_predictor
from tests.product.steering import (
    DOORS,
    INNERS,
    build,
    drive,
    falling,
    loss_fn,
    opinionated,
    regression,
    train,
    train_step,
)

AROUND = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, every_k_schedule=2),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, max_consecutive_errors=3),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", INNERS)
@pytest.mark.parametrize("door", DOORS)
def test_its_state_is_read_by_name_inside_other_transformations(door, name, around):
    tx = AROUND[around](build(door, name))
    params, batch = regression()
    state = jax.eval_shape(tx.init, params)
    _, after = jax.eval_shape(functools.partial(train_step, tx), params, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for field in (
        "lr_multiplier",
        "skipped_steps",
        "out_of_range_steps",
        "braked_steps",
    ):
        assert optax.tree.get(after, field).shape == ()
    assert optax.tree.get(after, "lr_features").shape == (len(NAMES),)
    rates = optax.tree.get_all_with_path(after, "learning_rate")
    assert len(rates) == (door == "inject")


@pytest.mark.parametrize("around", AROUND)
def test_it_moves_the_rate_inside_other_transformations(around):
    _, state = train(AROUND[around](build("inject", "adamw")), steps=4)
    assert optax.tree.get(state, "lr_multiplier") != 1


def test_a_projection_after_the_link_holds():
    link = scale_by_metalr(optax.scale_by_adam(), opinionated(push=2.0), total_steps=30)
    tx = optax.chain(
        link, optax.scale_by_learning_rate(0.3), optax.keep_params_nonnegative()
    )
    params = {"w": jnp.array([0.5, 2.0])}
    history = drive(tx, falling(12), params)
    for _, after, _ in history:
        assert np.all(after["w"] >= 0)
    assert optax.tree.get(history[-1][2], "lr_multiplier") != 1
    assert history[-1][1]["w"][0] == 0


@pytest.mark.parametrize("name", ["schedule_free", "mechanize"])
def test_the_way_out_of_a_rule_that_remembers_trains(name):
    base = wrap(optax.sgd(0.05), opinionated(), total_steps=300)
    tx, served = {
        "schedule_free": lambda: (
            optax.contrib.schedule_free(base, 0.05),
            optax.contrib.schedule_free_eval_params,
        ),
        "mechanize": lambda: (optax.contrib.mechanize(base), lambda _, params: params),
    }[name]()
    params, batch = regression()
    before, state = loss_fn(params, batch), tx.init(params)
    step = jax.jit(functools.partial(train_step, tx))
    for _ in range(300):
        params, state = step(params, state, batch)
    assert loss_fn(served(state, params), batch) < 0.95 * before


@pytest.mark.parametrize("name", ["lookahead", "sam"])
def test_a_rule_that_hands_no_loss_on_is_to_be_used_alone(name):
    params, seen = {"w": jnp.ones(3)}, []

    def update(grads, state, params=None, **extra_args):
        seen.append(extra_args)
        return grads, state

    base = optax.GradientTransformationExtraArgs(optax.init_empty_state, update)
    if name == "lookahead":
        tx, held = optax.lookahead(base, 2, 0.5), optax.LookaheadParams(params, params)
    else:
        tx, held = optax.contrib.sam(base, optax.sgd(0.1)), params
    with pytest.raises(TypeError, match="value"):  # optax's own, of today
        tx.update(params, tx.init(held), held, value=1.0)
    tx.update(params, tx.init(held), held)
    assert seen == [{}]
    with pytest.raises(MetalrError, match="Use the optimizer alone: it hands no loss"):
        wrap(tx, init_predictor()).init(held)


# --- apply_if_finite -----------------------------------------------------------------


@pytest.mark.parametrize("outside", [True, False])
def test_apply_if_finite_counts_what_happened(outside):
    safe = lambda tx: optax.apply_if_finite(tx, max_consecutive_errors=5)  # noqa: E731
    if outside:
        tx = safe(wrap(optax.adam(0.1), init_predictor()))
    else:
        tx = wrap(safe(optax.adam(0.1)), init_predictor())
    history = drive(tx, [(1.0, 1.0), (np.nan, 1.0), (np.nan, 1.0), (1.0, 1.0)])
    state = history[-1][2]
    # Neither hands such a step on.
    assert optax.tree.get(state, "total_notfinite") == (2 if outside else 0)
    assert optax.tree.get(state, "skipped_steps") == (0 if outside else 2)
    np.testing.assert_array_equal(history[0][1]["w"], history[2][1]["w"])
    assert np.all(np.isfinite(history[3][1]["w"]))


def test_what_apply_if_finite_gives_up_on_is_skipped_all_the_same():
    tx = optax.apply_if_finite(wrap(optax.adam(0.1), init_predictor()), 1)
    history = drive(tx, [(1.0, 1.0), (np.nan, np.nan), (np.nan, np.nan), (1.0, 1.0)])
    assert optax.tree.get(history[-1][2], "total_notfinite") == 2
    assert optax.tree.get(history[-1][2], "skipped_steps") == 1
    np.testing.assert_array_equal(history[0][1]["w"], history[2][1]["w"])
    assert np.all(np.isfinite(history[3][1]["w"]))


def test_moments_within_apply_if_finite_outlive_what_it_would_give_up_on():
    tx = wrap(optax.apply_if_finite(optax.adam(0.1), 1), init_predictor())
    history = drive(tx, [(1.0, 1.0), *[(np.nan, np.nan)] * 5, (1.0, 1.0)])
    assert np.all(np.isfinite(history[-1][1]["w"]))
    assert np.any(history[-1][1]["w"] != history[0][1]["w"])


# --- MultiSteps ----------------------------------------------------------------------


def test_extra_arguments_reach_what_multisteps_wraps():
    inner = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    tx = wrap(optax.MultiSteps(inner, 2), init_predictor(), schedule=lambda t: 1.0)
    history = drive(tx, [(1.0, 1.0)] * 4)
    assert np.any(history[-1][1]["w"] != history[0][1]["w"])


@pytest.mark.parametrize("bad", [1, 3])
def test_a_micro_batch_that_is_not_finite_is_not_of_its_group(bad):
    inner = optax.MultiSteps(optax.sgd(1.0), 4)
    tx = wrap(inner, log_multiplier=0.0, schedule=lambda t: 1.0 + 0.0 * t)
    params = {"w": jnp.zeros(2)}
    state, moved = tx.init(params), []
    for step in range(9):
        grads = {"w": jnp.full(2, np.nan if step == bad else 1.0 + step)}
        updates, state = tx.update(grads, state, params, value=1.0)
        moved.append(float(updates["w"][0]))
    # The mean of the first four that are finite, and of the four after them.
    first = [1.0 + k for k in range(5) if k != bad]
    expected = [0, 0, 0, 0, -np.mean(first), 0, 0, 0, -np.mean([6, 7, 8, 9])]
    np.testing.assert_allclose(moved, expected, rtol=1e-6)
    assert state.skipped_steps == 1


def test_one_micro_batch_that_is_not_finite_is_left_out():
    inner = wrap(optax.sgd(0.1), init_predictor())
    tx = optax.MultiSteps(inner, 2, should_skip_update_fn=optax.skip_not_finite)
    history = drive(tx, [(1.0, 1.0), (np.nan, 1.0), (1.0, 1.0), (1.0, 1.0)])
    np.testing.assert_allclose(history[2][1]["w"], 1 - 0.1, rtol=1e-6)
    assert np.all(np.isfinite(history[-1][1]["w"]))
