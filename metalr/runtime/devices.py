"""What a run is computed on, for its result to name."""

import os
import platform
from typing import Any

import jax


def describe(count: int = 1) -> dict[str, Any]:
    """Return the kind of device, how many a run uses, the CPU and its threads.

    Args:
      count: Devices that the run uses.

    Returns:
      JSON: platform ("cpu", "gpu", "tpu"), kind ("cpu", "NVIDIA H200"), count,
      processor (of the host) and threads (that this process may use).
    """
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": getattr(device, "device_kind", device.platform),
        "count": count,
        "processor": _processor(),
        "threads": _threads(),
    }


def _processor() -> str:
    """Return the name of the CPU as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line for line in file if line.startswith("model name")]
        return names[0].partition(":")[2].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _threads() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
