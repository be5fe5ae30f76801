"""Collect sweeps of the zoo, and what a predictor does on them, one file each."""

import functools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from metalr.meta import trace_files
from metalr.meta.zoo import closed_loop, sweeps
from metalr.predictor import Predictor
from metalr.runtime import files, progress
from metalr.runtime.program import stopped


def collect(
    indices: Iterable[int],
    output: Path,
    *,
    number: int = 0,
    predictor: Predictor | None = None,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
    seconds: float = float("inf"),
) -> bool:
    """Collect sweeps, or a round of a predictor's runs on them, with a progress bar.

    After a kill the next call repeats no sweep that is in a file.

    Args:
      indices: Of the sweeps among all of a seed; neighbours share a compilation.
      output: Folder for `traces/`; created if missing.
      number: Of the round; 0: the runs at peaks and walks.
      predictor: That of the rounds before.
      seed: Of the draws.
      stop: Called between sweeps; True ends the collection.
      seconds: No sweep is started after this time.

    Returns:
      Whether every sweep is in a file.
    """
    folder = output / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_drafts(folder)
    deadline = time.monotonic() + seconds
    todo = [k for k in indices if not path_of(folder, k, seed, number).exists()]
    make: Any = sweeps.make_program
    if predictor is not None:  # whose base rates are drawn at random
        make = functools.partial(closed_loop.make_programs, trust=0.0)
    program: Any = None
    made_for = None
    with progress.counting(len(todo)) as log:
        for index in todo:
            if stopped(stop) or time.monotonic() > deadline:
                return False
            sweep = sweeps.draw(index, seed)
            problem = sweeps.build(sweep)
            # A round's program has the warm-up in it, the other one is given its rates.
            warmup = None if predictor is None else sweep.warmup
            if made_for != (key := (sweep.program, problem.architecture, warmup)):
                program, made_for = make(sweep, problem), key
            if predictor is None:
                runs = sweeps.run(sweep, problem, program)
            else:
                runs = closed_loop.policy_runs(
                    sweep, problem, program, predictor, number=number
                )
            trace_files.write(path_of(folder, index, seed, number), runs)
            log(f"{sweep.kind} with {sweep.optimizer}, {sweep.horizon} steps")
    return True


def path_of(folder: Path, index: int, seed: int, number: int = 0) -> Path:
    """Return the file of a sweep, or of a round on it."""
    prefix = f"round-{number}-" if number else ""
    return folder / f"{prefix}zoo-{seed}-{index:05d}{trace_files.ENDING}"
