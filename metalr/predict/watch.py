"""A progress bar on stderr over rows that go by."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from metalr.runtime import progress

T = TypeVar("T")
_PLAIN_SECONDS = 30.0  # between lines where there is no terminal


def watched(items: Iterable[T], total: int | None) -> Iterator[T]:
    """Yield the items and shows how many went by, and how fast.

    Args:
      items: The rows.
      total: How many there are; None: nobody knows.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns: list[Any] = [BarColumn(), TextColumn("{task.description}")]
    if total is not None:
        columns.append(TimeRemainingColumn())
    begun, shown = time.monotonic(), time.monotonic()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=total)
        done = 0
        for done, item in enumerate(items, start=1):
            yield item
            if done % 64:
                continue
            now = time.monotonic()
            words = _words(done, total, now - begun)
            bar.update(task, completed=done, description=words)
            if not console.is_terminal and now - shown > _PLAIN_SECONDS:
                shown = now
                progress.say(words, sys.stderr)
    progress.say(_words(done, total, time.monotonic() - begun), sys.stderr)


def _words(done: int, total: int | None, seconds: float) -> str:
    """Return count and speed.

    >>> _words(300, 1200, 60.0)
    '300/1200 rows, 5 rows/s'
    """
    of = "" if total is None else f"/{total}"
    return f"{done}{of} rows, {done / max(seconds, 1e-3):.3g} rows/s"
