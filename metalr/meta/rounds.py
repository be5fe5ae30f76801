"""Collect sweeps, then rounds of runs under the predictor itself.

A predictor that is applied reaches states that the traces it was fitted to do not hold,
so these states have to be collected too (DAgger; Ross, Gordon and Bagnell 2011, arXiv
1011.0686). Round r uses the predictor that is fitted to all earlier rounds, so that a
round which was interrupted resumes with the same one.
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metalr.meta import collect, fit, labels, trace_files, traces
from metalr.meta.sweeps import Job, Sweep
from metalr.meta.zoo.collect import collect as collect_zoo
from metalr.meta.zoo.problems import KINDS
from metalr.meta.zoo.sweeps import FIRST_ID, PER_PROGRAM
from metalr.predictor import Predictor
from metalr.runtime.program import stopped

INFORMATIVE = 0.1  # signal above which a sweep gets the runs of a round


def gather(
    chosen: Sequence[Sweep],
    output: Path,
    *,
    rounds: int,
    zoo: int = 0,
    seed: int = 0,
    runs_per_sweep: int = 2,
    seconds: float = math.inf,
    executor: str = "processes",
    workers: int | None = None,
    together: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], object] = lambda line: None,
    settings: fit.Settings | None = None,
    skip: Callable[[str], object] | None = None,
) -> bool:
    """Collect the sweeps, then rounds of the latest predictor's runs on them.

    Args:
      chosen: The sweeps.
      output: Folder for the traces.
      rounds: Rounds after the runs at peaks and walks.
      zoo: Number of sweeps of the zoo beside them; a round takes one of each program.
      seed: Of the zoo.
      runs_per_sweep: Runs of a round on each sweep; every other one explores.
      seconds: Of the whole. A round begins when all before it are complete, in this
        call or in a later one with the same arguments.
      executor: As in `collect.collect`.
      workers: As in `collect.collect`.
      together: As in `collect.collect`.
      stop: As in `collect.collect`.
      log: Called with each message of progress.
      settings: Of the fits.
      skip: As in `trace_files.read_all`.

    Returns:
      Whether all runs are in files.
    """
    deadline = time.monotonic() + seconds
    left = lambda: deadline - time.monotonic()  # noqa: E731
    cheap: dict[str, Any] = {"seed": seed, "stop": stop}
    if zoo:
        log(f"zoo: {zoo} sweeps of cheap problems of {len(KINDS)} kinds")
    whole = collect_zoo(range(zoo), output, seconds=left(), **cheap) if zoo else True
    chosen = [collect.as_begun(sweep, output) for sweep in chosen]
    if chosen:
        runs = sum(sweep.runs for sweep in chosen)
        log(f"{len(chosen)} sweeps of encoders, {runs} runs")
    options: dict[str, Any] = {
        "executor": executor,
        "workers": workers,
        "together": together,
        "stop": stop,
    }
    if chosen and whole:
        whole = collect.collect([*map(Job, chosen)], output, seconds=left(), **options)
    for number in range(1, rounds + 1):
        # A fit to a part would differ after a restart.
        if not whole or stopped(stop):
            return False
        informative, predictor = _before(number, output, settings, skip)
        jobs = [
            Job(sweep, number, predictor, runs_per_sweep)
            for sweep in chosen
            if sweep.sweep_id in informative
        ]
        own = [k for k in range(0, zoo, PER_PROGRAM) if FIRST_ID + k in informative]
        log(f"round {number}: the predictor so far on {len(jobs) + len(own)} sweeps")
        if own:
            whole = collect_zoo(
                own,
                output,
                number=number,
                predictor=predictor,
                seconds=left(),
                **cheap,
            )
        if jobs and whole:
            whole = collect.collect(jobs, output, seconds=left(), **options)
    return whole


def _before(
    number: int,
    output: Path,
    settings: fit.Settings | None,
    skip: Callable[[str], object] | None,
) -> tuple[set[int], Predictor]:
    """Return the informative sweeps and the predictor of all rounds before this one."""
    paths = trace_files.paths_in(output / "traces")
    paths = [path for path in paths if round_of(path) < number]
    _, runs = trace_files.read_all(paths, skip=skip)
    return _informative(runs), fit.fit(fit.examples(runs, settings), settings)


def _informative(runs: Sequence[traces.Run]) -> set[int]:
    """Return the informative sweeps, or all whole ones if none is.

    The runs of the others would get no weight.
    """
    signals = {
        k: labels.best_rate(of).signal for k, of in labels.by_sweep(runs).items()
    }
    return {k for k, signal in signals.items() if signal > INFORMATIVE} or set(signals)


def round_of(path: Path) -> int:
    """Return the round that a trace file belongs to.

    >>> [round_of(Path(f"{name}.parquet")) for name in ("sweep-02", "round-3-sweep-02")]
    [0, 3]
    """
    found = re.match(r"round-(\d+)-", path.name)
    return int(found[1]) if found else 0
