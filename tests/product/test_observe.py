"""Observations of a tree: its matrices and leaves, types, and numbers of any size."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalr import coordinates, features, observe
from metalr.features import FACTS, NAMES
from tests.product.descents import BOUNDS, observed, of_trace


def test_facts_of_the_matrices_are_those_of_the_leaves_that_move():
    rng = np.random.default_rng(0)
    start = {
        "stack": rng.normal(size=(3, 8, 32)),  # three layers, of log2 sides 3 and 5
        "map": rng.normal(size=(3, 3, 4, 16)),  # 36 by 16
        "frozen": rng.normal(size=(64, 64)),
        "bias": rng.normal(size=5),
    }
    path = [start, {k: v if k == "frozen" else 2 * v for k, v in start.items()}]
    before, after = (
        {name: float(column[t]) for name, column in zip(FACTS, found, strict=True)}
        for found in [
            np.asarray(of_trace(observed(path, path, [1.0, 1.0]))).T[-len(FACTS) :]
        ]
        for t in (0, 1)
    )
    assert before["matrices"] == pytest.approx(np.log2(1 + 5))  # all that may move
    assert after["matrices"] == pytest.approx(np.log2(1 + 4))
    width = (3 * 4 + (np.log2(36) + 4) / 2) / 4
    assert after["width"] == pytest.approx(width, abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "count", "width"),
    [
        ((5,), 0.0, 0.0),
        ((64, 128, 32), 64.0, 6.0),  # a stack of layers, of log2 sides 7 and 5
        ((65, 128, 32), 1.0, (math.log2(65) + 7 + 5) / 2),  # too long for one
        ((8, 4, 16), 1.0, 4.5),  # 32 by 16
        ((2, 4, 4, 16), 1.0, 4.5),  # a kernel
    ],
)
def test_a_short_first_axis_of_three_is_a_stack(shape, count, width):
    block = coordinates.Block(0, shape, (1,) * len(shape), 1, math.prod(shape))
    assert observe._matrices(block) == pytest.approx((count, width))


def test_the_update_of_a_leaf_is_the_median_over_those_that_moved():
    moved = {"a": 0.001, "b": 0.1, "c": 0.2, "frozen": 0.0}
    start = {name: jnp.ones(3) for name in moved}
    where = coordinates.layout(start)
    past = observe.init(start, where)
    after = {name: jnp.ones(3) * (1 + u) for name, u in moved.items()}
    seen, _ = observe.observe(after, past, after, where, value=1.0)
    assert float(seen.leaf_update) == pytest.approx(math.log(0.1 / 1.1), abs=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.complex64])
def test_other_types_are_accumulated_in_float32(dtype):
    params = {"w": jnp.ones((8, 8), dtype)}
    with jax.numpy_dtype_promotion("strict"):
        where = coordinates.layout(params)
        seen, past = observe.observe(
            params,
            observe.init(params, where),
            params,
            where,
            value=jnp.ones((), jnp.float32),
        )
        vector, summary = features.update(seen, features.init(), step=jnp.int32(0))
    found = jax.tree.leaves((seen, past, vector, summary))
    assert {leaf.dtype for leaf in found} == {jnp.dtype("float32")}


def test_a_complex_parameter_is_observed_as_its_two_real_parts():
    real, imaginary = np.random.default_rng(0).normal(size=(2, 3, 4))
    path = [1.0, 0.9, 0.7]
    one = [{"z": jnp.asarray(s * (real + 1j * imaginary))} for s in path]
    two = [{"x": jnp.asarray(s * real), "y": jnp.asarray(s * imaginary)} for s in path]
    seen = []
    for trees in (one, two):
        where = coordinates.layout(trees[0])
        past = observe.init(trees[0], where)
        for tree in trees:
            found, past = observe.observe(tree, past, tree, where, value=1.0)
        seen.append(found._replace(leaf_update=0, matrices=0, width=0))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), *seen)


wild = st.floats(width=32, allow_nan=True, allow_infinity=True)


look = jax.jit(observe.observe, static_argnames="where")


update = jax.jit(features.update)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(wild, wild, wild), min_size=3, max_size=3))
def test_no_input_makes_a_feature_that_is_not_finite(steps):
    where = coordinates.layout({"w": jnp.ones(2)})
    past, summary = observe.init({"w": jnp.ones(2)}, where), features.init()
    for step, (grad, theta, value) in enumerate(steps):
        seen, past = look(
            {"w": jnp.array([grad, 1.0], jnp.float32)},
            past,
            {"w": jnp.array([theta, 1.0], jnp.float32)},
            where=where,
            value=np.float32(value),
            log_multiplier=np.float32(value),
        )
        vector, summary = update(seen, summary, step=step)
        low, high = BOUNDS.T
        assert np.all((vector >= low) & (vector <= high)), dict(
            zip(NAMES, np.asarray(vector), strict=True)
        )


@pytest.mark.parametrize("value", [0.0, 1e30, np.nan, np.inf])
def test_constant_extremes_give_finite_features(value):
    tree = {
        "w": jnp.full(3, value),
        "empty": jnp.zeros((0, 4)),
        "s": jnp.float32(value),
    }
    where = coordinates.layout(tree)
    past, summary = observe.init(tree, where), features.init()
    for step in range(2):
        seen, past = look(tree, past, tree, where=where, value=value)
        vector, summary = update(seen, summary, step=step)
    assert np.all(np.isfinite(vector))
    found = (seen, past, summary)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
