"""Collects traces of many banks; the only file that knows processes.

Each run is a file as soon as it ends, in `OUTPUT/parts/`; a bank that is complete is
one file in `OUTPUT/traces/`. Killed at any moment, a collection loses the runs that
were in progress, and the next start does nothing twice.

One process a core beats one process with many threads. `vmap` over the rates of a bank
would gain nothing on a CPU: matrices of different weights share no work.
"""

import contextlib
import math
import multiprocessing
import os
import queue
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax

from metalr import banks, recipe, record, results, traces
from metalr.banks import Job
from metalr.errors import MetalrError

_PATIENCE = 5.0  # seconds that a process gets to end its step
_PLAIN_SECONDS = 30.0  # between lines of progress where there is no terminal

Stop = Callable[[], bool]
Tell = Callable[[str], object]


def carry_out(
    job: Job,
    output: Path,
    *,
    stop: Stop = lambda: False,
    tell: Tell = lambda line: None,
) -> bool:
    """Carries out what is missing of a job.

    Args:
      job: Bank and runs.
      output: Folder with `traces/` and `parts/`.
      stop: Asked after each step.
      tell: Told of each run that ended.

    Returns:
      Whether the job's file is complete.

    Raises:
      MetalrError: Data or model cannot be had, or the folder holds other banks.
    """
    target, parts = _target(job, output), _parts(job, output)
    opened = None
    if not target.exists():
        for number, (part, plan) in enumerate(
            zip(parts, banks.plans(job), strict=True)
        ):
            if part.exists():
                continue
            if stop():
                return False
            opened = opened or record.open_bank(job.bank)
            run = record.take(opened, plan, stop)
            if run is None:
                return False
            run.about.update(round=job.round, run=number)
            traces.write(part, [run])
            tell(_line(job, run))
        traces.write(target, [run for part in parts for run in traces.read(part)])
    for part in parts:
        part.unlink(missing_ok=True)
    return True


def _tidy(jobs: Sequence[Job], output: Path) -> None:
    """Removes what a kill or a power cut left, so that it is collected again."""
    for name in ("traces", "parts"):
        results.remove_drafts(output / name)
    for path in [
        p for job in jobs for p in (_target(job, output), *_parts(job, output))
    ]:
        try:
            if path.exists():
                traces.read(path)
        except traces.Broken:
            path.unlink()
            print(f"{path} is cut off: collected again")


def missing(jobs: Sequence[Job], output: Path) -> int:
    """Counts the runs that are still to do.

    Raises:
      MetalrError: A file in `output` is of a bank with other settings.
    """
    count = 0
    for job in jobs:
        target, parts = _target(job, output), _parts(job, output)
        for path in [path for path in (target, *parts) if path.exists()][:1]:
            _check_same(job, path)
        if not target.exists():
            count += sum(not part.exists() for part in parts)
    return count


def _target(job: Job, output: Path) -> Path:
    return output / "traces" / (job.name + traces.ENDING)


def _parts(job: Job, output: Path) -> list[Path]:
    count = job.runs if job.round else len(job.bank.peaks) + job.bank.walks
    folder = output / "parts"
    return [folder / f"{job.name}-{i:02d}{traces.ENDING}" for i in range(count)]


def _check_same(job: Job, path: Path) -> None:
    about = traces.read(path)[0].about
    # Through JSON, as the file has it: tuples become lists.
    ours = {
        k: list(v) if isinstance(v, tuple) else v for k, v in job.bank._asdict().items()
    }
    other = [name for name, value in ours.items() if about.get(name) != value]
    if other:
        raise MetalrError(
            f"{path} was collected with other settings ({', '.join(other)}); go on "
            "with the same flags, or choose another --output"
        )


def _line(job: Job, run: traces.Run) -> str:
    last = run.evaluations[-1]["eval_loss"]
    loss = "not finite" if last is None else f"{last:.3f}"
    return (
        f"{job.name} {job.bank.task} {job.bank.model} {run.about['kind']} "
        f"at {run.rate.max():.1e}: loss {loss}, {run.about['seconds']:.0f} s"
    )


# ------------------------------------------------------------------ many banks


def cores() -> list[int]:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def collect(
    jobs: Sequence[Job],
    output: Path,
    *,
    workers: int | None = None,
    stop: Stop = lambda: False,
    seconds: float = math.inf,
) -> bool:
    """Carries out jobs, several at a time, with a bar of progress.

    Args:
      jobs: What to do; what is done already is left alone.
      output: Folder for `traces/` and `parts/`; made if it is missing. No other process
        may collect there: see `run_folder.held`.
      workers: Processes. None: one a core on a CPU, and none but this one elsewhere.
      stop: Asked all the time; True ends at the next step.
      seconds: No bank is begun that would probably not end by then.

    Returns:
      Whether all is done.

    Raises:
      MetalrError: As `carry_out`, or a process died.
    """
    for name in ("traces", "parts"):
        (output / name).mkdir(parents=True, exist_ok=True)
    _tidy(jobs, output)
    total = missing(jobs, output)
    todo = [job for job in jobs if not _target(job, output).exists()]
    if workers is None:
        workers = len(cores()) if jax.default_backend() == "cpu" else 1
    workers = min(workers, len(todo))
    deadline = time.time() + seconds
    with _progress(total) as tell:
        if workers > 1:
            _in_processes(todo, output, workers, stop, deadline, tell)
        else:
            _in_turn(todo, output, stop, deadline, tell)
    return missing(jobs, output) == 0


def _in_turn(
    jobs: Iterable[Job],
    output: Path,
    stop: Stop,
    deadline: float,
    tell: Tell,
) -> None:
    longest = 0.0
    for job in jobs:
        begun = time.time()
        if stop() or begun + longest > deadline:
            return
        carry_out(job, output, stop=stop, tell=tell)
        longest = max(longest, time.time() - begun)


def _in_processes(
    jobs: list[Job],
    output: Path,
    workers: int,
    stop: Stop,
    deadline: float,
    tell: Tell,
) -> None:
    # Spawned, not forked: jax has threads by now.
    context = multiprocessing.get_context("spawn")
    waiting, messages, halt = context.Queue(), context.Queue(), context.Event()
    for job in [*jobs, *[None] * workers]:
        waiting.put(job)
    arguments = (output, deadline, waiting, messages, halt)
    processes = [
        context.Process(target=_worker, args=(core, *arguments), daemon=True)
        for core in (cores() * workers)[:workers]
    ]
    for process in processes:
        process.start()
    faults = []
    try:
        while any(process.is_alive() for process in processes) or not messages.empty():
            if stop() or faults:
                break
            with contextlib.suppress(queue.Empty):
                kind, said = messages.get(timeout=0.2)
                tell(said) if kind == "run" else faults.append(said)
    finally:
        halt.set()
        waiting.cancel_join_thread()
        for process in processes:
            process.join(timeout=_PATIENCE)
            if process.is_alive():  # compiling; its files are whole whatever happens
                process.terminate()
                process.join()
    if faults:
        raise faults[0]
    if not stop() and any(process.exitcode for process in processes):
        raise MetalrError(
            "a process of the collection died, perhaps for want of memory; the same "
            "command goes on, --workers 1 needs least"
        )


def _worker(core: int, output: Path, deadline: float, waiting, messages, halt) -> None:
    """Carries out jobs from a queue on one core, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and says so
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    # Read when the first computation starts, which is later than here.
    flags = "--xla_cpu_multi_thread_eigen=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    recipe.keep_compilations()
    parent = multiprocessing.parent_process()

    def stop() -> bool:
        # Without its parent nobody would end it, and a new start would do it twice.
        return halt.is_set() or (parent is not None and not parent.is_alive())

    try:
        tell = lambda line: messages.put(("run", line))  # noqa: E731
        _in_turn(iter(waiting.get, None), output, stop, deadline, tell)
    except MetalrError as fault:
        messages.put(("fault", MetalrError(str(fault))))
    except Exception:
        said = f"a process failed:\n{traceback.format_exc()}"
        messages.put(("fault", RuntimeError(said)))


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Tell]:
    """Yields a function to call with a line for each run that ended."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(highlight=False)
    begun, done, shown = time.monotonic(), 0, 0.0
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs  {task.description}"),
    )
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=total)

    def tell(line: str) -> None:
        nonlocal done, shown
        done += 1
        now = time.monotonic()
        pace = _pace(done, total, now - begun)
        bar.update(task, completed=done, description=pace)
        if console.is_terminal:
            bar.console.print(line, markup=False)
        elif now - shown > _PLAIN_SECONDS or done == total:
            shown = now
            print(f"{done}/{total} runs  {pace}  {line}", flush=True)

    with bar if console.is_terminal else contextlib.nullcontext():
        yield tell


def _pace(done: int, total: int, seconds: float) -> str:
    """Returns speed and time left.

    >>> _pace(3, 9, 60.0)
    '3.0 runs/min, 2 min left'
    """
    per_minute = 60 * done / max(seconds, 1e-3)
    left = (total - done) / per_minute
    return f"{per_minute:.1f} runs/min, {left:.0f} min left"
