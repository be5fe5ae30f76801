"""A fine-tune as one frozen dataclass: flags in, JSON out, the reason beside it.

`RunConfig` is the only list of settings. The command line is generated from it
(`add_flags`), `result.json` holds it whole, and a resumed run is compared with it.
Defaults are the project's experiment plan: AdamW at 2e-5, batch 32, 3 epochs, 500
warm-up steps, weight decay 0.01.
"""

import argparse
import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metalr.data import labels
from metalr.data.formats import opening
from metalr.data.formats.table import ENDINGS
from metalr.runtime import flags
from metalr.runtime.flags import flag

# What another value of a setting changes: the numbers of a run (unless the field says
# otherwise), at which steps its history has a row, or nothing that a run is about.
PACE, NOTHING = "pace", "nothing"


@dataclass(frozen=True)
class RunConfig:
    """Settings of one fine-tune; each field is a flag of the same name."""

    # What is learned, and from what.
    task: str | None = flag(
        None, "what", "a row of `metalr tasks` (default: sst2, or your own files)"
    )
    model: str = flag(
        "minilm",
        "what",
        "hub id (bert-base-uncased), folder, .safetensors file, minilm, or minilm:N "
        "for its first N layers",
        path=True,
    )
    data: str = flag(
        "auto",
        "what",
        "hub, toy, a folder with TASK/{train,validation}.*, or auto: the hub where it "
        "answers, else toy",
        metavar="WHERE",
        path=True,
    )
    train_file: str | None = flag(
        None,
        "what",
        f"your own rows: {', '.join(ENDINGS)}",
        metavar="FILE",
        path=True,
    )
    validation_file: str | None = flag(
        None,
        "what",
        "rows to score on (default: a tenth of --train-file)",
        metavar="FILE",
        path=True,
    )
    text_column: str | None = flag(
        None, "what", "column of the (first) text", metavar="COLUMN"
    )
    pair_column: str | None = flag(
        None, "what", "column of the second text", metavar="COLUMN"
    )
    label_column: str | None = flag(
        None, "what", "column of the label or score", metavar="COLUMN"
    )
    label_separator: str | None = flag(
        None,
        "what",
        "between several labels in one cell of your own rows, such as |",
        metavar="TEXT",
    )
    kind: str = flag(
        "auto",
        "what",
        "what your own rows are; auto: by their columns and labels",
        choices=("auto", *labels.KINDS),
    )
    encoding: str | None = flag(
        None, "what", "of your own text files, such as cp1252 (default: UTF-8)"
    )
    no_header: bool = flag(
        False, "what", "the first line is a row; columns are named by number, from 1"
    )
    train_rows: int | None = flag(None, "what", "use at most N training rows", low=1)
    validation_rows: int | None = flag(
        None, "what", "use at most N validation rows", low=1
    )
    max_length: int | None = flag(
        None,
        "what",
        "longest input in tokens (default: the task's)",
        low=8,
        metavar="TOKENS",
    )

    # How the rate is set.
    scheduler: str = flag("metalr", "rate", "a row of `metalr schedulers`")
    # 2e-5 is what BERT recipes use for base-size models; small encoders want more.
    # A method that estimates the rate takes a factor here, so it is the row's to say.
    learning_rate: float | None = flag(
        None,
        "rate",
        "base (peak) rate (default: 2e-5; methods that estimate it have their own)",
        low=0.0,
    )
    # Long enough for a 3-epoch GLUE run; a tenth of the run where that is shorter.
    warmup_steps: int = flag(
        500, "rate", "linear warm-up, cut to a tenth of a shorter run", low=0
    )
    predictor: str | None = flag(
        None,
        "rate",
        "folder of a learned predictor (default: the shipped one)",
        metavar="FOLDER",
        path=True,
    )

    # The optimisation around it.
    batch_size: int = flag(32, "training", "rows per step", low=1, most=2**20)
    accumulate: int = flag(
        1, "training", "split each batch into N parts to save memory", low=1
    )
    epochs: float = flag(
        3.0, "training", "passes over the training rows", low=0.0, most=1e6
    )
    max_steps: int | None = flag(
        None, "training", "at most N steps; the schedule is laid for them", low=1
    )
    # Not applied to biases and LayerNorm, as in BERT's own recipe.
    weight_decay: float = flag(0.01, "training", "decoupled weight decay", low=0.0)
    clip_norm: float = flag(
        1.0, "training", "clip the gradient's global norm; 0 switches it off", low=0.0
    )
    dropout: float | None = flag(
        None, "training", "dropout rate (default: the model's own)", low=0.0, high=0.9
    )
    class_weights: str | None = flag(
        None,
        "training",
        "how much each class counts: balanced, or a JSON file of weights by class",
        metavar="FILE",
        path=True,
    )
    label_smoothing: float = flag(
        0.0, "training", "share of a label spread over all classes", low=0.0, high=0.9
    )
    balanced_sampling: bool = flag(
        False, "training", "draw classes equally often, rows of rare ones again"
    )
    early_stopping: int = flag(
        0, "training", "stop after N evaluations without a new best; 0: never", low=0
    )
    metric: str | None = flag(
        None,
        "training",
        "score that picks the step to keep, or eval_loss (default: the task's own); "
        "your own files have macro_f1 and matthews too",
        metavar="SCORE",
    )
    # jax takes 32 bits of it.
    seed: int = flag(
        0,
        "training",
        "of data order, dropout and fresh heads",
        low=0,
        most=2**32 - 1,
    )
    dtype: str = flag(
        "float32",
        "training",
        "of the computation; parameters stay float32",
        choices=("float32", "bfloat16"),
    )

    # What of the model is trained.
    lora: int = flag(
        0,
        "what is trained",
        "rank of LoRA: low-rank changes of kernels, and the head, are all that is "
        "trained; 0: everything",
        low=0,
        most=2**16,
        metavar="RANK",
    )
    # So that twice the rank asks for no other rate.
    lora_alpha: float | None = flag(
        None,
        "what is trained",
        "rank times the factor of a change (default: 2 x --lora)",
        low=0.0,
    )
    lora_targets: str | None = flag(
        None,
        "what is trained",
        "modules as PEFT names them, with commas between (default: those of queries "
        "and values)",
        metavar="NAMES",
    )
    freeze: str | None = flag(
        None,
        "what is trained",
        "what stays as it is: embeddings, encoder, layers such as 0-5, with commas "
        "between",
        metavar="NAMES",
    )
    layer_decay: float = flag(
        1.0,
        "what is trained",
        "the rate of a layer over that of the one above it",
        low=0.01,
        high=1.0,
    )
    head_rate: float = flag(
        1.0, "what is trained", "the rate of the head over the base rate", low=0.01
    )
    reinit_layers: int = flag(
        0, "what is trained", "draw the top N layers at random first", low=0
    )
    ema: float = flag(
        0.0,
        "what is trained",
        "decay of an average of the parameters, such as 0.999, which is scored and "
        "kept in their place; 0: none",
        low=0.0,
        high=0.999999,
        metavar="DECAY",
    )

    # On which devices; none of it changes what is learned, but for rounding.
    parallel: str = flag(
        "auto",
        "devices",
        "jit: rows over all devices; pmap: the same, the older way; one: the first "
        "device; auto: one on a CPU, else jit",
        choices=("auto", "one", "jit", "pmap"),
        changes=NOTHING,
    )
    shard_params: bool = flag(
        False,
        "devices",
        "cut parameters and optimizer state as rows are",
        changes=NOTHING,
    )
    model_shards: int = flag(
        1,
        "devices",
        "devices that share the kernels of one copy",
        low=1,
        changes=NOTHING,
    )
    # Nothing is kept for a gradient, so four times the rows need less memory than a
    # training step does. More of them pay on a large accelerator alone.
    eval_batch_size: int | None = flag(
        None,
        "devices",
        "rows per batch of an evaluation (default: 4 x --batch-size)",
        low=1,
        most=2**22,
        changes=NOTHING,
    )
    # Unrolled layers run faster; see `Encoder` for what a scan saves.
    scan_layers: bool = flag(
        False, "devices", "compile one layer and loop over it", changes=NOTHING
    )
    remat: bool = flag(
        False,
        "devices",
        "compute layers twice instead of keeping them",
        changes=NOTHING,
    )

    # Question answering.
    stride: int = flag(
        128,
        "question answering",
        "overlap of long contexts, in tokens",
        low=0,
        metavar="TOKENS",
    )
    n_best: int = flag(
        20, "question answering", "start and end candidates kept a window", low=1
    )
    max_answer_length: int = flag(
        30, "question answering", "longest answer, in tokens", low=1, metavar="TOKENS"
    )

    null_threshold: float = flag(
        0.0,
        "question answering",
        "where a question may have no answer: lead of that, in logits, to be said",
        low=float("-inf"),
    )
    threshold: float = flag(
        0.5,
        "several labels",
        "probability from which on a row has a label",
        low=1e-6,
        high=1 - 1e-6,
    )
    tune_thresholds: bool = flag(
        False,
        "several labels",
        "for predict: the thresholds, one a label (or that of no answer), that score "
        "best on the validation rows at the kept step",
    )

    # When to look, and where it goes.
    eval_every: int | None = flag(
        None,
        "output",
        "steps between evaluations (default: by --evals-per-epoch)",
        low=1,
    )
    evals_per_epoch: int = flag(
        4, "output", "evaluations an epoch where --eval-every is not given", low=1
    )
    log_every: int = flag(
        10, "output", "steps between rows of the history", low=1, changes=PACE
    )
    save_every: int | None = flag(
        None,
        "output",
        "steps between checkpoints (default: once an epoch)",
        low=1,
        changes=NOTHING,
    )
    output: str | None = flag(
        None,
        "output",
        "folder of this run (default: runs/TASK-MODEL-SCHEDULER-SEED)",
        changes=NOTHING,
        metavar="FOLDER",
        path=True,
    )
    log_to: str | None = flag(
        None,
        "output",
        "log to tensorboard, wandb or mlflow too, with commas between",
        changes=NOTHING,
        metavar="NAMES",
    )
    profile: bool = flag(
        False, "output", "trace some steps, for ui.perfetto.dev", changes=NOTHING
    )

    def __post_init__(self) -> None:
        """Put the home in the place of `~`, which no shell does in a file."""
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if not f.metadata.get("path") or value is None:
                continue
            # What no file can be called is said where it is opened.
            with contextlib.suppress(ValueError):
                # The dataclass is frozen for everyone else.
                object.__setattr__(self, f.name, os.path.expanduser(value))

    @property
    def name(self) -> str:
        """The run's short name, safe as the name of a folder."""
        model = Path(self.model).name.replace(":", "")
        parts = (self.task_name, model, self.scheduler)
        # Names of files have at most 255 bytes, and one of a task may be anything here.
        cut = [part.encode("utf-8", "replace")[:70] for part in parts]
        short = [part.decode("utf-8", "ignore") for part in cut]
        return "-".join([*short, str(self.seed)])

    @property
    def task_name(self) -> str:
        """The task, or what a run without one is about: the user's file, or sst2."""
        own = self.train_file or opening.is_one(self.data)
        return self.task or ("file" if own else "sst2")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values."""
        return dataclasses.asdict(self)


# Of the help, with a line where the flags need one.
HEADINGS = {
    "what": ("task, model and rows",),
    "rate": ("learning rate", "metalr finds it from any base; others take it as given"),
    "training": ("batches, steps and loss",),
    "what is trained": ("what is trained", "everything, unless one of these is given"),
    "devices": ("devices and memory", "none of these changes what is learned"),
    "question answering": ("questions", "read by tasks of questions alone"),
    "several labels": ("several labels a row",),
    "output": ("evaluations and files",),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a run to a parser."""
    flags.add(parser, RunConfig, HEADINGS)
