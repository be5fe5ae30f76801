"""The texts of tasks as blocks with hidden words, and a tokenizer learned from them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metalr.data import loading
from metalr.data.rows import well_formed
from metalr.finetune import loop
from metalr.meta.pretrain_config import PretrainConfig
from metalr.models.families import FAMILIES
from metalr.runtime import files, program

WORDS = "words.json"
MASKED = 0.15  # share of the words to guess
# In the order of their ids, as in the models that everybody has.
_SPECIAL = {
    "bert": {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    "roberta": {
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    },
}


def read_texts(settings: PretrainConfig) -> tuple[list[str], str, list[str]]:
    """Return all training texts, each once, where they come from, and notes on it."""
    found: dict[str, None] = {}
    origins = []
    for name in settings.tasks:
        data = loading.load(name, settings.data)
        origins.append(data.origin)
        for row in data.train:
            for column in (data.task.text, data.task.pair):
                if column is not None:
                    found[well_formed(row[column])] = None
    kinds = ", ".join(dict.fromkeys(origin.kind for origin in origins))
    return list(found), kinds, [o.note for o in origins if o.note][:1]


def make_tokenizer(settings: PretrainConfig, texts: list[str]) -> Any:
    """Learn a tokenizer from texts, and give it the family's special tokens.

    Byte-level BPE comes out the same each time. WordPiece does not: the library breaks
    ties between pieces at random.

    Returns:
      A tokenizer of the tokenizers library, of at most `settings.vocabulary` tokens.
    """
    from tokenizers import (
        BertWordPieceTokenizer,
        ByteLevelBPETokenizer,
        processors,
    )

    special = _SPECIAL[settings.family]
    made: Any
    if settings.family == "bert":
        made, ends = BertWordPieceTokenizer(lowercase=True), processors.BertProcessing
    else:
        made = ByteLevelBPETokenizer(trim_offsets=True)
        ends = processors.RobertaProcessing
    tokens = list(special.values())
    made.train_from_iterator(
        texts,
        vocab_size=settings.vocabulary,
        special_tokens=tokens,
        show_progress=False,
    )
    last, first = special["sep_token"], special["cls_token"]
    made.post_processor = ends(
        sep=(last, tokens.index(last)), cls_token=(first, tokens.index(first))
    )
    return made._tokenizer  # the class has no public door to it


def kept_tokenizer(settings: PretrainConfig, folder: Path, texts: list[str]) -> Any:
    """Return transformers' tokenizer of the folder, which is made first if need be.

    Kept before the first step, so that an interrupted run resumes with the same words.
    """
    from tokenizers import Tokenizer

    path = folder / WORDS
    if not path.is_file():
        made = make_tokenizer(settings, texts)
        files.write_json(path, json.loads(made.to_str()))
    core = Tokenizer.from_str(json.dumps(files.read_json(path)))
    return program.import_transformers().PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_input_names=FAMILIES[settings.family].inputs,
        **_SPECIAL[settings.family],
    )


def cut_blocks(tokenizer: Any, texts: list[str], length: int) -> np.ndarray:
    """Lay the texts end to end, in random order, and cut them: [N, length] int32.

    Each block has the family's first and last token; between texts stands the last.
    """
    order = np.random.default_rng(0).permutation(len(texts))
    mixed = [texts[i] for i in order]
    core = tokenizer.backend_tokenizer
    pieces: list[int] = []
    for start in range(0, len(mixed), 2048):
        found = core.encode_batch(mixed[start : start + 2048], add_special_tokens=False)
        for encoding in found:
            pieces += [*encoding.ids, tokenizer.sep_token_id]
    room = length - 2
    inside = np.array(pieces[: len(pieces) // room * room], np.int32).reshape(-1, room)
    ends = ((0, 0), (1, 1))
    blocks = np.pad(inside, ends, constant_values=tokenizer.sep_token_id)
    blocks[:, 0] = tokenizer.cls_token_id
    return blocks


class MaskedBatches:
    """Blocks with hidden words, each batch a pure function of seed and step."""

    def __init__(
        self, blocks: np.ndarray, *, batch_size: int, tokenizer: Any, seed: int
    ):
        """Count the batches of an epoch; rows that fill none are left out."""
        self._blocks, self._seed = blocks, seed
        self._batch_size = min(batch_size, len(blocks))
        self._mask, self._words = tokenizer.mask_token_id, len(tokenizer)
        self._first = len(tokenizer.all_special_ids)  # the id of the first real word
        self.steps_per_epoch = len(blocks) // self._batch_size

    def batch(self, step: int) -> loop.Batch:
        """Return the batch of a step; places and labels are [B, P] int32."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self._seed, 0, epoch])
        rows = order.permutation(len(self._blocks))[position * self._batch_size :]
        blocks = self._blocks[rows[: self._batch_size]]
        rng = np.random.default_rng([self._seed, 1, step])
        # The places of the P largest draws among the tokens that are words.
        draws = rng.random(blocks.shape) - (blocks < self._first)
        count = max(1, round(MASKED * blocks.shape[1]))
        places = np.sort(np.argsort(-draws, axis=1)[:, :count], axis=1).astype(np.int32)
        labels = np.take_along_axis(blocks, places, axis=1)
        fate = rng.random(labels.shape)
        other = rng.integers(self._first, self._words, labels.shape)
        shown = np.where(fate < 0.8, self._mask, np.where(fate < 0.9, other, labels))
        ids = blocks.copy()
        np.put_along_axis(ids, places, shown.astype(np.int32), axis=1)
        return {
            "input_ids": ids,
            "token_type_ids": np.zeros_like(ids),
            "attention_mask": np.ones(ids.shape, np.bool_),
            "places": places,
            "labels": labels,
            "weights": np.ones(len(ids), np.float32),
        }

    def __iter__(self) -> Iterator[loop.Batch]:
        """Yield the batches of the first epoch."""
        return map(self.batch, range(self.steps_per_epoch))
