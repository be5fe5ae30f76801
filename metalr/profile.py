"""A trace of a few steps in the middle of a run, for ui.perfetto.dev."""

from pathlib import Path

import jax

FIRST, STEPS = 10, 10  # the first steps compile


class Profile:
    """Traces steps of a run; called with the number of steps done, as they go out.

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

    def __call__(self, done: int) -> None:
        """Begins or ends the trace, where it is time."""
        if done >= self._last:
            self.close()
        elif done >= self._first and not self._begun:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._begun = self._on = True

    def close(self) -> None:
        """Ends the trace if it is still on, once the device has done its steps."""
        if self._on:
            self._on = False
            jax.effects_barrier()
            jax.profiler.stop_trace()
