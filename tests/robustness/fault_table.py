"""Breaks metalr on purpose, many times, and prints what came of it as a table.

    python -m tests.robustness.fault_table --kills 20 --fuzz 100000 --minutes 20

Real programs (`tests.robustness.fault_programs`) are killed, cut off, filled and
signalled at random moments, and go on by the same command; files are hurt at random and
read; losses and gradients go bad at random steps. *Lost* counts whatever did not end as
the undisturbed run did, bit for bit, or escaped as another error than metalr's own. A
fault is counted when it took place, not when it was meant to.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.models import small_models
from tests.robustness.fault_programs import (
    PROGRAMS,
    ROOT,
    Forked,
    Pair,
    Program,
    import_all,
)

MODULE = "tests.robustness.fault_table"
HANG = 60.0  # seconds after a signal, or for one file
MEMORY = 8 * 2**30  # bytes of address space that the readers get
# Readers that take long get a smaller share of the inputs.
SHARES = {
    "predictor arrays": 0.1,
    "safetensors": 0.1,
    "plan, TOML": 0.1,
    "predictor metadata": 0.5,
}


@dataclasses.dataclass
class Row:
    """What came of one kind of fault."""

    tried: int = 0
    lost: int = 0
    tracebacks: int = 0
    hangs: int = 0


TABLE: dict[str, Row] = defaultdict(Row)


def keep(path: Path | None) -> None:
    """Write the table as it is so far, for a later call to go on with."""
    if path is not None:
        rows = {name: dataclasses.asdict(row) for name, row in TABLE.items()}
        path.write_text(json.dumps(rows, indent=1))


def say(line: str) -> None:
    """Print a line of progress, which is no part of the table."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------ programs


def sleep_until(reached: Callable[[], bool], process: Forked | Pair) -> bool:
    """Wait for something, and return whether it came before the process ended."""
    while not reached():
        if process.poll() is not None:
            return False
        time.sleep(0.004)
    return True


def disturb(program: Program, fault: str, folder: Path, share: float, rng) -> bool:
    """Start a run and let one fault happen; return whether it came before the end.

    Args:
      program: The program.
      fault: One of its faults.
      folder: Of the run.
      share: Of a whole run's time that this one may take.
      rng: Draws the moment.
    """
    fresh = not folder.exists()
    limit = rng.choice((2_000, 8_000, 12_000)) if "full" in fault else None
    begun = math.inf
    process = program.start(folder, limit)
    if limit is None:
        early = "before" in fault
        there = early or sleep_until(lambda: program.begun(folder), process)
        begun = time.monotonic()
        span = program.starting if early else program.seconds * share
        moment = begun + rng.random() * span
        there = there and sleep_until(lambda: time.monotonic() > moment, process)
        if "inside" in fault:
            there = there and sleep_until(lambda: program.saving(folder), process)
        if there:
            program.strike(process, fault)
    row = TABLE[f"{program.name}: {fault}"]
    try:
        out, err = process.communicate(timeout=600 if limit else HANG)
    except subprocess.TimeoutExpired:
        row.hangs += 1
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate(HANG)
    if process.returncode == 0:  # it ended first
        if fresh and limit is None:
            program.seconds = min(program.seconds, time.monotonic() - begun)
        return False
    row.tried += 1
    row.tracebacks += "Traceback" in err
    statuses = {"SIGTERM": 143, "SIGINT": 130, "SIGKILL of one": 2}
    expected = statuses.get(fault.split(" before")[0], 2 if limit else -9)
    wished = process.returncode == expected and (expected < 100 or "resumes" in out)
    # Before its first step a signal ends the program as the system does it.
    at_once = fault.startswith(("SIGINT", "SIGTERM")) and (process.returncode or 0) < 0
    at_once = at_once and process.returncode == -getattr(signal, fault.split()[0])
    # Of two processes one may end so, and the other say that its partner has.
    bereft = isinstance(process, Pair) and process.returncode == 2
    at_once = at_once or (bereft and "another process of this run has ended" in err)
    if not wished and not (at_once and not out.count("stopped at step")):
        row.lost += 1
        say(f"{fault}: status {process.returncode} {out[-300:]} {err[-600:]}")
    if "power cut" in fault:  # the power went before they were on the disk
        files = [path for path in program.newest(folder) if path.stat().st_size]
        for path in rng.sample(files, min(len(files), 2)):
            os.truncate(path, rng.randrange(path.stat().st_size))
    return True


def kill(
    program: Program, kills: int, until: float, rng: random.Random, table: Path | None
) -> None:
    """Disturb runs, several times each, and compare their ends."""
    whole = program.work / f"{program.name}-whole"
    begun = time.monotonic()
    process = program.start(whole)
    sleep_until(lambda: program.begun(whole), process)
    first = time.monotonic()
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    expected, program.seconds = program.result(whole), time.monotonic() - first
    program.starting = first - begun
    allowed = HANG + 5 * (time.monotonic() - begun)
    say(f"{program.name}: undisturbed {program.seconds:.1f} s after its first file")
    done = 0
    for number in range(10**6):
        if done >= kills or time.monotonic() > until:
            return
        folder = program.work / f"{program.name}-{number}"
        chain = []
        for _ in range(rng.choice((2, 3, 4, 5))):
            fault = program.faults[(done + len(chain)) % len(program.faults)]
            # Each start leaves less to do, so the moments are drawn from less.
            if disturb(program, fault, folder, 0.9 / (1 + len(chain)), rng):
                chain.append(fault)
        done += len(chain)
        process = program.start(folder)
        try:
            _, err = process.communicate(timeout=allowed)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, err = process.communicate(HANG)
            TABLE[f"{program.name}: {chain[-1]}"].hangs += 1
        same = process.returncode == 0 and program.result(folder) == expected
        for fault in chain:
            row = TABLE[f"{program.name}: {fault}"]
            row.lost += not same  # any of them may have been the one
            row.tracebacks += "Traceback" in err
        say(f"{program.name}: {done}/{kills} {chain} {'same' if same else err[-900:]}")
        keep(table)


# ------------------------------------------------------------------ files


def fuzz(count: int, work: Path, seed: int) -> None:
    """Has every reader read files that were hurt, in a process of its own."""
    from tests.robustness import fuzzing

    total = sum(SHARES.get(name, 1) for name in fuzzing.READERS)
    for name in fuzzing.READERS:
        todo = round(count * SHARES.get(name, 1) / total)
        argv = ["--fuzz-one", name, "--fuzz", str(todo), "--seed", str(seed)]
        folder = work / name.replace(" ", "-")
        folder.mkdir()
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                MODULE,
                *argv,
                "--work",
                str(folder),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        row = TABLE[f"hurt file: {name}"]
        if run.returncode == 0:
            row.tried, row.lost, row.tracebacks, row.hangs, *found = json.loads(
                run.stdout
            )
        else:  # the process died: a crash in a library, or the memory was gone
            row.tried, row.lost, found = todo, 1, [run.stderr[-500:]]
        say(f"fuzz {name}: {dataclasses.astuple(row)} {found if row.lost else ''}")


def fuzz_one(name: str, count: int, folder: Path, seed: int) -> list:
    """Read hurt files of one format; return counts and what went wrong."""
    from metalr.errors import MetalrError
    from tests.robustness import fuzzing

    class Hang(Exception):
        pass

    def rings(signum, frame):
        raise Hang

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, rings)
    reader = fuzzing.READERS[name]
    seeds, rng = reader.seeds(), random.Random(f"{name} {seed}")
    hangs, faults, escaped = 0, set(), 0
    path = folder / reader.name
    for _ in range(count):
        cuts = fuzzing.drawn(rng)
        content = fuzzing.mutate(rng.choice(seeds), cuts, rng.choice(seeds))
        path.write_bytes(content)
        signal.alarm(int(HANG))
        try:
            with contextlib.redirect_stderr(None):
                reader.read(path)
        except MetalrError as fault:
            if "\n" in str(fault):
                faults.add(f"more than a line: {fault}")
        except Hang:
            hangs += 1
        except Exception as fault:
            escaped += 1
            where = traceback.extract_tb(fault.__traceback__)[-1]
            at = next(
                f
                for f in reversed(traceback.extract_tb(fault.__traceback__))
                if "/metalr/" in f.filename or "/tests/" in f.filename
            )
            faults.add(f"{fault!r:.150} {where.name} {at.filename[-30:]}:{at.lineno}")
        finally:
            signal.alarm(0)
    return [count, escaped, escaped, hangs, *sorted(faults)[:10]]


# ------------------------------------------------------------------ numbers


def inject(count: int, rng: random.Random) -> None:
    """Train while losses and gradients go bad at random steps."""
    import jax

    from metalr.finetune import journal
    from tests.finetune import regression_runs
    from tests.product import poisoned_runs

    with contextlib.suppress(KeyError):
        folder = os.path.join(os.environ["METALR_CACHE"], "jax")
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    values = (float("nan"), float("inf"), -float("inf"), 1e30)
    for number in range(count):
        value, at = rng.choice(values), rng.sample(range(regression_runs.STEPS), 2)
        loss, plain = bool(number % 3 == 0 and value != 1e30), number % 5 == 4
        share = rng.choice((0.01, 1.0))
        name = "a plain scheduler" if plain else "metalr"
        row = TABLE[f"loss or gradient NaN, inf or 1e30: {name}"]
        tx = regression_runs.transformation() if plain else poisoned_runs.metalr()
        tx = poisoned_runs.poisoned(tx, at, value, loss=loss, share=share)
        row.tried += 1
        try:
            outcome = regression_runs.train(regression_runs.PACE, tx=tx)
            rows = [r for r in outcome.history if "loss" in r]
            good = poisoned_runs.is_finite(outcome)
            if not plain:
                good = good and rows[-1]["skipped_steps"] == 2
        except journal.Diverged as fault:
            good = plain and "smaller --learning-rate" in str(fault)
        except Exception as fault:
            good = False
            row.tracebacks += 1
            say(repr(fault))
        row.lost += not good
        if not good:
            say(f"not good: {value} at {at}, loss {loss}, {name}")
    say(f"numbers: {count} runs")


# ------------------------------------------------------------------ the table


def markdown() -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| fault | tried | lost | tracebacks | hangs over 60 s |"
    yield "|---|--:|--:|--:|--:|"
    for name, row in TABLE.items():
        yield f"| {name} | {' | '.join(map(str, dataclasses.astuple(row)))} |"


def main() -> None:
    """Carry out what the flags ask for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--kills", type=int, default=20, help="of each program")
    add("--programs", nargs="*", default=list(PROGRAMS), choices=PROGRAMS)
    add("--fuzz", type=int, default=100_000, help="hurt files, over all readers")
    add("--nonfinite", type=int, default=50, help="runs with bad numbers")
    add("--minutes", type=float, default=20, help="no chain of kills begins after them")
    add("--seed", type=int, default=0)
    add("--work", type=Path, help="folder for the files (default: a temporary one)")
    add("--table", type=Path, help="JSON of the table, which this call adds to")
    add("--fuzz-one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fuzz_one:
        print(json.dumps(fuzz_one(args.fuzz_one, args.fuzz, args.work, args.seed)))
        return
    if args.table is not None and args.table.exists():
        for name, row in json.loads(args.table.read_text()).items():
            TABLE[name] = Row(**row)
    rng = random.Random(args.seed)
    begun = time.monotonic()
    programs = [PROGRAMS[name] for name in args.programs]
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        if args.kills:
            # In a process of its own: jax must have no threads when this one forks.
            spawn = multiprocessing.get_context("spawn")
            write = spawn.Process(target=small_models.save_bert, args=(work / "tiny",))
            write.start()
            write.join()
            os.environ.setdefault("METALR_CACHE", str(work / "cache"))
            import_all()
            for number, kind in enumerate(programs, start=1):
                until = begun + 60 * args.minutes * number / len(programs)
                kill(kind(work), args.kills, until, rng, args.table)
        if args.fuzz:
            fuzz(args.fuzz, work, args.seed)
        inject(args.nonfinite, rng)
    keep(args.table)
    print(*markdown(), sep="\n")


if __name__ == "__main__":
    main()
