"""The programs that `fault_table.py` breaks: how they start, and what they end with.

Each is forked from a process that has imported what it imports, which is two thirds of
a start's time; from then on it is a process of its own.
"""

import abc
import json
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Program(abc.ABC):
    """A program with the faults that it may meet, and what its result is."""

    name: str
    faults: tuple[str, ...]

    def __init__(self, work: Path):
        self.work = work
        self.seconds = float("inf")  # of the fastest whole run, from its first file on
        self.starting = 0.0  # seconds from the start to the first file

    @abc.abstractmethod
    def command(self, folder: Path) -> list[str]:
        """Return the command line of a run in that folder."""

    @abc.abstractmethod
    def begun(self, folder: Path) -> bool:
        """Return whether the run has written its first file."""

    @abc.abstractmethod
    def saving(self, folder: Path) -> bool:
        """Return whether a file is being written."""

    @abc.abstractmethod
    def newest(self, folder: Path) -> list[Path]:
        """Return the files that a power cut may leave cut off."""

    @abc.abstractmethod
    def result(self, folder: Path) -> object:
        """Return what has to be the same."""

    def start(self, folder: Path, limit: int | None = None) -> "Forked | Pair":
        """Start the program, perhaps with a limit on the size of its files."""
        return Forked(self.command(folder), limit)

    def strike(self, process: "Forked | Pair", fault: str) -> None:
        """Send the signal that a fault begins with; a power cut kills."""
        process.send_signal(getattr(signal, fault.split()[0], signal.SIGKILL))


class Forked:
    """A script in a process of its own, as `subprocess.Popen` has it."""

    def __init__(self, argv: list[str], limit: int | None):
        self.returncode: int | None = None
        self.pipes = [os.pipe(), os.pipe()]
        self.pid = os.fork()
        if self.pid:
            for _, end in self.pipes:
                os.close(end)
            return
        try:
            # Python's own start, in which an interrupt is a traceback, lies behind it.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for number, (_, end) in enumerate(self.pipes, start=1):
                os.dup2(end, number)
            sys.stdout, sys.stderr = (open(n, "w", buffering=1) for n in (1, 2))
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            sys.argv = argv
            runpy.run_path(str(ROOT / argv[0]), run_name="__main__")
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        except BaseException:
            traceback.print_exc()
        os._exit(1)

    def poll(self) -> int | None:
        """Return the exit status if the process has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the end, and return what was printed."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("", timeout)
            time.sleep(0.01)
        texts = []
        for end, _ in self.pipes:
            with open(end, encoding="utf-8", errors="replace") as file:
                texts.append(file.read())
        return texts[0], texts[1]


class Pair:
    """Two processes that run as one; the first is the one that talks."""

    def __init__(self, argv: list[str]):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        argv = [*argv, "--coordinator", f"localhost:{port}", "--processes", "2"]
        self.started = [Forked([*argv, "--process-id", str(i)], None) for i in (0, 1)]

    @property
    def returncode(self) -> int | None:
        """The status of the first, None while one of them is at work."""
        found = [process.returncode for process in self.started]
        return None if None in found else found[0]

    def poll(self) -> int | None:
        """Return the exit status if both have ended."""
        for process in self.started:
            process.poll()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to both, as whoever takes the machines away does."""
        for process in self.started:
            process.send_signal(number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the end of both, and return what they printed."""
        until = time.monotonic() + timeout
        said = [p.communicate(until - time.monotonic()) for p in self.started]
        return "".join(out for out, _ in said), "".join(err for _, err in said)


def import_all() -> None:
    """Import what the programs import; jax starts no threads of its own by that."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.path.insert(0, str(ROOT))
    from metalr import cli

    cli.hush_libraries()
    import datasets  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import safetensors.numpy  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import transformers
    from jax._src import xla_bridge

    from metalr.report import report  # noqa: F401

    transformers.AutoTokenizer  # noqa: B018  # imported when it is first named
    assert not xla_bridge._backends, "jax has threads: too late to fork"


class Finetune(Program):
    """finetune.py on toy rows with a random model: 48 steps, saved every 4."""

    name = "finetune.py"
    faults = (
        "SIGINT before the first step",
        "SIGTERM before the first step",
        "SIGKILL at a random moment",
        "SIGKILL inside a save",
        "SIGTERM",
        "SIGINT",
        "power cut: newest checkpoint cut off",
        "disk full in a save",
    )

    def command(self, folder):
        flags = (
            "--data toy --task sst2 --train-rows 384 --validation-rows 32 --epochs 4"
        )
        flags += " --log-every 1 --save-every 4 --eval-every 8 --learning-rate 3e-3"
        model = str(self.work / "tiny")
        return [
            "finetune.py",
            "--model",
            model,
            "--output",
            str(folder),
            *flags.split(),
        ]

    def begun(self, folder):
        return (folder / "settings.json").exists()

    def saving(self, folder):
        return any((folder / "checkpoints").glob("*/*tmp*"))

    def newest(self, folder):
        steps = [p for p in (folder / "checkpoints/last").glob("*") if p.name.isdigit()]
        last = max(steps, key=lambda p: int(p.name), default=folder / "none")
        return [path for path in last.rglob("*") if path.is_file()]

    def result(self, folder):
        result = json.loads((folder / "result.json").read_text())
        timed = ("seconds", "step_seconds", "settings")
        kept = {k: v for k, v in result.items() if k not in timed}
        return kept, (folder / "model/model.safetensors").read_bytes()


class Collection(Program):
    """train_meta.py: two sweeps of toy rows, and the fit."""

    name = "train_meta.py"
    faults = ("SIGKILL at a random moment", "SIGTERM", "SIGINT", "power cut")
    rounds, workers = 0, 1

    def command(self, folder):
        flags = f"--data toy --tasks sst2 --runs 12 --rounds {self.rounds} --horizon 20"
        flags += f" --runs-per-sweep 1 --length 16 --batch 4 --workers {self.workers}"
        flags += " --zoo 0 --no-check"
        model = str(self.work / "tiny")
        return [
            "train_meta.py",
            "--model",
            model,
            "--output",
            str(folder),
            *flags.split(),
        ]

    def begun(self, folder):
        return (folder / "parts").exists()

    def saving(self, folder):
        return any(folder.glob("*/.*"))

    def newest(self, folder):
        return [path for path in (folder / "parts").rglob("*") if path.is_file()]

    def result(self, folder):
        # To read traces is to compute their features: jax would have threads here.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(collected, (folder,))


def collected(folder: Path) -> tuple[list[Any], str]:
    """Return the runs that a collection left, and the hash of its predictor."""
    from metalr.meta import trace_files

    found = []
    for path in trace_files.paths_in(folder / "traces"):
        for run in trace_files.read(path):
            about = {k: v for k, v in run.about.items() if k != "seconds"}
            arrays = [x.tobytes() for x in run[2:] if x is not None]
            found.append((path.name, about, run.evaluations, arrays))
    metadata = json.loads((folder / "predictor/metadata.json").read_text())
    return found, metadata["sha256"]


class Rounds(Collection):
    """train_meta.py with a round of the predictor's own runs, a sweep a process."""

    name = "train_meta.py, a round, two workers"
    rounds, workers = 1, 2


class TwoProcesses(Finetune):
    """finetune.py as one run of two processes, which save together."""

    name = "finetune.py, two processes"
    faults = (
        "SIGKILL of both",
        "SIGKILL of both inside a save",
        "SIGTERM",
        "SIGINT",
        "SIGKILL of one",
    )

    def start(self, folder, limit=None):
        """Start both; files cannot be limited."""
        return Pair(self.command(folder))

    def strike(self, process, fault):
        """Send the signal to both, or to the second alone."""
        assert isinstance(process, Pair)
        of = process.started[1] if fault.endswith("one") else process
        super().strike(of, fault)


class Comparison(Program):
    """metalr compare: a run of three schedulers, and the report."""

    name = "metalr compare"
    faults = ("SIGKILL at a random moment", "SIGTERM", "SIGINT", "power cut")

    def command(self, folder):
        plan = self.work / "plan.json"
        content = {
            "models": [str(self.work / "tiny")],
            "schedulers": ["linear", "metalr", "dowg"],
            "seeds": 1,
            "evaluations": 2,
            "settings": {"max_steps": 12, "batch_size": 4, "data": "toy"},
            "tasks": {"sst2": {"train_rows": 48, "validation_rows": 16}},
        }
        plan.write_text(json.dumps(content))
        flags = ["--plan", str(plan), "--workers", "1", "--pairs", "0"]
        return ["metalr/__main__.py", "compare", "--output", str(folder), *flags]

    def begun(self, folder):
        return (folder / "runs.jsonl").exists()

    def saving(self, folder):
        return any(folder.glob(".*draft*"))

    def newest(self, folder):
        return [folder / "runs.jsonl"]

    def result(self, folder):
        from metalr.compare import store

        lines = {line["key"]: line for line in store.read_lines(folder / "runs.jsonl")}
        count = len((folder / "runs.jsonl").read_text().splitlines())
        runs = [(key, lines[key]["history"]) for key in sorted(lines)]
        return count, runs, untimed((folder / "table.md").read_text())


def untimed(table: str) -> list[list[str]]:
    """Return the cells of a Markdown table without the columns of seconds."""
    cells = [line.split("|") for line in table.splitlines() if line.startswith("|")]
    kept = [k for k, name in enumerate(cells[0]) if "seconds" not in name]
    return [[row[k] for k in kept] for row in cells]


PROGRAMS = {
    "finetune": Finetune,
    "two": TwoProcesses,
    "train_meta": Collection,
    "rounds": Rounds,
    "compare": Comparison,
}
