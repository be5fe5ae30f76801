"""Several processes, on one host or on many, that run together as one.

All of them take the same steps and decisions; only the first one writes and prints.
"""

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from metalr.errors import EXIT_FAULT, MetalrError


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Make this process one of several that run together, if it is.

    Without arguments, what SLURM's srun and multi-host TPUs set in the environment is
    enough. Call it before anything is computed.

    Raises:
      MetalrError: Some of the three are missing, or the others cannot be reached.
    """
    given = [coordinator, processes, process_id]
    if all(value is None for value in given):
        if not _among_several(os.environ):
            return
    elif any(value is None for value in given):
        raise MetalrError(
            "--coordinator HOST:PORT, --processes and --process-id go together; all "
            "three are needed, or none where SLURM or a TPU sets them"
        )
    elif not 0 <= (process_id or 0) < (processes or 0):
        raise MetalrError(
            f"--process-id must be 0 to {(processes or 0) - 1}, one below --processes; "
            f"got {process_id}"
        )
    if coordinator is not None:
        _check_address(coordinator)
    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (RuntimeError, ValueError) as fault:
        raise MetalrError(
            f"the processes did not find each other at {coordinator}: {fault}"
        ) from fault


def _check_address(coordinator: str) -> None:
    """Refuse a malformed HOST:PORT or an unknown host, for which jax would wait."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port[:9]) < 2**16:
        raise MetalrError(
            f"--coordinator must be HOST:PORT with a port from 1 to 65535, got "
            f"{coordinator!r:.80}"
        )
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, UnicodeError) as fault:
        raise MetalrError(
            f"--coordinator names a host that is not known here, {host!r:.80} ({fault})"
        ) from fault


def _among_several(environment: Mapping[str, str]) -> bool:
    """Return whether a launcher says that this is one of several processes.

    >>> _among_several({"SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "a,b"})
    True
    """
    return (
        int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1
        or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
        or "MEGASCALE_COORDINATOR_ADDRESS" in environment
    )


# How the messages of XLA and its transports begin.
_STATUS = re.compile(
    "(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED):"
)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """End this process of several at once, with one line, if the run cannot continue.

    A normal exit would wait minutes for the other processes, which wait for messages
    of this one.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError, MetalrError) as fault:
        ours = isinstance(fault, MetalrError)
        if alone() or not (ours or is_of_another(fault)):
            raise
        if not ours:
            reason = " ".join(str(fault).split())[:200]
            fault = MetalrError(
                f"another process of this run has ended or failed ({reason}); start "
                "all of them again, and they resume from the last checkpoint"
            )
        print(f"error: {fault}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(EXIT_FAULT)


def is_of_another(fault: BaseException) -> bool:
    """Return whether a fault says that another process of this run has gone."""
    # Some of jax's calls tell a failed message as a ValueError.
    of_jax = isinstance(fault, jax.errors.JaxRuntimeError)
    told = isinstance(fault, ValueError) and _STATUS.match(str(fault))
    return not alone() and (of_jax or bool(told))


def alone() -> bool:
    """Return whether this process runs by itself."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Wait until every process has reached this point, under the same name."""
    if not alone():
        multihost_utils.sync_global_devices(what)


def any_of(wish: bool) -> bool:
    """Return whether any process has the wish; all must call it at the same point."""
    if alone():
        return wish
    return bool(np.any(multihost_utils.process_allgather(np.array(wish))))
