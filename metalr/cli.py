"""The command line: what the scripts share, and the `metalr` command."""

import argparse
import difflib
import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from metalr.errors import MetalrError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, a limit
EXIT_FAULT = 2  # what the user gave does not work, as of argparse itself


class Parser(argparse.ArgumentParser):
    """An argparse parser that answers an unknown flag with the nearest ones."""

    def __init__(self, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**kwargs)

    def error(self, message: str):
        """Prints one line, with the nearest flags where one is unknown, and exits."""
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            given = message.removeprefix(prefix).split()[0].partition("=")[0]
            near = difflib.get_close_matches(given, self._option_string_actions)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            message = f"unknown flag {given}{hint} (--help lists them)"
        self.exit(EXIT_FAULT, f"{self.prog}: error: {message}\n")


class Stop:
    """Turns SIGINT and SIGTERM into a wish to stop after the step in progress.

    A second signal ends the program at once.
    """

    def __init__(self):
        self.signum: int | None = None
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._asked)

    def _asked(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum

    def __call__(self) -> bool:
        """Returns whether a signal came."""
        return self.signum is not None

    @property
    def status(self) -> int:
        """The exit status that shells expect: 128 and the signal's number."""
        return 0 if self.signum is None else 128 + self.signum


def hush_libraries() -> None:
    """Keeps warnings and progress bars of other libraries from the user's screen.

    Call it before they are imported: they read the environment then.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's own log lines
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore")
    for name in ("absl", "jax", "orbax", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)


def guarded(main: Callable[[], int]) -> int:
    """Runs `main`; prints a `MetalrError` as one line and returns its status."""
    try:
        return main()
    except MetalrError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return EXIT_FAULT
    except BrokenPipeError:  # `metalr tasks | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as fault:
        if fault.errno not in _FULL:
            raise
        where = fault.filename or "a file"
        print(
            f"error: cannot write {where}: {fault.strerror}; make room on the disk, "
            "and the same command goes on",
            file=sys.stderr,
        )
        return EXIT_FAULT
    except KeyboardInterrupt:  # before the loop listens for it
        return 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out the `metalr` command and returns its exit status."""
    hush_libraries()
    parser = Parser(prog="metalr", description="Learned learning rates for fine-tuning")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    commands.add_parser("tasks", help="the tasks that finetune.py knows")
    commands.add_parser("schedulers", help="the ways to set the rate")
    export = commands.add_parser(
        "export",
        help="write a run's best model for transformers, under another name",
        description="Copies the model of a finished run (config.json, "
        "model.safetensors, tokenizer), which AutoModel.from_pretrained loads.",
    )
    export.add_argument("run", help="folder of a run of finetune.py")
    export.add_argument("folder", help="new folder for the model")
    args = parser.parse_args(argv)
    command = {"tasks": _tasks, "schedulers": _schedulers, "export": _export}
    return guarded(lambda: command[args.command](args))


def _tasks(args: argparse.Namespace) -> int:
    del args
    from metalr.data.tasks import TASKS

    rows = [
        (t.name, t.kind, ", ".join(t.metrics), str(t.max_length), t.hub[0])
        for t in TASKS.values()
    ]
    _table(("task", "kind", "scores", "length", "on the hub"), rows)
    return 0


def _schedulers(args: argparse.Namespace) -> int:
    del args
    from metalr.schedulers import SCHEDULERS

    rows = [(name, s.summary, s.source) for name, s in SCHEDULERS.items()]
    _table(("scheduler", "rate", "source"), rows)
    return 0


def _export(args: argparse.Namespace) -> int:
    import shutil

    source, target = Path(args.run) / "model", Path(args.folder)
    if not (source / "config.json").is_file():
        raise MetalrError(
            f"{args.run} holds no finished run: {source}/config.json is missing; "
            "finish it with finetune.py --resume"
        )
    if target.exists():
        raise MetalrError(f"{target} exists; name a new folder")
    shutil.copytree(source, target)
    print(f"{target}: load it with transformers' AutoModel classes")
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
