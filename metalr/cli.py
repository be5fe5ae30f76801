"""The `metalr` command, and what the scripts share with it."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalr import find_command
from metalr.errors import MetalrError
from metalr.meta import pretrain_config
from metalr.meta.pretrain_config import PretrainConfig
from metalr.predict import command as predict_command
from metalr.runtime import flags
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
    _add_compare(commands)
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
        "compare": _compare,
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
    _table(("task", "kind", "scores", "length", "on the hub"), rows)
    return 0


def _schedulers(args: argparse.Namespace) -> int:
    del args
    from metalr.finetune.schedulers import SCHEDULERS

    rows = [(name, s.summary, s.source) for name, s in SCHEDULERS.items()]
    _table(("scheduler", "rate", "source"), rows)
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


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="run schedulers x tasks x models x seeds, and report",
        description="Runs a plan and writes OUTPUT/report.md and report.html. Each run "
        "is a line of OUTPUT/runs.jsonl as soon as it ends. After a break the same "
        "command resumes. Stores of several machines can be concatenated.",
    )
    add = compare.add_argument
    add(
        "--plan",
        default="small",
        help="small, fresh, kinds, targets, long, deep, full, or a TOML or JSON file",
    )
    add("--tasks", nargs="+", help="of the plan's or others (default: the plan's)")
    add("--models", nargs="+", help="default: the plan's")
    add("--schedulers", nargs="+", help="these alone, and none tuned")
    add("--tuned", nargs="+", help="schedulers to run at each of the rates")
    add("--rates", nargs="+", type=float, help="to tune over (default: the plan's)")
    add("--seeds", type=int, help="number of seeds (default: the plan's)")
    add("--steps", type=int, help="steps of every run (default: the plan's)")
    add("--data", help="hub, toy, a folder, or auto (the default)")
    add("--predictor", help="folder of a learned predictor (default: metalr's own)")
    add("--output", type=Path, default=Path("runs/compare"), help="a folder")
    add("--baseline", help="row that others are held against (default: linear tuned)")
    add("--workers", type=int, help="processes (default: one a core, one on a GPU)")
    add("--executor", default="processes", help="processes (the default) or ray")
    add("--pairs", type=int, default=30, help="steps to time each; 0: none")
    add(
        "--mix-devices",
        action="store_true",
        help="pair runs of several kinds of device, which is else refused",
    )
    add("--dry-run", action="store_true", help="print the runs and their time")
    add(
        "--report-only",
        action="store_true",
        help="write up what the store holds: all, or of --tasks and --models",
    )


def _compare(args: argparse.Namespace) -> int:
    from metalr.compare import execute, store
    from metalr.compare import plan as plans
    from metalr.runtime import executors

    for name, least in (("pairs", 0), ("workers", 1)):
        if (given := getattr(args, name)) is not None and given < least:
            raise MetalrError(f"--{name} must be at least {least}, got {given}")
    if args.report_only:
        _refuse_flags_of_runs(args)
    plan = plans.override(
        plans.read_plan(args.plan),
        tasks=args.tasks,
        models=args.models,
        schedulers=args.schedulers,
        tuned=args.tuned,
        rates=args.rates,
        seeds=args.seeds,
        steps=args.steps,
        data=args.data,
        predictor=args.predictor,
    )
    if args.rates and not plan.tuned:
        raise MetalrError(
            "--rates are those that --tuned schedulers run at, and none is tuned: "
            "name one, as --tuned linear"
        )
    path = args.output / execute.STORE
    runs = plans.expand(plan)
    if not args.report_only:
        runs, note = plans.resolve_data(runs)
        if note:
            print(note)
    if not args.report_only:  # what is wrong is refused before hours of runs
        plans.choose_baseline(runs, args.baseline)
        executors.check_kind(args.executor)
    if args.dry_run:
        _table(*execute.forecast(runs, path))
        return 0
    from metalr.finetune import run_folder
    from metalr.report import report

    with run_folder.held(args.output):
        if not args.report_only:
            status = _carry_out(args, runs, path, plan.protocol)
            if status:
                return status
        keys = {plans.key(config) for config in runs}
        lines = [
            line
            for line in store.read_lines(path)
            if line["kind"] == store.OVERHEAD
            or (_is_named(line, args) if args.report_only else line["key"] in keys)
        ]
        written = report.write_report(
            lines,
            args.output,
            baseline=args.baseline,
            mix_devices=args.mix_devices,
        )
        print(written)
    return 0


def _refuse_flags_of_runs(args: argparse.Namespace) -> None:
    """Refuse what a report of the store alone does not read."""
    of_runs = ("schedulers", "tuned", "rates", "seeds", "steps", "data", "predictor")
    given = [n for n in (*of_runs, "workers") if getattr(args, n) is not None]
    if given:
        raise MetalrError(
            "--report-only writes up what the store holds, all or of --tasks and "
            f"--models, and does not read {', '.join('--' + n for n in given)}; leave "
            "that out"
        )


def _is_named(line: Mapping[str, Any], args: argparse.Namespace) -> bool:
    """Tell whether --tasks and --models, where given, name a run."""
    given = ((line["task"], args.tasks), (line["model"], args.models))
    return all(names is None or name in names for name, names in given)


def _carry_out(
    args: argparse.Namespace, runs: Sequence[Any], path: Path, protocol: int | None
) -> int:
    """Execute and time what the store lacks; return the status of a signal, or 0."""
    from metalr.compare import execute
    from metalr.runtime import progress

    stop, todo = Stop(), execute.pending(runs, path)
    if todo:
        print(f"{len(runs)} runs, {len(runs) - len(todo)} of them done, in {path}")
        with progress.counting(len(todo)) as log:
            execute.execute(
                todo,
                path,
                workers=args.workers,
                executor=args.executor,
                stop=stop,
                on_line=lambda line: log(execute.describe(line)),
                protocol=protocol,
            )
    if args.pairs and not stop():
        _measure_overhead(runs, path, args.pairs, stop)
    if stop():
        print("stopped; the same command resumes")
    return stop.status


def _measure_overhead(runs: Sequence[Any], path: Path, pairs: int, stop: Stop) -> None:
    """Time what the store lacks; after the runs, when nothing else is going on."""
    from metalr.compare import overhead, store
    from metalr.runtime import compilation, progress

    done = {line["key"] for line in store.read_lines(path)}
    todo = {key: c for c in runs if (key := overhead.key(c)) not in done}
    if not todo:
        return
    compilation.use_cache()
    with progress.counting(len(todo)) as log:
        for line in overhead.measure(list(todo.values()), pairs=pairs):
            store.append(path, line)
            ratio = sorted(line["step_ratio"])[len(line["step_ratio"]) // 2]
            log(f"{line['scheduler']}: a step takes {ratio:.3f} of AdamW's")
            if stop():
                return


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


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width of its own; rows must not be cut there.
    console = Console()
    Console(width=None if console.is_terminal else 120).print(table)
