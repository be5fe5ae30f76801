"""Models to train: the encoder under a head, as a graph and a plain dict.

`build` gives both parts, `apply` runs them, and `losses.loss` scores what comes out.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from metalr.errors import MetalrError, unknown_name
from metalr.models.config import EncoderConfig
from metalr.models.dropout import dropout, fold
from metalr.models.encoder import Encoder, Params, initial
from metalr.models.layers import ACTIVATIONS, layer_norm
from metalr.models.losses import KINDS, loss

__all__ = ["DTYPES", "KINDS", "apply", "build", "labels_of", "loss", "outline"]

DTYPES = ("float32", "bfloat16")
_HEAD_SITE = 1_000_000  # dropout keys of the head, clear of those of the layers


def _dense(
    config: EncoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs, width: int | None = None
) -> nnx.Linear:
    """Build the first linear layer of a head, to `width` or to hidden_size."""
    bias = not config.differences.dense_in_every_head
    widths = config.hidden_size, width or config.hidden_size
    return nnx.Linear(*widths, use_bias=bias, dtype=dtype, rngs=rngs)


def _transformed(model: Any, x: jax.Array) -> jax.Array:
    """Return what a head's first layer makes of the encoder's vectors."""
    family = model.config.differences
    x = ACTIVATIONS[family.head_activation](model.dense(x))
    return model.norm(x).astype(x.dtype) if family.dense_in_every_head else x


class SequenceModel(nnx.Module):
    """A score per label from the first token: out(tanh(dense(x_0))).

    The activation is the family's, and ModernBERT has a LayerNorm behind it; it may
    take the mean over all tokens in place of the first, too.
    """

    def __init__(
        self, config: EncoderConfig, num_labels: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """Build the encoder and the head.

        BERT calls `dense` its pooler and `out` its classifier; RoBERTa keeps both in
        its classifier and has one more dropout before `dense`.
        """
        self.config = config
        self.encoder = Encoder(config, dtype, rngs)
        self.dense = _dense(config, dtype, rngs)
        if config.differences.dense_in_every_head:
            self.norm = layer_norm(config, rngs)
        self.out = nnx.Linear(config.hidden_size, num_labels, dtype=dtype, rngs=rngs)

    def __call__(self, ids, types, mask, *, dropout_key=None, first_row=0, **how):
        """Map a batch of [B, L] ids to logits [B, num_labels]."""
        x = self.encoder(
            ids, types, mask, dropout_key=dropout_key, first_row=first_row, **how
        )
        x = self._pooled(x, mask)
        if self.config.differences.dropout_before_dense:
            key = fold(dropout_key, _HEAD_SITE)
            x = dropout(x, self.config.head_dropout, key, first_row)
        return self._scores(x, dropout_key, first_row)

    def _pooled(self, x, mask):
        if self.config.classifier_pooling == "cls":
            return x[:, 0]
        count = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
        return jnp.sum(x * mask[:, :, None], axis=1) / count.astype(x.dtype)

    def _scores(self, x, dropout_key, first_row):
        x, key = _transformed(self, x), fold(dropout_key, _HEAD_SITE + 1)
        return self.out(dropout(x, self.config.head_dropout, key, first_row))


class ChoiceModel(SequenceModel):
    """A score for each of a row's texts: out(tanh(dense(x_0)))."""

    def __call__(self, ids, types, mask, *, dropout_key=None, first_row=0, **how):
        """Map a batch of [B, C, L] ids to logits [B, C]."""
        rows, choices, length = ids.shape
        ids, types, mask = (part.reshape(-1, length) for part in (ids, types, mask))
        first = first_row * choices
        x = self.encoder(
            ids, types, mask, dropout_key=dropout_key, first_row=first, **how
        )
        scores = self._scores(self._pooled(x, mask), dropout_key, first)
        return scores.reshape(rows, choices)


class TokenModel(nnx.Module):
    """A score per label for each token."""

    def __init__(
        self, config: EncoderConfig, num_labels: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """Build the encoder and one linear layer.

        ModernBERT's is behind another, with activation and norm.
        """
        self.config = config
        self.encoder = Encoder(config, dtype, rngs)
        if config.differences.dense_in_every_head:
            self.dense = _dense(config, dtype, rngs)
            self.norm = layer_norm(config, rngs)
        self.out = nnx.Linear(config.hidden_size, num_labels, dtype=dtype, rngs=rngs)

    @property
    def dropout_rate(self) -> float:
        """Of what goes into `out`."""
        own = self.config.differences.head_dropout_on_tokens
        return self.config.head_dropout if own else self.config.hidden_dropout_prob

    def __call__(self, ids, types, mask, *, dropout_key=None, first_row=0, **how):
        """Map a batch of [B, L] ids to logits [B, L, num_labels]."""
        x = self.encoder(
            ids, types, mask, dropout_key=dropout_key, first_row=first_row, **how
        )
        if self.config.differences.dense_in_every_head:
            x = _transformed(self, x)
        key = fold(dropout_key, _HEAD_SITE + 1)
        return self.out(dropout(x, self.dropout_rate, key, first_row))


class SpanModel(TokenModel):
    """Two scores per token: that an answer starts there, that it ends there."""

    @property
    def dropout_rate(self) -> float:
        """Of what goes into `out`; BERT has none here."""
        has = self.config.differences.dropout_on_spans
        return self.config.hidden_dropout_prob if has else 0.0


class WordBias(nnx.Module):
    """What is added to the score of each word."""

    def __init__(self, rows: int):
        """Build the vector, [rows]."""
        self.bias = nnx.Param(jnp.zeros(rows))


class MaskedModel(nnx.Module):
    """A score per word at some tokens: norm(gelu(dense(x))) W' + b.

    W is the table that the encoder reads its words from.
    """

    def __init__(
        self, config: EncoderConfig, num_labels: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """Build the encoder and the head; `num_labels` has no part in it."""
        del num_labels
        self.config = config
        self.encoder = Encoder(config, dtype, rngs)
        self.dense = _dense(config, dtype, rngs, config.table_width)
        self.norm = layer_norm(config, rngs, config.table_width)
        self.words = WordBias(config.vocab_size)

    def __call__(self, ids, types, mask, *, places=None, **how):
        """Map [B, L] ids to logits [B, P, V] at places [B, P]; at all if None."""
        x = self.encoder(ids, types, mask, **how)
        if places is not None:
            x = jnp.take_along_axis(x, places[:, :, None], axis=1)
        x = ACTIVATIONS[self.config.hidden_act](self.dense(x))
        x = self.norm(x).astype(x.dtype)
        table = self.encoder.embeddings.words.embedding[...].astype(x.dtype)
        return x @ table.T + self.words.bias[None, None]


def labels_of(kind: str, num_labels: int) -> int:
    """Return how many outputs the head of a task has, masked words left out.

    Raises:
      MetalrError: If the kind is unknown, or there are too few labels.
    """
    if kind not in KINDS:
        raise unknown_name("kind of task", kind, KINDS)
    least = {"classification": 2, "tokens": 2, "multilabel": 1}
    if num_labels < least.get(kind, 0):
        raise MetalrError(
            f"{kind} needs at least {least[kind]} labels, got {num_labels}. For a "
            "number to predict, choose a regression task."
        )
    return {"regression": 1, "qa": 2, "mlm": 0, "choice": 1}.get(kind, num_labels)


_MODELS = {
    "qa": SpanModel,
    "mlm": MaskedModel,
    "tokens": TokenModel,
    "choice": ChoiceModel,
}


def outline(
    config: EncoderConfig, kind: str, num_labels: int, dtype: str
) -> tuple[nnx.GraphDef, Params]:
    """Return a model's graph and the shapes of its parameters, computing nothing.

    Args:
      config: The encoder.
      kind: A row of KINDS.
      num_labels: Where the task names them; not looked at for other kinds.
      dtype: What the matrix products run in, a row of DTYPES.

    Returns:
      The graph, and a nested dict of `jax.ShapeDtypeStruct`.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    outputs = labels_of(kind, num_labels)
    model = _MODELS.get(kind, SequenceModel)
    make = functools.partial(model, config, outputs, jnp.dtype(dtype))
    graphdef, state = nnx.split(nnx.eval_shape(lambda: make(_OneKey())))
    return graphdef, nnx.to_pure_dict(state)


class _OneKey(nnx.Rngs):
    """Gives every layer the same key, which shapes do not depend on.

    A traced count of keys takes a time that grows with its square: two minutes for a
    hundred layers.
    """

    def params(self) -> jax.Array:  # pyright: ignore[reportIncompatibleVariableOverride]
        return jax.random.key(0)


def build(
    config: EncoderConfig,
    kind: str,
    num_labels: int,
    *,
    seed: int,
    dtype: str = "float32",
) -> tuple[nnx.GraphDef, Params]:
    """Build a model with random weights.

    Args:
      config: The encoder.
      kind: A row of KINDS.
      num_labels: Where the task names them; not looked at for other kinds.
      seed: Of the weights.
      dtype: What the matrix products run in, a row of DTYPES.

    Returns:
      The graph and the parameters, ready for `apply`.
    """
    graphdef, shapes = outline(config, kind, num_labels, dtype)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return initial(name, leaf.shape, seed)

    return graphdef, jax.tree_util.tree_map_with_path(draw, shapes)


def apply(
    graphdef: nnx.GraphDef,
    params: Params,
    batch: dict[str, Any],
    *,
    dropout_key: jax.Array | None = None,
    first_row: int | jax.Array = 0,
    scan: bool = False,
    remat: bool = False,
) -> jax.Array:
    """Run a model on a batch.

    Args:
      graphdef: From `build` or `huggingface.load`; static under `jax.jit`.
      params: The parameters.
      batch: input_ids, token_type_ids [B, L] int32 and attention_mask [B, L] bool, or
        [B, C, L] to choose among C texts; of a masked model also places [B, P] int32,
        the tokens to score.
      dropout_key: A typed key; None switches dropout off.
      first_row: Where this batch starts in a larger one that is split by hand (pmap,
        accumulation); with it the pieces draw the masks of the whole.
      scan: As of `Encoder`.
      remat: As of `Encoder`.

    Returns:
      float32 logits, [B, num_labels], [B, L, 2] for answer spans, [B, L, num_labels]
      for tokens, [B, C] for a choice, or [B, P, V] for masked words.
    """
    # Arrays of numpy would be indexed by numpy's rules where the table is a tracer.
    ids, types, mask = (
        jnp.asarray(batch[name])
        for name in ("input_ids", "token_type_ids", "attention_mask")
    )
    model: Any = nnx.merge(graphdef, params)
    some = {"places": jnp.asarray(batch["places"])} if "places" in batch else {}
    logits = model(
        ids,
        types,
        mask,
        dropout_key=dropout_key,
        first_row=first_row,
        scan=scan,
        remat=remat,
        **some,
    )
    return logits.astype(jnp.float32)
