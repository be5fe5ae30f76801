"""`metalr compare`: run what a plan says, time it, and write the report."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError
from metalr.runtime.console import print_table
from metalr.runtime.program import Stop


def add(commands: Any) -> None:
    """Add the command to those of the parser."""
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


def compare(args: argparse.Namespace) -> int:
    """Carry out `metalr compare` and return the exit status."""
    from metalr.compare import execute
    from metalr.compare import plan as plans
    from metalr.finetune import run_folder

    plan = _plan(args)
    path = args.output / execute.STORE
    runs = plans.expand(plan)
    if not args.report_only:
        runs, note = plans.resolve_data(runs)
        if note:
            print(note)
        _refuse_what_would_fail_after_hours(args, runs)
        plans.check_places(execute.pending(runs, path))
    if args.dry_run:
        print_table(*execute.forecast(runs, path))
        return 0
    with run_folder.held(args.output):
        if not args.report_only:
            status = _carry_out(args, runs, path, plan.protocol)
            if status:
                return status
        _write_report(args, runs, path)
    return 0


def _plan(args: argparse.Namespace) -> Any:
    """Return the plan with what the flags change; refuse those that do not fit."""
    from metalr.compare import plan as plans

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
    return plan


def _refuse_what_would_fail_after_hours(
    args: argparse.Namespace, runs: Sequence[Any]
) -> None:
    """Refuse a baseline or an executor that there is not, before the runs."""
    from metalr.compare import plan as plans
    from metalr.runtime import executors

    plans.choose_baseline(runs, args.baseline)
    executors.check_kind(args.executor)


def _write_report(args: argparse.Namespace, runs: Sequence[Any], path: Path) -> None:
    """Write up the runs of the plan, or with --report-only what the store holds."""
    from metalr.compare import plan as plans
    from metalr.compare import store
    from metalr.report import report

    keys = {plans.key(config) for config in runs}
    lines = [
        line
        for line in store.read_lines(path)
        if line["kind"] == store.OVERHEAD
        or (_is_named(line, args) if args.report_only else line["key"] in keys)
    ]
    written = report.write_report(
        lines, args.output, baseline=args.baseline, mix_devices=args.mix_devices
    )
    print(written)


def _refuse_flags_of_runs(args: argparse.Namespace) -> None:
    """Refuse what a report of the store alone does not read."""
    if args.dry_run:
        raise MetalrError(
            "--dry-run prints the runs that are to come, and --report-only has none; "
            "give one of them"
        )
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
