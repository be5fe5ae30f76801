"""Execute work on a Ray cluster, or on a local one that is started for it."""

import contextlib
import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from metalr.errors import MetalrError
from metalr.runtime import worker
from metalr.runtime.processes import POLL_SECONDS, cores, next_item
from metalr.runtime.worker import Stop

RETRIES = 3  # of a task whose worker died


def run_on_ray(
    work: Callable,
    items: Iterable[Any],
    on_result: Callable,
    workers: int | None,
    stop: Stop,
    start: Callable | None,
) -> bool:
    """Carry out work as `executors.carry_out` describes it, as tasks of Ray."""
    functions, left, busy = pickle.dumps((work, start)), iter(items), {}
    with _cluster(workers) as (ray, slots, needs):
        # Ray repeats a task whose worker died, and passes on only its new results.
        task = ray.remote(_task).options(
            num_returns="streaming", max_retries=RETRIES, **needs
        )
        try:
            while not stop():
                while len(busy) < slots:
                    before = len(busy)
                    for item in next_item(left, stop):
                        busy[task.remote(functions, pickle.dumps(item))] = item
                    if len(busy) == before:
                        break
                if not busy:
                    break
                for stream in ray.wait(list(busy), timeout=POLL_SECONDS)[0]:
                    _receive(ray, stream, busy, on_result)
        finally:
            for stream in busy:
                with contextlib.suppress(Exception):  # it may have just ended
                    ray.cancel(stream, force=True)
    return not stop()


def _receive(ray: Any, stream: Any, busy: dict[Any, Any], on_result: Callable) -> None:
    """Pass on the next result of a task, or remove the task if it has ended."""
    try:
        kind, value = pickle.loads(ray.get(next(stream)))
    except StopIteration:
        del busy[stream]
        return
    except ray.exceptions.RayError as fault:
        raise MetalrError(
            f"a task on Ray failed for good after {RETRIES} retries "
            f"({type(fault).__name__}), perhaps for lack of memory; the same command "
            "continues, and fewer --workers need less"
        ) from fault
    worker.raise_failure(kind, value)
    on_result(busy[stream], value)


def _task(functions: bytes, item: bytes) -> Iterator[bytes]:
    """Carry out one item in a process of Ray; pickled here, so that Ray does not.

    Ray gives one process many tasks, so the start function is called at the first.
    """
    if functions not in _started:
        worker.use_one_thread()
        start = pickle.loads(functions)[1]
        if start is not None:
            start()
        _started.add(functions)
    work = pickle.loads(functions)[0]
    for message in worker.messages(work, pickle.loads(item), worker.never):
        yield pickle.dumps(message)


_started: set[bytes] = set()


@contextlib.contextmanager
def _cluster(workers: int | None) -> Iterator[tuple[Any, int, dict[str, float]]]:
    """Yield Ray, the number of tasks to run at a time, and what each task needs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MetalrError(
            "--executor ray needs Ray: pip install ray, or leave the flag out"
        ) from None
    ours = not ray.is_initialized()
    if ours:
        _start_ray(ray, workers)
    try:
        resources = ray.cluster_resources()
        needs = {"num_gpus": 1.0} if resources.get("GPU") else {"num_cpus": 1.0}
        slots = int(resources.get("GPU") or resources.get("CPU") or 1)
        yield ray, workers or max(slots, 1), needs
    finally:
        if ours:
            ray.shutdown()


def _start_ray(ray: Any, workers: int | None) -> None:
    """Connect to the cluster at RAY_ADDRESS, or start one on this machine.

    Raises:
      MetalrError: Ray does not start or answer.
    """
    address = os.environ.get("RAY_ADDRESS")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            num_cpus=None if address else (workers or len(cores())),
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as fault:  # a bare one where its processes are slow to start
        where = f"at RAY_ADDRESS={address}" if address else "here"
        raise MetalrError(
            f"Ray does not start or answer {where} ({fault}); without --executor "
            "ray the work is done in processes"
        ) from fault
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has replaced it
