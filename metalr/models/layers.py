"""The layers of BERT: attention and a perceptron, each followed by a LayerNorm."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalr.models.config import EncoderConfig
from metalr.models.dropout import dropout, fold


class Context(NamedTuple):
    """What all layers need of a batch; what a family lacks is None."""

    mask: jax.Array  # [B, 1, 1, L], 0, or -1e30 on padding
    relative: jax.Array | None = None  # [1, heads, L, L], added to the scores
    window: jax.Array | None = None  # [1, 1, L, L], -1e30 on what is far away
    # Angles, [1, 1, L, D / heads / 2], of layers that see all tokens and of the others
    turns: tuple[jax.Array, ...] = ()
    distances: jax.Array | None = None  # [rows, D], a vector for each distance


def layer_norm(
    config: EncoderConfig, rngs: nnx.Rngs, width: int | None = None
) -> nnx.LayerNorm:
    """Build a LayerNorm that computes in float32, and in two passes as BERT did.

    Args:
      config: Of the encoder.
      rngs: For Flax.
      width: Of what it norms; None: hidden_size.
    """
    return nnx.LayerNorm(
        width or config.hidden_size,
        epsilon=config.layer_norm_eps,
        use_bias=config.differences.layer_sort != "modern",
        use_fast_variance=False,
        dtype=jnp.float32,
        rngs=rngs,
    )


def gelu(x: jax.Array) -> jax.Array:
    """Return x Phi(x), exact, computed in float32."""
    # jax.nn.gelu's erfc takes more than twice as long as erf on a CPU.
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


# By what config.json calls them; gelu_new is the approximation by tanh.
ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": jax.nn.gelu,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
}


def distance_buckets(length: int, buckets: int, farthest: int = 128) -> np.ndarray:
    """Sort the distances between tokens into buckets, as T5 does in both directions.

    Half of the buckets are for tokens that come later. Of each half, the first half
    has one bucket for each distance, the others grow with its logarithm.

    Args:
      length: L, in tokens.
      buckets: How many; a multiple of 4.
      farthest: Distances from here on share the last bucket.

    Returns:
      [L, L] int32; the row is the token that attends, the column what it attends to.
    """
    places = np.arange(length)
    ahead = places[None, :] - places[:, None]
    half, each = buckets // 2, buckets // 4
    distance = np.abs(ahead)
    # float32, for distances at the edge of a bucket to fall as they do in PyTorch.
    steps = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(each))
    grown = each + (steps / np.float32(np.log(farthest / each)) * (half - each))
    far = np.minimum(grown.astype(np.int32), half - 1)
    return np.where(distance < each, distance, far) + half * (ahead > 0)


def attend(
    config: EncoderConfig,
    heads: tuple[jax.Array, jax.Array, jax.Array],
    bias: tuple[jax.Array | None, ...],
    key: jax.Array | None,
    first_row: int | jax.Array,
) -> jax.Array:
    """Return softmax(Q K'/sqrt(d) + bias) V, with dropout on the weights.

    Not `jax.nn.dot_product_attention`: it has no such dropout, with which these models
    were trained and are fine-tuned.

    Args:
      config: Of the encoder.
      heads: Q, K and V, [B, heads, L, d] each.
      bias: What is added to the scores, each broadcast to [B, heads, L, L].
      key: Of the dropout, or None.
      first_row: As in `Encoder`.

    Returns:
      [B * L, heads * d].
    """
    query, keys, value = heads
    scores = jnp.einsum(
        "bhqd,bhkd->bhqk", query, keys, preferred_element_type=jnp.float32
    )
    scores = scores * query.shape[-1] ** -0.5
    for part in bias:
        scores = scores if part is None else scores + part
    weights = jax.nn.softmax(scores)
    rate = config.attention_probs_dropout_prob
    weights = dropout(weights.astype(value.dtype), rate, key, first_row)
    mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, value).swapaxes(1, 2)
    return mixed.reshape(-1, mixed.shape[2] * mixed.shape[3])


class Attention(nnx.Module):
    """`attend` over the tokens that are no padding, and a linear layer."""

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the four projections, [hidden_size, hidden_size] each."""
        self.config, self.dtype = config, dtype
        width = config.hidden_size
        # One product of three times the width is no faster than three, measured at
        # 32 x 32 tokens, so the kernels keep their names.
        self.query = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.key = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.value = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.output = nnx.Linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x, context: Context, key, first_row):
        """Map [B * L, D] to [B * L, D].

        Args:
          x: [B * L, D]
          context: Of the batch.
          key: Of the dropout on the weights, or None.
          first_row: As in `Encoder`.
        """
        rows, length = context.mask.shape[0], context.mask.shape[-1]
        split = (rows, length, self.config.num_attention_heads, -1)
        query, keys, value = (
            project(x).reshape(split).swapaxes(1, 2)
            for project in (self.query, self.key, self.value)
        )
        bias = context.mask, context.relative
        mixed = attend(self.config, (query, keys, value), bias, key, first_row)
        return self.output(mixed)


class Layer(nnx.Module):
    """x = LayerNorm(x + attention(x)); x = LayerNorm(x + down(gelu(up(x))))."""

    def __init__(
        self,
        config: EncoderConfig,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        attention: Callable[..., Any] = Attention,
    ):
        """Build attention and the two-layer perceptron with their norms."""
        self.config, self.dtype = config, dtype
        self.attention = attention(config, dtype, rngs)
        self.attention_norm = layer_norm(config, rngs)
        width, wide = config.hidden_size, config.intermediate_size
        self.up = nnx.Linear(width, wide, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(wide, width, dtype=dtype, rngs=rngs)
        self.output_norm = layer_norm(config, rngs)

    def __call__(self, x, context: Context, key, first_row):
        """Map [B * L, D] to [B * L, D]; `key` serves the three dropout sites."""
        rate = self.config.hidden_dropout_prob
        first_token = first_row * context.mask.shape[-1]
        mixed = self.attention(x, context, fold(key, 0), first_row)
        if self.config.differences.dropout_after_attention:
            mixed = dropout(mixed, rate, fold(key, 1), first_token)
        x = self.attention_norm(x + mixed).astype(self.dtype)
        narrow = self.down(ACTIVATIONS[self.config.hidden_act](self.up(x)))
        if self.config.differences.dropout_after_layer:
            narrow = dropout(narrow, rate, fold(key, 2), first_token)
        return self.output_norm(x + narrow).astype(self.dtype)
