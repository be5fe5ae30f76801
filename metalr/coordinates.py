"""Inner products of parameter-sized trees from a few of their coordinates.

A strided block of every leaf is kept, each coordinate times sqrt(N / n) where n of the
leaf's N coordinates are, so that the dot product of two samples estimates that of the
whole trees.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

STRIDE = 256  # four float32 samples of 1/256: 1.6 % of float32 parameters
_MIN_SAMPLE, _MAX_SAMPLE = 2**12, 2**20  # coordinates


def sample(tree: Any, stride: int = STRIDE) -> jax.Array:
    """Takes about one coordinate in `stride` of every leaf, as one float32 vector.

    Leaves are cut along their axes and never flattened whole: a sharded leaf stays
    where it is, only the small block moves.

    Args:
      tree: Parameters or gradients; their shapes and types alone fix the choice.
      stride: Coordinates per sampled one. Trees of under 4096 * stride coordinates are
        sampled more densely, trees of over 2^20 * stride more thinly, and floats of
        two bytes half as densely, because the memory promise counts bytes.

    Returns:
      The sampled coordinates, each times sqrt(N / n) of its leaf: [n].

    >>> sample({"w": jnp.ones((2, 3)), "b": jnp.zeros(2)}).shape
    (8,)
    """
    axes = jax.sharding.get_abstract_mesh().axis_types
    if jax.sharding.AxisType.Explicit not in axes:
        return _sample(tree, stride)
    # Types that name a sharding know none for every few rows of a sharded axis.
    everywhere = jax.sharding.PartitionSpec()
    cut = functools.partial(_sample, stride=stride)
    anywhere: Any = jax.sharding.auto_axes(cut, out_sharding=everywhere)
    return anywhere(tree)


def _sample(tree: Any, stride: int) -> jax.Array:
    leaves = [leaf for leaf in map(jnp.asarray, jax.tree.leaves(tree)) if leaf.size]
    size = sum(leaf.size for leaf in leaves)
    density = stride * 4 * size / max(1, sum(leaf.nbytes for leaf in leaves))
    density = max(1.0, size / _MAX_SAMPLE, min(density, size / _MIN_SAMPLE))
    blocks = [_block(leaf, density) for leaf in leaves]
    return jnp.concatenate(blocks) if blocks else jnp.zeros(0, jnp.float32)


def squared_norm(tree: Any) -> jax.Array:
    """Sums the squares of all coordinates in float32.

    The one pass over the whole gradient: it is finite only if every coordinate is,
    and on a CPU it is cheaper than a reduction of `isfinite`.
    """
    leaves = [jnp.asarray(leaf, jnp.float32) for leaf in jax.tree.leaves(tree)]
    return jnp.asarray(sum(jnp.sum(jnp.square(leaf)) for leaf in leaves), jnp.float32)


def _block(leaf: jax.Array, density: float) -> jax.Array:
    strides = _strides(leaf.shape, density)
    starts = [stride // 2 for stride in strides]
    block = jnp.asarray(lax.slice(leaf, starts, leaf.shape, strides), jnp.float32)
    return jnp.ravel(block) * math.sqrt(leaf.size / block.size)


def _strides(shape: tuple[int, ...], density: float) -> list[int]:
    """Spreads one stride over the axes of a leaf.

    At most some 5 goes to the last axis: what lies closer in memory than a cache line
    is read anyway. All are odd: an even stride would meet the same coordinates of
    every attention head, whose width is a power of two.
    """
    strides = []
    for position, length in enumerate(shape):
        later = len(shape) - position - 1
        share = max(1.0, density / 5) ** (1 / later) if later else density
        strides.append(min(length, 2 * round((share - 1) / 2) + 1))
        density = max(1.0, density / strides[-1])
    return strides
