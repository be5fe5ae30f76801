"""BERT and its relatives as one Flax NNX encoder.

`families` says in what they differ. Parameters are float32; matrix products run in the
compute dtype, LayerNorm and softmax in float32.
"""

import dataclasses
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalr.models.dropout import dropout, fold
from metalr.models.families import FAMILIES, Family

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
    def differences(self) -> Family:
        """The row of its family."""
        return FAMILIES[self.family]

    @property
    def first_position(self) -> int:
        """The row of the position table that the first token of a text reads."""
        return self.pad_token_id + 1 if self.differences.positions_after_padding else 0

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


class Context(NamedTuple):
    """What all layers are told of a batch."""

    mask: jax.Array  # [B, 1, 1, L], 0, or -1e30 on padding
    relative: jax.Array | None = None  # [1, heads, L, L], added to the scores


def distance_buckets(length: int, buckets: int, farthest: int = 128) -> np.ndarray:
    """Sorts the distances between tokens into buckets, as T5 does in both directions.

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


class Embeddings(nnx.Module):
    """LayerNorm(word + position + type), then dropout; some families have no types."""

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Builds the three tables, each [rows, hidden_size]."""
        self.config, self.dtype = config, dtype
        width = config.hidden_size
        self.words = nnx.Embed(config.vocab_size, width, rngs=rngs)
        self.positions = nnx.Embed(config.max_position_embeddings, width, rngs=rngs)
        if config.type_vocab_size:
            self.types = nnx.Embed(config.type_vocab_size, width, rngs=rngs)
        self.norm = layer_norm(config, rngs)

    def __call__(self, input_ids, token_type_ids, attention_mask, key, first_row):
        """Maps [B, L] ids to [B, L, D] vectors."""
        length = input_ids.shape[1]
        if self.config.differences.positions_after_padding:
            # Padding reads the row just below the first position, whatever its place.
            count = jnp.cumsum(attention_mask, axis=1) * attention_mask
            position = self.positions(count + self.config.pad_token_id)
        else:
            position = self.positions.embedding[None, :length]
        x = self.words(input_ids) + position
        if self.config.type_vocab_size:
            x += self.types(token_type_ids)
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

    def __call__(self, x, context: Context, key, first_row):
        """Maps [B * L, D] to [B * L, D].

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
        scores = jnp.einsum(
            "bhqd,bhkd->bhqk", query, keys, preferred_element_type=jnp.float32
        )
        scores = scores * query.shape[-1] ** -0.5 + context.mask
        if context.relative is not None:
            scores += context.relative
        weights = jax.nn.softmax(scores)
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

    def __call__(self, x, context: Context, key, first_row):
        """Maps [B * L, D] to [B * L, D]; `key` serves the three dropout sites."""
        rate = self.config.hidden_dropout_prob
        first_token = first_row * context.mask.shape[-1]
        mixed = self.attention(x, context, fold(key, 0), first_row)
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
        if buckets := config.differences.relative_buckets:
            heads = config.num_attention_heads
            self.relative = nnx.Embed(buckets, heads, rngs=rngs)
        depth = range(config.num_hidden_layers)
        self.layers = nnx.Dict({str(i): Layer(config, dtype, rngs) for i in depth})

    def context(self, attention_mask: jax.Array) -> Context:
        """Returns what the layers are told of a batch with this mask, [B, L] bool."""
        mask = jnp.where(attention_mask, 0.0, -1e30)[:, None, None, :]
        buckets = self.config.differences.relative_buckets
        if not buckets:
            return Context(mask)
        # A product in place of a look-up, whose gradient would be L * L additions to
        # the same few rows.
        places = distance_buckets(attention_mask.shape[1], buckets)
        hot = jax.nn.one_hot(places, buckets)
        table = self.relative.embedding[...]
        relative = jnp.einsum(
            "qkn,nh->hqk", hot, table, precision=jax.lax.Precision.HIGHEST
        )
        return Context(mask, relative[None])

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
        context = self.context(attention_mask)
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
            return module(x, context, fold(dropout_key, site), first_row), None

        through = jax.checkpoint(through) if remat else through
        if scan:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            x, _ = jax.lax.scan(through, x, (stacked, jnp.arange(1, depth + 1)))
        else:
            for i, state in enumerate(states):
                x, _ = through(x, (state, i + 1))
        return x.reshape(shape)
