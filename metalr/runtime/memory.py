"""A bound on the memory that reading an untrusted file may take."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

# Arrow's allocator takes address space by the gigabyte before it needs any.
_LEAST, _PER_BYTE = 4 * 2**30, 16


@contextlib.contextmanager
def bounded(path: Path) -> Iterator[None]:
    """Limit the growth of the process to 4 GB and 16 times the file during the block.

    A page of Parquet states how many values it holds, and Arrow trusts it: a file of
    858 bytes asked for 275 GB. Beyond the bound Arrow raises an `ArrowMemoryError`.
    Only Linux has this limit, and it holds for all threads.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = path.stat().st_size if path.exists() else 0
    limits = [taken + _LEAST + _PER_BYTE * size, *before]
    least = min(limit for limit in limits if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (least, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
