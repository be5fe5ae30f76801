"""Collect sweeps of the zoo, one file each."""

import time
from collections.abc import Callable
from pathlib import Path

from metalr.meta import traces
from metalr.meta.zoo import sweeps
from metalr.runtime import files, progress


def collect(
    count: int,
    output: Path,
    *,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
    seconds: float = float("inf"),
) -> bool:
    """Collect the first `count` sweeps of a seed, with a progress bar.

    After a kill the next call repeats no sweep that is in a file.

    Args:
      count: Number of sweeps.
      output: Folder for `traces/`; created if missing.
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
    todo = [k for k in range(count) if not path_of(folder, k, seed).exists()]
    program, architecture = None, None
    with progress.counting(len(todo)) as log:
        for index in todo:
            if stop() or time.monotonic() > deadline:
                return False
            sweep = sweeps.draw(index, seed)
            problem = sweeps.build(sweep)
            key = (sweep.program, problem.architecture)
            if program is None or key != architecture:
                program, architecture = sweeps.make_program(sweep, problem), key
            traces.write(
                path_of(folder, index, seed), sweeps.run(sweep, problem, program)
            )
            log(f"{sweep.kind} with {sweep.optimizer}, {sweep.horizon} steps")
    return True


def path_of(folder: Path, index: int, seed: int) -> Path:
    """Return the file of a sweep."""
    return folder / f"zoo-{seed}-{index:05d}{traces.ENDING}"
