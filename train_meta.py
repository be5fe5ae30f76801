"""Learn how a fine-tune answers to its learning rate: traces, fit, check, predictor.

    python train_meta.py                        # cheap problems of many kinds, minutes
    python train_meta.py --data DATA --model minilm:2 minilm:3 minilm:4 minilm:6 \\
        --runs 900 --rounds 2 --output runs/meta             # a day on two cores
    python train_meta.py --data hub --model bert-base-uncased roberta-base \\
        --length 64 128 --batch 32 --horizon 200 400 --runs 900 --rounds 2     # a GPU
    python train_meta.py --traces runs/meta/traces           # fit again, nothing else

OUTPUT/traces/ gets a file a bank: one task, model and seed at several peak rates. Each
round adds what the predictor of the rounds before does on these banks, from random
base rates. OUTPUT/predictor/ is what --predictor of finetune.py reads. Ctrl-C ends at
once; the same command goes on, with nothing lost but the runs in progress.
"""

import signal

if __name__ == "__main__":  # at once: as in `program.end_at_signals`
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

from metalr import cli
from metalr.data.derived import SETS
from metalr.runtime import executors

LEAST = {
    "runs": 0,
    "zoo": 0,
    "rounds": 0,
    "per_bank": 1,
    "workers": 1,
    "side_by_side": 1,
    "batch": 1,
    "length": 8,
    "horizon": 5,
    "seed": 0,
}


def parser() -> cli.Parser:
    """Returns the command line."""
    found = cli.Parser(prog="train_meta.py", description=__doc__)
    add = found.add_argument
    add("--tasks", nargs="+", default=[*SETS], help="of the runs (default: GLUE's)")
    add(
        "--model", nargs="+", default=["minilm:2"], help="one or more, as finetune.py's"
    )
    add("--data", default="auto", help="hub, toy, a folder, or auto (the default)")
    add(
        "--runs",
        type=int,
        help="of encoders, before rounds (default: 630; 0 on toy)",
    )
    add("--zoo", type=int, help="sweeps of cheap problems (default: 30 on toy, or 90)")
    add(
        "--rounds", type=int, default=1, help="of the predictor's own runs (default: 1)"
    )
    add(
        "--per-bank", type=int, default=2, help="runs of a round on a bank (default: 2)"
    )
    add("--batch", type=int, nargs="+", help="batch sizes to draw from")
    add("--length", type=int, nargs="+", help="lengths in tokens to draw from")
    add("--horizon", type=int, nargs="+", help="numbers of steps to draw from")
    add("--budget-minutes", type=float, help="for collecting (default: 5 on toy)")
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
        help="banks at a time (default: one a core, one on a GPU, all that Ray has)",
    )
    add(
        "--side-by-side",
        type=int,
        help="runs of a bank at a time, which need as many times the memory (default: "
        "1 on a CPU, on a GPU all)",
    )
    add("--traces", type=Path, help="fit to the files in this folder, collect nothing")
    add(
        "--without",
        nargs="+",
        default=[],
        metavar="NAME",
        help="tasks, and sizes as 6x384 (layers by width), that are not fitted to",
    )
    add("--skip-broken", action="store_true", help="leave out files that are refused")
    add("--output", type=Path, default=Path("runs/meta"), help="default: runs/meta")
    add("--seed", type=int, default=0, help="of the banks and of the fit")
    return found


def main() -> int:
    """Carries out the whole path and returns the exit status."""
    command = parser()
    args = command.parse_args()
    for name, low in LEAST.items():
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < low:
                command.error(f"--{name.replace('_', '-')} must be at least {low}")
    if args.budget_minutes is not None and not args.budget_minutes > 0:
        command.error("--budget-minutes must be above 0")

    # After the flags are known to be good: these take seconds to import.
    from metalr.finetune import run_folder
    from metalr.meta import fit, traces, train
    from metalr.runtime import compilation

    compilation.use_cache()
    settings = fit.Settings(seed=args.seed)
    with run_folder.held(args.output):
        if args.traces is None and (status := collect(args, settings)):
            return status
        folder = args.traces or args.output / "traces"
        made = train.make(
            traces.paths_in(folder),
            settings,
            without=args.without,
            skip=print if args.skip_broken else None,
            tell=print,
        )
        train.save(args.output / "predictor", made)
    print(train.show(made))
    print(f"{args.output / 'predictor'}: use it with finetune.py --predictor")
    return 0


def collect(args: argparse.Namespace, settings: Any) -> int:
    """Collects what the flags ask for; returns the exit status of a signal, or 0."""
    from metalr.data import loading
    from metalr.meta import banks, rounds
    from metalr.meta.zoo import collect as cheap
    from metalr.meta.zoo.problems import KINDS

    data, note = loading.settle(args.tasks, args.data)
    print(note or f"data: {data}")
    ranges: dict[str, Any] = banks.SMALL if data == "toy" else {}
    given = {
        "batches": args.batch,
        "lengths": args.length,
        "horizons": args.horizon,
    }
    ranges = ranges | {k: tuple(v) for k, v in given.items() if v}
    sources = banks.Sources(tuple(args.tasks), tuple(args.model), data, **ranges)
    # Generated rows say little about rates; the zoo says much in the same minutes.
    runs = (0 if data == "toy" else 630) if args.runs is None else args.runs
    zoo = (30 if data == "toy" else 90) if args.zoo is None else args.zoo
    count = math.ceil(runs / (sources.peaks + sources.walks))
    seconds = 60 * (args.budget_minutes or (5 if data == "toy" else math.inf))
    begun, stop = time.monotonic(), cli.Stop()
    print(f"zoo: {zoo} sweeps of cheap problems of {len(KINDS)} kinds")
    whole = cheap.collect(zoo, args.output, seed=args.seed, stop=stop, seconds=seconds)
    if count and not stop():
        whole &= rounds.gather(
            [banks.draw(index, sources, args.seed) for index in range(count)],
            args.output,
            rounds=args.rounds,
            per_bank=args.per_bank,
            seconds=seconds - (time.monotonic() - begun),
            executor=args.executor,
            workers=args.workers,
            together=args.side_by_side,
            stop=stop,
            tell=print,
            settings=settings,
        )
    if stop():
        print("stopped; the same command goes on")
        return stop.status
    cli.end_at_signals()
    print("collected" if whole else "the time is up; the same command goes on")
    return 0


if __name__ == "__main__":
    cli.hush_libraries()
    sys.exit(cli.guarded(main))
