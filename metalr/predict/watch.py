"""A progress bar on stderr over rows that go by."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from metalr.runtime import progress

T = TypeVar("T")
_PLAIN_SECONDS = 30.0  # between lines where there is no terminal


def watched(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, and show how many there were and how fast they came.

    They are read as they come, so that their number is not known before the end.

    Args:
      items: The rows.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), TextColumn("{task.description}"))
    begun, shown = time.monotonic(), time.monotonic()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        done = 0
        for done, item in enumerate(items, start=1):
            yield item
            if done % 64:
                continue
            now = time.monotonic()
            words = _words(done, now - begun)
            bar.update(task, completed=done, description=words)
            if not console.is_terminal and now - shown > _PLAIN_SECONDS:
                shown = now
                progress.say(words, sys.stderr)
    progress.say(_words(done, time.monotonic() - begun), sys.stderr)


def _words(done: int, seconds: float) -> str:
    """Return count and speed.

    >>> _words(300, 60.0)
    '300 rows, 5 rows/s'
    """
    return f"{done} rows, {done / max(seconds, 1e-3):.3g} rows/s"
