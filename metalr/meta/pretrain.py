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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalr.errors import MetalrError
from metalr.finetune import loop, run_folder, schedulers
from metalr.finetune.checkpoint import Checkpoints
from metalr.finetune.display import Display
from metalr.meta import pretrain_texts
from metalr.meta.pretrain_config import HEAD_WIDTH, PretrainConfig, check
from metalr.meta.pretrain_texts import MaskedBatches
from metalr.models import heads, huggingface
from metalr.models.encoder import EncoderConfig
from metalr.runtime import files
from metalr.runtime.origin import Origin

SETTINGS = "pretrain.json"
_HELD_BACK = 8  # batches that are scored and not learned from


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
    texts, origins, notes = pretrain_texts.read_texts(settings)
    _take(folder, settings)
    tokenizer = pretrain_texts.kept_tokenizer(settings, folder, texts)
    blocks = pretrain_texts.cut_blocks(tokenizer, texts, settings.length)
    config = _encoder(settings, len(tokenizer))
    graphdef, problem = _problem(settings, config, tokenizer, blocks)
    size = sum(x.size for x in jax.tree.leaves(problem.params)) / 1e6
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


def _problem(
    settings: PretrainConfig, config: EncoderConfig, tokenizer: Any, blocks: np.ndarray
) -> tuple[Any, loop.TrainingProblem]:
    """Return the encoder's graph, and what it learns: words hidden in [N, T] blocks.

    Raises:
      MetalrError: There are too few blocks to hold some back.
    """
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
    return graphdef, problem


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
