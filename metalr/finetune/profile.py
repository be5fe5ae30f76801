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
        self._folder, self._total = folder, total_steps
        self._steps: range | None = None  # known at the first call: a run may resume
        self._on = False

    def __call__(self, done: int, result: Any) -> None:
        """Begin or end the trace at the steps chosen for it.

        Args:
          done: Number of steps dispatched.
          result: What the last of them returns; the device may still compute it.
        """
        if self._steps is None:
            first = done - 1 + max(0, min(FIRST, self._total - done + 1 - STEPS))
            self._steps = range(first, min(first + STEPS, self._total))
        if done >= self._steps.stop and self._on:
            jax.block_until_ready(result)
            self.close()
        elif done in self._steps and not self._on:
            jax.block_until_ready(result)
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._on = True

    def close(self) -> None:
        """End the trace if it has not ended."""
        if self._on:
            self._on = False
            jax.profiler.stop_trace()
