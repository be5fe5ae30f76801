"""Fine-tune BERT or RoBERTa on a task, and report.

    python finetune.py                             # sst2, MiniLM, an hour on a CPU
    python finetune.py --max-steps 200             # the same, minutes
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

import sys

from metalr import cli
from metalr.finetune import settings
from metalr.finetune.config import add_flags
from metalr.finetune.config_rules import from_flags

USAGE = "finetune.py [--task NAME | --train-file FILE] [--model NAME] [FLAG ...]"


def main() -> int:
    """Carry out one run and return the exit status."""
    args = settings.from_command_line(command_line())
    config = from_flags(args)
    if args.print_config:
        print(settings.to_toml(config), end="")
        return 0

    # After the flags are known to be valid: these take seconds to import.
    from metalr.fine_tuning import fine_tune
    from metalr.runtime import compilation, hosts

    hosts.join(args.coordinator, args.processes, args.process_id)
    stop = cli.Stop()
    compilation.use_cache()
    found = fine_tune(
        config,
        resume=args.resume,
        overwrite=args.overwrite,
        quiet=args.quiet,
        push_to_hub=args.push_to_hub,
        private=args.private,
        stop=stop,
    )
    if found.interrupted:
        if hosts.is_first():
            steps = found.result["steps"]
            print(f"stopped at step {steps}, saved; {cli.how_to_resume()}")
        return stop.status or 128 + signal.SIGTERM  # another process heard it
    return 0


def command_line() -> cli.Parser:
    """Return the parser of the flags."""
    parser = cli.Parser(prog="finetune.py", description=__doc__, usage=USAGE)
    add_flags(parser)
    add = parser.add_argument_group("this call").add_argument
    add("--config", metavar="FILE", help="TOML file of settings; flags go before it")
    add("--print-config", action="store_true", help="print that file, and do nothing")
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
    cli.leave_out_torch()
    sys.exit(cli.guarded(main))
