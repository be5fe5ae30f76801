"""Pre-trains a small encoder on the texts of tasks, by masked language modelling.

    metalr pretrain FOLDER --data DATA --family roberta --width 256 --layers 3

A predictor has to hold for encoders of every size, and the hub has few small ones. Here
a tokenizer is learned from the texts (WordPiece for BERT, byte-level BPE for RoBERTa),
the texts are laid end to end and cut into blocks, and the encoder guesses the words
that are hidden from it, 15 in 100 (Devlin et al. 2019, arXiv 1810.04805): of those, 8
of 10 are masked, one is another word, and one stays as it is. There is no dropout
here; the 0.1 in the model's config.json is what a fine-tune of it uses.

FOLDER is then a model like any other: `finetune.py --model FOLDER`, and transformers'
`AutoModelForMaskedLM` loads it too.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalr.data import loading
from metalr.data.rows import well_formed
from metalr.errors import MetalrError
from metalr.finetune import loop, run_folder, schedulers
from metalr.finetune.checkpoint import Checkpoints
from metalr.finetune.display import Display
from metalr.meta.pretrain_config import HEAD_WIDTH, PretrainConfig, check
from metalr.models import heads, huggingface
from metalr.models.encoder import EncoderConfig
from metalr.models.families import FAMILIES
from metalr.runtime import files, program
from metalr.runtime.origin import Origin

SETTINGS, WORDS = "pretrain.json", "words.json"
MASKED = 0.15  # share of the words to guess
_HELD_BACK = 8  # batches that are scored and not learned from
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


def pretrain(
    settings: PretrainConfig,
    folder: Path,
    display: Display,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Make the encoder; the same call resumes one that was interrupted.

    Args:
      settings: What to make.
      folder: Where the model goes, and checkpoints until it is there.
      display: Shown the progress.
      stop: Asked after each step; True saves and ends.

    Returns:
      The last evaluation: step, epoch, eval_loss and accuracy on hidden words of blocks
      that were not learned from. None if `stop` ended it.

    Raises:
      MetalrError: The settings make no encoder, rows can't be had, or the folder is of
        other settings.
    """
    check(settings)
    texts, origins, notes = _texts(settings)
    _take(folder, settings)
    tokenizer = _kept_tokenizer(settings, folder, texts)
    config = _encoder(settings, len(tokenizer))
    blocks = _blocks(tokenizer, texts, settings.length)
    held = min(_HELD_BACK * settings.batch_size, len(blocks) // 10)
    if held < 1:
        raise MetalrError(
            f"the tasks' texts make {len(blocks)} blocks of {settings.length} tokens; "
            "10 are the least: add --tasks, or take a shorter --length"
        )
    graphdef, params = heads.build(config, "mlm", 0, seed=settings.seed)
    hide = functools.partial(
        MaskedBatches, batch_size=settings.batch_size, tokenizer=tokenizer
    )
    problem = loop.TrainingProblem(
        params=params,
        loss_fn=lambda params, batch, key: heads.loss(
            "mlm", heads.apply(graphdef, params, batch), batch
        ),
        batches=hide(blocks[held:], seed=settings.seed),
        evaluate=_scorer(graphdef, hide(blocks[:held], seed=0)),
        metric="accuracy",
    )
    size = sum(x.size for x in jax.tree.leaves(params)) / 1e6
    display.start(
        [
            f"texts  {len(texts)} of {', '.join(settings.tasks)} ({origins}), "
            f"{blocks.size / 1e6:.1f} M tokens of {len(tokenizer)}",
            f"model  {config.family}, {config.num_hidden_layers} layers of "
            f"{config.hidden_size}, {size:.1f} M parameters",
            *(f"note   {note}" for note in notes),
        ],
        settings.steps,
    )
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        outcome = loop.train(
            problem,
            _transformation(settings),
            _pace(settings),
            display=display,
            checkpoints=checkpoints,
            stop=stop,
        )
    finally:
        checkpoints.close()
    if outcome.stopped == "asked":
        return None
    origin = Origin("folder", str(folder))
    model = huggingface.Pretrained(config, graphdef, outcome.params, tokenizer, origin)
    huggingface.export(folder, model, "mlm", ())
    return outcome.last


def _pace(settings: PretrainConfig) -> loop.Pace:
    tenth = max(1, settings.steps // 10)
    return loop.Pace(
        total_steps=settings.steps,
        eval_every=tenth,
        log_every=max(1, settings.steps // 100),
        save_every=tenth,
        seed=settings.seed,
    )


def _transformation(settings: PretrainConfig) -> Any:
    plan = schedulers.RunPlan(
        learning_rate=settings.learning_rate,
        total_steps=settings.steps,
        warmup_steps=settings.steps // 10,
        weight_decay=0.01,
        clip_norm=1.0,
    )
    inner = schedulers.adamw(plan.weight_decay, plan.clip_norm)
    return schedulers.get("linear").build(inner, plan)


def _take(folder: Path, settings: PretrainConfig) -> None:
    """Make a folder this model's own.

    Raises:
      MetalrError: It is another's.
    """
    path = folder / SETTINGS
    ours = files.plain(dataclasses.asdict(settings))
    if path.is_file():
        theirs = files.read_json(path)
        other = [name for name, value in ours.items() if theirs.get(name) != value]
        if other:
            raise MetalrError(
                f"{folder} holds a model of other settings ({', '.join(other)}); "
                "choose another folder"
            )
        return
    if folder.exists() and run_folder.contents(folder):
        raise MetalrError(f"{folder} holds something else; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(path, ours)


# ------------------------------------------------------------------ the texts


def _texts(settings: PretrainConfig) -> tuple[list[str], str, list[str]]:
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


def _kept_tokenizer(settings: PretrainConfig, folder: Path, texts: list[str]) -> Any:
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


def _encoder(settings: PretrainConfig, words: int) -> EncoderConfig:
    roberta = settings.family == "roberta"
    return EncoderConfig(
        family=settings.family,
        vocab_size=words,
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.width // HEAD_WIDTH,
        intermediate_size=4 * settings.width,
        max_position_embeddings=514 if roberta else 512,
        type_vocab_size=1 if roberta else 2,
        layer_norm_eps=1e-5 if roberta else 1e-12,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        pad_token_id=1 if roberta else 0,
    )


def _blocks(tokenizer: Any, texts: list[str], length: int) -> np.ndarray:
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


def _scorer(graphdef: Any, held: MaskedBatches) -> Callable[[Any], dict[str, float]]:
    """Return what scores parameters on the words of blocks that are held back."""

    @jax.jit
    def score(params: Any, batch: loop.Batch) -> tuple[jax.Array, jax.Array]:
        logits = heads.apply(graphdef, params, batch)
        right = jnp.argmax(logits, axis=-1) == batch["labels"]
        return heads.loss("mlm", logits, batch), jnp.mean(right, dtype=jnp.float32)

    def evaluate(params: Any) -> dict[str, float]:
        found = np.mean([jax.device_get(score(params, b)) for b in held], axis=0)
        return {"eval_loss": float(found[0]), "accuracy": float(found[1])}

    return evaluate
