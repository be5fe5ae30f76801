"""Encoders small enough for a test, one of each family, and one as a folder."""

import dataclasses
from pathlib import Path

from metalr.models import heads, huggingface
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

WORDS = (
    "the a film movie is was not good bad great awful boring bright dull and but it "
    "very who what where when ? . , they plot actor story in of to"
).split()


def save_bert(folder: Path) -> Path:
    """Writes a BERT of one narrow layer with a tokenizer; returns the folder."""
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
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    graphdef, params = heads.build(config, "classification", 2, seed=0)
    tokenizer = BertTokenizerFast(tokenizer_object=raw)
    model = huggingface.Pretrained(config, graphdef, params, tokenizer, {})
    huggingface.export(folder, model, "classification", ("negative", "positive"))
    return folder
