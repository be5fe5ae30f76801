"""DeBERTa's attention: scores of contents, and of contents and distances.

A score is the sum of three products, over sqrt(3 d): of a query and a key, of a query
and the key of the distance between them, and of the key and the query of that distance.
Distances share one table; the farther away, the more of them share a row.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalr.models.config import EncoderConfig
from metalr.models.dropout import dropout, fold
from metalr.models.layers import Attention, Context, attend

_SCORES = ["p2c", "c2p"]  # position to content and back: DeBERTa v3 has both
# What a config.json means that leaves them out; none of it is version 3.
_UNSAID = {
    "relative_attention": False,
    "pos_att_type": None,
    "norm_rel_ebd": "none",
    "share_att_key": False,
    "position_biased_input": True,
}


def used(config: EncoderConfig) -> bool:
    """Return whether an encoder attends so."""
    return config.differences.layer_sort == "disentangled"


def plain_settings(raw: dict[str, Any]) -> dict[str, Any]:
    """Return config.json with one form for what it may say in several."""
    raw = {**_UNSAID, **raw}
    sorts = raw["pos_att_type"]
    if isinstance(sorts, str):
        sorts = [sort.strip() for sort in sorts.lower().split("|")]
    same = isinstance(sorts, list) and sorted(map(str, sorts)) == sorted(_SCORES)
    raw["pos_att_type"] = _SCORES if same else sorts
    if raw.get("max_relative_positions", -1) in (0, -1):
        raw["max_relative_positions"] = raw.get("max_position_embeddings")
    return raw


def rows_of_distances(config: EncoderConfig, length: int) -> np.ndarray:
    """Return the row of the table for each distance, from far behind to far ahead.

    Up to half of the rows of one direction each distance has its own, the others grow
    with its logarithm (`make_log_bucket_position` of transformers).

    Args:
      config: Of the encoder.
      length: L, in tokens.

    Returns:
      [2 L - 1] int64, of the distances L - 1 to 1 - L of a query's place to a key's.
    """
    distance = np.arange(length - 1, -length, -1)
    span, middle = config.position_buckets, config.position_buckets // 2
    far = np.maximum(np.abs(distance), 1).astype(np.float32) / np.float32(middle)
    most = np.float32(np.log(np.float32((config.max_relative_positions - 1) / middle)))
    grown = np.ceil(np.log(far) / most * np.float32(middle - 1)) + middle
    near = np.abs(distance) <= middle
    rows = np.where(near, distance, np.sign(distance) * grown).astype(np.int64)
    return np.clip(rows + span, 0, 2 * span - 1)


def by_place(scores: jax.Array) -> jax.Array:
    """Move scores by distance to where the distance stands: out[q, k] = x[q, k-q+L-1].

    Padded and cut, not looked up: the gradient of a look-up is many additions.

    Args:
      scores: [..., L, 2 L - 1].

    Returns:
      [..., L, L].
    """
    *before, length, _ = scores.shape
    flat = jnp.pad(scores, [(0, 0)] * (len(before) + 1) + [(0, 1)])
    flat = flat.reshape(*before, -1)[..., length - 1 : 2 * length * length - 1]
    return flat.reshape(*before, length, 2 * length - 1)[..., :length]


class DisentangledAttention(Attention):
    """`attend` with the scores of distances, and a linear layer."""

    def __call__(self, x, context: Context, key, first_row):
        """Map [B * L, D] to [B * L, D], as `layers.Attention` does."""
        rows, length = context.mask.shape[0], context.mask.shape[-1]
        heads = self.config.num_attention_heads

        def split(x: jax.Array, rows: int) -> jax.Array:
            return x.reshape(rows, -1, heads, x.shape[-1] // heads).swapaxes(1, 2)

        query, keys, value = (
            split(project(x), rows) for project in (self.query, self.key, self.value)
        )
        query = query * np.float32(3**-0.5).astype(query.dtype)
        assert context.distances is not None
        rate = self.config.hidden_dropout_prob
        # The same for all rows of a batch, and so for all of its parts.
        table = dropout(context.distances, rate, fold(key, 1), 0).astype(x.dtype)
        ahead = table[rows_of_distances(self.config, length)]
        of_keys = split(self.key(ahead), 1)[0]
        # A key's scores stand in its own row, and the distances run the other way.
        of_queries = split(self.query(ahead[::-1]), 1)[0]
        near = jnp.einsum("bhqd,hjd->bhqj", query, of_keys)
        back = jnp.einsum("bhkd,hjd->bhkj", keys, of_queries) * 3**-0.5
        bias = by_place(near) + by_place(back).swapaxes(2, 3)
        bias = bias.astype(jnp.float32) * query.shape[-1] ** -0.5
        every = context.mask, bias
        mixed = attend(
            self.config, (query, keys, value), every, fold(key, 0), first_row
        )
        return self.output(mixed)
