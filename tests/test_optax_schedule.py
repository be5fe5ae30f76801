"""The controller: equal to its inner optimizer at 1, safe, bounded, and portable."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from metalr import inject, wrap
from metalr.errors import MetalrError
from metalr.features import FEATURES
from metalr.optax_schedule import default_schedule
from metalr.predictor import init_predictor

NAMES = [row.name for row in FEATURES]
INNERS = {
    "adamw": (optax.adamw, {}),
    "sgd": (optax.sgd, {"momentum": 0.9}),
    "lion": (optax.lion, {}),
    "adafactor": (optax.adafactor, {"min_dim_size_to_factor": 4}),
}
DOORS = ("inject", "wrap")
STATIC = {"adafactor": ("min_dim_size_to_factor", "factored", "dtype_momentum")}


def opinionated(seed=0, push=0.0):
    """A predictor that moves the rate at every step; `push` is added, in octaves."""
    rng = np.random.default_rng(seed)
    predictor = init_predictor(seed)
    last = {
        "kernel": 0.5 * rng.normal(size=(32, 2)).astype(np.float32),
        "bias": np.array([push, 3], np.float32),
    }
    # Inputs are kept small, or tanh would saturate and the answer be a constant.
    return predictor._replace(
        weights={**predictor.weights, "last": last}, std=10 * predictor.std
    )


def constant(correction):
    """A predictor that always says the same."""
    predictor = init_predictor()
    bias = np.array([correction, 50], np.float32)  # confidence 1
    last = {"kernel": np.zeros((32, 2), np.float32), "bias": bias}
    return predictor._replace(weights={**predictor.weights, "last": last})


def regression(seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    params = {
        "w": jnp.asarray(0.3 * rng.normal(size=(16, 8)), dtype),
        "b": jnp.zeros(8, dtype),
    }
    x, y = rng.normal(size=(32, 16)), rng.normal(size=(32, 8))
    return params, (jnp.asarray(x, dtype), jnp.asarray(y, dtype))


def loss_fn(params, batch):
    x, y = batch
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"][None]) - y) ** 2)


def train_step(tx, params, state, batch, mean=lambda x: x, **extra):
    value, grads = mean(jax.value_and_grad(loss_fn)(params, batch))
    updates, state = tx.update(grads, state, params, value=value, **extra)
    return optax.apply_updates(params, updates), state


def train(tx, steps=100):
    """Trains with the gradient, the update and its application compiled apart.

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


def drive(tx, grads_and_values, params=None):
    """Feeds gradients and losses by hand: updates and states of every step."""
    params = {"w": jnp.ones(3)} if params is None else params
    state, history = tx.init(params), []
    update = jax.jit(tx.update)
    for grad, value in grads_and_values:
        grads = jax.tree.map(lambda x, g=grad: jnp.full_like(x, g), params)
        updates, state = update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        history.append((updates, params, state))
    return history


# --- Zero means "do nothing" ----------------------------------------------------------


@functools.cache
def injected(name):
    factory, kwargs = INNERS[name]
    make = optax.inject_hyperparams(factory, STATIC.get(name, ()))
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
    for field in ("lr_multiplier", "skipped_steps", "relaxed_steps", "braked_steps"):
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
        restored = checkpointer.restore(tmp_path / "state", state)
    for again in (state, restored):
        after = step(params, again, batch)
        jax.tree.map(np.testing.assert_array_equal, after, step(params, state, batch))


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
            state.lr_features[NAMES.index("prior")], level, atol=1e-3
        )


def test_a_prior_is_a_factor_on_the_peak_rate():
    prior = optax.linear_schedule(1.0, 0.0, 10)
    tx = inject(optax.sgd, 0.5, init_predictor(), prior=prior)
    *_, (_, _, state) = drive(tx, [(1.0, 1.0)] * 4)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.5 * 0.7)


# --- The controller -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total_steps", "limit"), [(50, 0.4), (1000, 0.04), (100_000, 0.04), (None, 0.1)]
)
def test_a_long_run_moves_its_rate_in_smaller_steps(total_steps, limit):
    tx = wrap(optax.sgd(0.1), constant(20.0), total_steps=total_steps)
    *_, (_, _, state) = drive(tx, [(1.0, 1.0)] * 3)
    np.testing.assert_allclose(jnp.log(state.lr_multiplier), 3 * limit, rtol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_multiplier_never_leaves_its_bounds(sign):
    tx = wrap(optax.sgd(1e-3), constant(sign * 100.0), total_steps=30, max_multiplier=8)
    *_, (_, _, state) = drive(tx, [(1.0, 1.0)] * 12)
    np.testing.assert_allclose(state.lr_multiplier, 8.0**sign, rtol=1e-5)


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
        kept = (earlier.feature_state, earlier.lr_features)
        now = (state.feature_state, state.lr_features)
        jax.tree.map(np.testing.assert_array_equal, now, kept)
    _, params, state = history[-1]
    assert state.skipped_steps == 5 and state.lr_step == 7
    assert np.all(params["w"] < history[-2][1]["w"])  # it goes on
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


def test_features_outside_of_the_trained_range_let_the_multiplier_return_to_1():
    predictor = constant(5.0)
    high = np.where(np.array(NAMES) == "slope", -0.5, predictor.high)
    narrow = predictor._replace(high=high.astype(np.float32))
    usual = [(1.0, 1.0)] * 6  # the slope is -1
    strange = [((-1.0) ** step, 1.0) for step in range(1, 26)]  # now it is +1
    history = drive(wrap(optax.sgd(1e-3), narrow), usual + strange)
    multipliers = [float(state.lr_multiplier) for _, _, state in history]
    assert multipliers[5] > 1.1
    assert history[5][2].relaxed_steps <= 1  # before the first update there is no slope
    assert history[-1][2].relaxed_steps >= 15
    assert 1 < multipliers[-1] < max(multipliers)


@pytest.mark.parametrize(("push", "start"), [(5.0, 2.0), (-5.0, 0.5)])
def test_a_loss_above_its_start_never_raises_the_rate(push, start):
    tx = wrap(optax.sgd(1e-6), constant(push), total_steps=30)
    calm = [(1.0, 1.0)] * 8
    diverging = [(1.0, 10.0 + step) for step in range(8)]
    history = drive(tx, calm + diverging)
    multipliers = [float(state.lr_multiplier) for _, _, state in history]
    assert (multipliers[7] - 1) * (start - 1) > 0
    assert np.all(np.diff(multipliers[7:]) < 1e-7)
    assert history[-1][2].braked_steps == 8


def test_recording_needs_no_predictor_and_exploring_is_bounded():
    forced = optax.linear_schedule(0.0, 1.0, 4)
    tx = wrap(optax.sgd(0.1), log_multiplier=forced)
    for step, (_, _, state) in enumerate(drive(tx, [(1.0, 1.0)] * 4)):
        np.testing.assert_allclose(state.lr_multiplier, np.exp(step / 4), rtol=1e-6)
    *_, (_, _, state) = drive(
        wrap(optax.sgd(1e-3), init_predictor(), explore=lambda step: 9.0 * step),
        [(1.0, 1.0)] * 3,
    )
    np.testing.assert_allclose(state.lr_multiplier, 64, rtol=1e-5)
    assert state.lr_log_multiplier == 0


def test_exact_curvature_is_that_of_the_applied_step():
    hessian, rate = jnp.array([1.0, 4.0]), 0.3
    tx = wrap(optax.sgd(rate), init_predictor(), curvature_every=2)
    grad_fn = lambda params: hessian * params  # noqa: E731
    params = jnp.array([1.0, 1.0])
    state, curvatures = tx.init(params), []
    for _ in range(4):
        g = grad_fn(params)
        curvatures.append(rate * jnp.vdot(g, hessian * g) / jnp.vdot(g, g))
        updates, state = tx.update(g, state, params, value=1.0, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
    exact = state.feature_state.exact_curvature
    np.testing.assert_allclose(exact, curvatures[2], rtol=1e-4)


# --- One device or eight --------------------------------------------------------------


SETTINGS = {"predictor": opinionated(push=1.0), "total_steps": 20}
STEPS = 8


def tx_and_run(step, params, batch, steps=STEPS):
    tx = inject(optax.adamw, 1e-2, **SETTINGS)
    state, multipliers = tx.init(params), []
    step = step(functools.partial(train_step, tx))
    for _ in range(steps):
        params, state = step(params, state, batch)
        multipliers.append(state.lr_multiplier)
    return np.array(multipliers), state


@functools.cache
def one_device(seed=0):
    return tx_and_run(jax.jit, *regression(seed))


@pytest.mark.parametrize("layout", ["data", "columns", "rows"])
def test_sharded_arrays_give_the_multipliers_of_one_device(layout):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))  # noqa: E731
    params, (x, y) = regression()
    if layout == "data":
        params, batch = put(params), (put(x, "d"), put(y, "d"))
    else:
        spec = ("d",) if layout == "rows" else (None, "d")
        params, batch = {"w": put(params["w"], *spec), "b": put(params["b"])}, (x, y)
        batch = put(batch)
    ours, state = tx_and_run(jax.jit, params, batch)
    expected, _ = one_device()
    assert len(np.unique(expected)) == STEPS
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    moment = optax.tree.get(state, "mu")["w"].sharding
    assert moment.is_equivalent_to(params["w"].sharding, 2)


def test_explicitly_sharded_arrays_give_the_multipliers_of_one_device():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        params, (x, y) = regression()
        params = jax.device_put(params, PartitionSpec())
        batch = jax.device_put((x, y), PartitionSpec("d"))
        ours, _ = tx_and_run(jax.jit, params, batch)
    np.testing.assert_allclose(ours, one_device()[0], rtol=1e-4)


def test_pmap_gives_the_multipliers_of_one_device():
    params, batch = regression()
    tx = inject(optax.adamw, 1e-2, **SETTINGS)
    mean = functools.partial(jax.lax.pmean, axis_name="d")
    step = jax.pmap(functools.partial(train_step, tx, mean=mean), axis_name="d")
    copies = lambda tree: jax.tree.map(lambda x: jnp.stack([x] * 8), tree)  # noqa: E731
    params, state = copies(params), copies(tx.init(params))
    batch = jax.tree.map(lambda x: x.reshape(8, 4, -1), batch)
    multipliers = []
    for _ in range(STEPS):
        params, state = step(params, state, batch)
        multipliers.append(np.array(state.lr_multiplier))
    expected = np.tile(one_device()[0][:, None], 8)
    np.testing.assert_allclose(multipliers, expected, rtol=1e-4)


def test_vmap_over_seeds_in_a_scan_gives_the_multipliers_of_each_run():
    tx = inject(optax.adamw, 1e-2, **SETTINGS)

    @jax.jit
    @jax.vmap
    def run(params, batch):
        def body(carry, _):
            carry = train_step(tx, *carry, batch)
            return carry, carry[1].lr_multiplier

        return jax.lax.scan(body, (params, tx.init(params)), None, STEPS)[1]

    problems = [regression(seed) for seed in (0, 1)]
    ours = run(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems))
    for multipliers, seed in zip(ours, (0, 1), strict=True):
        np.testing.assert_allclose(multipliers, one_device(seed)[0], rtol=1e-4)


# --- What a user gets wrong -----------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_multiplier": 0.5}, r"lie in \[1, 1024\], got 0.5. 1 switches the pred"),
        ({"max_multiplier": float("nan")}, r"lie in \[1, 1024\], got nan"),
        ({"total_steps": 0}, "`total_steps` must be at least 1, got 0"),
        ({"curvature_every": -1}, "`curvature_every` must be at least 0"),
        ({"stride": 0}, "`stride` at least 1"),
        ({"learning_rate": -1.0}, "`learning_rate` must be positive, got -1.0"),
        ({"learning_rate": lambda t: 1.0, "prior": lambda t: 1.0}, "two schedules"),
    ],
)
def test_a_wrong_argument_is_named_with_rule_value_and_way_out(settings, message):
    with pytest.raises(MetalrError, match=message):
        inject(optax.adamw, **{"predictor": init_predictor(), **settings})


def test_a_factory_without_a_learning_rate_is_refused():
    with pytest.raises(MetalrError, match="use `wrap`"):
        inject(optax.scale_by_adam, predictor=init_predictor())


def test_leaving_out_value_params_or_grad_fn_is_a_plain_error():
    params = {"w": jnp.ones(3)}
    tx = wrap(optax.sgd(0.1), init_predictor())
    state = tx.init(params)
    with pytest.raises(TypeError, match="value"):
        tx.update(params, state, params)
    with pytest.raises(ValueError, match="reads the parameters"):
        tx.update(params, state, value=1.0)
    tx = wrap(optax.sgd(0.1), init_predictor(), curvature_every=1)
    with pytest.raises(MetalrError, match="grad_fn"):
        tx.update(params, tx.init(params), params, value=1.0)


def test_masks_and_integers_need_no_static_args():
    tx = inject(
        optax.adamw,
        predictor=init_predictor(),
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
    )
    _, state = train(tx, steps=1)
    assert state.lr_step == 1 and "mask" not in state.hyperparams
