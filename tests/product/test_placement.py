"""Sharded, mapped or alone: the multipliers are those of one device."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from metalr import inject
from tests.product.steering import (
    opinionated,
    regression,
    train_step,
)

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
    assert len(np.unique(expected)) > STEPS // 2  # it moves until it meets a bound
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    moment = optax.tree.get(state, "mu")["w"].sharding
    assert moment.is_equivalent_to(params["w"].sharding, 2)


@pytest.mark.parametrize("spec", [(), ("d",), (None, "d")])
@pytest.mark.parametrize("is_set", [True, False])
@pytest.mark.thorough
def test_explicitly_sharded_arrays_give_the_multipliers_of_one_device(spec, is_set):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Explicit,))
    put = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))  # noqa: E731
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        params, batch = regression()
        params = {"w": put(params["w"], *spec), "b": put(params["b"])}
        batch = put(batch) if spec else put(batch, "d")
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
