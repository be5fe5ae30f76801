"""Which settings go together, which make two runs differ, and which a task reads."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from metalr.data.schema import Task
from metalr.errors import MetalrError
from metalr.finetune.config import NOTHING, RunConfig
from metalr.runtime import flags


def from_flags(args: argparse.Namespace, *, finds: bool = False) -> RunConfig:
    """Build the checked configuration from parsed flags.

    Args:
      args: Parsed.
      finds: Whether the command asks the predictor for a rate under any scheduler.

    Raises:
      MetalrError: A number lies outside of its range, or a flag is without effect.
    """
    return checked(flags.read(RunConfig, args), finds=finds)


def checked(config: RunConfig, *, finds: bool = False) -> RunConfig:
    """Return the settings of one run if they fit together, and each its range.

    Raises:
      MetalrError: As of `from_flags`.
    """
    _refuse_ignored(config, finds)
    return check(config)


def _refuse_ignored(config: RunConfig, finds: bool) -> None:
    """Refuse flags that the other flags leave without effect.

    A plan of many runs may have settings that only some of them read; whoever types a
    flag for one run means it.
    """
    if config.predictor and not (finds or _asks(config.scheduler)):
        raise MetalrError(
            "--predictor is read under --scheduler metalr and find_ alone, got "
            f"--scheduler {config.scheduler}; leave one of them out"
        )
    if config.eval_every and config.evals_per_epoch != RunConfig.evals_per_epoch:
        raise MetalrError(
            "--eval-every and --evals-per-epoch say the same thing; give one of them"
        )


def _asks(scheduler: str) -> bool:
    """Return whether the rows of that name ask a predictor."""
    return scheduler.startswith(("metalr", "find_"))


def overruled(given: Mapping[str, Any]) -> set[str]:
    """Return the settings of a file that those given beside it leave without effect.

    Args:
      given: What goes before the file, by name.

    >>> sorted(overruled({"lora": 0, "eval_every": 5}))
    ['evals_per_epoch', 'lora_alpha', 'lora_targets']
    """
    found = set()
    if given.get("lora") == 0:
        found |= {"lora_alpha", "lora_targets"}
    if "eval_every" in given:
        found.add("evals_per_epoch")
    if "evals_per_epoch" in given:
        found.add("eval_every")
    if not _asks(given.get("scheduler", "metalr")):
        found.add("predictor")
    return found - given.keys()


def refuse_flags_of_others(config: RunConfig, task: Task) -> None:
    """Refuse flags that tasks of another kind read.

    Raises:
      MetalrError: One was given; the message names it.
    """
    for f in dataclasses.fields(config):
        group, readers = f.metadata["group"], None
        if group == "question answering" and task.kind != "qa":
            readers = "tasks of questions"
        if f.name == "stride":  # long rows of both are read in windows
            both = task.kind in ("qa", "tokens")
            readers = None if both else "tasks of questions and of words"
        if f.name == "null_threshold" and not task.null:
            readers = "tasks whose questions may have no answer"
        if f.name == "threshold" and task.kind != "multilabel":
            readers = "tasks of several labels"
        if readers and getattr(config, f.name) != f.default:
            raise MetalrError(
                f"{flags.flag_of(f.name)} is read by {readers} alone, "
                f"{task.name} is one of {task.kind}; leave it out"
            )


def check(config: RunConfig) -> RunConfig:
    """Return `config` if each number lies in its range.

    Raises:
      MetalrError: It does not; the message has the flag, the rule and the value.
    """
    flags.check_ranges(config)
    for name in ("learning_rate", "epochs"):
        if getattr(config, name) == 0:
            raise MetalrError(f"{flags.flag_of(name)} must be above 0, got 0")
    given = config.lora_alpha is not None or config.lora_targets is not None
    if given and not config.lora:
        raise MetalrError("--lora-alpha and --lora-targets need --lora RANK")
    if config.lora_alpha == 0:
        raise MetalrError("--lora-alpha must be above 0")
    if config.lora and config.reinit_layers:
        raise MetalrError(
            "--lora trains no layer itself, so those that --reinit-layers draws would "
            f"stay random; got --lora {config.lora} and --reinit-layers "
            f"{config.reinit_layers}; leave one of them out"
        )
    if config.batch_size % config.accumulate:
        raise MetalrError(
            f"--accumulate must divide --batch-size, got {config.accumulate} and "
            f"{config.batch_size}"
        )
    return config


def that_change(*what: str) -> frozenset[str]:
    """Return the names of the settings that change PACE, NOTHING, or either.

    The one list of them: a resumed run, the keys of a store and the comparison of runs
    all go by it.
    """
    fields = dataclasses.fields(RunConfig)
    return frozenset(f.name for f in fields if f.metadata.get("changes") in what)


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the names of the settings that make two runs differ, in numbers or rows.

    A setting that one of them lacks, which another version of metalr wrote, has its
    default there.
    """
    fields = {f.name: f.default for f in dataclasses.fields(RunConfig)}
    names = fields.keys() - that_change(NOTHING)
    return sorted(n for n in names if old.get(n, fields[n]) != new.get(n, fields[n]))
