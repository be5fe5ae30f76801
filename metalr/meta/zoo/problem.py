"""What is trained in the zoo, and what its makers share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Rows = dict[str, np.ndarray]  # [N, ...] each
ROWS, HELD_OUT = 2048, 512


class Problem(NamedTuple):
    """What is trained: the first two fields make the program, the others are data."""

    architecture: tuple  # hashable; the same: one compiled program
    loss: Callable[[Any, Any, jax.Array], jax.Array]  # (params, batch, key) -> []
    params: Any
    train: Rows
    validation: Rows


Maker = Callable[[np.random.Generator, np.random.Generator], Problem]


def choose(rng: np.random.Generator, *values: Any) -> Any:
    """Draw one of some values."""
    return values[rng.integers(len(values))]


def split(rows: Rows, most: int = HELD_OUT) -> tuple[Rows, Rows]:
    """Return rows to train on, and to validate with: the first quarter, or fewer."""
    size = len(next(iter(rows.values())))
    held = min(most, size // 4)
    return (
        {k: v[held:] for k, v in rows.items()},
        {k: v[:held] for k, v in rows.items()},
    )


def draw_key(rng: np.random.Generator) -> jax.Array:
    """Draw a key of JAX."""
    return jax.random.key(int(rng.integers(2**31)))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean negative log likelihood of the labels."""
    logs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(logs, labels[..., None], -1))
