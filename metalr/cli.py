"""The `metalr` command, and what the scripts share with it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metalr import compare_command, find_command
from metalr.errors import MetalrError
from metalr.meta import pretrain_config
from metalr.meta.pretrain_config import PretrainConfig
from metalr.predict import command as predict_command
from metalr.predict import evaluate_command
from metalr.runtime import flags, versions
from metalr.runtime.console import print_table
from metalr.runtime.program import (
    Parser,
    Stop,
    end_at_signals,
    guarded,
    how_to_resume,
    hush_libraries,
    leave_out_torch,
)

__all__ = [
    "Parser",
    "Stop",
    "end_at_signals",
    "how_to_resume",
    "guarded",
    "hush_libraries",
    "leave_out_torch",
    "main",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the `metalr` command and return its exit status."""
    if argv is None:  # this program is the command
        end_at_signals()
        leave_out_torch()
    hush_libraries()
    parser = Parser(prog="metalr", description="Learned learning rates for fine-tuning")
    named = f"metalr {versions.of_metalr()}"
    parser.add_argument("--version", action="version", version=named)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    commands.add_parser("tasks", help="the tasks that finetune.py knows")
    commands.add_parser("schedulers", help="the ways to set the rate")
    show = commands.add_parser(
        "show",
        help="the curves of finished runs side by side",
        description="Prints a table of the runs and their curves on shared scales.",
    )
    show.add_argument(
        "runs", nargs="+", metavar="RUN", help="folder of a run, or its result.json"
    )
    show.add_argument("--png", metavar="FILE", help="draw them into a PNG too")
    export = commands.add_parser(
        "export",
        help="write a run's best model for transformers, under another name",
        description="Copies the model of a finished run (config.json, "
        "model.safetensors, tokenizer), which AutoModel.from_pretrained loads.",
    )
    export.add_argument("run", help="folder of a run of finetune.py")
    export.add_argument("folder", help="new folder for the model")
    export.add_argument(
        "--merge",
        action="store_true",
        help="of a run with --lora: the whole model in place of the adapter",
    )
    find_command.add(commands)
    predict_command.add(commands)
    evaluate_command.add(commands)
    compare_command.add(commands)
    _add_pretrain(commands)
    args = parser.parse_args(argv)
    command = {
        "tasks": _tasks,
        "schedulers": _schedulers,
        "show": _show,
        "export": _export,
        "find": find_command.find,
        "suggest": find_command.suggest,
        "predict": predict_command.carry_out,
        "evaluate": evaluate_command.carry_out,
        "compare": compare_command.compare,
        "pretrain": _pretrain,
    }
    return guarded(lambda: command[args.command](args))


def _tasks(args: argparse.Namespace) -> int:
    del args
    from metalr.data.tasks import TASKS

    rows = [
        (
            t.name,
            t.kind,
            ", ".join(t.metrics),
            str(t.max_length),
            t.hub[0]
            or ("(texts of " + ", ".join(t.made_of) + ")" if t.made_of else "(no)"),
        )
        for t in TASKS.values()
    ]
    print_table(("task", "kind", "scores", "length", "on the hub"), rows)
    return 0


def _schedulers(args: argparse.Namespace) -> int:
    del args
    from metalr.finetune.schedulers import SCHEDULERS

    rows = [(name, s.summary, s.source) for name, s in SCHEDULERS.items()]
    print_table(("scheduler", "rate", "source"), rows)
    return 0


def _show(args: argparse.Namespace) -> int:
    from metalr.report import show

    found = show.read_runs([Path(run) for run in args.runs])
    show.print_runs(found)
    if args.png:
        show.draw_runs(found, Path(args.png))
        print(args.png)
    return 0


def _export(args: argparse.Namespace) -> int:
    import shutil

    from metalr.finetune import run_folder
    from metalr.runtime import files

    run, target = Path(args.run), Path(args.folder)
    for needed in (run / run_folder.RESULT, run / "model" / "config.json"):
        if not needed.is_file():
            raise MetalrError(
                f"{run} holds no finished run: {needed} is missing; finish it with "
                "finetune.py --resume"
            )
    if target.exists() and (not target.is_dir() or run_folder.contents(target)):
        raise MetalrError(f"{target} exists; name a new folder")

    adapter = run / run_folder.ADAPTER
    if args.merge and not adapter.is_dir():
        raise MetalrError(f"{run} has no adapter to merge; leave --merge out")
    alone = adapter.is_dir() and not args.merge
    source = adapter if alone else run / "model"

    def copy(draft: Path) -> None:
        for path in source.iterdir():
            # Not what a killed run has left, nor what a link in the folder leads to.
            if path.is_file() and not path.is_symlink() and path.name[0] != ".":
                shutil.copyfile(path, draft / path.name)

    files.fill(target, copy)
    classes = "peft's PeftModel" if alone else "transformers' AutoModel classes"
    print(f"{target}: load it with {classes}")
    return 0


def _add_pretrain(commands: Any) -> None:
    pretrain = commands.add_parser(
        "pretrain",
        help="make a small encoder from the texts of tasks",
        description="Learns a tokenizer and pre-trains a BERT or RoBERTa of any size "
        "by masked language modelling. FOLDER is then a --model of finetune.py and "
        "train_meta.py. Ctrl-C saves; the same command resumes.",
    )
    pretrain.add_argument("folder", type=Path, help="new folder for the model")
    flags.add(pretrain, PretrainConfig)


def _pretrain(args: argparse.Namespace) -> int:
    settings = flags.read(PretrainConfig, args)
    pretrain_config.check(settings)
    from metalr.finetune import display, run_folder
    from metalr.meta import pretrain  # seconds
    from metalr.runtime import compilation

    stop, screen = Stop(), display.create()
    compilation.use_cache()
    with run_folder.held(args.folder):
        try:
            last = pretrain.pretrain(settings, args.folder, screen, stop=stop)
        finally:
            screen.close()
    if last is None:
        print("stopped, saved; the same command resumes")
        return stop.status
    print(f"{args.folder}: guesses {last['accuracy']:.1%} of the hidden words")
    return 0
