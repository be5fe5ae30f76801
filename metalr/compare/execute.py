"""Carries out a plan: each run once, in processes or on Ray, into one store."""

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalr.compare import costs, store
from metalr.compare.plan import key
from metalr.data.tasks import TASKS
from metalr.finetune.config import RunConfig
from metalr.models.encoder import EncoderConfig
from metalr.runtime import executors, files

STORE = "runs.jsonl"
_STARTING = 20.0  # seconds of a run besides its steps, where none is known


def missing(runs: Sequence[RunConfig], path: Path) -> list[RunConfig]:
    """Returns the runs that the store lacks.

    Raises:
      MetalrError: The store is broken or of another version.
    """
    done = {line["key"] for line in store.read(path)} if path.exists() else set()
    return [config for config in runs if key(config) not in done]


def carry_out(
    runs: Sequence[RunConfig],
    path: Path,
    *,
    workers: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[dict[str, Any]], object] = lambda line: None,
    executor: str = "processes",
) -> bool:
    """Does the runs, and appends each to the store as soon as it ends.

    Args:
      runs: What to do; all of it, whatever the store holds.
      path: The store.
      workers: As in `executors.carry_out`.
      stop: Asked all the time; True ends at the next step.
      tell: Told of each line of the store.
      executor: As in `executors.carry_out`.

    Returns:
      Whether all was done.

    Raises:
      MetalrError: Data or model can't be had, or a process died.
    """
    from metalr.finetune import recipe  # seconds, which a dry run does not have

    path.parent.mkdir(parents=True, exist_ok=True)

    def done(config: RunConfig, result: dict[str, Any]) -> None:
        if result["stopped"] == "asked":
            return  # a part of a run is none
        line = {"kind": store.RUN, "key": key(config), **result}
        store.append(path, line)
        tell(line)

    return executors.carry_out(
        one,
        runs,
        on_result=done,
        workers=workers,
        stop=stop,
        kind=executor,
        start=recipe.keep_compilations,
    )


def one(config: RunConfig) -> dict[str, Any]:
    """Carries out a run; one that diverges is a result too."""
    from metalr.finetune import recipe

    begun = time.perf_counter()
    result = recipe.run(config, _Silent(), stop=executors.stopping, record_failure=True)
    wall = round(time.perf_counter() - begun, 1)
    return files.plain({"failed": None, "wall_seconds": wall, **result})


def words(line: Mapping[str, Any]) -> str:
    """Returns a run that ended in one line."""
    score = line["last_metrics"].get(line["metric"])
    came = "failed" if line["failed"] or score is None else f"{score:.4f}"
    return (
        f"{line['task']} {line['model']} {line['scheduler']} at "
        f"{line['settings']['learning_rate']:g}, seed {line['seed']}: "
        f"{line['metric']} {came}, {line['wall_seconds']:.0f} s"
    )


def outlook(
    runs: Sequence[RunConfig], path: Path
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns a table of what is to do: its head, and a row per task and model."""
    done = store.read(path) if path.exists() else []
    todo = missing(runs, path)
    groups: dict[tuple[str, str], list[RunConfig]] = {}
    for config in runs:
        groups.setdefault((str(config.task), config.model), []).append(config)
    rows, total = [], 0.0
    for (task, model), of in groups.items():
        left = [config for config in of if config in todo]
        seconds = sum(seconds_of(config, done) for config in left)
        total += seconds
        counts = (str(len(of)), str(len(of) - len(left)))
        rows.append((task, model, _names(of), *counts, _hours(seconds)))
    sums = (str(len(runs)), str(len(runs) - len(todo)), _hours(total))
    rows.append(("all", "", "", *sums))
    return ("task", "model", "schedulers", "runs", "done", "core hours left"), rows


def _names(runs: Sequence[RunConfig]) -> str:
    return ", ".join(dict.fromkeys(config.scheduler for config in runs))


def _hours(seconds: float) -> str:
    return "?" if math.isnan(seconds) else f"{seconds / 3600:.2f}"


def seconds_of(config: RunConfig, done: Sequence[Mapping[str, Any]]) -> float:
    """Returns about how long a run takes on one core of this machine.

    Runs in the store of the same task, model, batch and length tell the seconds of a
    step. Where there are none it is the products of the steps at the speed of this
    machine's, and some time for compiling and scoring; NaN for a model of unknown size
    or a run whose steps depend on its rows.
    """
    if not config.max_steps:
        return math.nan
    alike = [
        line["wall_seconds"] / line["steps"]
        for line in done
        if line["kind"] == store.RUN
        and line["steps"]
        and all(
            line["settings"][name] == getattr(config, name)
            for name in ("task", "model", "batch_size", "max_length")
        )
    ]
    if alike:
        return statistics.median(alike) * config.max_steps
    encoder = _encoder(config.model)
    if encoder is None:
        return math.nan
    length = config.max_length or TASKS[str(config.task)].max_length
    work = costs.step(encoder, config.batch_size, length).flops * config.max_steps
    return _STARTING + work / _flops_of_a_core()


def _encoder(model: str) -> EncoderConfig | None:
    """Returns the size that a model's name tells, without opening anything."""
    name, _, layers = model.partition(":")
    if name == "minilm":
        found = costs.MODELS["MiniLM-6"]
        if layers and not (layers.isdecimal() and int(layers)):
            return None  # the run will say so
        return dataclasses.replace(found, num_hidden_layers=int(layers or 6))
    for size in ("base", "large"):
        if size in name.lower():
            return costs.MODELS[f"BERT-{size}"]
    return None


@functools.cache
def _flops_of_a_core() -> float:
    # So small that BLAS takes one thread for it.
    a, times = np.ones((64, 64), np.float32), []
    for _ in range(100):  # the fastest is the one that nothing disturbed
        begun = time.perf_counter()
        for _ in range(10):
            np.matmul(a, a)
        times.append(time.perf_counter() - begun)
    return 10 * 2 * 64**3 / min(times)


class _Silent:
    def start(self, title_lines: list[str], total_steps: int) -> None:
        pass

    def logged(self, row: Mapping[str, Any], steps_per_second: float) -> None:
        pass

    def evaluated(self, row: Mapping[str, Any]) -> None:
        pass

    def note(self, line: str) -> None:
        pass
