"""Carry out work on many items: in this process, in several, or on a Ray cluster.

An executor knows nothing of learning rates. Its caller stores the results as they
come, in its own process, so that a worker may die or run on another machine.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from metalr.errors import unknown_name
from metalr.runtime import processes, program, ray_cluster, worker
from metalr.runtime.processes import cores
from metalr.runtime.worker import Stop, never, stopping

__all__ = ["KINDS", "carry_out", "cores", "fitting", "stopping"]

KINDS = ("processes", "ray")

T = TypeVar("T")
R = TypeVar("R")


def check_kind(kind: str) -> None:
    """Raise an error for an executor that there is not.

    Raises:
      MetalrError: The message has the nearest name.
    """
    if kind not in KINDS:
        raise unknown_name("executor", kind, KINDS)


def fitting() -> int:
    """Return the number of processes that fit this machine: one a core, or one a GPU.

    Several GPUs are used by one process together, or through Ray.
    """
    import jax  # not in the first lines of a worker, which set its flags

    return len(cores()) if jax.default_backend() == "cpu" else 1


def carry_out(
    work: Callable[[T], Iterator[R]] | Callable[[T], R],
    items: Iterable[T],
    *,
    on_result: Callable[[T, R], object],
    workers: int | None = None,
    stop: Stop = never,
    kind: str = "processes",
    start: Callable[[], object] | None = None,
) -> bool:
    """Carry out `work(item)` for each item, several at a time.

    Args:
      work: A function of a module. If it is a generator function, each value that it
        yields is a result. Long work calls `stopping()` from time to time, and returns.
      items: Picklable values. The next one is taken when a worker is free, so that a
        generator may check the clock and end.
      on_result: Called in this process with an item and a result, as results come.
      workers: How many items at a time. None: `fitting`, or as many as the cluster has
        room for. With 1, the work is done in this process.
      stop: Polled all the time; True ends the work, and items in progress are lost.
      kind: One of `KINDS`. On Ray (`RAY_ADDRESS`, or a cluster on this machine) an item
        whose worker died is repeated, up to `ray_cluster.RETRIES` times; no result is
        passed on twice, if `work` yields the same number of results each time.
      start: A function of a module, called once in each process that works.

    Returns:
      Whether all items were carried out: False after `stop`.

    Raises:
      MetalrError: A worker raised one, or died for good. All other work is stopped.
      RuntimeError: A worker raised anything else; its traceback is in the message. In
        this process it is raised as it is.
    """
    check_kind(kind)
    if kind == "ray":
        return ray_cluster.run_on_ray(work, items, on_result, workers, stop, start)
    workers = fitting() if workers is None else workers
    if workers <= 1:
        return _in_this_process(work, items, on_result, stop, start)
    return processes.run_in_processes(work, items, on_result, workers, stop, start)


def _in_this_process(
    work: Callable,
    items: Iterable[Any],
    on_result: Callable,
    stop: Stop,
    start: Callable | None,
) -> bool:
    if start is not None:
        start()
    for item in items:
        if program.stopped(stop):
            return False
        for value in worker.results(work, item, stop):
            on_result(item, value)
    return not stop()
