"""ModernBERT's layers: rotary positions, local attention, GeGLU, norms before.

Positions are in no table: queries and keys are turned by an angle that grows with the
place of their token. Most layers attend within a window.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalr.models.config import EncoderConfig
from metalr.models.dropout import dropout, fold
from metalr.models.layers import Context, attend, gelu, layer_norm


def used(config: EncoderConfig) -> bool:
    """Return whether an encoder is made of these layers."""
    return config.differences.layer_sort == "modern"


def surroundings(config: EncoderConfig, length: int) -> dict[str, Any]:
    """Return the fields of `Context` that say where tokens stand.

    Args:
      config: Of the encoder.
      length: L, of the batch, in tokens.
    """
    places = np.arange(length, dtype=np.float32)
    width = config.hidden_size // config.num_attention_heads
    powers = np.arange(0, width, 2, dtype=np.float32)[None] / width
    far = np.abs(places[:, None] - places[None, :]) > config.local_attention // 2
    return {
        "window": jnp.where(far, -1e30, 0.0)[None, None],
        "turns": tuple(
            jnp.array((places[:, None] / np.float32(base) ** powers)[None, None])
            for base in (config.global_rope_theta, config.local_rope_theta)
        ),
    }


def plain_settings(raw: dict[str, Any]) -> dict[str, Any]:
    """Return config.json in the keys of its first versions, which say less.

    Today's transformers names a sort for each layer, and rotations for each sort.
    """
    raw = dict(raw)
    rotations = raw.get("rope_parameters")
    if isinstance(rotations, dict):
        for sort, key in (("full", "global"), ("sliding", "local")):
            found = rotations.get(f"{sort}_attention")
            if isinstance(found, dict) and found.get("rope_type") == "default":
                raw[f"{key}_rope_theta"] = found.get("rope_theta")
            elif found is not None:
                raw[f"{key}_rope_theta"] = f"of rope_type {found}"
    sorts = raw.get("layer_types")
    if isinstance(sorts, list) and sorts:
        after = [i for i, sort in enumerate(sorts) if sort == "full_attention"][1:]
        every = after[0] if after else len(sorts)
        wanted = [
            "sliding_attention" if i % every else "full_attention"
            for i in range(len(sorts))
        ]
        same = sorts == wanted
        raw["global_attn_every_n_layers"] = every if same else f"as {sorts}"
    return raw


def turned(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Turn pairs of elements, half a vector apart, each by its angle.

    Args:
      x: [B, heads, L, d].
      angles: [1, 1, L, d / 2], in radians.
    """
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    both = left * cos - right * sin, right * cos + left * sin
    return jnp.concatenate(both, axis=-1).astype(x.dtype)


class ModernAttention(nnx.Module):
    """`attend` with turned queries and keys, and a linear layer."""

    def __init__(
        self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs, local: bool
    ):
        """Build the kernels, [D, 3 D] and [D, D]."""
        self.config, self.local = config, local
        width = config.hidden_size
        plain = {"use_bias": False, "dtype": dtype, "rngs": rngs}
        self.qkv = nnx.Linear(width, 3 * width, **plain)
        self.output = nnx.Linear(width, width, **plain)

    def __call__(self, x, context: Context, key, first_row):
        """Map [B * L, D] to [B * L, D], as `layers.Attention` does."""
        rows, length = context.mask.shape[0], context.mask.shape[-1]
        heads = self.qkv(x).reshape(
            rows, length, 3, self.config.num_attention_heads, -1
        )
        query, keys, value = jnp.moveaxis(heads, (2, 3), (0, 2))
        angles = context.turns[self.local]
        query, keys = turned(query, angles), turned(keys, angles)
        bias = context.mask, context.window if self.local else None
        mixed = attend(self.config, (query, keys, value), bias, fold(key, 0), first_row)
        rate = self.config.attention_probs_dropout_prob
        return dropout(self.output(mixed), rate, fold(key, 1), first_row * length)


class ModernLayer(nnx.Module):
    """x += attention(LayerNorm(x)); x += down(gelu(a) * b), a, b = up(LayerNorm(x))."""

    def __init__(
        self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs, index: int
    ):
        """Build the layer with that number from below; the first norms only once."""
        self.config, self.dtype = config, dtype
        every = config.global_attn_every_n_layers
        self.attention = ModernAttention(config, dtype, rngs, local=index % every > 0)
        if index:
            self.attention_norm = layer_norm(config, rngs)
        self.output_norm = layer_norm(config, rngs)
        width, wide = config.hidden_size, config.intermediate_size
        plain = {"use_bias": False, "dtype": dtype, "rngs": rngs}
        self.up = nnx.Linear(width, 2 * wide, **plain)
        self.down = nnx.Linear(wide, width, **plain)

    def __call__(self, x, context: Context, key, first_row):
        """Map [B * L, D] to [B * L, D], as `layers.Layer` does."""
        normed = x
        if hasattr(self, "attention_norm"):
            normed = self.attention_norm(x).astype(self.dtype)
        x += self.attention(normed, context, key, first_row)
        normed = self.output_norm(x).astype(self.dtype)
        passed, gate = jnp.split(self.up(normed), 2, axis=-1)
        first_token = first_row * context.mask.shape[-1]
        rate = self.config.hidden_dropout_prob
        wide = dropout(gelu(passed) * gate, rate, fold(key, 2), first_token)
        return x + self.down(wide)
