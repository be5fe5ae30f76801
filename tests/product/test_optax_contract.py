"""The doors keep the contract of an optax transformation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import inject, wrap
from metalr.predictor import init_predictor
from tests.product.steering import (
    DOORS,
    INNERS,
    build,
    loss_fn,
    opinionated,
    regression,
    train,
    train_step,
)
from tests.tiers import some


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


def test_types_of_moments_need_no_static_args():
    tx = inject(optax.adamw, predictor=init_predictor(), mu_dtype=jnp.bfloat16)
    state = tx.init({"w": jnp.ones(3)})
    assert optax.tree.get(state, "mu")["w"].dtype == jnp.bfloat16


def test_masks_and_integers_need_no_static_args():
    tx = inject(
        optax.adamw,
        predictor=init_predictor(),
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
    )
    _, state = train(tx, steps=1)
    assert state.lr_step == 1 and "mask" not in state.hyperparams


def test_an_eager_step_makes_no_first_state_anew():
    adam, calls = optax.adam(0.1), []

    def init(params):
        calls.append(params)
        return adam.init(params)

    counted = optax.GradientTransformation(init, adam.update)
    tx = wrap(counted, init_predictor(), schedule=optax.constant_schedule(1.0))
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(params, state, params, value=1.0)
    assert len(calls) == 1
