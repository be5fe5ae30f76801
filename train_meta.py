"""Learn to set the learning rate from traces of many runs: collect, fit, check.

    python train_meta.py --data toy             # cheap problems of many kinds, minutes
    python train_meta.py --data DATA --model minilm:2 minilm:3 minilm:4 minilm:6 \\
        --runs 900 --rounds 2 --output runs/meta             # a day on two cores
    python train_meta.py --data hub --model bert-base-uncased roberta-base \\
        --length 64 128 --batch 32 --horizon 200 400 --runs 900 --rounds 2     # a GPU
    python train_meta.py --traces runs/meta/traces           # fit again, nothing else

OUTPUT/traces/ gets a file a sweep: one task, model and seed at several peak rates. Each
round adds runs under the predictor of the earlier rounds, from random base rates.
OUTPUT/predictor/ is for --predictor of finetune.py. Ctrl-C stops as soon as what is
compiling has compiled, twice at once; the same command resumes, and only the runs in
progress are repeated.
"""

import signal

if __name__ == "__main__":  # at once: as in `program.end_at_signals`
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from metalr import cli
from metalr.data.derived import SETS
from metalr.runtime import executors

LEAST = {
    "runs": 0,
    "zoo": 0,
    "rounds": 0,
    "runs_per_sweep": 1,
    "workers": 1,
    "side_by_side": 1,
    "batch": 1,
    "length": 8,
    "horizon": 5,
    "seed": 0,
}
OF_RUNS = (  # without a value unless given; --traces collects no run
    "runs",
    "zoo",
    "batch",
    "length",
    "horizon",
    "budget_minutes",
    "workers",
    "side_by_side",
)


def parser() -> cli.Parser:
    """Return the command line."""
    found = cli.Parser(prog="train_meta.py", description=__doc__)
    add = found.add_argument
    add("--tasks", nargs="+", default=[*SETS], help="source tasks (default: GLUE's)")
    add(
        "--model", nargs="+", default=["minilm:2"], help="one or more, as finetune.py's"
    )
    add("--data", default="auto", help="hub, toy, a folder, or auto (the default)")
    add(
        "--runs",
        type=int,
        help="runs of encoders, before the rounds (default: 630; 0 on toy)",
    )
    add("--zoo", type=int, help="sweeps of cheap problems (default: 30 on toy, or 90)")
    add(
        "--rounds",
        type=int,
        default=1,
        help="rounds of runs under the predictor (default: 1)",
    )
    add("--runs-per-sweep", type=int, default=2, help="of a round (default: 2)")
    add("--batch", type=int, nargs="+", help="batch sizes to draw from")
    add("--length", type=int, nargs="+", help="lengths in tokens to draw from")
    add("--horizon", type=int, nargs="+", help="numbers of steps to draw from")
    add("--budget-minutes", type=float, help="time to collect (default: 5 on toy)")
    add(
        "--executor",
        choices=executors.KINDS,
        default="processes",
        help="processes of this machine (the default), or ray: the cluster at "
        "RAY_ADDRESS, or else one of this machine",
    )
    add(
        "--workers",
        type=int,
        help="sweeps at a time (default: one a core, one on a GPU, all that Ray fits)",
    )
    add(
        "--side-by-side",
        type=int,
        help="runs of a sweep at a time, which need as many times the memory (default: "
        "1 on a CPU, on a GPU all)",
    )
    add(
        "--thin",
        type=Path,
        metavar="FOLDER",
        help="write the traces there too, a sample of the steps of each run of the "
        "zoo, and fit to these: for shipping",
    )
    add("--traces", type=Path, help="fit to the files in this folder, collect nothing")
    add(
        "--without",
        nargs="+",
        default=[],
        metavar="NAME",
        help="tasks, kinds of the zoo, and sizes as 6x384 (layers by width), to leave "
        "out of the fit",
    )
    add(
        "--no-check",
        action="store_true",
        help="do not run the predictor on a problem that is in no trace",
    )
    add(
        "--skip-broken",
        action="store_true",
        help="leave out trace files that are refused",
    )
    add("--output", type=Path, default=Path("runs/meta"), help="default: runs/meta")
    add("--seed", type=int, default=0, help="of the sweeps and of the fit")
    return found


def main() -> int:
    """Collect, fit, check and save; return the exit status."""
    command = parser()
    args = command.parse_args()
    for name, low in LEAST.items():
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < low:
                flag = f"--{name.replace('_', '-')}"
                command.error(f"{flag} must be at least {low}, got {value}")
    if args.budget_minutes is not None and not args.budget_minutes > 0:
        command.error(f"--budget-minutes must be above 0, got {args.budget_minutes}")

    unread = [name for name in OF_RUNS if getattr(args, name) is not None]
    if args.traces is not None and unread:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unread)
        command.error(f"--traces collects nothing and does not read {flags}")

    # After the flags are known to be good: these take seconds to import.
    from metalr.finetune import run_folder
    from metalr.meta import fit, trace_files, train
    from metalr.runtime import compilation

    compilation.use_cache()
    settings = fit.Settings(seed=args.seed)
    with run_folder.held(args.output):
        if args.traces is None and (status := collect(args, settings)):
            return status
        folder = args.traces or args.output / "traces"
        if args.thin is not None:
            trace_files.thin_folder(folder, args.thin)
            folder = args.thin
        fitted = train.fit_predictor(
            trace_files.paths_in(folder),
            settings,
            without=args.without,
            skip=print if args.skip_broken else None,
            log=print,
        )
        train.save(args.output / "predictor", fitted)
    print(train.check_table(fitted))
    if not args.no_check:
        check_in_the_loop(args, fitted.predictor)
    print(f"{args.output / 'predictor'}: use it with finetune.py --predictor")
    return 0


def check_in_the_loop(args: argparse.Namespace, predictor: Any) -> None:
    """Run the predictor and the shipped one on a problem of no trace, and draw it."""
    from metalr.meta.zoo import check
    from metalr.report import learned
    from metalr.stored_predictor import load_predictor

    rows = {"metalr, this predictor": predictor, "metalr, shipped": load_predictor()}
    found = check.check(check.left_out(args.seed), rows)
    print(check.table(found))
    learned.draw_check(found, args.output / "check.png")
    print(f"{args.output / 'check.png'}: the same as a picture")


def collect(args: argparse.Namespace, settings: Any) -> int:
    """Collect what the flags ask for; return the exit status of a signal, or 0."""
    from metalr.data import loading
    from metalr.meta import rounds, sweeps

    data, note = loading.resolve(args.tasks, args.data)
    print(note or f"data: {data}")
    ranges: dict[str, Any] = sweeps.SMALL if data == "toy" else {}
    given = {
        "batches": args.batch,
        "lengths": args.length,
        "horizons": args.horizon,
    }
    ranges = ranges | {k: tuple(v) for k, v in given.items() if v}
    sources = sweeps.Sources(tuple(args.tasks), tuple(args.model), data, **ranges)
    # The zoo teaches more about rates than generated rows do in the same minutes.
    runs = (0 if data == "toy" else 630) if args.runs is None else args.runs
    zoo = (30 if data == "toy" else 90) if args.zoo is None else args.zoo
    seconds = 60 * (args.budget_minutes or (5 if data == "toy" else math.inf))
    stop = cli.Stop()
    whole = rounds.gather(
        sweeps.draw_runs(runs, sources, args.seed),
        args.output,
        rounds=args.rounds,
        zoo=zoo,
        seed=args.seed,
        runs_per_sweep=args.runs_per_sweep,
        seconds=seconds,
        executor=args.executor,
        workers=args.workers,
        together=args.side_by_side,
        stop=stop,
        log=print,
        settings=settings,
        skip=print if args.skip_broken else None,
    )
    if stop():
        print("stopped; the same command resumes")
        return stop.status
    cli.end_at_signals()
    print("collected" if whole else "the time is up; the same command resumes")
    return 0


if __name__ == "__main__":
    cli.hush_libraries()
    sys.exit(cli.guarded(main))
