"""Carries out work on many items: here in turn, in processes, or on a Ray cluster.

It knows nothing of learning rates. Whoever calls it stores the results as they come,
in its own process, so that a worker may die or live on another machine.
"""

import contextlib
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from multiprocessing import connection
from typing import Any, NamedTuple, TypeVar

from metalr.errors import MetalrError, unknown_name

KINDS = ("processes", "ray")
RETRIES = 3  # of a task on Ray whose worker died

_PATIENCE = 5.0  # seconds that a process gets to end its step
_LOOK = 0.2  # seconds between two looks at `stop`

T = TypeVar("T")
R = TypeVar("R")
Stop = Callable[[], bool]


def _never() -> bool:
    return False


_stop: ContextVar[Stop] = ContextVar("stop", default=_never)


def stopping() -> bool:
    """Returns whether the work that is being carried out had better end now."""
    return _stop.get()()


def cores() -> list[int]:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def fitting() -> int:
    """Returns how many processes this machine has room for: one a core, or a GPU's one.

    The other devices of a machine are used by that one, or by Ray.
    """
    import jax  # here and not in the processes' first lines, which set its flags

    return len(cores()) if jax.default_backend() == "cpu" else 1


def carry_out(
    work: Callable[[T], Iterator[R]] | Callable[[T], R],
    items: Iterable[T],
    *,
    on_result: Callable[[T, R], object],
    workers: int | None = None,
    stop: Stop = _never,
    kind: str = "processes",
    start: Callable[[], object] | None = None,
) -> bool:
    """Carries out `work(item)` for each item, several at a time.

    Args:
      work: A function of a module. If it is a generator function, each value that it
        yields is a result. Long work asks `stopping()` now and then, and returns.
      items: Values that can be pickled. The next one is taken when a worker is free,
        so a generator may look at the clock and end.
      on_result: Called in this process with the item and a result, as results come.
      workers: How many at a time. None: `fitting`, or as many as the cluster has room
        for. With 1 process the work is done in this one.
      stop: Asked all the time; True ends the work, and what was begun is lost.
      kind: A row of KINDS. On Ray (`RAY_ADDRESS`, or a cluster of this machine alone)
        an item whose worker died is done again, up to RETRIES times, and no result is
        told twice, which wants work that yields the same number of results.
      start: A function of a module, called once in each new process.

    Returns:
      Whether all items were carried out: False after `stop`.

    Raises:
      MetalrError: A worker raised one, or died for good. No other work goes on then.
      RuntimeError: A worker raised anything else; its traceback is in the message.
    """
    if kind not in KINDS:
        raise unknown_name("executor", kind, KINDS)
    if kind == "ray":
        return _on_ray(work, items, on_result, workers, stop, start)
    workers = fitting() if workers is None else workers
    if workers <= 1:
        return _in_turn(work, items, on_result, stop)
    return _in_processes(work, items, on_result, workers, stop, start)


def _results(work: Callable, item: Any, stop: Stop) -> Iterator[Any]:
    """Yields the results of one item, of a function and of a generator alike."""
    token = _stop.set(stop)
    try:
        found = work(item)
        if isinstance(found, Iterator):
            yield from found
        else:
            yield found
    finally:
        # A generator that is thrown away ends in another context.
        with contextlib.suppress(ValueError):
            _stop.reset(token)


def _told(work: Callable, item: Any, stop: Stop) -> Iterator[tuple[str, Any]]:
    """Yields ("result", value)s, and a "fault" or "crash" in words that ends them."""
    try:
        for value in _results(work, item, stop):
            yield "result", value
    except MetalrError as fault:
        yield "fault", str(fault)
    except Exception:
        yield "crash", f"a process failed:\n{traceback.format_exc()}"


def _raise(what: str, value: Any) -> None:
    """Raises what a worker had to: its user's fault, or a bug."""
    if what == "fault":
        raise MetalrError(value)
    if what == "crash":
        raise RuntimeError(value)


def _in_turn(
    work: Callable, items: Iterable[Any], on_result: Callable, stop: Stop
) -> bool:
    for item in items:
        if stop():
            return False
        for value in _results(work, item, stop):
            on_result(item, value)
    return not stop()


def _one_thread() -> None:
    """Keeps the libraries of this process to one thread, before they are imported."""
    # XLA reads it when the first computation starts.
    flags = "--xla_cpu_multi_thread_eigen=false"
    if flags not in (before := os.environ.get("XLA_FLAGS", "")):
        os.environ["XLA_FLAGS"] = f"{before} {flags}".strip()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


# ------------------------------------------------------------------ processes


class _Worker(NamedTuple):
    process: Any
    pipe: Any


def _in_processes(
    work: Callable,
    items: Iterable[Any],
    on_result: Callable,
    workers: int,
    stop: Stop,
    start: Callable | None,
) -> bool:
    # Spawned, not forked: jax has threads by now.
    context = multiprocessing.get_context("spawn")
    # As bytes: a process unpickles them when its environment is set, which imports jax.
    tools, halt = pickle.dumps((work, start)), context.Event()
    left = iter(items)
    busy: dict[Any, tuple[_Worker, Any]] = {}  # by their pipes
    try:
        for core in (cores() * workers)[:workers]:
            for item in _next(left, stop):
                worker = _hire(context, core, tools, halt)
                worker.pipe.send_bytes(pickle.dumps(item))
                busy[worker.pipe] = (worker, item)
        while busy and not stop():
            ready: list[Any] = connection.wait(list(busy), timeout=_LOOK)
            for pipe in ready:
                worker, item = busy[pipe]
                what, value = _heard(worker)
                if what == "result":
                    on_result(item, value)
                    continue
                del busy[pipe]
                for item in _next(left, stop):
                    pipe.send_bytes(pickle.dumps(item))
                    busy[pipe] = (worker, item)
                if pipe not in busy:
                    pipe.close()  # ends the process
                    worker.process.join()
    finally:
        halt.set()
        for pipe in busy:
            pipe.close()  # who waits to be heard ends as well
        for worker, _ in busy.values():
            worker.process.join(timeout=_PATIENCE)
            if worker.process.is_alive():  # compiling, or deep in a library
                worker.process.terminate()
                worker.process.join()
    return not stop()


def _next(left: Iterator[Any], stop: Stop) -> list[Any]:
    """Returns the next item in a list, empty if there is none or the work is to end."""
    return [] if stop() else list(itertools.islice(left, 1))


def _hire(context: Any, core: int, tools: bytes, halt: Any) -> _Worker:
    here, there = context.Pipe()
    process = context.Process(
        target=_work, args=(core, tools, there, halt), daemon=True
    )
    process.start()
    there.close()  # so that the pipe ends when the process does
    return _Worker(process, here)


def _heard(worker: _Worker) -> tuple[str, Any]:
    """Returns the next message of a worker.

    Raises:
      MetalrError: It has failed or died.
    """
    try:
        what, value = worker.pipe.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        raise MetalrError(
            f"a process died (exit code {worker.process.exitcode}), perhaps for want "
            "of memory; the same command goes on, --workers 1 needs least"
        ) from None
    _raise(what, value)
    return what, value


def _work(core: int, tools: bytes, pipe: Any, halt: Any) -> None:
    """Carries out items from a pipe on one core, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and says so
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    _one_thread()
    parent = multiprocessing.parent_process()

    def stop() -> bool:
        # Without its parent nobody would end it, and a new start would do it twice.
        return halt.is_set() or (parent is not None and not parent.is_alive())

    # The pipe ends with the parent, or when there is no more to do.
    with contextlib.suppress(EOFError, ConnectionError):
        work, start = pickle.loads(tools)
        if start is not None:
            start()
        while True:
            item = pickle.loads(pipe.recv_bytes())
            for message in _told(work, item, stop):
                pipe.send(message)
            pipe.send(("done", None))


# ------------------------------------------------------------------ Ray


def _on_ray(
    work: Callable,
    items: Iterable[Any],
    on_result: Callable,
    workers: int | None,
    stop: Stop,
    start: Callable | None,
) -> bool:
    tools, left, busy = pickle.dumps((work, start)), iter(items), {}
    with _cluster(workers) as (ray, slots, needs):
        # Ray does again what a dead worker yielded, and gives what is new of it.
        task = ray.remote(_task).options(
            num_returns="streaming", max_retries=RETRIES, **needs
        )
        try:
            while not stop():
                while len(busy) < slots:
                    before = len(busy)
                    for item in _next(left, stop):
                        busy[task.remote(tools, pickle.dumps(item))] = item
                    if len(busy) == before:
                        break
                if not busy:
                    break
                for stream in ray.wait(list(busy), timeout=_LOOK)[0]:
                    _take(ray, stream, busy, on_result)
        finally:
            for stream in busy:
                with contextlib.suppress(Exception):  # it may have ended just now
                    ray.cancel(stream, force=True)
    return not stop()


def _take(ray: Any, stream: Any, busy: dict[Any, Any], on_result: Callable) -> None:
    """Tells the next result of a task, or strikes the task off if it has ended."""
    try:
        what, value = pickle.loads(ray.get(next(stream)))
    except StopIteration:
        del busy[stream]
        return
    except ray.exceptions.RayError as fault:
        raise MetalrError(
            f"a task on Ray failed for good after {RETRIES} retries "
            f"({type(fault).__name__}), perhaps for want of memory; the same command "
            "goes on, fewer --workers need less"
        ) from fault
    _raise(what, value)
    on_result(busy[stream], value)


def _task(tools: bytes, item: bytes) -> Iterator[bytes]:
    """Carries out one item in a process of Ray's; pickled here, so Ray looks at none.

    Ray gives one process many tasks; what is to be done once is done at the first.
    """
    if tools not in _started:
        _one_thread()
        start = pickle.loads(tools)[1]
        if start is not None:
            start()
        _started.add(tools)
    for message in _told(pickle.loads(tools)[0], pickle.loads(item), _never):
        yield pickle.dumps(message)


_started: set[bytes] = set()


@contextlib.contextmanager
def _cluster(workers: int | None) -> Iterator[tuple[Any, int, dict[str, float]]]:
    """Yields Ray, how many tasks to run at a time, and what each of them needs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MetalrError(
            "--executor ray needs Ray: pip install ray, or leave the flag out"
        ) from None
    ours = not ray.is_initialized()
    if ours:
        here = not os.environ.get("RAY_ADDRESS")
        heard = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                num_cpus=(workers or len(cores())) if here else None,
                include_dashboard=False if here else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as fault:  # a bare one where its processes are slow to start
            where = "here" if here else f"at RAY_ADDRESS={os.environ['RAY_ADDRESS']}"
            raise MetalrError(
                f"Ray does not start or answer {where} ({fault}); without --executor "
                "ray the work is done in processes"
            ) from fault
        if heard is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, heard)  # Ray takes it from whoever had it
    try:
        there = ray.cluster_resources()
        needs = {"num_gpus": 1.0} if there.get("GPU") else {"num_cpus": 1.0}
        room = int(there.get("GPU") or there.get("CPU") or 1)
        yield ray, workers or max(room, 1), needs
    finally:
        if ours:
            ray.shutdown()
