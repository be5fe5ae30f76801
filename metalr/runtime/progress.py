"""Progress of work that is counted in runs or in rows."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO

_PLAIN_SECONDS = 30.0  # between lines of progress where there is no terminal
_PATIENCE = 3.0  # seconds before the first word of what may be done at once


@contextlib.contextmanager
def counting(total: int) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with a line for each run that ended.

    On a terminal there is a bar with runs per minute and time left under the lines;
    elsewhere a line is printed now and then, and the last one.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(highlight=False)
    begun, done, shown = time.monotonic(), 0, 0.0
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs  {task.description}"),
    )
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=total)

    def log(line: str) -> None:
        nonlocal done, shown
        done += 1
        now = time.monotonic()
        pace = _pace(done, total, now - begun)
        bar.update(task, completed=done, description=pace)
        if console.is_terminal:
            bar.console.print(line, markup=False)
        elif now - shown > _PLAIN_SECONDS or done == total:
            shown = now
            say(f"{done}/{total} runs  {pace}  {line}")

    with bar if console.is_terminal else contextlib.nullcontext():
        yield log


def say(line: str, file: IO[str] | None = None) -> None:
    """Print a line; if nobody reads the output any more, continue in silence."""
    stream = file or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        silence(stream)


def silence(stream: IO[str]) -> None:
    """Discard what a stream is given from now on, and what Python writes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _pace(done: int, total: int, seconds: float) -> str:
    """Return speed and time left.

    >>> _pace(3, 9, 60.0)
    '3.0 runs/min, 2 min left'
    """
    per_minute = 60 * done / max(seconds, 1e-3)
    left = (total - done) / per_minute
    return f"{per_minute:.1f} runs/min, {left:.0f} min left"


_visible = _on_stderr = False


def visible(on: bool, *, stderr: bool = False) -> None:
    """Say whether `loading` shows anything in this process; at first it does not.

    Args:
      on: Whether it does.
      stderr: Show it there, where stdout is for a result.
    """
    global _visible, _on_stderr
    _visible, _on_stderr = on, stderr


@contextlib.contextmanager
def loading(
    what: str, total: int | None = None, *, stderr: bool = False
) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of rows that are done so far.

    What takes no longer than a few seconds shows nothing. On a terminal there is then
    one line that counts, with the seconds left where the total is known; elsewhere a
    line now and then.

    Args:
      what: The first words of the line.
      total: Number of rows, if it is known.
      stderr: Show it there, `visible` or not.
    """
    if not (_visible or stderr):
        yield lambda done: None
        return
    from rich.console import Console

    console = Console(stderr=stderr or _on_stderr, highlight=False)
    shown = begun = time.monotonic()
    wait = 0.5 if console.is_terminal else _PLAIN_SECONDS

    def log(done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - begun < _PATIENCE or now - shown < wait:
            return
        shown = now
        line = f"{what}: {done:,}" + (f" of {total:,} rows" if total else " rows")
        if total and done:
            line += f", {(now - begun) * (total - done) / done:.0f} s left"
        if console.is_terminal:
            console.print(line, end="\r", markup=False)
        else:
            say(line, console.file)

    try:
        yield log
    finally:
        if console.is_terminal and shown > begun:
            console.print(" " * (console.width - 1), end="\r")
