"""The families of encoders, as data: how each differs from BERT.

A row says how a family names its settings in config.json and its weights in a file, and
where its arithmetic is another. `encoder` and `heads` compute what the rows say,
`weights` reads the names in both directions, and `huggingface` the settings.
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

    # Settings: what config.json may leave out, what it may only say one way, and what
    # is written besides.
    defaults: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "pad_token_id": 0,
        }
    )
    only: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            "is_decoder": False,
        }
    )
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    written: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    # Arithmetic.
    reads_segments: bool = True  # the tokenizer tells the texts of a pair apart
    positions_after_padding: bool = False  # the first is pad_token_id + 1
    relative_buckets: int = 0  # of distances between tokens, biases of their scores
    dropout_before_dense: bool = False  # in the head over the first token

    @property
    def inputs(self) -> list[str]:
        """What the tokenizer is to give."""
        segments = ["token_type_ids"] if self.reads_segments else []
        return ["input_ids", *segments, "attention_mask"]


BERT = Family("Bert", "bert")
ROBERTA = dataclasses.replace(
    BERT,
    name="Roberta",
    prefix="roberta",
    sequence_head=(
        ("classifier.dense", "dense", "linear"),
        ("classifier.out_proj", "out", "linear"),
    ),
    choice_head=(
        ("roberta.pooler.dense", "dense", "linear"),
        ("classifier", "out", "linear"),
    ),
    masked_head=(
        ("lm_head.dense", "dense", "linear"),
        ("lm_head.layer_norm", "norm", "norm"),
        ("lm_head", "words", "bias"),
    ),
    defaults={**BERT.defaults, "pad_token_id": 1},
    written={"bos_token_id": 0, "eos_token_id": 2},
    reads_segments=False,
    positions_after_padding=True,
    dropout_before_dense=True,
)
MPNET = dataclasses.replace(
    ROBERTA,
    name="MPNet",
    prefix="mpnet",
    choice_head=(
        ("mpnet.pooler.dense", "dense", "linear"),
        ("classifier", "out", "linear"),
    ),
    embeddings=(
        *(row for row in BERT.embeddings if "token_type" not in row[0]),
        ("encoder.relative_attention_bias", "relative", "table"),
    ),
    layer=(
        ("attention.attn.q", "attention.query", "linear"),
        ("attention.attn.k", "attention.key", "linear"),
        ("attention.attn.v", "attention.value", "linear"),
        ("attention.attn.o", "attention.output", "linear"),
        ("attention.LayerNorm", "attention_norm", "norm"),
        *BERT.layer[5:],
    ),
    # transformers computes with 32 buckets and padding 1, whatever config.json says.
    only={
        "hidden_act": "gelu",
        "relative_attention_num_buckets": 32,
        "pad_token_id": 1,
    },
    fixed={"type_vocab_size": 0},
    relative_buckets=32,
)

# By model_type of config.json.
FAMILIES: dict[str, Family] = {"bert": BERT, "roberta": ROBERTA, "mpnet": MPNET}
