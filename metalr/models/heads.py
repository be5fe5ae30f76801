"""Models to train: the encoder under a head, as a graph and a plain dict.

`build` gives both parts, `apply` runs them, and `losses.loss` scores what comes out.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from metalr.errors import MetalrError, unknown_name
from metalr.models.dropout import dropout, fold
from metalr.models.encoder import (
    Encoder,
    EncoderConfig,
    Params,
    gelu,
    initial,
    layer_norm,
)
from metalr.models.losses import KINDS, loss

__all__ = ["DTYPES", "KINDS", "apply", "build", "labels_of", "loss", "outline"]

DTYPES = ("float32", "bfloat16")
_HEAD_SITE = 1_000_000  # dropout keys of the head, clear of those of the layers


class SequenceModel(nnx.Module):
    """A score per label from the first token: out(tanh(dense(x_0)))."""

    def __init__(
        self, config: EncoderConfig, num_labels: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """Builds the encoder and the head.

        BERT calls `dense` its pooler and `out` its classifier; RoBERTa keeps both in
        its classifier and has one more dropout before `dense`.
        """
        self.config = config
        self.encoder = Encoder(config, dtype, rngs)
        width = config.hidden_size
        self.dense = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(width, num_labels, dtype=dtype, rngs=rngs)

    def __call__(self, ids, types, mask, *, dropout_key=None, first_row=0, **how):
        """Maps a batch of [B, L] ids to logits [B, num_labels]."""
        x = self.encoder(
            ids, types, mask, dropout_key=dropout_key, first_row=first_row, **how
        )[:, 0]
        rate = self.config.hidden_dropout_prob
        if self.config.differences.dropout_before_dense:
            x = dropout(x, rate, fold(dropout_key, _HEAD_SITE), first_row)
        x = jnp.tanh(self.dense(x))
        x = dropout(x, rate, fold(dropout_key, _HEAD_SITE + 1), first_row)
        return self.out(x)


class SpanModel(nnx.Module):
    """Two scores per token: that an answer starts there, that it ends there."""

    def __init__(
        self, config: EncoderConfig, num_labels: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """Builds the encoder and one linear layer of `num_labels` = 2 outputs."""
        self.config = config
        self.encoder = Encoder(config, dtype, rngs)
        self.out = nnx.Linear(config.hidden_size, num_labels, dtype=dtype, rngs=rngs)

    def __call__(self, ids, types, mask, **how):
        """Maps a batch of [B, L] ids to logits [B, L, 2]."""
        return self.out(self.encoder(ids, types, mask, **how))


class TokenModel(nnx.Module):
    """A score per label for each token."""

    def __init__(
        self, config: EncoderConfig, num_labels: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """Builds the encoder and one linear layer."""
        self.config = config
        self.encoder = Encoder(config, dtype, rngs)
        self.out = nnx.Linear(config.hidden_size, num_labels, dtype=dtype, rngs=rngs)

    def __call__(self, ids, types, mask, *, dropout_key=None, first_row=0, **how):
        """Maps a batch of [B, L] ids to logits [B, L, num_labels]."""
        x = self.encoder(
            ids, types, mask, dropout_key=dropout_key, first_row=first_row, **how
        )
        rate = self.config.hidden_dropout_prob
        return self.out(dropout(x, rate, fold(dropout_key, _HEAD_SITE + 1), first_row))


class ChoiceModel(SequenceModel):
    """A score for each of a row's texts: out(tanh(dense(x_0)))."""

    def __call__(self, ids, types, mask, *, dropout_key=None, first_row=0, **how):
        """Maps a batch of [B, C, L] ids to logits [B, C]."""
        rows, choices, length = ids.shape
        x = self.encoder(
            *(part.reshape(-1, length) for part in (ids, types, mask)),
            dropout_key=dropout_key,
            first_row=first_row * choices,
            **how,
        )[:, 0]
        rate, key = self.config.hidden_dropout_prob, fold(dropout_key, _HEAD_SITE + 1)
        x = dropout(jnp.tanh(self.dense(x)), rate, key, first_row * choices)
        return self.out(x).reshape(rows, choices)


class WordBias(nnx.Module):
    """What is added to the score of each word."""

    def __init__(self, rows: int):
        """Builds the vector, [rows]."""
        self.bias = nnx.Param(jnp.zeros(rows))


class MaskedModel(nnx.Module):
    """A score per word at some tokens: norm(gelu(dense(x))) W' + b.

    W is the table that the encoder reads its words from.
    """

    def __init__(
        self, config: EncoderConfig, num_labels: int, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """Builds the encoder and the head; `num_labels` has no part in it."""
        del num_labels
        self.encoder = Encoder(config, dtype, rngs)
        width = config.hidden_size
        self.dense = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(config, rngs)
        self.words = WordBias(config.vocab_size)

    def __call__(self, ids, types, mask, *, places=None, **how):
        """Maps [B, L] ids to logits [B, P, V] at places [B, P]; at all if None."""
        x = self.encoder(ids, types, mask, **how)
        if places is not None:
            x = jnp.take_along_axis(x, places[:, :, None], axis=1)
        x = self.norm(gelu(self.dense(x))).astype(x.dtype)
        table = self.encoder.embeddings.words.embedding[...].astype(x.dtype)
        return x @ table.T + self.words.bias[None, None]


def labels_of(kind: str, num_labels: int) -> int:
    """Returns how many outputs the head of a task has; a word's score is none.

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
    """Returns a model's graph and the shapes of its parameters, computing nothing.

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
    """Gives every layer the same key; shapes don't tell.

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
    """Builds a model with random weights.

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
    """Runs a model on a batch.

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
