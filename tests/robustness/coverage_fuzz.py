"""Fuzzes the readers with atheris, which looks for inputs that reach new lines.

    python -m tests.robustness.coverage_fuzz --seconds 600   # pip install atheris
    python -m tests.robustness.coverage_fuzz --runs 1000     # the same inputs each time

`fault_table.py` hurts whole files at random; here an input is kept if it leads the
readers to a line that no other has reached. Whatever comes out but a `MetalrError`
ends with status 1, its traceback, and the input in `--keep`. Each reader has a process
of its own, since libFuzzer ends the one that it runs in.
"""

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

MODULE = "tests.robustness.coverage_fuzz"
ROOT = Path(__file__).parents[2]
MEMORY, LONGEST = 6144, 30  # MB of a process, seconds for an input


class Found(NamedTuple):
    """What came of one reader."""

    name: str
    inputs: int
    escaped: str | None  # what came out, None if nothing did


def fuzz_one(name: str, much: list[str], work: Path, keep: Path) -> None:
    """Fuzz a reader as much as the flags say; does not return."""
    atheris: Any = importlib.import_module("atheris")  # only CI has it, and no types

    with atheris.instrument_imports(include=["metalr"]):
        from metalr.errors import MetalrError
        from tests.robustness import fuzzing

    reader = fuzzing.READERS[name]
    corpus, path = work / "corpus", work / reader.name
    corpus.mkdir()
    for number, content in enumerate(reader.seeds()):
        (corpus / str(number)).write_bytes(content)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            reader.read(path)
        except MetalrError as fault:
            assert "\n" not in str(fault), "more than a line"

    flags = [*much, f"-rss_limit_mb={MEMORY}"]
    flags += [f"-timeout={LONGEST}", "-max_len=65536", f"-artifact_prefix={keep}/"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], read)
    atheris.Fuzz()


def in_process(name: str, much: list[str], keep: Path) -> Found:
    """Fuzz a reader in a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        argv = ["--one", name, *much, "--work", work]
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                MODULE,
                *argv,
                "--keep",
                str(keep),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"},
        )
    # libFuzzer counts as it goes; a crash keeps it from its last line.
    counts = re.findall(r"^#(\d+)\s", run.stderr, re.MULTILINE)
    inputs = max(map(int, counts), default=0)
    escaped = None if run.returncode == 0 and inputs else run.stderr[-3000:]
    return Found(name, inputs, escaped)


def main() -> int:
    """Fuzz every reader, two at a time, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of all readers")
    parser.add_argument("--runs", type=int, help="inputs of each, in place of a time")
    parser.add_argument("--readers", nargs="*", help="these alone")
    parser.add_argument("--keep", type=Path, default=Path("/tmp"), help="bad inputs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        much = [f"-max_total_time={round(args.seconds)}"]
        if args.runs:
            much = [f"-runs={args.runs}", "-seed=1"]
        fuzz_one(args.one, much, args.work, args.keep)
    from tests.robustness import fuzzing

    names = args.readers or list(fuzzing.READERS)
    each = ["--seconds", str(max(1.0, 2 * args.seconds / len(names)))]
    each = ["--runs", str(args.runs)] if args.runs else each
    with futures.ThreadPoolExecutor(2) as pool:
        work = [pool.submit(in_process, name, each, args.keep) for name in names]
    results = [job.result() for job in work]
    for found in results:
        print(f"{found.name:<20} {found.inputs:>9} inputs", found.escaped or "")
    return int(any(found.escaped for found in results))


if __name__ == "__main__":
    sys.exit(main())
