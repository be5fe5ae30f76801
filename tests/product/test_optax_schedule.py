"""The two doors: equal to their inner optimizer at 1, and an optax transformation."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import inject, scale_by_metalr, wrap
from metalr.errors import MetalrError
from metalr.features import NAMES
from metalr.optax_schedule import default_schedule
from metalr.predictor import init_predictor
from tests.product.steering import (
    drive,
    falling,
    loss_fn,
    opinionated,
    regression,
    train_step,
)
from tests.tiers import some

INNERS = {
    "adamw": (optax.adamw, {}),
    "sgd": (optax.sgd, {"momentum": 0.9}),
    "lion": (optax.lion, {}),
    "adafactor": (optax.adafactor, {"min_dim_size_to_factor": 4}),
}
DOORS = ("inject", "wrap")
# What `optax.inject_hyperparams` is told to leave alone: all but the learning rate.
STATIC = {
    "adamw": "b1 b2 eps eps_root weight_decay",
    "sgd": "momentum",
    "lion": "b1 b2 weight_decay",
    "adafactor": "min_dim_size_to_factor factored dtype_momentum decay_rate eps "
    "decay_offset clipping_threshold multiply_by_parameter_scale",
}


def train(tx, steps=100):
    """Train with the gradient, the update and its application compiled apart.

    In one jit XLA contracts `params + updates` with the last product of the update, or
    not, as the graph around it suggests.
    """
    params, batch = regression()
    state = tx.init(params)
    gradient, update = jax.jit(jax.value_and_grad(loss_fn)), jax.jit(tx.update)
    for _ in range(steps):
        value, grads = gradient(params, batch)
        updates, state = update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
    return params, state


# --- Zero means "do nothing" ----------------------------------------------------------


@functools.cache
def injected(name):
    factory, kwargs = INNERS[name]
    make = optax.inject_hyperparams(factory, STATIC[name].split())
    return make(learning_rate=default_schedule(3e-3, 100), **kwargs)


@functools.cache
def injected_run(name):
    tx = optax.with_extra_args_support(injected(name))
    return train(tx)


def switched_off(door, name, settings):
    factory, kwargs = INNERS[name]
    settings = {"total_steps": 100, **settings}
    if door == "wrap":
        return wrap(injected(name), **settings)
    return inject(factory, 3e-3, **settings, **kwargs)


@pytest.mark.parametrize(
    ("door", "name", "settings"),
    [
        *((d, n, {"predictor": init_predictor()}) for d in DOORS for n in INNERS),
        *(
            (d, "adamw", {"predictor": opinionated(), "max_multiplier": 1})
            for d in DOORS
        ),
        ("inject", "adamw", {"log_multiplier": 0.0}),  # the recording mode
    ],
)
def test_switched_off_it_is_the_injected_optimizer_bit_for_bit(door, name, settings):
    (params, state), (expected, plain) = (
        train(switched_off(door, name, settings)),
        injected_run(name),
    )
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert state.lr_multiplier == 1
    rate = state.hyperparams["learning_rate"]
    assert rate == plain.hyperparams["learning_rate"]


# --- The contract of an optax transformation ------------------------------------------


def build(door, name):
    factory, kwargs = INNERS[name]
    if door == "wrap":
        return wrap(factory(3e-3, **kwargs), opinionated(), total_steps=30)
    return inject(factory, 3e-3, opinionated(), total_steps=30, **kwargs)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", INNERS)
@pytest.mark.parametrize("door", DOORS)
def test_shapes_and_types_of_the_state_stay(door, name, dtype):
    tx = build(door, name)
    step = functools.partial(train_step, tx, unknown_extra=1)
    params, batch = regression(dtype=dtype)
    state = tx.init(params)
    after = jax.eval_shape(step, params, state, batch)
    kind = lambda x: (x.shape, x.dtype, x.weak_type)  # noqa: E731
    assert jax.tree.map(kind, after) == jax.tree.map(kind, (params, state))


@pytest.mark.parametrize("name", some(["adamw", "adafactor"], "adamw"))
@pytest.mark.parametrize("door", DOORS)
def test_parameters_of_two_bytes_are_trained_and_not_turned_into_nan(door, name):
    single = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)  # noqa: E731
    losses = []
    for dtype in (jnp.float32, jnp.bfloat16):
        tx = build(door, name)
        params, batch = regression(dtype=dtype)
        before, state = loss_fn(*single((params, batch))), tx.init(params)
        step = jax.jit(functools.partial(train_step, tx))
        for _ in range(20):
            params, state = step(params, state, batch)
        assert state.skipped_steps == 0
        losses.append(float(before - loss_fn(*single((params, batch)))))
    assert 0 < losses[0] / 5 < losses[1]  # small updates of two bytes are rounded away


@pytest.mark.parametrize("door", DOORS)
def test_the_second_step_is_not_traced_again(door):
    tx, traces = build(door, "adamw"), []
    params, batch = regression()
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        traces.append(1)
        return train_step(tx, params, state, batch)

    for _ in range(3):
        params, state = step(params, state)
    assert len(traces) == 1


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


@pytest.mark.parametrize("name", INNERS)
def test_it_converges_on_a_parabola(name):
    factory, kwargs = INNERS[name]
    tx = inject(factory, 3e-2, opinionated(push=1.0), total_steps=200, **kwargs)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(lambda p: jnp.sum(p**2) + 0.1)(params)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, tx.init(params)), None, 200)[1]

    values = run(jnp.array([1.0, -2.0, 0.5]))
    assert values[-1] - 0.1 < 0.1 * (values[0] - 0.1)


def test_it_survives_save_and_restore(tmp_path):
    import orbax.checkpoint as ocp

    tx = inject(optax.adamw, 3e-3, opinionated(), total_steps=30)
    params, batch = regression()
    step = jax.jit(functools.partial(train_step, tx))
    params, state = step(params, tx.init(params), batch)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", tx.init(params))
    after, expected = (step(params, kept, batch) for kept in (restored, state))
    jax.tree.map(np.testing.assert_array_equal, after, expected)


# --- The rate -------------------------------------------------------------------------


def test_the_rate_in_the_state_is_what_was_applied_in_that_step():
    tx = inject(optax.sgd, 0.1, opinionated(), total_steps=20)
    seen = set()
    for updates, _, state in drive(tx, [(2.0, 1.0)] * 20):
        rate = state.hyperparams["learning_rate"]
        assert rate == optax.tree.get(state, "learning_rate")
        np.testing.assert_array_equal(updates["w"], -rate * jnp.full(3, 2.0))
        seen.add(float(state.lr_multiplier))
    assert len(seen) > 10


def test_wrap_multiplies_the_updates_of_the_inner_optimizer():
    tx = wrap(optax.sgd(0.1), opinionated(), total_steps=20)
    for updates, _, state in drive(tx, [(2.0, 1.0)] * 5):
        expected = -0.1 * 2.0 * state.lr_multiplier
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-6)


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


@pytest.mark.parametrize("door", ["wrap", "inject"])
def test_a_step_outside_of_jit_compiles_nothing_that_one_before_it_has(door, caplog):
    if door == "wrap":
        tx = wrap(optax.adamw(1e-3), init_predictor(), total_steps=9)
    else:
        tx = inject(optax.adamw, 1e-3, init_predictor(), total_steps=9)
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(params, state, params, value=1.0)
    with jax.log_compiles():
        tx.update(params, state, params, value=1.0)
    assert not [r for r in caplog.records if "Compiling" in r.getMessage()]


# --- What a user gets wrong -----------------------------------------------------------


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


def test_a_factory_without_a_learning_rate_is_refused():
    with pytest.raises(MetalrError, match="use `wrap`"):
        inject(optax.scale_by_adam, predictor=init_predictor())


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
    ],
)
def test_a_loss_that_is_none_is_one_clear_line(value, message):
    params = {"w": jnp.ones(3)}
    tx = wrap(optax.sgd(0.1), init_predictor())
    with pytest.raises(MetalrError, match=message) as raised:
        tx.update(params, tx.init(params), params, value=value)
    assert "\n" not in str(raised.value)


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


@pytest.mark.parametrize("rate", [None, "2e-5"])
def test_a_default_schedule_of_no_number_is_refused_where_it_is_made(rate):
    with pytest.raises(MetalrError, match="`learning_rate` must be a number, got"):
        default_schedule(rate, 900)  # and not in the trace of the first step


def test_a_default_schedule_has_no_negative_length():
    with pytest.raises(MetalrError, match="`warmup_steps` must be a whole number of"):
        default_schedule(1.0, 10, -3)
    with pytest.raises(MetalrError, match="`total_steps` must be a whole number of"):
        default_schedule(1.0, 0)


def test_the_way_out_of_a_rule_that_remembers_trains():
    base = wrap(optax.sgd(0.05), opinionated(), total_steps=100)
    tx = optax.contrib.schedule_free(base, 0.05)
    params, batch = regression()
    before, state = loss_fn(params, batch), tx.init(params)
    step = jax.jit(functools.partial(train_step, tx))
    for _ in range(100):
        params, state = step(params, state, batch)
    served = optax.contrib.schedule_free_eval_params(state, params)
    assert loss_fn(served, batch) < 0.95 * before


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


# --- One run through all doors --------------------------------------------------------


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


# --- As part of a larger program ------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_update_is_differentiable_in_reverse(door):
    tx = build(door, "adamw")
    params, batch = regression()
    state = tx.init(params)

    @jax.jit
    @jax.grad
    def hypergradient(scale):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss_fn)(params, batch)
            grads = jax.tree.map(lambda x: scale * x, grads)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), None

        return loss_fn(jax.lax.scan(step, (params, state), None, 3)[0][0], batch)

    assert np.isfinite(hypergradient(1.0)) and hypergradient(1.0) != 0


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


def test_extra_arguments_reach_what_multisteps_wraps():
    inner = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    tx = wrap(optax.MultiSteps(inner, 2), init_predictor(), schedule=lambda t: 1.0)
    history = drive(tx, [(1.0, 1.0)] * 4)
    assert np.any(history[-1][1]["w"] != history[0][1]["w"])


def test_updates_have_the_type_of_the_parameters_whatever_the_gradients_have():
    params, half = {"w": jnp.ones(4)}, {"w": jnp.full(4, 0.3, jnp.bfloat16)}
    found = []
    for tx in (
        inject(optax.adamw, 1e-3, init_predictor(), schedule=lambda t: 1.0),
        optax.adamw(1e-3),
    ):
        more = {} if found else {"value": 1.0}
        updates, _ = tx.update(half, tx.init(params), params, **more)
        found.append(updates["w"])
    assert found[0].dtype == jnp.float32
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_the_rate_shown_is_that_of_the_multiplier_from_the_first_step_on():
    tx = inject(optax.sgd, 1.0, init_predictor(), schedule=lambda t: 1.0)
    for _, _, state in drive(tx, [(np.nan, np.nan)] * 3):
        assert state.hyperparams["learning_rate"] == state.lr_multiplier < 1


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


def test_types_of_moments_need_no_static_args():
    tx = inject(optax.adamw, predictor=init_predictor(), mu_dtype=jnp.bfloat16)
    state = tx.init({"w": jnp.ones(3)})
    assert optax.tree.get(state, "mu")["w"].dtype == jnp.bfloat16


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


def test_masks_and_integers_need_no_static_args():
    tx = inject(
        optax.adamw,
        predictor=init_predictor(),
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
    )
    _, state = train(tx, steps=1)
    assert state.lr_step == 1 and "mask" not in state.hyperparams
