"""BERT and its relatives as one Flax NNX encoder.

`families` says in what they differ. Parameters are float32; matrix products run in the
compute dtype, LayerNorm and softmax in float32.
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalr.errors import MetalrError
from metalr.models import disentangled, modern
from metalr.models.config import EncoderConfig
from metalr.models.dropout import dropout, fold
from metalr.models.layers import Context, Layer, distance_buckets, layer_norm

Params = dict[str, Any]  # nested; the leaves are float32 arrays


def initial(path: str, shape: tuple[int, ...], seed: int) -> jax.Array:
    """Draw one parameter as BERT does: kernels and tables normal with sigma 0.02.

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


class Embeddings(nnx.Module):
    """LayerNorm(word + position + type), then dropout.

    Some families have no types, and ModernBERT no positions.
    """

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the tables, each [rows, table_width]."""
        self.config, self.dtype = config, dtype
        width = config.table_width
        self.words = nnx.Embed(config.vocab_size, width, rngs=rngs)
        if config.differences.positions:
            rows = config.max_position_embeddings
            self.positions = nnx.Embed(rows, width, rngs=rngs)
        if config.type_vocab_size:
            self.types = nnx.Embed(config.type_vocab_size, width, rngs=rngs)
        self.norm = layer_norm(config, rngs, width)

    def __call__(self, input_ids, token_type_ids, attention_mask, key, first_row):
        """Map [B, L] ids to [B, L, table_width] vectors."""
        x = self.words(input_ids)
        if self.config.differences.positions == "after padding":
            # Padding reads the row just below the first position, whatever its place.
            count = jnp.cumsum(attention_mask, axis=1) * attention_mask
            x += self.positions(count + self.config.pad_token_id)
        elif self.config.differences.positions:
            x += self.positions.embedding[None, : input_ids.shape[1]]
        if self.config.type_vocab_size:
            x += self.types(token_type_ids)
        x = self.norm(x).astype(self.dtype)
        return dropout(x, self.config.hidden_dropout_prob, key, first_row)


def _layer(config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs, index: int):
    if modern.used(config):
        return modern.ModernLayer(config, dtype, rngs, index)
    if disentangled.used(config):
        return Layer(config, dtype, rngs, disentangled.DisentangledAttention)
    return Layer(config, dtype, rngs)


class Encoder(nnx.Module):
    """Embeddings and a stack of layers: token ids to contextual vectors."""

    def __init__(self, config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build every layer, with the initial values that Flax gives."""
        self.config = config
        self.embeddings = Embeddings(config, dtype, rngs)
        if buckets := config.differences.relative_buckets:
            heads = config.num_attention_heads
            self.relative = nnx.Embed(buckets, heads, rngs=rngs)
        if disentangled.used(config):
            rows = 2 * config.position_buckets
            self.relative = nnx.Embed(rows, config.hidden_size, rngs=rngs)
            self.relative_norm = layer_norm(config, rngs)
        if config.projects_embeddings:
            widths = config.table_width, config.hidden_size
            self.project = nnx.Linear(*widths, dtype=dtype, rngs=rngs)
        self.layers = nnx.Dict(
            {
                str(i): _layer(config, dtype, rngs, i)
                for i in range(config.stored_layers)
            }
        )
        if modern.used(config):
            self.final_norm = layer_norm(config, rngs)

    def context(self, attention_mask: jax.Array) -> Context:
        """Return what the layers need of a batch with this mask, [B, L] bool."""
        mask = jnp.where(attention_mask, 0.0, -1e30)[:, None, None, :]
        length = attention_mask.shape[1]
        if modern.used(self.config):
            return Context(mask, **modern.surroundings(self.config, length))
        if disentangled.used(self.config):
            table = self.relative_norm(self.relative.embedding[...])
            return Context(mask, distances=table)
        buckets = self.config.differences.relative_buckets
        if not buckets:
            return Context(mask)
        # A product in place of a look-up, whose gradient would be L * L additions to
        # the same few rows.
        hot = jax.nn.one_hot(distance_buckets(length, buckets), buckets)
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
        """Encode a batch.

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
        shape = (*x.shape[:2], self.config.hidden_size)
        x = x.reshape(-1, x.shape[-1])
        if self.config.projects_embeddings:
            x = self.project(x)
        x = self._through_layers(x, context, dropout_key, first_row, scan, remat)
        if modern.used(self.config):
            x = self.final_norm(x).astype(x.dtype)
        return x.reshape(shape)

    def _through_layers(self, x, context, dropout_key, first_row, scan, remat):
        stored, depth = self.config.stored_layers, self.config.num_hidden_layers
        graphs, states = zip(
            *(nnx.split(self.layers[str(i % stored)]) for i in range(depth)),
            strict=True,
        )

        def through(x, state, site, given, graph):
            context, dropout_key, first_row = given
            module = nnx.merge(graph, state)
            return module(x, context, fold(dropout_key, site), first_row)

        given = context, dropout_key, first_row
        if remat:
            through = jax.checkpoint(through, static_argnums=4)
        if not scan:
            # Layers that are alike are traced and differentiated once; XLA inlines
            # the calls, so that the program is that of a plain loop.
            through = jax.jit(through, static_argnums=4)
            for i, (graph, state) in enumerate(zip(graphs, states, strict=True)):
                x = through(x, state, i + 1, given, graph)
            return x
        if any(graph != graphs[0] for graph in graphs):
            raise MetalrError(
                f"--scan-layers needs layers that are all alike; {self.config.family} "
                "has two kinds"
            )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

        def step(x, layer):
            state, site = layer
            return through(x, state, site, given, graphs[0]), None

        return jax.lax.scan(step, x, (stacked, jnp.arange(1, depth + 1)))[0]
