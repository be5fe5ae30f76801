"""The folder of a run: whose it is, and when it may be written to.

It is checked before anything is loaded (`check`), and written to only when task, model
and data are known to be valid (`take`), so that a typing error costs nothing. A program
that writes to a folder holds a lock on it (`held`), which the operating system releases
when the program ends, however it ends. `opened` does all of this for `finetune.py`.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from metalr import stored_predictor
from metalr.data.tasks import TASKS
from metalr.errors import MetalrError
from metalr.finetune import schedulers
from metalr.finetune.config import RunConfig
from metalr.finetune.config_rules import changed
from metalr.finetune.result import Result, read_result
from metalr.finetune.settings import write_toml
from metalr.runtime import files, hosts, locks

RESULT = "result.json"
SETTINGS = "settings.json"
CONFIG = "config.toml"  # the same, for a person and for `--config`
ROWS = "rows.json"
FILES = "files.json"
MODEL = "model.json"
LOCK = ".lock"
ADAPTER = "adapter"  # of LoRA, beside the model that it makes
BASE = "base"  # of the adapter, where no other folder holds that model


def of(config: RunConfig) -> Path:
    """Return the folder of a run with these settings."""
    return Path(config.output or Path("runs") / config.name)


def check(folder: Path, config: RunConfig, *, resume: bool, overwrite: bool) -> None:
    """Check that a run may have this folder; change nothing.

    A folder with a run of the same settings is continued; one with a run of other
    settings, or of files that have changed, is refused unless `overwrite`; one with
    anything else is always refused.

    Raises:
      MetalrError: The folder holds something else, or there is nothing to resume.
    """
    settings = folder / SETTINGS
    if settings.is_file():
        if overwrite:
            return
        different = changed(files.read_json(settings), config.to_json())
        if different:
            raise MetalrError(
                f"{folder} holds a run with other settings ({', '.join(different)}); "
                "choose another --output, or --overwrite it"
            )
        _check_files(folder, config)
        return
    if folder.exists() and (not folder.is_dir() or contents(folder)):
        raise MetalrError(
            f"{folder} exists and is not a run of metalr; choose another --output"
        )
    if resume:
        raise MetalrError(f"nothing to resume: {folder} holds no run")


def take(
    folder: Path,
    config: RunConfig,
    rows: dict[str, str],
    model: dict[str, str] | None = None,
    *,
    overwrite: bool,
) -> None:
    """Give a folder that `check` has passed to this run.

    Args:
      folder: The folder.
      config: The settings.
      rows: What tells the rows from others: kind, where, sha256.
      model: What tells the model from others: where, and a SHA-256 of each part.
      overwrite: Empty the folder first.

    Raises:
      MetalrError: The run there was begun on other rows, or with another model.
    """
    settings = folder / SETTINGS
    begun = {ROWS: rows, FILES: _named(config)} | ({MODEL: model} if model else {})
    if not overwrite:
        _check_begun(folder, rows, model or {})
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_drafts(folder)
    if overwrite and settings.is_file():
        # The settings last: a folder without them is taken for somebody else's.
        old = sorted(contents(folder), key=lambda path: path.name == SETTINGS)
        for path in old:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not settings.is_file():  # first: without it a killed start is no run's folder
        files.write_json(settings, config.to_json())
    if not (folder / CONFIG).is_file():
        write_toml(folder / CONFIG, config)
    for name, content in begun.items():
        if not (folder / name).is_file():
            files.write_json(folder / name, content)


def _named(config: RunConfig) -> dict[str, str]:
    """Return a SHA-256 of what lies at each path that the settings name, by flag.

    Rows of the hub and models have records of their own. Of a predictor that is not
    named it is the one that comes with metalr.
    """
    data = Path(config.data)
    task = TASKS.get(config.task_name)
    parts = (task.made_of or (task.name,)) if task else ()
    splits = [f"{part}/{split}*" for part in parts for split in ("train", "validation")]
    named = {
        "train_file": [config.train_file],
        "validation_file": [config.validation_file],
        "class_weights": [config.class_weights],
        "data": [data, *(path for split in splits for path in data.glob(split))],
    }
    found = {}
    for flag, paths in named.items():
        there = [Path(path) for path in paths if path is not None]
        if there := [path for path in there if path.is_file()]:
            found[flag] = files.checksum(there)
    if schedulers.get(config.scheduler).learned:
        predictor = stored_predictor.folder_of(config.predictor)
        found["predictor"] = stored_predictor.read_metadata(predictor)["sha256"]
    return found


def _check_files(folder: Path, config: RunConfig) -> None:
    """Refuse a folder whose run was begun with other contents of the same files."""
    if not (folder / FILES).is_file():  # of an earlier version
        return
    before, now = files.read_json(folder / FILES), _named(config)
    if config.predictor is None and (folder / RESULT).is_file():
        now.pop("predictor", None)  # a newer metalr shows what an older one did
    other = [flag for flag in now if before.get(flag, now[flag]) != now[flag]]
    if other:
        flags = ", ".join("--" + flag.replace("_", "-") for flag in other)
        raise MetalrError(
            f"{folder} holds a run that was begun with other contents of {flags}; "
            "bring them back, choose another --output, or --overwrite it"
        )


def _check_begun(folder: Path, rows: dict[str, str], model: dict[str, str]) -> None:
    """Refuse a folder whose run was begun on other rows or with another model."""
    if (folder / ROWS).is_file() and (before := files.read_json(folder / ROWS)) != rows:
        places = [f"{x.get('kind')} {x.get('where')}" for x in (before, rows)]
        which = "the same place" if places[0] == places[1] else f"now {places[1]}"
        raise MetalrError(
            f"{folder} holds a run that was begun on other rows ({places[0]}; "
            f"{which}); bring them back, or choose another --output"
        )
    if model and (folder / MODEL).is_file():
        before = files.read_json(folder / MODEL)
        other = [name for name in model if before.get(name) != model[name]]
        if other:
            raise MetalrError(
                f"{folder} holds a run that was begun with other files of the model "
                f"{before.get('where')} ({', '.join(other)}); bring them back, or "
                "choose another --output"
            )


def contents(folder: Path) -> list[Path]:
    """Return what is in a folder, without what a killed start may have left."""
    return [
        path
        for path in folder.iterdir()
        if not path.name.startswith(LOCK) and not files.is_draft(path)
    ]


class Place(NamedTuple):
    """A folder that is this run's own, and the files in it."""

    folder: Path
    overwrite: bool

    @property
    def result(self) -> Path:
        """The result; with it the run counts as finished."""
        return self.folder / RESULT

    @property
    def curves(self) -> Path:
        """The picture of the run."""
        return self.folder / "curves.png"

    @property
    def outputs(self) -> list[Path]:
        """What a finished run leaves for its user."""
        return [self.result, self.curves, self.folder / "model"]

    def finished(self) -> Result | None:
        """Return the result, or None if the run is not finished or to be repeated."""
        if self.overwrite or not self.result.is_file():
            return None
        return read_result(self.result)


@contextlib.contextmanager
def opened(
    folder: Path, config: RunConfig, *, resume: bool, overwrite: bool
) -> Iterator[Place]:
    """Check a folder and keep it for this run during the block.

    Only the first of several processes locks the folder. A finished run is not locked,
    and its folder may be read-only.

    Raises:
      MetalrError: As `check` and `held`.
    """
    check(folder, config, resume=resume, overwrite=overwrite)
    place = Place(folder, overwrite)
    if place.result.is_file() and not overwrite:
        yield place
        return
    lock = held(folder) if hosts.is_first() else contextlib.nullcontext()
    with hosts.together(), lock:
        # Once more: another program may have used it in the meantime.
        check(folder, config, resume=resume, overwrite=overwrite)
        yield place


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other programs from writing to a folder during the block.

    The folder is created if it is missing, and removed again if it is empty at the end.

    Raises:
      MetalrError: Another program holds it; says which one, and where it runs.
    """
    is_new = not folder.exists()
    with contextlib.ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(locks.claim(folder / LOCK, what=folder))
        except OSError as fault:
            raise MetalrError(
                f"cannot write to {folder}: {fault.strerror or fault}; choose another "
                "--output"
            ) from fault
        try:
            yield
        finally:
            if is_new and not contents(folder):
                with contextlib.suppress(OSError):  # another program was faster
                    shutil.rmtree(folder)
