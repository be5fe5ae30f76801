"""The schedule read off a finished optimizer is the one it was built with."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from metalr import wrap
from metalr.predictor import init_predictor
from metalr.read_schedule import levels, log_area, read_level, read_schedule
from tests.tiers import some

STEPS = 40
PARAMS = {"w": jnp.ones((3, 4)), "b": jnp.zeros(4), "none": None}
OPTIMIZERS = {
    "adabelief": optax.adabelief,
    "adafactor": optax.adafactor,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamax": optax.adamax,
    "adamw": optax.adamw,
    "adan": optax.adan,
    "amsgrad": optax.amsgrad,
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(1), optax.adam(rate)),
    "injected": lambda rate: optax.inject_hyperparams(optax.adamw)(learning_rate=rate),
    "lamb": optax.lamb,
    "lion": optax.lion,
    "masked": lambda rate: optax.masked(optax.adam(rate), {"w": True, "b": False}),
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "muon": contrib.muon,
    "nadam": optax.nadam,
    "plateau": lambda rate: optax.chain(
        optax.adam(rate), contrib.reduce_on_plateau(patience=3)
    ),
    "plateau as it comes": lambda rate: optax.chain(
        optax.adam(rate), contrib.reduce_on_plateau()
    ),
    "radam": optax.radam,
    "rmsprop": optax.rmsprop,
    "safe": lambda rate: optax.apply_if_finite(optax.adamw(rate), 3),
    "sgd": optax.sgd,
    "yogi": optax.yogi,
}
SCHEDULES = {
    "warmed": optax.warmup_cosine_decay_schedule(0.0, 0.3, 5, STEPS, 0.03),
    "constant": optax.constant_schedule(1e-3),
    "late": optax.join_schedules([lambda t: 0.0 * t, lambda t: 0.1 + 0.0 * t], [20]),
}


@pytest.mark.parametrize("name", some(OPTIMIZERS, "adamw", "injected", "masked", "sgd"))
def test_the_schedule_is_read_for_any_rule(name):
    params = {k: v for k, v in PARAMS.items() if k != "none" or name != "masked"}
    for schedule in SCHEDULES.values():
        inner = optax.with_extra_args_support(OPTIMIZERS[name](schedule))
        found = read_schedule(inner, params, STEPS)
        expected = np.array([schedule(jnp.asarray(t)) for t in range(STEPS)])
        assert found is not None
        np.testing.assert_allclose(
            found, expected / expected.max(), rtol=5e-3, atol=1e-3
        )


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"injected"}))
def test_a_number_is_a_constant_rate(name):
    params = {k: v for k, v in PARAMS.items() if k != "none" or name != "masked"}
    inner = optax.with_extra_args_support(OPTIMIZERS[name](0.1))
    np.testing.assert_array_equal(read_schedule(inner, params, STEPS), 1)


def test_a_rule_that_is_not_optax_s_is_watched_step_by_step():
    own = optax.GradientTransformation(
        lambda params: {"steps": jnp.int32(0)},
        lambda grads, state, params=None: (
            jax.tree.map(lambda g: -g / (1 + state["steps"]), grads),
            {"steps": state["steps"] + 1},
        ),
    )
    inner = optax.masked(optax.chain(optax.trace(0.0), own), {"w": True})
    found = read_schedule(optax.with_extra_args_support(inner), {"w": jnp.ones(2)}, 9)
    np.testing.assert_allclose(found, 1 / np.arange(1.0, 10.0), rtol=1e-5)


@pytest.mark.parametrize("total_steps", [STEPS, None])
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("name", ["adamw", "injected", "momentum", "rmsprop", "sgd"])
def test_micro_batches_stretch_the_schedule_and_moments_do_not(
    name, every, total_steps
):
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    inner = optax.MultiSteps(OPTIMIZERS[name](schedule), every_k_schedule=every)
    inner = optax.with_extra_args_support(inner)
    found = read_schedule(inner, {"w": jnp.ones((3, 4))}, total_steps)
    expected = np.repeat(1 - np.arange(10) / 10, every)
    assert len(found) == (total_steps or 10_000)
    np.testing.assert_allclose(found[: 10 * every], expected, rtol=5e-3, atol=1e-3)
    np.testing.assert_allclose(found[10 * every :], 0, atol=1e-3)


def test_a_number_of_micro_batches_that_grows_is_followed():
    every = lambda step: jnp.where(step < 3, 2, 4)  # noqa: E731
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    inner = optax.MultiSteps(optax.sgd(schedule, 0.9), every_k_schedule=every)
    found = read_schedule(
        optax.with_extra_args_support(inner), {"w": jnp.ones(2)}, 6 + 4 * 7
    )
    expected = np.repeat(1 - np.arange(10) / 10, [2] * 3 + [4] * 7)
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize(
    "rule",
    [
        contrib.momo,
        contrib.momo_adam,
        # The momentum stands behind the rate, and holds those of the steps before.
        optax.lars,
        lambda rate: optax.chain(optax.scale_by_learning_rate(rate), optax.trace(0.9)),
    ],
    ids=["momo", "momo_adam", "lars", "momentum behind the rate"],
)
def test_what_would_be_read_wrongly_is_not_read(rule):
    inner = optax.with_extra_args_support(rule(SCHEDULES["warmed"]))
    assert read_schedule(inner, {"w": jnp.ones((3, 4))}, STEPS) is None


def features_of_a_step(rate, told):
    params, shape = {"w": jnp.ones(3)}, optax.linear_schedule(1.0, 0.0, 9)
    scaled = lambda step: rate * shape(step)  # noqa: E731
    given = {"schedule": scaled} if told else {}
    tx = wrap(optax.adam(scaled), init_predictor(), total_steps=9, **given)
    state = tx.update(params, tx.init(params), params, value=1.0)[1]
    return optax.tree.get(state, "lr_features")


@pytest.mark.parametrize("around", [jax.jit, jax.vmap], ids=["jit", "vmap"])
def test_the_schedule_of_a_traced_rate_is_told_as_the_warning_says(around):
    rate = jnp.float32(1e-3) if around is jax.jit else jnp.full(2, 1e-3)
    with pytest.warns(UserWarning, match="rate is traced by jit.*which may use that"):
        unread = around(lambda rate: features_of_a_step(rate, False))(rate)
    told = around(lambda rate: features_of_a_step(rate, True))(rate)
    read = jnp.broadcast_to(features_of_a_step(1e-3, False), told.shape)
    np.testing.assert_allclose(told, read, rtol=1e-5)
    assert not np.allclose(unread, read, rtol=1e-5)


LABELS = {"w": "one", "b": "other"}
TWO = {"w": jnp.ones((3, 4)), "b": jnp.zeros(4)}


@pytest.mark.parametrize("around", ["as it is", "MultiSteps"])
@pytest.mark.parametrize("other", ["the same", "another", "frozen"])
def test_groups_are_read_where_they_follow_one_schedule(other, around):
    schedule = SCHEDULES["warmed"]
    rules = {
        "the same": optax.sgd(lambda t: 30 * schedule(t), 0.9),
        "another": optax.sgd(0.1),
        "frozen": optax.set_to_zero(),
    }
    inner = optax.partition(
        {"one": optax.adamw(schedule), "other": rules[other]}, LABELS
    )
    if around == "MultiSteps":
        inner = optax.MultiSteps(inner, every_k_schedule=2)
    found = read_schedule(optax.with_extra_args_support(inner), TWO, STEPS)
    if other == "another":
        assert found is None
        return
    every = 1 if around == "as it is" else 2
    expected = np.array([schedule(jnp.asarray(t // every)) for t in range(STEPS)])
    expected /= expected.max()
    # A group of micro-batches at a rate of 0 is read at that of the next move.
    np.testing.assert_allclose(found[every:], expected[every:], rtol=5e-3, atol=1e-3)


def test_groups_of_a_rule_that_is_not_optax_s_follow_one_schedule_or_are_not_read():
    def own(level):
        return optax.GradientTransformation(
            lambda params: {"steps": jnp.int32(0)},
            lambda grads, state, params=None: (
                jax.tree.map(lambda g: -g * level(state["steps"]), grads),
                {"steps": state["steps"] + 1},
            ),
        )

    falling = lambda t: 1 - t / STEPS  # noqa: E731
    for level, is_read in ((falling, True), (lambda t: 0.1 + 0 * t, False)):
        inner = optax.partition({"one": own(falling), "other": own(level)}, LABELS)
        found = read_schedule(optax.with_extra_args_support(inner), TWO, STEPS)
        assert (found is not None) == is_read


def test_groups_of_different_schedules_are_said():
    inner = optax.partition(
        {"one": optax.adam(SCHEDULES["warmed"]), "other": optax.sgd(0.1)}, LABELS
    )
    tx = wrap(inner, init_predictor(), total_steps=STEPS)
    state = tx.init(TWO)
    with pytest.warns(UserWarning, match="takes it for a constant rate.*schedule="):
        tx.update(TWO, state, TWO, value=1.0)


def test_an_ascent_at_a_rate_of_one_is_no_mask():
    rising = lambda t: (t - STEPS) / STEPS  # noqa: E731
    for rule, expected in (
        (optax.sgd(rising), 1 - np.arange(STEPS) / STEPS),  # the first update is +1
        (optax.sgd(lambda t: -1.0 + 0.0 * t), np.ones(STEPS)),
    ):
        found = read_schedule(optax.with_extra_args_support(rule), TWO, STEPS)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_is_said_of_parameters_that_are_none():
    levels, area = read_level(optax.with_extra_args_support(optax.sgd(0.1)), {}, 9)
    assert levels(3) == area == 0.0


def test_a_long_run_is_read_to_its_end():
    schedule = optax.linear_schedule(1.0, 0.0, 30_000)
    inner = optax.with_extra_args_support(optax.adam(schedule))
    found = read_schedule(inner, {"w": jnp.ones(2)}, 30_000)
    np.testing.assert_allclose(found[[0, 15_000, 29_999]], [1, 0.5, 0], atol=1e-3)


def test_what_cannot_be_read_is_said_and_taken_for_constant():
    needs_more = optax.GradientTransformationExtraArgs(
        lambda params: jnp.int32(0),
        lambda updates, state, params=None, *, labels, **_: (updates, state),
    )
    tx = wrap(needs_more, init_predictor(), total_steps=5)
    state = jax.eval_shape(tx.init, PARAMS)
    with pytest.warns(UserWarning, match="takes it for a constant rate.*schedule="):
        jax.eval_shape(
            lambda state: tx.update(PARAMS, state, PARAMS, value=1.0, labels=1), state
        )


def test_a_schedule_with_the_sign_of_a_descent_has_the_same_levels():
    shape = lambda t: jnp.minimum(1.0, (t + 1) / 5.0)  # noqa: E731
    log, area = levels(shape, 10)
    turned, same = levels(lambda t: -2.0 * shape(t), 10)
    for step in (0, 4, 9):
        np.testing.assert_allclose(turned(step), log(step), rtol=1e-6)
    np.testing.assert_allclose(same, area, rtol=1e-6)


def test_a_long_schedule_is_read_in_parts_and_whole():
    schedule = optax.linear_schedule(1e-3, 0.0, 20_000)
    found = read_schedule(optax.adam(schedule), {"w": jnp.ones(3)}, 20_000)
    np.testing.assert_allclose(found, 1 - np.arange(20_000) / 20_000, atol=1e-5)


def test_the_area_under_a_long_schedule_counts_each_step_alike():
    schedule = lambda step: 1.0 - step / 4000  # noqa: E731
    log_level, area = levels(schedule, 4000)
    assert float(area) == pytest.approx(math.log(0.5), abs=0.01)
    assert float(log_level(2000)) == pytest.approx(math.log(0.5), abs=1e-4)


def test_the_area_is_a_hundredth_at_least():
    table = np.zeros(1000, np.float32)
    table[0] = 1
    assert log_area(table) == pytest.approx(math.log(0.01))
