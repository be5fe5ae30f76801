"""Work for the tests of the executors: a process imports it by its name."""

import os
import signal
import sys
import time
from pathlib import Path

from metalr.errors import MetalrError
from metalr.runtime import executors


def square(number):
    if number == 13:
        raise MetalrError("13 is unlucky")
    if number == 14:
        raise ValueError("14 is not a number")
    if number == 15:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def count_to(number):
    for value in range(number):
        yield value, os.getpid()


def dies_once(item):
    """Yield three results; the mark makes the first worker die after the second."""
    name, mark = item
    for value in range(3):
        if value == 2 and mark and not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)  # the results before are on their way
        yield f"{name}{value}"


def about_the_process(item):
    affinity = getattr(os, "sched_getaffinity", lambda pid: {0})(0)
    return len(affinity), os.environ.get("XLA_FLAGS", ""), "jax" in sys.modules


def until_stopped(path):
    Path(path).write_text(str(os.getpid()))
    while not executors.stopping():
        time.sleep(0.02)
    return "stopped"


def for_ever(path):
    Path(path).write_text(str(os.getpid()))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        time.sleep(0.02)


def mark_start():
    os.environ["STARTED"] = os.environ.get("STARTED", "") + "x"


def starts(item):
    return os.environ.get("STARTED")
