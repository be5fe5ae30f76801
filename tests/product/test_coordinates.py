"""A sample of coordinates is small, and its dot products are those of the trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalr import coordinates, observe

MINILM = {
    "words": (30522, 384),
    "positions": (512, 384),
    "layers": [((384, 384),) * 4, (384, 1536), (1536, 384), (1536,), ((384,),) * 9] * 6,
}


def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_state_is_below_two_percent_of_the_parameters(dtype):
    params = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype),
        MINILM,
        is_leaf=lambda x: isinstance(x, tuple) and all(isinstance(n, int) for n in x),
    )
    where = coordinates.layout(params)
    state = jax.eval_shape(lambda params: observe.init(params, where), params)
    assert 0.005 < size(state) / size(params) < 0.02


def test_a_large_tree_is_sampled_at_about_a_million_coordinates():
    params = {"w": jax.ShapeDtypeStruct((40_000, 40_000), jnp.float32)}
    assert 0.8 * 2**20 < coordinates.layout(params).sizes.sum() < 1.2 * 2**20


def test_dot_products_of_samples_estimate_those_of_the_trees():
    rng = np.random.default_rng(0)
    left = {"a": rng.normal(size=(900, 300)), "b": 5 * rng.normal(size=(4, 30, 400))}
    right = jax.tree.map(lambda x: x + 0.5 * rng.normal(size=x.shape), left)
    exact = sum(np.vdot(left[key], right[key]) for key in left)
    where = coordinates.layout(left, 32)
    estimate = jnp.vdot(
        coordinates.sample(left, where), coordinates.sample(right, where)
    )
    np.testing.assert_allclose(estimate, exact, rtol=0.05)


def test_squared_norm_overflows_where_a_gradient_is_too_large():
    squares = lambda tree: coordinates.squared_norms(tree, coordinates.layout(tree))  # noqa: E731
    assert np.isinf(squares({"w": jnp.array([1e30])}))
    halves = {"w": jnp.full((3, 4), 2.0, jnp.bfloat16)}
    np.testing.assert_allclose(squares(halves), [48])
    np.testing.assert_allclose(squares({"z": jnp.array([3 + 4j, 1j])}), [26])
