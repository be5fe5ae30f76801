"""Checkpoints of a run through orbax: the last states, and the best parameters.

A run's folder holds `last/` (two newest training states with the run's journal, so
that a torn newest one leaves another) and `best/` (parameters alone). Each is sealed
by its step and a list of the SHA-256 of its files, written when they are on the disk:
one that a kill, a power cut or a bad disk has damaged is recognised and passed over,
and so is one that was replaced by another. Reading needs an abstract target: without
one, orbax gives optax's NamedTuples back as dicts.
"""

import functools
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from metalr.errors import MetalrError
from metalr.runtime import files, hosts

_SEAL = "seal.json"
# Of seals and journals. A field more or less is no new format: one that is missing has
# its default, one that is unknown is passed over. The seals of 0 were the sums alone.
FORMAT = 1
_UNSEALED = "its save was cut off"
_TORN = "*.orbax-checkpoint-tmp*"  # what a save that was cut off leaves


class Saved(NamedTuple):
    """What a run resumes from."""

    step: int
    state: Any  # the pytree that was saved
    journal: dict[str, Any]  # JSON: history, best row, seconds
    passed_over: tuple[str, ...] = ()  # newer ones and what is wrong with them


class _Newest(NamedTuple):
    """Keeps the newest two, and the steps that a state relies on."""

    relied_on: list[int]

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        del context
        newest = [found.step for found in checkpoints[-2:]]
        return [found.step in newest + self.relied_on for found in checkpoints]


class Checkpoints:
    """Saves and restores the states of one run.

    Args:
      folder: Where `last/` and `best/` are made.
    """

    def __init__(self, folder: Path):
        self._folder = folder.resolve()  # orbax refuses relative paths
        self._relied_on: list[int] = []  # best steps of the newest two states

    # Made when the first state is saved, or when there is one: orbax takes longer to
    # import than all of metalr's core, and the first step need not wait for it.

    @functools.cached_property
    def _ocp(self) -> Any:
        import orbax.checkpoint as ocp

        # What orbax logs as an error it raises as well, and here that is one line.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        return ocp

    @functools.cached_property
    def _last(self) -> Any:
        return self._manager("last")

    @functools.cached_property
    def _best(self) -> Any:
        return self._manager("best")

    def _manager(self, name: str) -> Any:
        # orbax would do it too, in a thread that `close` does not wait for.
        if hosts.is_first():
            _remove_torn(self._folder / name)
        options = self._ocp.CheckpointManagerOptions(
            # Two of the best as well: a run that resumes from the state before a
            # damaged one needs what was best by then.
            preservation_policy=_Newest(self._relied_on if name == "best" else []),
            create=True,
            # On CPU the arrays handed over are views of buffers that the next step,
            # which donates them, may overwrite while they are written.
            enable_async_checkpointing=False,
        )
        return self._ocp.CheckpointManager(self._folder / name, options=options)

    def save(self, step: int, state: Any, journal: dict[str, Any]) -> None:
        """Save the training state after `step` steps, with the run's journal.

        Args:
          step: Steps taken.
          state: A pytree of arrays.
          journal: As JSON. `journal["best"]["step"]`, if there is one, is the step
            of the `save_best` that this state relies on.

        Raises:
          MetalrError: It cannot be written; earlier ones are untouched.
        """
        args = self._ocp.args
        saved = args.Composite(
            state=args.StandardSave(state),
            journal=args.JsonSave({"format": FORMAT, **journal}),
        )
        _save(self._last, step, saved)
        self._rely_on(journal)

    def _rely_on(self, journal: dict[str, Any]) -> None:
        step = journal.get("best", {}).get("step")
        self._relied_on[:] = [*self._relied_on[-1:], *([] if step is None else [step])]

    def latest(self, abstract: Any) -> Saved | None:
        """Return the newest state that can be read whole, None where there is none.

        Args:
          abstract: Tree of `jax.ShapeDtypeStruct`, as of `jax.eval_shape`.

        Raises:
          MetalrError: There are states, and none of them can be read. One whose first
            save was cut off is none yet.
        """
        if not any((self._folder / "last").glob("*")):
            return None
        args = self._ocp.args
        said = lambda faults: tuple(f"step {s}: {f}" for s, f in faults.items())  # noqa: E731
        wanted = args.Composite(
            state=args.StandardRestore(abstract), journal=args.JsonRestore()
        )
        faults: dict[int, str | None] = {}
        for step in sorted(self._last.all_steps(), reverse=True):
            fault = _damage(_place(self._last, step))
            if fault is None:
                try:
                    found = self._last.restore(step, args=wanted)
                    journal = found["journal"]
                    fault = _of_later(journal) or self._lost_best(journal)
                    if fault is None:
                        self._rely_on(journal)
                        return Saved(step, found["state"], journal, said(faults))
                except Exception as error:  # orbax raises many kinds
                    fault = type(error).__name__
            faults[step] = fault
        if set(faults.values()) - {_UNSEALED}:
            raise MetalrError(
                f"no checkpoint in {self._last.directory} can be read by this version "
                f"({'; '.join(said(faults))}); start again with --overwrite"
            )
        return None

    def _lost_best(self, journal: dict[str, Any]) -> str | None:
        """Say if the best parameters that a state relies on are damaged.

        If they are gone, newer ones were saved since, and will be again.
        """
        step = journal.get("best", {}).get("step")
        if step in self._best.all_steps():
            fault = _damage(_place(self._best, step))
            return fault and f"its best parameters, step {step}: {fault}"
        return None

    def save_best(self, step: int, params: Any) -> None:
        """Save the parameters that scored best so far.

        Raises:
          MetalrError: They cannot be written.
        """
        _save(self._best, step, self._ocp.args.StandardSave(params))

    def best(self, abstract: Any, step: int | None) -> Any | None:
        """Return the best parameters, None where none were saved.

        Args:
          abstract: Tree of `jax.ShapeDtypeStruct`.
          step: When they were the best. Where it is no longer there, the newest: a run
            that was killed may have saved better ones than it then came by again.

        Raises:
          MetalrError: They are damaged.
        """
        if step not in self._best.all_steps():
            step = self._best.latest_step()
        if step is None:
            return None
        if fault := _damage(_place(self._best, step)):
            raise MetalrError(
                f"the best parameters in {_place(self._best, step)} are damaged "
                f"({fault}); the same command, without --overwrite, resumes from "
                "an earlier state"
            )
        return self._best.restore(step, args=self._ocp.args.StandardRestore(abstract))

    def close(self) -> None:
        """End orbax's threads."""
        for name in {"_last", "_best"} & vars(self).keys():
            getattr(self, name).close()


def _place(manager: Any, step: int) -> Path:
    return Path(manager.directory) / str(step)


def _save(manager: Any, step: int, args: Any) -> None:
    """Save and seal a step, in place of later ones, which a resumed run redoes."""
    place = _place(manager, step)
    whole = step in manager.all_steps() and _damage(place) is None
    hosts.wait_for_all("looked at the checkpoint")
    if whole:
        return
    try:
        for later in [found for found in manager.all_steps() if found >= step]:
            manager.delete(later)
        manager.save(step, args=args)
        hosts.wait_for_all("saved the checkpoint")
        if hosts.is_first():
            seal = {"format": FORMAT, "step": step, "files": _sums(place)}
            files.write_json(place / _SEAL, seal)
        hosts.wait_for_all("sealed the checkpoint")
    except Exception as error:  # orbax and TensorStore raise many kinds
        _remove_torn(place.parent)  # it may be what fills the disk
        if hosts.is_of_another(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise MetalrError(
            f"cannot save a checkpoint in {place.parent}: {reason}. What was saved "
            "before is whole: make room on the disk; the same command, without "
            "--overwrite, then resumes"
        ) from error


def _remove_torn(folder: Path) -> None:
    for torn in folder.glob(_TORN):
        shutil.rmtree(torn, ignore_errors=True)


def _sums(place: Path) -> dict[str, str]:
    """Have the files of a folder written to the disk; return the SHA-256 of each."""
    sums = {}
    for path in sorted(p for p in place.rglob("*") if p.is_file() and p.name != _SEAL):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            sum_ = hashlib.file_digest(file, "sha256").hexdigest()
        sums[path.relative_to(place).as_posix()] = sum_
    return sums


def _damage(place: Path) -> str | None:
    """Say what is wrong with the files of a sealed folder, None if nothing is."""
    try:
        seal = files.read_json(place / _SEAL)
        found = _sums(place)
    except (MetalrError, OSError):
        return _UNSEALED
    if fault := _of_later(seal):
        return fault
    if "step" in seal and str(seal["step"]) != place.name:
        return f"it is that of step {seal['step']!r:.20}"
    sealed = seal.get("files", seal)  # the whole of it in format 0
    if not isinstance(sealed, dict):
        return "its seal lists no files"
    wrong = [n for n in {*sealed, *found} if sealed.get(n) != found.get(n)]
    return f"{min(wrong)} is damaged" if wrong else None


def _of_later(content: dict[str, Any]) -> str | None:
    """Say if a seal or a journal is of a format that this metalr does not read."""
    found = content.get("format", 0)
    if isinstance(found, int) and found <= FORMAT:
        return None
    return (
        f"it is of format {found!r:.20} and this metalr reads up to {FORMAT}: use the "
        "metalr that saved it"
    )
