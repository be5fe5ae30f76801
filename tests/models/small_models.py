"""Encoders small enough for a test, one of each family, and one as a folder."""

import dataclasses
from pathlib import Path

import jax

from metalr.models import heads, huggingface, weights
from metalr.models.encoder import EncoderConfig
from metalr.runtime.origin import Origin

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
ROBERTA = dataclasses.replace(
    BERT, family="roberta", type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1
)
CONFIGS = {
    "bert": BERT,
    "roberta": ROBERTA,
    "mpnet": dataclasses.replace(ROBERTA, family="mpnet", type_vocab_size=0),
    "distilbert": dataclasses.replace(
        BERT, family="distilbert", type_vocab_size=0, classifier_dropout=0.2
    ),
    "electra": dataclasses.replace(BERT, family="electra", embedding_size=12),
    "albert": dataclasses.replace(
        BERT,
        family="albert",
        embedding_size=12,
        hidden_act="gelu_new",
        classifier_dropout=0.1,
    ),
    # Distances from 2 on share rows of the table.
    "deberta-v2": dataclasses.replace(
        BERT,
        family="deberta-v2",
        type_vocab_size=0,
        layer_norm_eps=1e-7,
        classifier_dropout=0.2,
        position_buckets=4,
        max_relative_positions=20,
    ),
    # Of two layers the first sees all tokens, the second a window of two on each side.
    "modernbert": dataclasses.replace(
        BERT,
        family="modernbert",
        type_vocab_size=0,
        num_hidden_layers=2,
        classifier_dropout=0.1,
        classifier_pooling="mean",
        global_attn_every_n_layers=2,
        local_attention=4,
        global_rope_theta=1000.0,
        local_rope_theta=100.0,
    ),
}
WORDS = (
    "the a film movie is was not good bad great awful boring bright dull and but it "
    "very who what where when ? . , they plot actor story in of to"
).split()


def save_bert(folder: Path, layers: int = 1, scale: float = 1.0) -> Path:
    """Write a BERT of narrow layers with a tokenizer; return the folder.

    As they are drawn, it says nearly the same of all rows: a scale makes its matrices
    large enough to tell rows apart.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

    letters = [chr(c) for c in range(97, 123)] + list("0123456789")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters]
    pieces += ["##" + letter for letter in letters]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    raw = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    config = dataclasses.replace(
        BERT,
        vocab_size=len(vocab),
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    graphdef, params = heads.build(config, "classification", 2, seed=0)
    params = jax.tree.map(lambda x: scale * x if x.ndim > 1 else x, params)
    tokenizer = BertTokenizerFast(tokenizer_object=raw)
    origin = Origin("folder", str(folder))
    model = huggingface.Pretrained(config, graphdef, params, tokenizer, origin)
    huggingface.export(folder, model, "classification", ("negative", "positive"))
    return folder


def oracle(config: EncoderConfig, kind: str, labels: tuple[str, ...] = ()):
    """Return transformers' model with this head, its weights large enough to tell.

    The caller has to have PyTorch.
    """
    import torch
    import transformers

    values = huggingface.config_json(config, kind, labels)
    theirs = transformers.AutoConfig.for_model(**values)
    torch.manual_seed(0)
    model = getattr(transformers, values["architectures"][0])(theirs).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def taken_over(theirs, config: EncoderConfig, kind: str, num_labels: int = 0):
    """Return the graph and the parameters of ours, which lacks no weight of theirs."""
    # state_dict shares its memory with the model; names as in a file.
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    prefix = f"{config.differences.prefix}."
    tensors = {name.removeprefix(prefix): value for name, value in state.items()}
    graphdef, shapes = heads.outline(config, kind, num_labels, "float32")
    params, drawn = weights.assemble(tensors, shapes, config, kind, seed=0)
    assert not drawn
    return graphdef, params
