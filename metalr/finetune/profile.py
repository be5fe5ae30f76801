"""A trace of a few steps in the middle of a run, for ui.perfetto.dev."""

from pathlib import Path
from typing import Any

import jax

FIRST, STEPS = 10, 10  # the first steps compile


class Profile:
    """Traces some steps of a run; it is called after each.

    Args:
      folder: Where the trace goes, in a folder for its time; its
        `perfetto_trace.json.gz` is what Perfetto opens.
      total_steps: Of the run; of a short one the last steps are traced.
    """

    def __init__(self, folder: Path, total_steps: int):
        self._folder = folder
        self._first = max(0, min(FIRST, total_steps - STEPS))
        self._last = min(self._first + STEPS, total_steps)
        self._begun = self._on = False

    def __call__(self, done: int, result: Any) -> None:
        """Begin or end the trace at the steps chosen for it.

        Args:
          done: Number of steps dispatched.
          result: What the last of them returns; the device may still compute it.
        """
        if done >= self._last:
            jax.block_until_ready(result)
            self.close()
        elif done >= self._first and not self._begun:
            jax.block_until_ready(result)
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._begun = self._on = True

    def close(self) -> None:
        """End the trace if it has not ended."""
        if self._on:
            self._on = False
            jax.profiler.stop_trace()
