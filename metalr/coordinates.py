"""A few coordinates of every leaf, to estimate inner products of whole trees from.

A strided block of every trainable leaf is kept, each coordinate times sqrt(N / n) where
n of the leaf's N coordinates are, so that the dot product of two samples estimates that
of the whole trees. Which leaves count is read off the parameters once: arrays of floats
or complex numbers that hold something. What else a tree holds (None, integers, random
keys, functions) is passed over, as in plain optax.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

STRIDE = 256  # four float32 samples of 1/256: 1.6 % of float32 parameters
_MIN_SAMPLE, _MAX_SAMPLE = 2**12, 2**20  # coordinates


class Block(NamedTuple):
    """What is kept of one leaf."""

    leaf: int  # its place among the leaves of the tree, None among them
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # by axis
    kept: int  # coordinates; twice as many numbers where they are complex
    size: int  # coordinates of the leaf


class Layout(NamedTuple):
    """Where a sample's coordinates come from; hashable, fixed by the parameters."""

    blocks: tuple[Block, ...]

    @property
    def sizes(self) -> np.ndarray:
        """Numbers that each block puts into the sample: [blocks]."""
        return np.array([block.kept for block in self.blocks], np.int32)


def layout(params: Any, stride: int = STRIDE) -> Layout:
    """Choose about one coordinate in `stride` of every trainable leaf.

    Args:
      params: Parameters; their shapes and types alone fix the choice.
      stride: Coordinates per sampled one. Trees of under 4096 * stride coordinates are
        sampled more densely, trees of over 2^20 * stride more thinly, and floats of
        two bytes half as densely, because the memory promise counts bytes.

    >>> layout({"w": jnp.ones((2, 3)), "n": 3, "none": None}).blocks[0].kept
    6
    """
    leaves = [(i, x) for i, x in enumerate(leaves_of(params)) if is_trainable(x)]
    sizes = [math.prod(_shape(leaf)) for _, leaf in leaves]
    widths = [_dtype(leaf).itemsize for _, leaf in leaves]
    size, bytes_ = sum(sizes), sum(n * w for n, w in zip(sizes, widths, strict=True))
    density = stride * 4 * size / max(1, bytes_)
    density = max(1.0, size / _MAX_SAMPLE, min(density, size / _MIN_SAMPLE))
    return Layout(tuple(_block(i, leaf, density) for i, leaf in leaves))


def leaves_of(tree: Any) -> list[Any]:
    """List the leaves of a tree in order, with None where there is nothing."""
    return jax.tree.leaves(tree, is_leaf=lambda x: x is None)


def is_trainable(leaf: Any) -> bool:
    """Tell whether a leaf is a float or complex number, or an array that has some."""
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        return isinstance(leaf, float | complex)
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact)) and math.prod(leaf.shape) > 0


def sample(tree: Any, where: Layout) -> jax.Array:
    """Take the coordinates of a layout, as one float32 vector.

    Leaves are cut along their axes and never flattened whole: a sharded leaf stays
    where it is, only the small block moves.

    Args:
      tree: Parameters or gradients. A leaf without a gradient (None, or of a type
        that has none) counts as zeros, and so does an abstract one: a state of those
        is there to be restored into.
      where: The layout of the parameters.

    Returns:
      The sampled coordinates, each times sqrt(N / n) of its leaf: [n]. Of a complex
      leaf the real parts come before the imaginary ones.

    >>> tree = {"w": jnp.ones((2, 3)), "b": jnp.zeros(2)}
    >>> sample(tree, layout(tree)).shape
    (8,)
    """
    leaves = leaves_of(tree)
    chosen = [leaves[block.leaf] for block in where.blocks]
    chosen = [jnp.asarray(x) if _has_values(x) else None for x in chosen]
    cut = functools.partial(_cut, where=where)
    mesh = _explicit_mesh(chosen)
    if mesh is None:
        return cut(chosen)
    # Types that name a sharding know none for every few rows of a sharded axis.
    everywhere = jax.sharding.PartitionSpec()
    anywhere: Any = jax.sharding.auto_axes(cut, out_sharding=everywhere)
    with jax.sharding.use_abstract_mesh(mesh):
        return anywhere(chosen)


def _explicit_mesh(leaves: list[Any]) -> Any:
    """Return the mesh that stands in the types of arrays; None where none does."""
    for leaf in leaves:
        mesh = None if leaf is None else jax.typeof(leaf).sharding.mesh
        if mesh is not None and jax.sharding.AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def squared_norms(tree: Any, where: Layout) -> jax.Array:
    """Sum the squares of all coordinates of each block's leaf in float32: [blocks].

    The one pass over the whole gradient: a sum is finite only if every coordinate is,
    and on a CPU it is cheaper than a reduction of `isfinite`.
    """
    leaves = leaves_of(tree)
    sums = [_squares(leaves[block.leaf]) for block in where.blocks]
    return jnp.stack(sums) if sums else jnp.zeros(0, jnp.float32)


def by_block(values: jax.Array, where: Layout) -> jax.Array:
    """Repeat one value a block over the coordinates that the block has: [n]."""
    # By an index made here: XLA would take seconds to fold that of `jnp.repeat`.
    return values[np.repeat(np.arange(len(where.sizes)), where.sizes)]


def reduce_blocks(
    reduce: Callable[[jax.Array], jax.Array], sampled: jax.Array, where: Layout
) -> jax.Array:
    """Reduce the coordinates of each block.

    Blocks of one size go together, of which the layers of a network have a handful: a
    reduction a leaf would take XLA seconds to compile.

    Args:
      reduce: Takes [..., k, size], k blocks of that size, to [..., k].
      sampled: Samples: [..., n].
      where: Their layout.

    Returns:
      A number a block, in the order of the layout: [..., blocks].
    """
    sizes = where.sizes
    if not len(sizes):
        return reduce(jnp.zeros((*sampled.shape[:-1], 0, 1), sampled.dtype))
    by_size = np.argsort(np.repeat(sizes, sizes), kind="stable")
    sampled, found, start = sampled[..., by_size], [], 0
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        end = start + size * count
        blocks = sampled[..., start:end].reshape(*sampled.shape[:-1], count, size)
        found, start = [*found, reduce(blocks)], end
    order = np.argsort(sizes, kind="stable")
    return jnp.concatenate(found, -1)[..., np.argsort(order)]


def _has_values(leaf: Any) -> bool:
    return is_trainable(leaf) and not isinstance(leaf, jax.ShapeDtypeStruct)


def _squares(leaf: Any) -> jax.Array:
    if not is_trainable(leaf):
        return jnp.zeros((), jnp.float32)
    parts = [jnp.asarray(part, jnp.float32) for part in _real_parts(jnp.asarray(leaf))]
    return jnp.asarray(sum(jnp.sum(jnp.square(x)) for x in parts), jnp.float32)


def _real_parts(leaf: jax.Array) -> tuple[jax.Array, ...]:
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return leaf.real, leaf.imag
    return (leaf,)


def _cut(leaves: list[Any], where: Layout) -> jax.Array:
    blocks = []
    for leaf, block in zip(leaves, where.blocks, strict=True):
        if leaf is None:
            blocks.append(jnp.zeros(block.kept, jnp.float32))
            continue
        parts = _real_parts(leaf)
        if len(parts) * math.prod(_cut_shape(block)) != block.kept:
            # A real gradient of a complex parameter: its imaginary part is zero.
            parts = (*parts, jnp.zeros_like(parts[0]))
        starts = [stride // 2 for stride in block.strides]
        scale = math.sqrt(block.size / math.prod(_cut_shape(block)))
        blocks += [
            jnp.ravel(
                jnp.asarray(
                    lax.slice(part, starts, block.shape, block.strides), jnp.float32
                )
            )
            * scale
            for part in parts
        ]
    return jnp.concatenate(blocks) if blocks else jnp.zeros(0, jnp.float32)


def _block(index: int, leaf: Any, density: float) -> Block:
    shape = _shape(leaf)
    strides = tuple(_strides(shape, density))
    block = Block(index, shape, strides, 0, math.prod(shape))
    complex_ = jnp.issubdtype(_dtype(leaf), jnp.complexfloating)
    return block._replace(kept=math.prod(_cut_shape(block)) * (2 if complex_ else 1))


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(getattr(leaf, "shape", ()))  # none: a number of Python's own


def _dtype(leaf: Any) -> Any:
    return jnp.dtype(getattr(leaf, "dtype", type(leaf)))


def _cut_shape(block: Block) -> list[int]:
    return [
        -(-(length - stride // 2) // stride)
        for length, stride in zip(block.shape, block.strides, strict=True)
    ]


def _strides(shape: tuple[int, ...], density: float) -> list[int]:
    """Spread one stride over the axes of a leaf.

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
