"""What a user gets wrong is named with the rule, the value and the way out."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import inject, scale_by_metalr, wrap
from metalr.errors import MetalrError
from metalr.optax_schedule import default_schedule
from metalr.predictor import init_predictor
from tests.product.steering import loss_fn, opinionated


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_multiplier": 0.5}, r"lie in \[1, 1024\], got 0.5. 1 switches the pred"),
        ({"max_multiplier": float("nan")}, r"lie in \[1, 1024\], got nan"),
        (
            {"total_steps": 0},
            "`total_steps` must be a whole number of at least 1, got 0",
        ),
        (
            {"total_steps": 300.0},
            "`total_steps` must be a whole .* got 300.0. Round it",
        ),
        ({"curvature_every": 2.5}, "`curvature_every` must be a whole number"),
        ({"curvature_every": -1}, "`curvature_every` .* at least 0, got -1. Leave it"),
        ({"stride": 0}, "`stride` must be a whole number of at least 1, got 0"),
        ({"learning_rate": -1.0}, "`learning_rate` must be positive, got -1.0"),
        ({"learning_rate": jnp.float32(-1.0)}, "`learning_rate` must be positive"),
        ({"learning_rate": np.float32("nan")}, "must be positive, got nan"),
        ({"learning_rate": None}, "must be a number, got None.*`metalr.find` has no"),
        ({"learning_rate": "2e-5"}, "must be a number, got the text '2e-5'. Use"),
        ({"learning_rate": optax.sgd(0.1)}, "a number, got a Gradient.*`predictor=`"),
        ({"schedule": 2e-5}, "`schedule` must be a function of the step, got a float"),
        ({"max_multiplier": "8"}, r"must lie in \[1, 1024\], got 8. 1 switches"),
        ({"trust": None}, "`trust` must be a probability below 1, got None. 0 takes"),
        ({"log_multiplier": math.nan}, "`log_multiplier` must be finite"),
        ({"learning_rate": lambda t: 1.0, "schedule": lambda t: 1.0}, "two schedules"),
    ],
)
def test_a_wrong_argument_is_named_with_rule_value_and_way_out(settings, message):
    with pytest.raises(MetalrError, match=message):
        inject(optax.adamw, **{"predictor": init_predictor(), **settings})


def test_a_factory_in_place_of_an_optimizer_is_refused_and_the_other_way_round():
    wrong: Any = optax.adamw
    with pytest.raises(MetalrError, match="got a function.*metalr.inject"):
        wrap(wrong, init_predictor())
    wrong = optax.adamw(1e-3)
    with pytest.raises(MetalrError, match="got a Gradient.*to metalr.wrap"):
        inject(wrong, predictor=init_predictor())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: wrap(optax.sgd(0.1), "folder"), "one of metalr, got a str.*Read it w"),
        (lambda: wrap(optax.sgd, init_predictor()), "must be an optimizer"),
    ],
)
def test_what_is_no_predictor_or_no_optimizer_is_refused(call, said):
    with pytest.raises(MetalrError, match=said):
        call()


def test_a_factory_without_a_learning_rate_is_refused():
    with pytest.raises(MetalrError, match="use `wrap`"):
        inject(optax.scale_by_adam, predictor=init_predictor())


@pytest.mark.parametrize("rate", [None, "2e-5"])
def test_a_default_schedule_of_no_number_is_refused_where_it_is_made(rate):
    with pytest.raises(MetalrError, match="`learning_rate` must be a number, got"):
        default_schedule(rate, 900)  # and not in the trace of the first step


def test_a_default_schedule_has_no_negative_length():
    with pytest.raises(MetalrError, match="`warmup_steps` must be a whole number of"):
        default_schedule(1.0, 10, -3)
    with pytest.raises(MetalrError, match="`total_steps` must be a whole number of"):
        default_schedule(1.0, 0)


def test_leaving_out_value_params_or_grad_fn_is_a_plain_error():
    params = {"w": jnp.ones(3)}
    tx = wrap(optax.sgd(0.1), init_predictor())
    state = tx.init(params)
    with pytest.raises(MetalrError, match="needs the loss as `value=`, got none"):
        tx.update(params, state, params)
    with pytest.raises(ValueError, match="reads the parameters"):
        tx.update(params, state, value=1.0)
    tx = wrap(optax.sgd(0.1), init_predictor(), curvature_every=1)
    with pytest.raises(MetalrError, match="grad_fn"):
        tx.update(params, tx.init(params), params, value=1.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "needs the loss as `value=`, got none. Call"),
        ((1.0, {"accuracy": 0.5}), "the loss alone, got a tuple: with `has_aux=True`"),
        (np.ones(1), r"one number, .* got an array of shape \(1,\). Take its mean"),
        (jnp.ones((2, 2)), r"shape \(2, 2\)"),
        (loss_fn, "the loss, one number; got a function. Call"),
    ],
)
def test_a_loss_that_is_none_is_one_clear_line(value, message):
    params = {"w": jnp.ones(3)}
    tx = wrap(optax.sgd(0.1), init_predictor())
    with pytest.raises(MetalrError, match=message) as raised:
        tx.update(params, tx.init(params), params, value=value)
    assert "\n" not in str(raised.value)


def test_a_loss_that_a_chain_drops_is_said_to_be_and_the_way_out_keeps_it():
    params = {"w": jnp.ones(3)}
    steps = optax.MultiSteps(wrap(optax.sgd(0.1), init_predictor()), 2)
    way_out = r"optax.GradientTransformationExtraArgs\(steps.init, steps.update\)"
    chained = optax.chain(optax.clip(1.0), steps.gradient_transformation())
    with pytest.raises(MetalrError, match=way_out):
        chained.update(params, chained.init(params), params, value=1.0)
    kept = optax.GradientTransformationExtraArgs(steps.init, steps.update)
    chained = optax.chain(optax.clip(1.0), kept)
    state = chained.init(params)
    for _ in range(2):
        updates, state = chained.update(params, state, params, value=1.0)
    assert optax.tree.get(state, "lr_step") == 1
    np.testing.assert_allclose(updates["w"], -0.1)


def test_a_state_of_another_optimizer_or_of_a_file_is_refused_with_the_way_out():
    params = {"w": jnp.ones(3)}
    tx = wrap(optax.adam(0.1), init_predictor())
    for state in (optax.adam(0.1).init(params), tx.init(params)._asdict()):
        with pytest.raises(MetalrError, match="got a (tuple|dict). Make it by.*eval_"):
            tx.update(params, state, params, value=1.0)


def test_a_schedule_that_is_no_function_is_refused_by_all_doors():
    for door in (wrap, scale_by_metalr):
        with pytest.raises(MetalrError, match="function of the step, got a .*Array"):
            door(optax.sgd(0.1), init_predictor(), schedule=jnp.ones(5))


@pytest.mark.parametrize("total_steps", [np.int64(5), jnp.int32(5), np.array(5)])
def test_a_length_of_any_whole_type_is_that_of_python(total_steps):
    params = {"w": jnp.ones(3)}
    found = []
    for length in (5, total_steps):
        tx = wrap(optax.sgd(0.1), opinionated(), total_steps=length)
        state = tx.init(params)
        for value in (1.0, 0.9, 0.8):
            updates, state = tx.update(params, state, params, value=value)
        found.append((updates, state.lr_features))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_a_process_may_go_in_and_out_of_64_bits():
    params = {"w": jnp.ones(3)}
    tx = wrap(optax.sgd(0.1), opinionated(), total_steps=5)
    run = lambda: tx.update(params, tx.init(params), params, value=1.0)[0]["w"]  # noqa: E731
    expected = run()
    with jax.enable_x64(True):
        np.testing.assert_array_equal(run(), expected)
    np.testing.assert_array_equal(run(), expected)


MISSING = {
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2),
    "chain": lambda tx: optax.chain(optax.clip(1.0), tx),
}


@pytest.mark.parametrize("around", MISSING)
def test_a_loss_that_is_forgotten_around_it_is_one_clear_line(around):
    params = {"w": jnp.ones(3)}
    tx = MISSING[around](wrap(optax.sgd(0.1), init_predictor()))
    with pytest.raises(MetalrError, match="flax's TrainState"):
        jax.eval_shape(tx.update, params, tx.init(params), params)


REMEMBERING = {
    "schedule_free": lambda: optax.contrib.schedule_free_adamw(1e-2),
    "mechanize": lambda: optax.contrib.mechanize(optax.sgd(1.0)),
    "lookahead": lambda: optax.lookahead(optax.sgd(0.1), 5, 0.5),
    "sam": lambda: optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1)),
    "prodigy": lambda: optax.contrib.prodigy(),
    "dog": lambda: optax.contrib.dog(1.0),
    "dog of optax": lambda: optax.scale_by_distance_over_gradients(),
    "cocob": lambda: optax.contrib.cocob(),
    "madgrad": lambda: optax.contrib.madgrad(0.1),
    "lbfgs": lambda: optax.lbfgs(),
    "backtracking": lambda: optax.scale_by_backtracking_linesearch(5),
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_rule_that_remembers_its_updates_is_refused_with_the_way_out(name):
    tx = wrap(optax.chain(optax.clip(1.0), REMEMBERING[name]()), init_predictor())
    params = {"w": jnp.ones(3)}
    if name == "lookahead":
        params = optax.LookaheadParams(params, params)
    with pytest.raises(MetalrError, match="keeps a record .* Use "):
        tx.init(params)


def test_a_second_metalr_around_the_first_is_refused():
    tx = wrap(wrap(optax.sgd(0.1), init_predictor()), init_predictor())
    with pytest.raises(MetalrError, match="multiplied by metalr already.*one of the"):
        tx.init({"w": jnp.ones(3)})
