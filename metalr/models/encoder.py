"""BERT and RoBERTa as one Flax NNX encoder.

The two differ in where positions start to count, in the epsilon of LayerNorm and in
the size of the tables. Parameters are float32; matrix products run in the compute
dtype, LayerNorm and softmax in float32.
"""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

FAMILIES = ("bert", "roberta")
Params = dict[str, Any]  # nested; the leaves are float32 arrays


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes and rates of an encoder; the names are those of config.json."""

    family: str  # a row of FAMILIES
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    pad_token_id: int

    @property
    def first_position(self) -> int:
        """The row of the position table that the first token of a text reads."""
        return self.pad_token_id + 1 if self.family == "roberta" else 0

    @property
    def max_length(self) -> int:
        """The longest input in tokens: 512 for RoBERTa's table of 514 rows."""
        return self.max_position_embeddings - self.first_position


def initial(path: str, shape: tuple[int, ...], seed: int) -> jax.Array:
    """Draws one parameter as BERT does: kernels and tables normal with sigma 0.02.

    Args:
      path: The names down to the leaf, joined by dots; every path has its own draw.
      shape: Of the parameter.
      seed: Of the run.

    Returns:
      float32; biases are zero and LayerNorm scales one.
    """
    leaf = path.rpartition(".")[2]
    if leaf == "bias":
        return jnp.zeros(shape, jnp.float32)
    if leaf == "scale":
        return jnp.ones(shape, jnp.float32)
    draw = np.random.default_rng([seed, zlib.crc32(path.encode())])
    return jnp.array(draw.normal(scale=0.02, size=shape), jnp.float32)


def fold(key: jax.Array | None, site: int) -> jax.Array | None:
    """Returns the key of one dropout site; None (no dropout) stays None."""
    return None if key is None else jax.random.fold_in(key, site)


def random_words(
    key: jax.Array, shape: tuple[int, ...], first_row: int | jax.Array = 0
) -> jax.Array:
    """Draws one uint32 per element, by hashing its place in the array.

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
    """Zeroes elements with probability `rate` and scales the rest by 1/(1 - rate).

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


def layer_norm(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Builds a LayerNorm that computes in float32, and in two passes as BERT did."""
    return nnx.LayerNorm(
        config.hidden_size,
        epsilon=config.layer_norm_eps,
        use_fast_variance=False,
        dtype=jnp.float32,
        rngs=rngs,
    )


def gelu(x: jax.Array) -> jax.Array:
    """Returns x Phi(x), exact, computed in float32."""
    # jax.nn.gelu's erfc takes more than twice as long as erf on a CPU.
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


class Embeddings(nnx.Module):
    """LayerNorm(word + position + type), then dropout."""

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Builds the three tables, each [rows, hidden_size]."""
        self.config, self.dtype = config, dtype
        width = config.hidden_size
        self.words = nnx.Embed(config.vocab_size, width, rngs=rngs)
        self.positions = nnx.Embed(config.max_position_embeddings, width, rngs=rngs)
        self.types = nnx.Embed(config.type_vocab_size, width, rngs=rngs)
        self.norm = layer_norm(config, rngs)

    def __call__(self, input_ids, token_type_ids, attention_mask, key, first_row):
        """Maps [B, L] ids to [B, L, D] vectors."""
        length = input_ids.shape[1]
        if self.config.family == "roberta":
            # Padding reads the row just below the first position, whatever its place.
            count = jnp.cumsum(attention_mask, axis=1) * attention_mask
            position = self.positions(count + self.config.pad_token_id)
        else:
            position = self.positions.embedding[None, :length]
        x = self.words(input_ids) + position + self.types(token_type_ids)
        x = self.norm(x).astype(self.dtype)
        return dropout(x, self.config.hidden_dropout_prob, key, first_row)


class Attention(nnx.Module):
    """softmax(Q K'/sqrt(d)) V over the tokens that are no padding, and its output.

    Not `jax.nn.dot_product_attention`: it has no dropout on the weights, with which
    these models were trained and are fine-tuned.
    """

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Builds the four projections, [hidden_size, hidden_size] each."""
        self.config, self.dtype = config, dtype
        width = config.hidden_size
        # One product of three times the width is no faster than three, measured at
        # 32 x 32 tokens, so the kernels keep their names.
        self.query = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.key = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.value = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.output = nnx.Linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, x, bias, key, first_row):
        """Maps [B * L, D] to [B * L, D].

        Args:
          x: [B * L, D]
          bias: [B, 1, 1, L], 0, or -1e30 on padding.
          key: Of the dropout on the weights, or None.
          first_row: As in `Encoder`.
        """
        rows, length = bias.shape[0], bias.shape[-1]
        split = (rows, length, self.config.num_attention_heads, -1)
        query, keys, value = (
            project(x).reshape(split).swapaxes(1, 2)
            for project in (self.query, self.key, self.value)
        )
        scores = jnp.einsum(
            "bhqd,bhkd->bhqk", query, keys, preferred_element_type=jnp.float32
        )
        weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5 + bias)
        rate = self.config.attention_probs_dropout_prob
        weights = dropout(weights.astype(self.dtype), rate, key, first_row)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, value).swapaxes(1, 2)
        return self.output(mixed.reshape(x.shape))


class Layer(nnx.Module):
    """x = LayerNorm(x + attention(x)); x = LayerNorm(x + down(gelu(up(x))))."""

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Builds attention and the two-layer perceptron with their norms."""
        self.config, self.dtype = config, dtype
        self.attention = Attention(config, dtype, rngs)
        self.attention_norm = layer_norm(config, rngs)
        width, wide = config.hidden_size, config.intermediate_size
        self.up = nnx.Linear(width, wide, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(wide, width, dtype=dtype, rngs=rngs)
        self.output_norm = layer_norm(config, rngs)

    def __call__(self, x, bias, key, first_row):
        """Maps [B * L, D] to [B * L, D]; `key` serves the three dropout sites."""
        rate = self.config.hidden_dropout_prob
        first_token = first_row * bias.shape[-1]
        mixed = self.attention(x, bias, fold(key, 0), first_row)
        mixed = dropout(mixed, rate, fold(key, 1), first_token)
        x = self.attention_norm(x + mixed).astype(self.dtype)
        wide = gelu(self.up(x))
        narrow = dropout(self.down(wide), rate, fold(key, 2), first_token)
        return self.output_norm(x + narrow).astype(self.dtype)


class Encoder(nnx.Module):
    """Embeddings and a stack of layers: token ids to contextual vectors."""

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Builds every layer, with the initial values that Flax gives."""
        self.config = config
        self.embeddings = Embeddings(config, dtype, rngs)
        depth = range(config.num_hidden_layers)
        self.layers = nnx.Dict({str(i): Layer(config, dtype, rngs) for i in depth})

    def __call__(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        attention_mask: jax.Array,
        *,
        dropout_key: jax.Array | None = None,
        first_row: int | jax.Array = 0,
        scan: bool = False,
        remat: bool = False,
    ) -> jax.Array:
        """Encodes a batch.

        Args:
          input_ids: [B, L] int32.
          token_type_ids: [B, L] int32.
          attention_mask: [B, L] bool, False on padding.
          dropout_key: A typed key; None switches dropout off.
          first_row: The number of this batch's first row in a larger one that is
            split over devices by hand; it only places the dropout masks.
          scan: Loop over the layers in place of one after another. It compiles as
            one layer does and copies the weights of all into one array each step.
          remat: Keep a layer's input alone for the gradient, and compute the rest
            again: a third more work, and memory for one layer in place of all.

        Returns:
          [B, L, D] in the compute dtype.
        """
        bias = jnp.where(attention_mask, 0.0, -1e30)[:, None, None, :]
        mask = attention_mask.astype(jnp.int32)
        x = self.embeddings(
            input_ids, token_type_ids, mask, fold(dropout_key, 0), first_row
        )
        # Tokens lie in one axis: the gradient of a kernel is then a plain product. With
        # two axes to sum over, a training step took an eighth longer on a CPU.
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        depth = self.config.num_hidden_layers
        graphs, states = zip(
            *(nnx.split(self.layers[str(i)]) for i in range(depth)), strict=True
        )

        def through(x: jax.Array, layer: tuple[Any, Any]) -> tuple[jax.Array, None]:
            state, site = layer
            module = nnx.merge(graphs[0], state)
            return module(x, bias, fold(dropout_key, site), first_row), None

        through = jax.checkpoint(through) if remat else through
        if scan:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            x, _ = jax.lax.scan(through, x, (stacked, jnp.arange(1, depth + 1)))
        else:
            for i, state in enumerate(states):
                x, _ = through(x, (state, i + 1))
        return x.reshape(shape)
