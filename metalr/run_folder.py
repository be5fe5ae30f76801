"""The folder of a run: whose it is, and when it may be written to.

It is looked at before anything is loaded (`check`), and written to only when task,
model and data are known to be good (`take`), so that a wrong word costs nothing.
"""

import shutil
from pathlib import Path

from metalr import results
from metalr.config import RunConfig, changed
from metalr.errors import MetalrError

RESULT = "result.json"
SETTINGS = "settings.json"


def check(folder: Path, config: RunConfig, *, resume: bool, overwrite: bool) -> None:
    """Says why a run can't have this folder, if so; changes nothing.

    A folder with a run of the same settings is gone on with; one with a run of other
    settings is refused unless `overwrite`; one with anything else is always refused.

    Raises:
      MetalrError: The folder holds something else, or there is nothing to resume.
    """
    settings = folder / SETTINGS
    if settings.is_file():
        if overwrite:
            return
        different = changed(results.read_json(settings), config.to_json())
        if different:
            raise MetalrError(
                f"{folder} holds a run with other settings ({', '.join(different)}); "
                "choose another --output, or --overwrite it"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MetalrError(
            f"{folder} exists and is no run of metalr; choose another --output"
        )
    if resume:
        raise MetalrError(f"nothing to resume: {folder} holds no run")


def take(folder: Path, config: RunConfig, *, overwrite: bool) -> None:
    """Makes a folder that `check` has passed this run's own."""
    settings = folder / SETTINGS
    if overwrite and settings.is_file():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not settings.is_file():
        results.write_json(settings, config.to_json())
