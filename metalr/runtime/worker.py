"""What all executors do in the process that works: call, stop, and report failures."""

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from metalr.errors import MetalrError

Stop = Callable[[], bool]


def never() -> bool:
    """Return False: a `stop` that never comes."""
    return False


_stop: ContextVar[Stop] = ContextVar("stop", default=never)


def stopping() -> bool:
    """Return whether the work in progress should end now."""
    return _stop.get()()


def results(work: Callable, item: Any, stop: Stop) -> Iterator[Any]:
    """Yield the results of one item; `work` is a function or a generator function."""
    token = _stop.set(stop)
    try:
        found = work(item)
        if isinstance(found, Iterator):
            yield from found
        else:
            yield found
    finally:
        # A generator that is closed early ends in another context.
        with contextlib.suppress(ValueError):
            _stop.reset(token)


def messages(work: Callable, item: Any, stop: Stop) -> Iterator[tuple[str, Any]]:
    """Yield ("result", value), and a "fault" or "crash" with its text at the end.

    An exception may not be picklable, so its text is sent in its place.
    """
    try:
        for value in results(work, item, stop):
            yield "result", value
    except MetalrError as fault:
        yield "fault", str(fault)
    except Exception:
        yield "crash", f"a process failed:\n{traceback.format_exc()}"


def raise_failure(kind: str, value: Any) -> None:
    """Raise what a message reports: a fault of the user, or a bug."""
    if kind == "fault":
        raise MetalrError(value)
    if kind == "crash":
        raise RuntimeError(value)


def use_one_thread() -> None:
    """Limit the libraries to one thread; call it before they are imported."""
    # XLA reads the flag when the first computation starts.
    flag = "--xla_cpu_multi_thread_eigen=false"
    if flag not in (before := os.environ.get("XLA_FLAGS", "")):
        os.environ["XLA_FLAGS"] = f"{before} {flag}".strip()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
