"""Fine-tune BERT or RoBERTa on a task, and report.

    python finetune.py                             # sst2, MiniLM, minutes on a CPU
    python finetune.py --task squad --model bert-base-uncased
    python finetune.py --train-file mine.csv --text-column review --label-column stars

A run makes one folder: settings.json, rows.json (what it learns from), checkpoints/,
and at its end result.json, curves.png and model/ (which transformers loads). Ctrl-C
finishes the step and saves; the same command continues from there, to the same numbers
as without the break.
"""

import signal

if __name__ == "__main__":  # at once: as in `program.end_at_signals`
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import dataclasses
import sys
from pathlib import Path

from metalr import cli
from metalr.finetune.config import add_flags, from_flags


def main() -> int:
    """Carry out one run and return the exit status."""
    args = command_line().parse_args()
    config = from_flags(args)
    folder = Path(config.output or Path("runs") / config.name)
    config = dataclasses.replace(config, output=str(folder))

    # After the flags are known to be valid: these take seconds to import.
    from metalr.finetune import display, run_folder
    from metalr.finetune.run import run
    from metalr.report import model_card
    from metalr.report.curves import draw_curves
    from metalr.runtime import compilation, files, hosts, hub_upload, progress

    hosts.join(args.coordinator, args.processes, args.process_id)
    quiet = args.quiet or not hosts.is_first()
    stop = cli.Stop()
    repository = None
    if args.push_to_hub and hosts.is_first():
        repository = hub_upload.check(args.push_to_hub)  # before hours of training
    compilation.use_cache()
    progress.visible(not quiet)
    how = {"resume": args.resume, "overwrite": args.overwrite}
    with run_folder.opened(folder, config, **how) as place:
        result = place.finished()
        if result is None:
            screen = display.create(quiet, place.events if config.tensorboard else None)
            with contextlib.closing(screen):
                # Data, model, optimizer, training, export.
                result = run(
                    config, screen, folder=folder, overwrite=args.overwrite, stop=stop
                )
            if result["stopped"] == "asked":
                if hosts.is_first():
                    print(f"stopped at step {result['steps']}, saved; {cli.goes_on()}")
                return stop.status or 128 + signal.SIGTERM  # another process heard it
            if hosts.is_first():
                draw_curves(result, place.curves)
                model_card.write(result, folder / "model", place.curves)
                files.write_json(place.result, result)  # last: the run is now finished
        elif not quiet:
            print(f"{folder} holds the finished run; --overwrite runs it again")
    if hosts.is_first():
        display.summary(result, place.outputs, quiet=quiet)
    if repository:
        print(hub_upload.push(folder / "model", repository, private=args.private))
    return 0


def command_line() -> cli.Parser:
    """Return the parser of the flags."""
    parser = cli.Parser(prog="finetune.py", description=__doc__)
    add_flags(parser)
    add = parser.add_argument_group("this call").add_argument
    add("--resume", action="store_true", help="fail if there is no run to continue")
    add("--overwrite", action="store_true", help="begin again and delete what is there")
    add("--quiet", action="store_true", help="print only the result")
    add("--push-to-hub", metavar="NAME", help="upload the model to OWNER/NAME")
    add("--private", action="store_true", help="hide the new repository from others")
    several = "not needed where SLURM or a TPU sets them"
    add = parser.add_argument_group("several processes", several).add_argument
    add("--coordinator", help="HOST:PORT of the first process")
    add("--processes", type=int, help="how many there are")
    add("--process-id", type=int, help="which one this is, from 0")
    return parser


if __name__ == "__main__":
    cli.hush_libraries()
    sys.exit(cli.guarded(main))
