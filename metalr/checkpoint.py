"""Checkpoints of a run through orbax: the last states, and the best parameters.

A run's folder holds `last/` (two newest training states with the run's journal, so
that a torn newest one leaves another) and `best/` (parameters alone). Reading needs
an abstract target: orbax gives optax's NamedTuples back as dicts without one.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from metalr.errors import MetalrError


class Saved(NamedTuple):
    """What a run goes on from."""

    step: int
    state: Any  # the pytree that was saved
    journal: dict[str, Any]  # JSON: history, best row, seconds


class Checkpoints:
    """Saves and restores the states of one run.

    Args:
      folder: Where `last/` and `best/` are made.
    """

    def __init__(self, folder: Path):
        # Imported here: orbax takes longer to import than all of metalr's core.
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp = ocp
        folder = folder.resolve()  # orbax refuses relative paths

        def manager(name: str, keep: int) -> Any:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=keep, create=True, enable_async_checkpointing=False
            )
            return ocp.CheckpointManager(folder / name, options=options)

        # Not asynchronous: on CPU the arrays handed over are views of buffers that
        # the next step, which donates them, may overwrite while they are written.
        self._last = manager("last", 2)
        self._best = manager("best", 1)

    def save(self, step: int, state: Any, journal: dict[str, Any]) -> None:
        """Saves the training state after `step` steps, with the run's journal."""
        ocp = self._ocp
        if self._last.latest_step() == step:
            return
        self._last.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), journal=ocp.args.JsonSave(journal)
            ),
        )

    def latest(self, abstract: Any) -> Saved | None:
        """Returns the newest state that can be read whole, None where there is none.

        Args:
          abstract: Tree of `jax.ShapeDtypeStruct`, as of `jax.eval_shape`.

        Raises:
          MetalrError: There are states, and none of them can be read.
        """
        ocp = self._ocp
        faults = []
        for step in sorted(self._last.all_steps(), reverse=True):
            args = ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), journal=ocp.args.JsonRestore()
            )
            try:
                found = self._last.restore(step, args=args)
                return Saved(step, found["state"], found["journal"])
            except Exception as fault:  # orbax raises many kinds for a torn file
                faults.append(f"step {step}: {type(fault).__name__}")
        if faults:
            raise MetalrError(
                f"no checkpoint in {self._last.directory} can be read "
                f"({'; '.join(faults)}); start again with --overwrite"
            )
        return None

    def save_best(self, step: int, params: Any) -> None:
        """Saves the parameters that scored best so far."""
        if self._best.latest_step() == step:
            return
        if (newer := self._best.latest_step()) is not None and newer > step:
            self._best.delete(newer)  # of a time that a resumed run goes through again
        self._best.save(step, args=self._ocp.args.StandardSave(params))

    def best(self, abstract: Any) -> Any | None:
        """Returns the best parameters, None where none were saved."""
        step = self._best.latest_step()
        if step is None:
            return None
        return self._best.restore(step, args=self._ocp.args.StandardRestore(abstract))

    def close(self) -> None:
        """Ends orbax's threads."""
        self._last.close()
        self._best.close()
