"""What every program of metalr does: flags, signals, silence, one line for a fault."""

import argparse
import contextlib
import difflib
import errno
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from metalr.errors import EXIT_FAULT, MetalrError, unknown_name
from metalr.runtime import hub, progress

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, a limit


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions, and flags and words in two columns."""

    def __init__(self, prog: str, **how: Any):
        super().__init__(prog, **{"max_help_position": 30, **how})


_UNKNOWN = "unrecognized arguments: "  # as argparse begins its error


class Parser(argparse.ArgumentParser):
    """An argparse parser that names the nearest flags or values for an unknown one."""

    def __init__(self, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", _Help)
        super().__init__(**kwargs)

    def parse_known_args(self, *given: Any, **named: Any) -> Any:
        """Refuse an unknown flag here: a command knows its flags, and `metalr` none."""
        found, unknown = super().parse_known_args(*given, **named)
        if unknown:
            self.error(f"{_UNKNOWN}{' '.join(unknown)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or "command"
            fault = unknown_name(name, value, map(str, action.choices))
            raise argparse.ArgumentError(None, str(fault))

    def error(self, message: str):
        """Print one line, with the nearest flags if one is unknown, and exit."""
        if message.startswith(_UNKNOWN):
            given = message.removeprefix(_UNKNOWN).split()[0].partition("=")[0]
            near = difflib.get_close_matches(given, self._option_string_actions)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            what = "unknown flag" if given.startswith("-") else "unexpected word"
            message = f"{what} {given}{hint} (--help lists them)"
        self.exit(EXIT_FAULT, f"{self.prog}: error: {message}\n")


def end_at_signals() -> None:
    """Let the system end this program at SIGINT and SIGTERM.

    Python's own way, an exception in the main thread, waits for the library that is
    running, prints a traceback if it comes during an import, and may crash in threads
    of libraries at the end.
    """
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_DFL)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Ended(BaseException):
    """A signal came; no `except Exception` on the way may take it for a fault."""


@contextlib.contextmanager
def unwound_at_signals() -> Iterator[None]:
    """Let a signal unwind the block, so that its drafts go, and then end the program.

    A second one ends it at once. Where signals do not end the process as it is, as in
    a process of somebody else, nothing changes.
    """
    if any(signal.getsignal(signum) is not signal.SIG_DFL for signum in _SIGNALS):
        yield
        return

    def unwind(signum: int, frame: FrameType | None) -> None:
        del frame
        end_at_signals()
        raise _Ended(signum)

    try:
        for signum in _SIGNALS:
            signal.signal(signum, unwind)
        yield
    except _Ended as ended:
        os.kill(os.getpid(), ended.args[0])
    finally:
        end_at_signals()


class Stop:
    """Turns SIGINT and SIGTERM into a request to stop after the step in progress.

    A second signal ends the program at once. So does the first one until the object is
    called for the first time: nothing reads a request while rows load or a step
    compiles.
    """

    def __init__(self):
        self.signum: int | None = None
        self._heeded = False
        end_at_signals()

    def _asked(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum

    def __call__(self) -> bool:
        """Return whether a signal came; from now on, signals are requests."""
        if not self._heeded:
            self._heeded = True
            for signum in _SIGNALS:
                signal.signal(signum, self._asked)
        return self.signum is not None

    def release(self) -> None:
        """Let a signal end the program at once again, until the object is called."""
        self._heeded = False
        end_at_signals()
        if self.signum is not None:  # it came after the last call
            os.kill(os.getpid(), self.signum)

    @property
    def status(self) -> int:
        """The exit status that shells expect: 128 and the signal's number."""
        return 0 if self.signum is None else 128 + self.signum


def stopped(stop: Callable[[], bool]) -> bool:
    """Return whether a signal came; until `stop` is called again, one ends at once.

    Before work that asks no more for a while, and from which nothing is lost.
    """
    if stop():
        return True
    if isinstance(stop, Stop):
        stop.release()
    return False


def hush_libraries() -> None:
    """Silence warnings and progress bars of other libraries.

    Call it before they are imported: they read the environment then.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's own log lines
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "critical")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore")
    for name in ("absl", "jax", "orbax", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # A save that fails is raised by orbax, once; its other writes fail as well, and
    # tell asyncio, or a loop that is closed by then.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    tell = sys.unraisablehook

    def unless_late(fault: Any) -> None:
        if "Event loop is closed" not in str(fault.exc_value):
            tell(fault)

    sys.unraisablehook = unless_late


_torch_left_out = False


def leave_out_torch() -> None:
    """Keep transformers from importing PyTorch: seconds, and nothing here uses it.

    For programs alone; in a process of somebody else PyTorch may be wanted.
    """
    global _torch_left_out
    _torch_left_out = True


def import_transformers() -> Any:
    """Import transformers, in a program as if PyTorch were not installed.

    It asks once whether it is. To hide PyTorch for longer would break others: SciPy
    takes whatever stands in `sys.modules` for a module.
    """
    hidden = _torch_left_out and "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        import transformers
        from transformers.utils import import_utils

        if hidden:
            import_utils.is_torch_available()  # which remembers the answer
        return transformers
    finally:
        if hidden:
            del sys.modules["torch"]


def how_to_resume() -> str:
    """Say which command continues with what this one has saved."""
    anew = "--overwrite"
    without = f" without {anew}" if anew in sys.argv else ""
    return f"the same command{without} resumes"


def guarded(main: Callable[[], int]) -> int:
    """Run `main`; print a `MetalrError` as one line and return its status."""
    status = _status_of(main)
    if hub.left_behind():  # by a call whose threads would hold up the exit
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    return status


def _status_of(main: Callable[[], int]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal may lack a character, and a file name be no text.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return main()
    except MetalrError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return EXIT_FAULT
    except BrokenPipeError:  # `metalr tasks | head`
        progress.silence(sys.stdout)
        return 128 + signal.SIGPIPE  # as of a program that the signal ends
    except OSError as fault:
        full = fault.errno in _FULL
        if not full and fault.filename is None:
            raise
        where = fault.filename or "a file"
        way = f"; make room on the disk, and {how_to_resume()}" if full else ""
        verb = "write" if full else "use"
        said = MetalrError(f"cannot {verb} {where}: {fault.strerror or fault}{way}")
        print(f"error: {said}", file=sys.stderr)
        return EXIT_FAULT
    except MemoryError as fault:
        said = MetalrError(f"there is not enough memory ({fault}); take less at a time")
        print(f"error: {said}", file=sys.stderr)
        return EXIT_FAULT
    except KeyboardInterrupt:  # before the loop listens for it
        return 128 + signal.SIGINT
