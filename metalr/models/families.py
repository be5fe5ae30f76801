"""The table of families: what each encoder has in another way than BERT."""

import dataclasses

from metalr.models.family import Family, Modules


def _without(modules: Modules, *here: str) -> Modules:
    return tuple(row for row in modules if row[1] not in here)


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
    positions="after padding",
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
        *_without(BERT.embeddings, "embeddings.types"),
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
    names={},
    # transformers computes with 32 buckets and padding 1, whatever config.json says.
    only={
        "hidden_act": "gelu",
        "relative_attention_num_buckets": 32,
        "pad_token_id": 1,
    },
    fixed={"type_vocab_size": 0},
    relative_buckets=32,
)
DISTILBERT = dataclasses.replace(
    BERT,
    name="DistilBert",
    prefix="distilbert",
    embeddings=_without(BERT.embeddings, "embeddings.types"),
    layers="transformer.layer.{}",
    layer=(
        ("attention.q_lin", "attention.query", "linear"),
        ("attention.k_lin", "attention.key", "linear"),
        ("attention.v_lin", "attention.value", "linear"),
        ("attention.out_lin", "attention.output", "linear"),
        ("sa_layer_norm", "attention_norm", "norm"),
        ("ffn.lin1", "up", "linear"),
        ("ffn.lin2", "down", "linear"),
        ("output_layer_norm", "output_norm", "norm"),
    ),
    sequence_head=(
        ("pre_classifier", "dense", "linear"),
        ("classifier", "out", "linear"),
    ),
    choice_head=(
        ("pre_classifier", "dense", "linear"),
        ("classifier", "out", "linear"),
    ),
    masked_head=(
        ("vocab_transform", "dense", "linear"),
        ("vocab_layer_norm", "norm", "norm"),
        ("vocab_projector", "words", "bias"),
    ),
    names={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "classifier_dropout": "seq_classif_dropout",
    },
    defaults={
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "classifier_dropout": 0.2,
        "pad_token_id": 0,
    },
    fixed={"type_vocab_size": 0, "layer_norm_eps": 1e-12},
    only={"activation": "gelu", "sinusoidal_pos_embds": False},
    reads_segments=False,
    dropout_after_attention=False,
    head_dropout_on_tokens=False,
    head_activation="relu",
    dropout_on_spans=True,
)
ELECTRA = dataclasses.replace(
    BERT,
    name="Electra",
    prefix="electra",
    embeddings=(*BERT.embeddings, ("embeddings_project", "project", "linear")),
    sequence_head=ROBERTA.sequence_head,
    choice_head=(
        ("sequence_summary.summary", "dense", "linear"),
        ("classifier", "out", "linear"),
    ),
    masked_head=(
        ("generator_predictions.dense", "dense", "linear"),
        ("generator_predictions.LayerNorm", "norm", "norm"),
        ("generator_lm_head", "words", "bias"),
    ),
    names={**BERT.names, "embedding_size": "embedding_size"},
    only={
        **BERT.only,
        "summary_type": "first",
        "summary_use_proj": True,
        "summary_activation": "gelu",
    },
    defaults={**BERT.defaults, "embedding_size": 128},
    dropout_before_dense=True,
    head_activation="gelu",
)
ALBERT = dataclasses.replace(
    BERT,
    name="Albert",
    prefix="albert",
    embeddings=(
        *BERT.embeddings,
        ("encoder.embedding_hidden_mapping_in", "project", "linear"),
    ),
    layers="encoder.albert_layer_groups.0.albert_layers.0",
    layer=(
        ("attention.query", "attention.query", "linear"),
        ("attention.key", "attention.key", "linear"),
        ("attention.value", "attention.value", "linear"),
        ("attention.dense", "attention.output", "linear"),
        ("attention.LayerNorm", "attention_norm", "norm"),
        ("ffn", "up", "linear"),
        ("ffn_output", "down", "linear"),
        ("full_layer_layer_norm", "output_norm", "norm"),
    ),
    sequence_head=(
        ("albert.pooler", "dense", "linear"),
        ("classifier", "out", "linear"),
    ),
    choice_head=(
        ("albert.pooler", "dense", "linear"),
        ("classifier", "out", "linear"),
    ),
    masked_head=(
        ("predictions.dense", "dense", "linear"),
        ("predictions.LayerNorm", "norm", "norm"),
        ("predictions", "words", "bias"),
    ),
    names={
        "embedding_size": "embedding_size",
        "hidden_act": "hidden_act",
        "classifier_dropout": "classifier_dropout_prob",
    },
    defaults={
        **BERT.defaults,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "embedding_size": 128,
        "hidden_act": "gelu_new",
        "classifier_dropout": 0.1,
    },
    only={"num_hidden_groups": 1, "inner_group_num": 1},
    written={"bos_token_id": 2, "eos_token_id": 3},
    always_projects=True,
    one_layer_for_all=True,
    dropout_after_layer=False,
)
# Version 3: version 2 differs in settings that `only` refuses, and version 1 is another
# model_type.
DEBERTA = dataclasses.replace(
    BERT,
    name="DebertaV2",
    prefix="deberta",
    embeddings=(
        *(row for row in BERT.embeddings if row[1] == "embeddings.words"),
        ("embeddings.LayerNorm", "embeddings.norm", "norm"),
        ("encoder.rel_embeddings", "relative", "table"),
        ("encoder.LayerNorm", "relative_norm", "norm"),
    ),
    layer=(
        ("attention.self.query_proj", "attention.query", "linear"),
        ("attention.self.key_proj", "attention.key", "linear"),
        ("attention.self.value_proj", "attention.value", "linear"),
        *BERT.layer[3:],
    ),
    sequence_head=(
        ("pooler.dense", "dense", "linear"),
        ("classifier", "out", "linear"),
    ),
    choice_head=(
        ("pooler.dense", "dense", "linear"),
        ("classifier", "out", "linear"),
    ),
    names={
        "classifier_dropout": "cls_dropout",
        "position_buckets": "position_buckets",
        "max_relative_positions": "max_relative_positions",
    },
    defaults={**BERT.defaults, "layer_norm_eps": 1e-7},
    fixed={"type_vocab_size": 0},
    only={
        "hidden_act": "gelu",
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "conv_kernel_size": 0,
        "pooler_dropout": 0,
        "pooler_hidden_act": "gelu",
        "legacy": True,
    },
    reads_segments=False,
    positions="",
    layer_sort="disentangled",
    head_activation="gelu",
    head_dropout_on_tokens=False,
)
_MODERN_TOKENS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
_MODERN_HEAD = (
    ("head.dense", "dense", "kernel"),
    ("head.norm", "norm", "scale"),
    ("classifier", "out", "linear"),
)
MODERNBERT = dataclasses.replace(
    BERT,
    name="ModernBert",
    prefix="model",
    embeddings=(
        ("embeddings.tok_embeddings", "embeddings.words", "table"),
        ("embeddings.norm", "embeddings.norm", "scale"),
        ("final_norm", "final_norm", "scale"),
    ),
    layers="layers.{}",
    layer=(
        ("attn_norm", "attention_norm", "scale"),  # not in the first layer
        ("attn.Wqkv", "attention.qkv", "kernel"),
        ("attn.Wo", "attention.output", "kernel"),
        ("mlp_norm", "output_norm", "scale"),
        ("mlp.Wi", "up", "kernel"),
        ("mlp.Wo", "down", "kernel"),
    ),
    sequence_head=_MODERN_HEAD,
    span_head=_MODERN_HEAD,
    token_head=_MODERN_HEAD,
    choice_head=_MODERN_HEAD,
    masked_head=(
        ("head.dense", "dense", "kernel"),
        ("head.norm", "norm", "scale"),
        ("decoder", "words", "bias"),
    ),
    names={
        "layer_norm_eps": "norm_eps",
        "hidden_dropout_prob": "mlp_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "classifier_dropout": "classifier_dropout",
        "classifier_pooling": "classifier_pooling",
        "global_attn_every_n_layers": "global_attn_every_n_layers",
        "local_attention": "local_attention",
        "global_rope_theta": "global_rope_theta",
        "local_rope_theta": "local_rope_theta",
    },
    defaults={
        "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout": 0.0,
        "pad_token_id": 50283,
        "classifier_pooling": "cls",
        "global_attn_every_n_layers": 3,
        "local_attention": 128,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
    },
    fixed={"type_vocab_size": 0},
    # transformers' own default is the last of 50368 words, which others may lack.
    written={name: None for name in _MODERN_TOKENS},
    only={
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "classifier_bias": False,
        "decoder_bias": True,
    },
    reads_segments=False,
    positions="",
    layer_sort="modern",
    head_activation="gelu",
    dense_in_every_head=True,
    dropout_on_spans=True,
)

# By model_type of config.json.
FAMILIES: dict[str, Family] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": dataclasses.replace(ROBERTA, name="XLMRoberta"),
    "camembert": dataclasses.replace(
        ROBERTA, name="Camembert", written={"bos_token_id": 5, "eos_token_id": 6}
    ),
    "mpnet": MPNET,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "albert": ALBERT,
    "deberta-v2": DEBERTA,
    "modernbert": MODERNBERT,
}
