"""Dropout whose masks depend on the key and an element's place in the batch alone."""

import jax
import jax.numpy as jnp


def fold(key: jax.Array | None, site: int) -> jax.Array | None:
    """Return the key of one dropout site; None (no dropout) stays None."""
    return None if key is None else jax.random.fold_in(key, site)


def random_words(
    key: jax.Array, shape: tuple[int, ...], first_row: int | jax.Array = 0
) -> jax.Array:
    """Draw one uint32 per element, by hashing its place in the array.

    The place counts from `first_row` along the leading axis, so a piece of a batch
    draws what it would draw inside the whole. The mixing is Wellons' `triple32`, one
    half of the key going in before its rounds and the other before the last.

    Args:
      key: A typed key.
      shape: Of the result, [rows, ...].
      first_row: The number of the first row in the whole batch.

    Returns:
      uint32 words of that shape.
    """
    # jax.random makes better bits than dropout needs, and pays for it with a visible
    # share of a training step on a CPU. This one is elementwise, so XLA fuses it into
    # the product that it masks, and splits it over devices without changing a bit.
    #
    # Keys of neighbouring seeds differ in few bits; folding spreads them first.
    words = jax.random.key_data(jax.random.fold_in(key, 0))
    bits = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        place = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        if axis == 0:
            place += jnp.asarray(first_row, jnp.uint32)
        bits += place * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    bits += words[0]
    bits = (bits ^ (bits >> 17)) * jnp.uint32(0xED5AD4BB)
    bits = (bits ^ (bits >> 11)) * jnp.uint32(0xAC4C1B51)
    bits += words[1]
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x31848BAB)
    return bits ^ (bits >> 14)


def dropout(
    x: jax.Array, rate: float, key: jax.Array | None, first_row: int | jax.Array = 0
) -> jax.Array:
    """Zero elements with probability `rate`, and scale the rest by 1/(1 - rate).

    Args:
      x: [rows, ...].
      rate: In [0, 1); static.
      key: A typed key, or None for no dropout.
      first_row: The number of x's first row in the whole batch.
    """
    if key is None or rate == 0.0:
        return x
    keep = random_words(key, x.shape, first_row) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * jnp.asarray(1 / (1 - rate), x.dtype), 0)
