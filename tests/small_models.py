"""Encoders small enough for a test, one of each family."""

import dataclasses

from metalr.models.encoder import EncoderConfig

BERT = EncoderConfig(
    family="bert",
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=20,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
    pad_token_id=0,
)
CONFIGS = {
    "bert": BERT,
    "roberta": dataclasses.replace(
        BERT, family="roberta", type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1
    ),
}

# Options of a compilation that takes a quarter of the time and gives slower code, which
# is nothing to a model of this size.
CHEAP = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 0}
