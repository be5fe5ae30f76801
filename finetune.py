"""Fine-tune BERT or RoBERTa on a task, and report.

    python finetune.py                             # sst2, MiniLM, minutes on a CPU
    python finetune.py --task squad --model bert-base-uncased
    python finetune.py --train-file mine.csv --text-column review --label-column stars

A run makes one folder: settings.json, rows.json (what it learns from), checkpoints/,
and at its end result.json, curves.png and model/ (which transformers loads). Ctrl-C
finishes the step and saves; the same command goes on from there, to the same numbers
as without the break.
"""

import signal

if __name__ == "__main__":  # at once: as in `cli.end_at_signals`
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path

from metalr import cli
from metalr.finetune.config import RunConfig, add_flags, from_flags


def main() -> int:
    """Carries out one run and returns the exit status."""
    parser = cli.Parser(prog="finetune.py", description=__doc__)
    add_flags(parser)
    group = parser.add_argument_group("this call")
    group.add_argument("--resume", action="store_true", help="insist on going on")
    group.add_argument("--overwrite", action="store_true", help="begin anew")
    group.add_argument("--quiet", action="store_true", help="print the result alone")
    group = parser.add_argument_group(
        "several processes", "not needed where SLURM or a TPU says it"
    )
    group.add_argument("--coordinator", help="HOST:PORT of the first process")
    group.add_argument("--processes", type=int, help="how many there are")
    group.add_argument("--process-id", type=int, help="which one this is, from 0")
    args = parser.parse_args()
    config = from_flags(args)
    folder = Path(config.output or Path("runs") / config.name)
    config = dataclasses.replace(config, output=str(folder))

    # After the flags are known to be good: these take seconds to import.
    from metalr.finetune import display, recipe, run_folder
    from metalr.finetune.result import read_result
    from metalr.runtime import hosts

    hosts.join(args.coordinator, args.processes, args.process_id)
    quiet = args.quiet or not hosts.is_first()
    stop = cli.Stop()
    recipe.keep_compilations()
    run_folder.check(folder, config, resume=args.resume, overwrite=args.overwrite)
    made = [folder / name for name in (run_folder.RESULT, "curves.png", "model")]
    if made[0].is_file() and not args.overwrite:
        if not quiet:
            print(f"{folder} holds the finished run; --overwrite runs it again")
        if hosts.is_first():
            display.summary(read_result(made[0]), made, quiet=quiet)
        return 0

    held = run_folder.held(folder) if hosts.is_first() else contextlib.nullcontext()
    with hosts.together(), held:
        # Once more: another run may have been there in the meantime.
        run_folder.check(folder, config, resume=args.resume, overwrite=args.overwrite)
        return carry_out(config, args, stop, folder, made)


def carry_out(
    config: RunConfig,
    args: argparse.Namespace,
    stop: cli.Stop,
    folder: Path,
    made: list[Path],
) -> int:
    """Carries out the run in a folder that is held, and returns the exit status."""
    from metalr.finetune import display, recipe
    from metalr.report import curves
    from metalr.runtime import files, hosts

    quiet = args.quiet or not hosts.is_first()
    events = config.tensorboard and hosts.is_first()
    screen = display.make(
        quiet=quiet, tensorboard=folder / "events" if events else None
    )
    try:
        result = recipe.run(
            config, screen, folder=folder, overwrite=args.overwrite, stop=stop
        )
    finally:
        screen.close()
    if result["stopped"] == "asked":
        if hosts.is_first():
            print(f"stopped at step {result['steps']}, saved; {cli.goes_on()}")
        return stop.status or 128 + signal.SIGTERM  # another process heard it
    if not hosts.is_first():
        return 0
    curves.draw_curves(result, made[1])
    files.write_json(made[0], result)  # last: with it the run counts as finished
    display.summary(result, made, quiet=quiet)
    return 0


if __name__ == "__main__":
    cli.hush_libraries()
    sys.exit(cli.guarded(main))
