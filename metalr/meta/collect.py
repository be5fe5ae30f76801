"""Collects traces of many banks, and keeps each as soon as it is there.

Each run is a file as soon as it ends, in `OUTPUT/parts/`; a bank that is complete is
one file in `OUTPUT/traces/`. Killed at any moment, a collection loses the runs that
were in progress, and the next start does nothing twice.

On a CPU one process a core beats one process with many threads, and takes a run at a
time: matrices of different weights share no work there. Elsewhere the runs of a bank go
side by side under `vmap`, in fewer and larger kernels. Only this process writes files;
where the others are is the business of `metalr.runtime.executors`.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from metalr.errors import MetalrError
from metalr.meta import banks, record, traces
from metalr.meta.banks import Job
from metalr.runtime import compilation, executors, files, progress

Stop = Callable[[], bool]


class Rest(NamedTuple):
    """What is still to do of a job."""

    job: Job
    runs: tuple[int, ...]  # their numbers
    together: int | None = None  # runs at a time; None: 1 on a CPU, elsewhere all


def carry_out(rest: Rest) -> Iterator[tuple[int, traces.Run]]:
    """Carries out runs of a bank and yields each with its number.

    Raises:
      MetalrError: Data or model cannot be had.
    """
    if executors.stopping():
        return
    plans = banks.plans(rest.job)
    opened = record.open_bank(rest.job.bank)
    all_at_once = jax.default_backend() != "cpu"
    size = rest.together or (len(rest.runs) if all_at_once else 1)
    for first in range(0, len(rest.runs), size):
        numbers = rest.runs[first : first + size]
        if executors.stopping():
            return
        taken = record.take(opened, [plans[k] for k in numbers], executors.stopping)
        for number, run in zip(numbers, taken or (), strict=bool(taken)):
            run.about.update(round=rest.job.round, run=number)
            yield number, run


def _tidy(jobs: Sequence[Job], output: Path) -> None:
    """Removes what a kill or a power cut left, so that it is collected again."""
    for name in ("traces", "parts"):
        files.remove_drafts(output / name)
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
        _check_same(job, output)
        if not target.exists():
            count += sum(not part.exists() for part in parts)
    return count


def _target(job: Job, output: Path) -> Path:
    return output / "traces" / (job.name + traces.ENDING)


def _parts(job: Job, output: Path) -> list[Path]:
    count = job.runs if job.round else len(job.bank.peaks) + job.bank.walks
    folder = output / "parts"
    return [folder / f"{job.name}-{i:02d}{traces.ENDING}" for i in range(count)]


def _check_same(job: Job, output: Path) -> None:
    target, parts = _target(job, output), _parts(job, output)
    path = next((path for path in (target, *parts) if path.exists()), None)
    if path is None:
        return
    runs = traces.read(path)
    about = runs[0].about
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
    more = {*(output / "parts").glob(f"{job.name}-*{traces.ENDING}")} - {*parts}
    if more or (path == target and len(runs) != len(parts)):
        raise MetalrError(
            f"{target.stem} was collected with another number of runs than "
            f"{len(parts)}; go on with the same --per-bank, or choose another --output"
        )


def _line(job: Job, run: traces.Run) -> str:
    last = run.evaluations[-1]["eval_loss"]
    loss = "not finite" if last is None else f"{last:.3f}"
    return (
        f"{job.name} {job.bank.task} {job.bank.model} {run.about['kind']} "
        f"at {run.rate.max():.1e}: loss {loss}, {run.about['seconds']:.0f} s"
    )


# ------------------------------------------------------------------ many banks


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
    """Carries out jobs, several at a time, with a bar of progress.

    Args:
      jobs: What to do; what is done already is left alone.
      output: Folder for `traces/` and `parts/`; made if it is missing. No other process
        may collect there: see `run_folder.held`.
      executor: A row of `executors.KINDS`.
      workers: Banks at a time. None: one a core on a CPU and one elsewhere, or what
        the Ray cluster has room for.
      together: Runs of a bank at a time, which need as many times the memory; None: 1
        on a CPU, elsewhere all.
      stop: Asked all the time; True ends at the next step.
      seconds: No bank is begun that would probably not end by then.

    Returns:
      Whether all is done.

    Raises:
      MetalrError: Data or model cannot be had, the folder holds other banks, or a
        process died.
    """
    for name in ("traces", "parts"):
        (output / name).mkdir(parents=True, exist_ok=True)
    _tidy(jobs, output)
    total = missing(jobs, output)
    for job in jobs:
        _gather(job, output)  # a kill may have come just before
    rests = [_rest(job, output)._replace(together=together) for job in jobs]
    todo = [rest for rest in rests if rest.runs]
    if executor == "processes":
        workers = min(workers or executors.fitting(), max(len(todo), 1))
    clock = _Clock(seconds)
    with progress.counting(total) as tell:

        def keep(rest: Rest, result: tuple[int, traces.Run]) -> None:
            number, run = result
            traces.write(_parts(rest.job, output)[number], [run])
            _gather(rest.job, output)
            clock.heard(rest)
            tell(_line(rest.job, run))

        executors.carry_out(
            carry_out,
            clock.while_there_is_time(todo),
            on_result=keep,
            workers=workers,
            stop=stop,
            kind=executor,
            start=compilation.use_cache,
        )
    return missing(jobs, output) == 0


def _rest(job: Job, output: Path) -> Rest:
    """Returns the runs of a job that are in no file."""
    if _target(job, output).exists():
        return Rest(job, ())
    parts = enumerate(_parts(job, output))
    return Rest(job, tuple(number for number, part in parts if not part.exists()))


def _gather(job: Job, output: Path) -> None:
    """Makes one file of a job's runs, if all are there."""
    target, parts = _target(job, output), _parts(job, output)
    if not target.exists():
        if not all(part.exists() for part in parts):
            return
        traces.write(target, [run for part in parts for run in traces.read(part)])
    for part in parts:
        part.unlink(missing_ok=True)


class _Clock:
    """Knows how long a bank takes, and whether another one would end in time."""

    def __init__(self, seconds: float):
        self._deadline = time.monotonic() + seconds
        self._begun: dict[str, float] = {}
        self._longest = 0.0

    def heard(self, rest: Rest) -> None:
        """Notes that a bank has been at work until now."""
        taken = time.monotonic() - self._begun[rest.job.name]
        self._longest = max(self._longest, taken)

    def while_there_is_time(self, todo: Sequence[Rest]) -> Iterator[Rest]:
        """Yields what is to do, when the next is asked for."""
        for rest in todo:
            now = time.monotonic()
            if now + self._longest > self._deadline:
                return
            self._begun[rest.job.name] = now
            yield rest
