"""Small networks of the zoo, as plain functions of nested dicts of arrays."""

import math
from typing import Any

import jax
import jax.numpy as jnp

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


def dense(key: jax.Array, rows: int, columns: int, scale: float = 1.0) -> dict:
    """Draw a linear map [rows, columns] of gain `scale`, with a bias of zeros."""
    weights = jax.random.normal(key, (rows, columns)) * scale / math.sqrt(rows)
    return {"w": weights, "b": jnp.zeros(columns)}


def apply(layer: dict, x: jax.Array) -> jax.Array:
    """Apply a linear map to the last axis."""
    return x @ layer["w"] + layer["b"]


def normalise(layer: dict, x: jax.Array) -> jax.Array:
    """Apply layer normalisation with a learned scale to the last axis."""
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5) * layer["g"]


def mlp(key: jax.Array, sizes: list[int], scale: float) -> list[dict]:
    """Draw the layers of a perceptron with these widths."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        dense(k, a, b, scale)
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def run_mlp(layers: list[dict], x: jax.Array, activation: str) -> jax.Array:
    """Apply a perceptron; no activation after the last layer."""
    for layer in layers[:-1]:
        x = ACTIVATIONS[activation](apply(layer, x))
    return apply(layers[-1], x)


def residual(key: jax.Array, width: int, blocks: int) -> list[dict]:
    """Draw residual blocks with normalisation before each."""
    found = []
    for k in jax.random.split(key, blocks):
        up, down = jax.random.split(k)
        found.append(
            {
                "norm": {"g": jnp.ones(width)},
                "up": dense(up, width, 2 * width),
                "down": dense(down, 2 * width, width, 1 / math.sqrt(blocks)),
            }
        )
    return found


def run_residual(blocks: list[dict], x: jax.Array, activation: str) -> jax.Array:
    """Apply residual blocks."""
    for block in blocks:
        hidden = ACTIVATIONS[activation](
            apply(block["up"], normalise(block["norm"], x))
        )
        x = x + apply(block["down"], hidden)
    return x


def convolutions(key: jax.Array, channels: list[int]) -> list[dict]:
    """Draw 3 x 3 convolutions between these numbers of channels."""
    keys = jax.random.split(key, len(channels) - 1)
    return [
        {
            "w": jax.random.normal(k, (3, 3, a, b)) * math.sqrt(2 / (9 * a)),
            "b": jnp.zeros(b),
        }
        for k, a, b in zip(keys, channels[:-1], channels[1:], strict=True)
    ]


def run_convolutions(layers: list[dict], x: jax.Array) -> jax.Array:
    """Apply convolutions of stride 2 with relu to [B, H, W, C], then the mean."""
    for layer in layers:
        x = jax.lax.conv_general_dilated(
            x, layer["w"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + layer["b"])
    return x.mean((1, 2))


def transformer(
    key: jax.Array, words: int, width: int, layers: int, length: int
) -> dict:
    """Draw a small transformer: embeddings, blocks, a last normalisation."""
    keys = jax.random.split(key, layers + 2)
    blocks = []
    for k in keys[2:]:
        qkv, out, up, down = jax.random.split(k, 4)
        small = 1 / math.sqrt(2 * layers)
        blocks.append(
            {
                "norm": {"g": jnp.ones(width)},
                "qkv": dense(qkv, width, 3 * width),
                "out": dense(out, width, width, small),
                "norm2": {"g": jnp.ones(width)},
                "up": dense(up, width, 4 * width),
                "down": dense(down, 4 * width, width, small),
            }
        )
    return {
        "words": 0.05 * jax.random.normal(keys[0], (words, width)),
        "places": 0.02 * jax.random.normal(keys[1], (length, width)),
        "blocks": blocks,
        "norm": {"g": jnp.ones(width)},
    }


def run_transformer(
    params: dict, ids: jax.Array, *, heads: int = 4, causal: bool, lora: Any = None
) -> jax.Array:
    """Map ids [B, T] to states [B, T, width].

    Args:
      params: As `transformer` makes them.
      ids: Word ids.
      heads: Of the attention.
      causal: Whether a place sees only those before it.
      lora: Adapters of the qkv maps, one pair a block, or None.
    """
    x = params["words"][ids] + params["places"][: ids.shape[1]]
    batch, length, width = x.shape
    for index, block in enumerate(params["blocks"]):
        normed = normalise(block["norm"], x)
        qkv = apply(block["qkv"], normed)
        if lora is not None:
            qkv = qkv + normed @ lora[index]["a"] @ lora[index]["b"]
        q, k, v = jnp.split(qkv.reshape(batch, length, heads, -1), 3, axis=-1)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(width / heads)
        if causal:
            scores = jnp.where(jnp.tri(length, dtype=bool), scores, -1e9)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        x = x + apply(block["out"], mixed.reshape(batch, length, width))
        hidden = jax.nn.gelu(apply(block["up"], normalise(block["norm2"], x)))
        x = x + apply(block["down"], hidden)
    return normalise(params["norm"], x)


def recurrent(key: jax.Array, words: int, width: int) -> dict:
    """Draw a gated recurrent network over words."""
    a, b, c = jax.random.split(key, 3)
    return {
        "words": 0.1 * jax.random.normal(a, (words, width)),
        "gates": dense(b, 2 * width, 2 * width),
        "new": dense(c, 2 * width, width),
    }


def run_recurrent(params: dict, ids: jax.Array) -> jax.Array:
    """Map ids [B, T] to states [B, T, width]."""
    x = params["words"][ids]

    def step(state: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
        both = jnp.concatenate([state, now], -1)
        keep, reset = jnp.split(jax.nn.sigmoid(apply(params["gates"], both)), 2, -1)
        new = jnp.tanh(apply(params["new"], jnp.concatenate([reset * state, now], -1)))
        state = keep * state + (1 - keep) * new
        return state, state

    start = jnp.zeros(x.shape[:1] + x.shape[2:])
    return jax.lax.scan(step, start, x.swapaxes(0, 1))[1].swapaxes(0, 1)
