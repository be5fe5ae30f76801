"""Collects sweeps of the zoo, each a file as soon as it is there."""

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
    """Collects the first `count` sweeps of a seed, with a bar of progress.

    Killed at any moment, the next call does no sweep twice.

    Args:
      count: Of sweeps.
      output: Folder for `traces/`; made if it is missing.
      seed: Of the draws.
      stop: Asked between sweeps.
      seconds: No sweep is begun after these.

    Returns:
      Whether all are there.
    """
    folder = output / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_drafts(folder)
    deadline = time.monotonic() + seconds
    todo = [k for k in range(count) if not path_of(folder, k, seed).exists()]
    program, architecture = None, None
    with progress.counting(len(todo)) as tell:
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
            tell(f"{sweep.kind} with {sweep.optimizer}, {sweep.horizon} steps")
    return True


def path_of(folder: Path, index: int, seed: int) -> Path:
    """Returns the file of a sweep."""
    return folder / f"zoo-{seed}-{index:05d}{traces.ENDING}"
