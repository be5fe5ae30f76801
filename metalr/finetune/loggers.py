"""Where a run is logged besides its folder: TensorBoard, Weights & Biases, MLflow.

A logger is a display (`metalr.finetune.display`) that writes what it is shown: training
rows under `train/`, scores under `validation/`. Each tool is a row of `LOGGERS`; its
library is imported when it is asked for by name.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metalr.errors import MetalrError, unknown_name
from metalr.finetune.config import RunConfig
from metalr.finetune.display import Display, Row
from metalr.runtime import files

PROJECT = "metalr"  # where the tool's own environment variable names none
BEGUN = "logged.json"  # of a run's folder: what the tools call the run


class Sink(NamedTuple):
    """A run of a tool, open for writing."""

    write: Callable[[Mapping[str, float], int], object]  # values by name, step
    end: Callable[[bool], object]  # whether the run failed


class Tool(NamedTuple):
    """A tool that keeps runs."""

    library: str  # that Python imports
    package: str  # that pip installs
    # (library, folder, settings, first lines) -> the run, new or begun before
    open: Callable[[Any, Path, RunConfig, list[str]], Sink]


class Logger:
    """A display that writes to a tool; `create` makes it."""

    def __init__(self, open_run: Callable[[list[str]], Sink]):
        """Open nothing yet: the run may still be refused, or empty its folder."""
        self._open, self._sink = open_run, None

    def start(self, title_lines: list[str], total_steps: int) -> None:
        """Begin a run there, or resume the one that the folder began."""
        del total_steps
        self._sink = self._open(title_lines)

    def logged(self, row: Row, steps_per_second: float) -> None:
        """Write loss, rate and what else the row has."""
        self._write("train", {**row, "steps_per_second": steps_per_second})

    def evaluated(self, row: Row) -> None:
        """Write the scores."""
        self._write("validation", row)

    def note(self, line: str) -> None:
        """Do nothing: notes are for the reader of the screen."""

    def close(self) -> None:
        """Write what is left; a run that an exception ends has failed."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.end(sys.exc_info()[0] is not None)

    def _write(self, group: str, row: Row) -> None:
        if self._sink is not None:
            values = {f"{group}/{name}": x for name, x in row.items() if name != "step"}
            self._sink.write(values, row["step"])


def create(folder: Path, config: RunConfig) -> list[Display]:
    """Return the loggers that the settings name.

    Args:
      folder: Of the run.
      config: `config.log_to` has the names, with commas between.

    Raises:
      MetalrError: A name is none of `LOGGERS`, or its library is not installed.
    """
    names = [name.strip() for name in (config.log_to or "").split(",")]
    return [_logger(name, folder, config) for name in names if name]


def _logger(name: str, folder: Path, config: RunConfig) -> Logger:
    if name not in LOGGERS:
        raise unknown_name("logger", name, LOGGERS)
    tool = LOGGERS[name]
    try:
        library = importlib.import_module(tool.library)
    except ImportError as error:
        raise MetalrError(
            f"--log-to {name} needs {tool.package}: pip install {tool.package}"
        ) from error
    return Logger(lambda lines: tool.open(library, folder, config, lines))


def _tensorboard(
    library: Any, folder: Path, config: RunConfig, lines: list[str]
) -> Sink:
    """Open a file of events; a resumed run writes the same numbers once more."""
    del config
    writer = library.SummaryWriter(str(folder / "events"))
    writer.add_text("run", "\n\n".join(lines), 0)

    def write(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return Sink(write, lambda failed: writer.close())


def _wandb(library: Any, folder: Path, config: RunConfig, lines: list[str]) -> Sink:
    """Open a run of W&B, which reads WANDB_PROJECT, WANDB_MODE and the others."""
    run = library.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=config.name,
        notes="\n".join(lines),
        config=config.to_json(),
        dir=str(folder),
        id=_begun(folder).get("wandb"),
        resume="allow",
    )
    _remember(folder, "wandb", run.id)
    return Sink(
        lambda values, step: run.log(dict(values), step=step),
        lambda failed: run.finish(exit_code=int(failed)),
    )


def _mlflow(library: Any, folder: Path, config: RunConfig, lines: list[str]) -> Sink:
    """Open a run of MLflow, which reads MLFLOW_TRACKING_URI and the others."""
    if not (begun := _begun(folder).get("mlflow")):
        if "MLFLOW_EXPERIMENT_ID" not in os.environ:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            library.set_experiment(name)
    run = library.start_run(
        run_id=begun, run_name=config.name, description="\n\n".join(lines)
    )
    _remember(folder, "mlflow", run.info.run_id)
    if not begun:
        given = {k: v for k, v in config.to_json().items() if v is not None}
        library.log_params(given)
    return Sink(
        lambda values, step: library.log_metrics(dict(values), step=step),
        lambda failed: library.end_run("FAILED" if failed else "FINISHED"),
    )


LOGGERS = {
    "tensorboard": Tool("tensorboardX", "tensorboardX", _tensorboard),
    "wandb": Tool("wandb", "wandb", _wandb),
    "mlflow": Tool("mlflow", "mlflow", _mlflow),
}


def _begun(folder: Path) -> dict[str, str]:
    """Return what the tools call the run of this folder, by tool."""
    path = folder / BEGUN
    return files.read_json(path) if path.is_file() else {}


def _remember(folder: Path, tool: str, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / BEGUN, _begun(folder) | {tool: name})
