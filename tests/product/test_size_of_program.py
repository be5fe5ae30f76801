"""What metalr adds to a program grows with the leaves, and not with their square."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import coordinates
from metalr.optax_schedule import wrap
from metalr.predictor import init_predictor


def lines_of_a_compiled_update(leaves):
    shapes = [(16, 16) if k % 2 else (16,) for k in range(leaves)]
    params = {f"leaf{k}": jnp.ones(shape) for k, shape in enumerate(shapes)}
    tx = wrap(optax.adamw(1e-3), init_predictor(), total_steps=100)

    def update(grads, state, params):
        return tx.update(grads, state, params, value=jnp.float32(1))

    lowered = jax.jit(update).lower(params, tx.init(params), params)
    return len((lowered.compile().as_text() or "").splitlines())


def test_the_kernel_of_a_leaf_holds_no_work_that_is_of_all_leaves():
    small, large = map(lines_of_a_compiled_update, (40, 80))
    assert (large - small) / 40 < 200  # 620 where each worked out what is finite


@pytest.mark.parametrize("leading", [(), (3,)])
def test_a_reduction_by_block_is_that_of_each_leaf(leading):
    rng = np.random.default_rng(0)
    shapes = [(5,), (2, 3), (5,), (), (7,), (6,)]
    tree = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    where = coordinates.layout(tree)
    values = jnp.asarray(rng.normal(size=(*leading, sum(where.sizes))), jnp.float32)
    ends = np.cumsum(where.sizes)[:-1]
    expected = [part.max(-1) for part in np.split(np.asarray(values), ends, -1)]
    found = coordinates.reduce_blocks(lambda x: jnp.max(x, -1), values, where)
    np.testing.assert_array_equal(found, np.stack(expected, -1))


def test_a_reduction_where_there_is_no_block_has_no_number():
    where = coordinates.layout({})
    found = coordinates.reduce_blocks(lambda x: x.sum(-1), jnp.zeros(0), where)
    assert found.shape == (0,)
