"""Execute work in processes of this machine, one pinned to each core.

`concurrent.futures.ProcessPoolExecutor` has no results while an item is in progress,
leaves workers behind when the parent is killed, and does not say how a worker died.
"""

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any, NamedTuple

from metalr.errors import MetalrError
from metalr.runtime import worker
from metalr.runtime.worker import Stop

POLL_SECONDS = 0.2  # between two calls of `stop`
_GRACE_SECONDS = 5.0  # for a process to end its step


def cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class _Worker(NamedTuple):
    process: Any
    pipe: Any


def run_in_processes(
    work: Callable,
    items: Iterable[Any],
    on_result: Callable,
    workers: int,
    stop: Stop,
    start: Callable | None,
) -> bool:
    """Carry out work as `executors.carry_out` describes it, in spawned processes."""
    # Spawned, not forked: jax has threads by now.
    context = multiprocessing.get_context("spawn")
    # As bytes: unpickling imports jax, which must wait until the environment is set.
    functions, halt = pickle.dumps((work, start)), context.Event()
    left = iter(items)
    busy: dict[Any, tuple[_Worker, Any]] = {}  # by their pipes
    try:
        for core in (cores() * workers)[:workers]:
            for item in next_item(left, stop):
                spawned = _spawn(context, core, functions, halt)
                spawned.pipe.send_bytes(pickle.dumps(item))
                busy[spawned.pipe] = (spawned, item)
        while busy and not stop():
            ready: list[Any] = connection.wait(list(busy), timeout=POLL_SECONDS)
            for pipe in ready:
                sender, item = busy[pipe]
                kind, value = _receive(sender)
                if kind == "result":
                    on_result(item, value)
                    continue
                del busy[pipe]
                for item in next_item(left, stop):
                    pipe.send_bytes(pickle.dumps(item))
                    busy[pipe] = (sender, item)
                if pipe not in busy:
                    pipe.close()  # ends the process
                    sender.process.join()
    finally:
        halt.set()
        for pipe in busy:
            pipe.close()  # a worker that waits to send ends as well
        for remaining, _ in busy.values():
            _end(remaining.process)
    return not stop()


def next_item(left: Iterator[Any], stop: Stop) -> list[Any]:
    """Return the next item in a list, empty if there is none or the work is to end."""
    return [] if stop() else list(itertools.islice(left, 1))


def _spawn(context: Any, core: int, functions: bytes, halt: Any) -> _Worker:
    here, there = context.Pipe()
    arguments = (core, functions, there, halt)
    process = context.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    there.close()  # so that the pipe ends when the process does
    return _Worker(process, here)


def _receive(sender: _Worker) -> tuple[str, Any]:
    """Return the next message of a worker.

    Raises:
      MetalrError: The worker reports a fault of the user, or has died.
      RuntimeError: The worker reports a bug.
    """
    try:
        kind, value = sender.pipe.recv()
    except (EOFError, ConnectionError):
        sender.process.join()
        raise MetalrError(
            f"a process died (exit code {sender.process.exitcode}), perhaps for lack "
            "of memory; the same command continues, and --workers 1 needs least"
        ) from None
    worker.raise_failure(kind, value)
    return kind, value


def _end(process: Any) -> None:
    process.join(timeout=_GRACE_SECONDS)
    if process.is_alive():  # compiling, or in a long call of a library
        process.terminate()
        process.join()


def _serve(core: int, functions: bytes, pipe: Any, halt: Any) -> None:
    """Carry out items from a pipe on one core; the main function of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    worker.use_one_thread()
    parent = multiprocessing.parent_process()

    def stop() -> bool:
        # Without its parent nobody would end it, and a restart would repeat its work.
        return halt.is_set() or (parent is not None and not parent.is_alive())

    # The pipe ends with the parent, or when there is no more to do.
    with contextlib.suppress(EOFError, ConnectionError):
        work, start = pickle.loads(functions)
        if start is not None:
            start()
        while True:
            item = pickle.loads(pipe.recv_bytes())
            for message in worker.messages(work, item, stop):
                pipe.send(message)
            pipe.send(("done", None))
