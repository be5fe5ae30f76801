"""Collect traces of many sweeps, and keep each run as soon as it has ended.

Each run is written to `OUTPUT/parts/` when it ends; a complete sweep is one file in
`OUTPUT/traces/`. A collection that is killed loses only the runs in progress, and the
next start repeats none of the others.

On a CPU one process a core is faster than one process with many threads, and each takes
one run at a time: matrices of different weights share no work there. On other devices
the runs of a sweep go side by side under `vmap`, in fewer and larger kernels. Only this
process writes files; `metalr.runtime.executors` decides where the others run.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from metalr.errors import MetalrError
from metalr.meta import record, sweeps, trace_files, traces
from metalr.meta.sweeps import Job
from metalr.runtime import compilation, executors, files, progress

Stop = Callable[[], bool]


class Remaining(NamedTuple):
    """The runs of a job that are in no file yet."""

    job: Job
    runs: tuple[int, ...]  # their numbers
    together: int | None = None  # runs at a time; None: 1 on a CPU, elsewhere all


def collect_job(rest: Remaining) -> Iterator[tuple[int, traces.Run]]:
    """Train the remaining runs of a job and yield each with its number.

    Raises:
      MetalrError: The data or the model cannot be loaded.
    """
    if executors.stopping():
        return
    planned = sweeps.planned_runs(rest.job)
    loaded = record.load_sweep(rest.job.sweep)
    all_at_once = jax.default_backend() != "cpu"
    size = rest.together or (len(rest.runs) if all_at_once else 1)
    for first in range(0, len(rest.runs), size):
        numbers = rest.runs[first : first + size]
        if executors.stopping():
            return
        recorded = record.record_runs(
            loaded, [planned[k] for k in numbers], executors.stopping
        )
        for number, run in zip(numbers, recorded or (), strict=bool(recorded)):
            run.about.update(round=rest.job.round, run=number)
            yield number, run


def _tidy(jobs: Sequence[Job], output: Path) -> None:
    """Remove files that a kill or a power cut left incomplete."""
    for name in ("traces", "parts"):
        files.remove_drafts(output / name)
    for path in [
        p for job in jobs for p in (_target(job, output), *_parts(job, output))
    ]:
        try:
            if path.exists():
                trace_files.read(path)
        except trace_files.Broken:
            path.unlink()
            print(f"{path} is cut off: its runs are collected again")


def as_begun(sweep: sweeps.Sweep, output: Path) -> sweeps.Sweep:
    """Return a sweep with the shapes that its files in `output` have, if it has any.

    A collection that was begun before sweeps had several shapes goes on as it was.
    """
    job = Job(sweep)
    for path in (_target(job, output), *_parts(job, output)) if sweep.also else ():
        try:
            if path.exists():
                about = trace_files.read(path)[0].about
                return sweep._replace(also=tuple(about.get("also", ())))
        except trace_files.Broken:
            continue  # `collect` removes it
    return sweep


def missing(jobs: Sequence[Job], output: Path) -> int:
    """Count the runs that are in no file yet.

    Raises:
      MetalrError: A file in `output` is of a sweep with other settings.
    """
    count = 0
    for job in jobs:
        target, parts = _target(job, output), _parts(job, output)
        _check_same(job, output)
        if not target.exists():
            count += sum(not part.exists() for part in parts)
    return count


def _target(job: Job, output: Path) -> Path:
    return output / "traces" / (job.name + trace_files.ENDING)


def _parts(job: Job, output: Path) -> list[Path]:
    count = job.runs if job.round else job.sweep.runs
    folder = output / "parts"
    return [folder / f"{job.name}-{i:02d}{trace_files.ENDING}" for i in range(count)]


def _check_same(job: Job, output: Path) -> None:
    target, parts = _target(job, output), _parts(job, output)
    path = next((path for path in (target, *parts) if path.exists()), None)
    if path is None:
        return
    runs = trace_files.read(path)
    about = {"also": [], **runs[0].about}  # older files name no other shapes
    # Through JSON, as the file has it: tuples become lists.
    ours = {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in job.sweep._asdict().items()
    }
    other = [name for name, value in ours.items() if about.get(name) != value]
    if other:
        raise MetalrError(
            f"{path} was collected with other settings ({', '.join(other)}); use "
            "the same flags, or choose another --output"
        )
    more = {*(output / "parts").glob(f"{job.name}-*{trace_files.ENDING}")} - {*parts}
    if more or (path == target and len(runs) != len(parts)):
        raise MetalrError(
            f"{target.stem} was collected with another number of runs than "
            f"{len(parts)}; use the same --runs-per-sweep, or choose another --output"
        )


def _line(job: Job, run: traces.Run) -> str:
    last = run.evaluations[-1]["eval_loss"]
    loss = "not finite" if last is None else f"{last:.3f}"
    return (
        f"{job.name} {job.sweep.task} {job.sweep.model} {run.about['kind']} "
        f"at {run.rate.max():.1e}: loss {loss}, {run.about.get('seconds', 0):.0f} s"
    )


# ------------------------------------------------------------------ many sweeps


def collect(
    jobs: Sequence[Job],
    output: Path,
    *,
    executor: str = "processes",
    workers: int | None = None,
    together: int | None = None,
    stop: Stop = lambda: False,
    seconds: float = math.inf,
) -> bool:
    """Collect the runs of jobs, several jobs at a time, with a progress bar.

    Args:
      jobs: The jobs; runs that are in a file already are kept.
      output: Folder for `traces/` and `parts/`; created if missing. No other process
        may collect there: see `run_folder.held`.
      executor: A row of `executors.KINDS`.
      workers: Jobs at a time. None: one a core on a CPU and one elsewhere, or as many
        as the Ray cluster has room for.
      together: Runs of a job at a time, which need as many times the memory. None: 1 on
        a CPU, elsewhere all.
      stop: Called before each step; True ends the collection there.
      seconds: No job is started that would probably end after this time.

    Returns:
      Whether every run is in a file.

    Raises:
      MetalrError: The data or the model cannot be loaded, the folder holds other
        sweeps, or a process died.
    """
    for name in ("traces", "parts"):
        (output / name).mkdir(parents=True, exist_ok=True)
    _tidy(jobs, output)
    total = missing(jobs, output)
    for job in jobs:
        _merge(job, output)  # a kill may have come just before
    rests = [_remaining(job, output)._replace(together=together) for job in jobs]
    todo = [rest for rest in rests if rest.runs]
    if executor == "processes":
        workers = min(workers or executors.fitting(), max(len(todo), 1))
    clock = _Clock(seconds)
    with progress.counting(total) as log:

        def keep(rest: Remaining, result: tuple[int, traces.Run]) -> None:
            number, run = result
            trace_files.write(_parts(rest.job, output)[number], [run])
            _merge(rest.job, output)
            clock.note(rest)
            log(_line(rest.job, run))

        executors.carry_out(
            collect_job,
            clock.in_time(todo),
            on_result=keep,
            workers=workers,
            stop=stop,
            kind=executor,
            start=compilation.use_cache,
        )
    return missing(jobs, output) == 0


def _remaining(job: Job, output: Path) -> Remaining:
    """Return the runs of a job that are in no file."""
    if _target(job, output).exists():
        return Remaining(job, ())
    parts = enumerate(_parts(job, output))
    return Remaining(job, tuple(number for number, part in parts if not part.exists()))


def _merge(job: Job, output: Path) -> None:
    """Merge the parts of a job into one file, if all are there."""
    target, parts = _target(job, output), _parts(job, output)
    if not target.exists():
        if not all(part.exists() for part in parts):
            return
        runs = [run for part in parts for run in trace_files.read(part)]
        trace_files.write(target, runs)
    for part in parts:
        part.unlink(missing_ok=True)


class _Clock:
    """Estimate from the jobs so far whether another one would end in time."""

    def __init__(self, seconds: float):
        self._deadline = time.monotonic() + seconds
        self._begun: dict[str, float] = {}
        self._longest = 0.0

    def note(self, rest: Remaining) -> None:
        """Note that a job was still running just now."""
        taken = time.monotonic() - self._begun[rest.job.name]
        self._longest = max(self._longest, taken)

    def in_time(self, todo: Sequence[Remaining]) -> Iterator[Remaining]:
        """Yield the jobs until another one would probably end too late."""
        for rest in todo:
            now = time.monotonic()
            if now + self._longest > self._deadline:
                return
            self._begun[rest.job.name] = now
            yield rest
