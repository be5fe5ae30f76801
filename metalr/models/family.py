"""What a family of encoders is, as data: how it may differ from BERT.

A row of `families` says how one names its settings in config.json and its weights in a
file, and where its arithmetic is another. `encoder` and `heads` compute what the rows
say, `weights` reads the names in both directions, and `huggingface` the settings.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

# Module in a file, module here, its sort (a row of `weights.LEAVES`).
Modules = tuple[tuple[str, str, str], ...]


@dataclasses.dataclass(frozen=True)
class Family:
    """A row of the table; the defaults are BERT's."""

    name: str  # its share of transformers' class names
    prefix: str  # of the encoder's weights in a file that has a head

    # Names of weights. Below the prefix there, below `encoder.` here:
    embeddings: Modules = (
        ("embeddings.word_embeddings", "embeddings.words", "table"),
        ("embeddings.position_embeddings", "embeddings.positions", "table"),
        ("embeddings.token_type_embeddings", "embeddings.types", "table"),
        ("embeddings.LayerNorm", "embeddings.norm", "norm"),
    )
    # Below the prefix and `layers` there, below `encoder.layers.N.` here:
    layers: str = "encoder.layer.{}"
    layer: Modules = (
        ("attention.self.query", "attention.query", "linear"),
        ("attention.self.key", "attention.key", "linear"),
        ("attention.self.value", "attention.value", "linear"),
        ("attention.output.dense", "attention.output", "linear"),
        ("attention.output.LayerNorm", "attention_norm", "norm"),
        ("intermediate.dense", "up", "linear"),
        ("output.dense", "down", "linear"),
        ("output.LayerNorm", "output_norm", "norm"),
    )
    # Whole names. The files of a bare RoBERTa have a pooler too, which its classifiers
    # leave aside.
    sequence_head: Modules = (
        ("bert.pooler.dense", "dense", "linear"),
        ("classifier", "out", "linear"),
    )
    span_head: Modules = (("qa_outputs", "out", "linear"),)
    token_head: Modules = (("classifier", "out", "linear"),)
    choice_head: Modules = (
        ("bert.pooler.dense", "dense", "linear"),
        ("classifier", "out", "linear"),
    )
    masked_head: Modules = (
        ("cls.predictions.transform.dense", "dense", "linear"),
        ("cls.predictions.transform.LayerNorm", "norm", "norm"),
        ("cls.predictions", "words", "bias"),
    )

    # Settings. Key of config.json by field of `EncoderConfig`, where it is another one
    # or where most families lack it:
    names: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"classifier_dropout": "classifier_dropout"}
    )
    # What config.json may leave out, by field, and fields that it lacks.
    defaults: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "pad_token_id": 0,
        }
    )
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # What it may only say one way, by key, and what is written besides.
    only: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            "is_decoder": False,
        }
    )
    written: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    # Arithmetic.
    reads_segments: bool = True  # the tokenizer tells the texts of a pair apart
    positions: str = "from 0"  # or "after padding": the first is pad_token_id + 1; ""
    always_projects: bool = False  # from the tables, though the widths may be equal
    relative_buckets: int = 0  # of distances between tokens, biases of their scores
    one_layer_for_all: bool = False
    layer_sort: str = "post-norm"  # or "disentangled", "modern"
    dropout_after_attention: bool = True
    dropout_after_layer: bool = True
    # Of the head over the first token: out(dropout(norm(activation(dense(x))))).
    dropout_before_dense: bool = False
    head_activation: str = "tanh"
    head_dropout_on_tokens: bool = True  # or hidden_dropout_prob, as in the layers
    dense_in_every_head: bool = False  # with a norm, and spans have it as well
    dropout_on_spans: bool = False

    @property
    def inputs(self) -> list[str]:
        """What the tokenizer is to give."""
        segments = ["token_type_ids"] if self.reads_segments else []
        return ["input_ids", *segments, "attention_mask"]
