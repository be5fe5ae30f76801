"""finetune.py as tests call it: in this process, on few toy rows, at a high rate."""

import signal
import sys

import finetune
from metalr import cli

SMALL = ("--data", "toy", "--train-rows", 64, "--validation-rows", 32, "--epochs", 2)
FAST = ("--learning-rate", "3e-3", "--scheduler", "linear", "--log-every", 1)


def call(*argv, monkeypatch):
    """Run finetune.py's main in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["finetune.py", *map(str, argv)])
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        return cli.guarded(finetune.main)
    except SystemExit as stop:
        return stop.code
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
