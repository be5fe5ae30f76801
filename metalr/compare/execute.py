"""Execute the runs of a plan: each once, in processes or on Ray, into one store."""

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalr.compare import roofline, store
from metalr.compare.plan import key, length
from metalr.finetune.config import RunConfig
from metalr.models.encoder import EncoderConfig
from metalr.runtime import executors, files

STORE = "runs.jsonl"
# Settings of runs whose steps take as long.
_ALIKE = ("task", "model", "batch_size", "max_length")
_START_SECONDS = 20.0  # of a run besides its steps, if the store has none like it


def pending(runs: Sequence[RunConfig], path: Path) -> list[RunConfig]:
    """Return the runs that the store lacks.

    Raises:
      MetalrError: The store is broken or of another version.
    """
    done = {line["key"] for line in store.read_lines(path)} if path.exists() else set()
    return [config for config in runs if key(config) not in done]


def execute(
    runs: Sequence[RunConfig],
    path: Path,
    *,
    workers: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_line: Callable[[dict[str, Any]], object] = lambda line: None,
    executor: str = "processes",
    protocol: int | None = None,
) -> bool:
    """Execute the runs and append each to the store as soon as it ends.

    Args:
      runs: The runs to execute, whatever the store holds.
      path: The store.
      workers: As in `executors.carry_out`.
      stop: Polled all the time; True ends the work at the next step.
      on_line: Called with each line of the store.
      executor: As in `executors.carry_out`.
      protocol: Version of the protocol that the runs follow, named in each line.

    Returns:
      Whether all runs were executed.

    Raises:
      MetalrError: Data or model cannot be loaded, or a process died.
    """
    from metalr.runtime import compilation  # imports jax, which a dry run does not need

    path.parent.mkdir(parents=True, exist_ok=True)

    def append(config: RunConfig, result: dict[str, Any]) -> None:
        if result["stopped"] == "asked":
            return  # not a whole run
        named = {} if protocol is None else {"protocol": protocol}
        line = {"kind": store.RUN, "key": key(config), **named, **result}
        store.append(path, line)
        on_line(line)

    return executors.carry_out(
        execute_run,
        runs,
        on_result=append,
        workers=workers,
        stop=stop,
        kind=executor,
        start=compilation.use_cache,
    )


def execute_run(config: RunConfig) -> dict[str, Any]:
    """Execute one run; a run that diverges gives a result too."""
    from metalr.finetune.display import Together
    from metalr.finetune.run import run

    begun = time.perf_counter()
    silence = Together()
    result = run(config, silence, stop=executors.stopping, record_failure=True)
    wall = round(time.perf_counter() - begun, 1)
    return files.plain({"failed": None, "wall_seconds": wall, **result})


def describe(line: Mapping[str, Any]) -> str:
    """Describe a finished run in one line."""
    score = line["last_metrics"].get(line["metric"])
    outcome = "failed" if line["failed"] or score is None else f"{score:.4f}"
    return (
        f"{line['task']} {line['model']} {line['scheduler']} at "
        f"{line['settings']['learning_rate']:g}, seed {line['seed']}: "
        f"{line['metric']} {outcome}, {line['wall_seconds']:.0f} s"
    )


def forecast(
    runs: Sequence[RunConfig], path: Path
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a table of the work left: its head, and a line per task and model."""
    done = store.read_lines(path) if path.exists() else []
    todo = {key(config) for config in pending(runs, path)}
    estimates: dict[tuple[Any, ...], float] = {}

    def estimate(config: RunConfig) -> float:
        of = (config.max_steps, *(getattr(config, name) for name in _ALIKE))
        if of not in estimates:
            estimates[of] = estimate_seconds(config, done)
        return estimates[of]

    groups: dict[tuple[str, str], list[RunConfig]] = {}
    for config in runs:
        groups.setdefault((config.task_name, config.model), []).append(config)
    rows, total = [], 0.0
    for (task, model), of in groups.items():
        left = [config for config in of if key(config) in todo]
        seconds = sum(map(estimate, left))
        total += seconds
        counts = (str(len(of)), str(len(of) - len(left)))
        rows.append((task, model, _scheduler_names(of), *counts, _hours(seconds)))
    sums = (str(len(runs)), str(len(runs) - len(todo)), _hours(total))
    rows.append(("all", "", "", *sums))
    return ("task", "model", "schedulers", "runs", "done", "core hours left"), rows


def _scheduler_names(runs: Sequence[RunConfig]) -> str:
    return ", ".join(dict.fromkeys(config.scheduler for config in runs))


def _hours(seconds: float) -> str:
    return "?" if math.isnan(seconds) else f"{seconds / 3600:.2f}"


def estimate_seconds(config: RunConfig, done: Sequence[Mapping[str, Any]]) -> float:
    """Estimate how long a run takes on one core of this machine.

    A step takes the median of what runs in the store took with the same task, model,
    batch and length, compiling and scoring included. Without any, the matmul FLOPs of
    the steps are divided by the matmul speed of this machine, and some time is added
    for compiling and scoring.

    Args:
      config: The run.
      done: Lines of a store.

    Returns:
      Seconds; NaN for a model of unknown size, or if the number of steps depends on the
      number of rows.
    """
    if not config.max_steps:
        return math.nan
    alike = [
        line["wall_seconds"] / line["steps"]
        for line in done
        if line["kind"] == store.RUN
        and line["steps"]
        and files.is_number(line.get("wall_seconds"))
        and all(line["settings"].get(name) == getattr(config, name) for name in _ALIKE)
    ]
    if alike:
        return statistics.median(alike) * config.max_steps
    encoder = _encoder_by_name(config.model)
    if encoder is None:
        return math.nan
    step = roofline.step(encoder, config.batch_size, length(config))
    flops = step.flops * config.max_steps
    return _START_SECONDS + flops / _flops_of_a_core()


def _encoder_by_name(model: str) -> EncoderConfig | None:
    """Return the size that a model's name implies, without opening any file."""
    name, _, layers = model.partition(":")
    if name == "minilm":
        found = roofline.MODELS["MiniLM-6"]
        if layers and not (layers.isdecimal() and int(layers)):
            return None  # the run reports it
        return dataclasses.replace(found, num_hidden_layers=int(layers or 6))
    if "small" in name.lower():  # e5-small and its like: twelve narrow layers
        return dataclasses.replace(roofline.MODELS["MiniLM-6"], num_hidden_layers=12)
    for size in ("base", "large"):
        if size in name.lower():
            return roofline.MODELS[f"BERT-{size}"]
    return None


@functools.cache
def _flops_of_a_core() -> float:
    # So small that BLAS uses one thread.
    a, times = np.ones((64, 64), np.float32), []
    for _ in range(100):  # the fastest one was not disturbed by other programs
        begun = time.perf_counter()
        for _ in range(10):
            np.matmul(a, a)
        times.append(time.perf_counter() - begun)
    return 10 * 2 * 64**3 / min(times)
