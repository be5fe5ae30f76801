"""From a configuration to a finished run: preparation, loop, files.

`finetune.py`, the trace collection and the comparison all go through `run`, so that
every one of them trains in the very same way.
"""

import contextlib
import gc
import os
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import jax

from metalr.data import loading, tasks
from metalr.errors import MetalrError
from metalr.finetune import loop, metrics, run_folder, usage
from metalr.finetune.checkpoint import Checkpoints
from metalr.finetune.config import RunConfig
from metalr.finetune.preparation import Prepared, prepare
from metalr.finetune.profile import Profile
from metalr.models import huggingface
from metalr.models.fingerprint import fingerprint
from metalr.runtime import hosts


class Display(loop.Display, Protocol):
    """What a run tells the user."""

    def start(self, title_lines: list[str], total_steps: int) -> None:
        """Shows what runs on what, and starts the progress bar."""
        ...


def title(prepared: Prepared) -> list[str]:
    """Returns the first lines of a run: what it learns, on what, with what."""
    config, data, model = prepared.config, prepared.data, prepared.model
    validation = sum(len(rows) for rows in data.validation.values())
    size = sum(x.size for x in jax.tree.leaves(model.params)) / 1e6
    device = jax.devices()[0]
    kind = getattr(device, "device_kind", device.platform)
    if prepared.layout.mesh is not None:
        kind = f"{prepared.layout.mesh.size} x {kind} ({prepared.layout.parallel})"
    return [
        f"task   {data.task.name}: {len(data.train)} training and {validation} "
        f"validation rows, {origin_line(data.origin)}",
        *(f"rows   {line}" for line in data.reading.lines()),
        f"model  {config.model}: {model.config.family}, {size:.1f} M parameters in "
        f"training, {origin_line(model.origin)}",
        f"rate   {config.scheduler}, base {config.learning_rate:g}, batch "
        f"{config.batch_size}, {prepared.pace.total_steps} steps on {kind}",
        *(f"note   {note}" for note in prepared.notes),
    ]


def origin_line(origin: dict[str, str]) -> str:
    """Returns where data or weights come from, in words."""
    return " ".join(part for part in (origin["kind"], origin.get("where")) if part)


def run(
    config: RunConfig,
    display: Display,
    *,
    folder: Path | None = None,
    overwrite: bool = False,
    stop: Callable[[], bool] = lambda: False,
    record_failure: bool = False,
) -> dict[str, Any]:
    """Carries out a run.

    Args:
      config: The settings.
      display: Told what goes on.
      folder: Where checkpoints and the model go; None keeps nothing.
      overwrite: Empty the folder first, once the settings are known to be good.
      stop: Asked after each step; True saves and ends.
      record_failure: A run that diverges is a result too, with "failed" saying why.

    Returns:
      The content of `result.json`.

    Raises:
      MetalrError: Something that the user gave does not fit.
    """
    prepared = prepare(config)
    hosts.wait_for_all("folder checked")
    if folder and hosts.is_first():
        rows = loading.fingerprint(prepared.data)
        model = fingerprint(prepared.model)
        run_folder.take(folder, config, rows, model, overwrite=overwrite)
    hosts.wait_for_all("folder taken")
    display.start(title(prepared), prepared.pace.total_steps)
    checkpoints = Checkpoints(folder / "checkpoints") if folder else None
    layout = prepared.layout
    profile = None
    if folder and config.profile and hosts.is_first():
        profile = Profile(folder / "profile", prepared.pace.total_steps)
    try:
        outcome = loop.train(
            prepared.problem,
            prepared.tx,
            prepared.pace,
            display=display,
            checkpoints=checkpoints,
            stop=stop,
            layout=layout,
            on_step=profile or (lambda done, logged: None),
        )
        if folder and checkpoints and outcome.stopped != "asked":
            found = checkpoints.best(
                loop.abstract(outcome.params), outcome.best.get("step")
            )
            best = layout.whole(found)
            if hosts.is_first():
                huggingface.export(
                    folder / "model",
                    prepared.model._replace(params=prepared.restore(best)),
                    prepared.data.task.kind,
                    prepared.data.task.labels,
                )
                usage.write(folder / "model", prepared.usage)
    except loop.Diverged as fault:
        if not record_failure:
            raise MetalrError(
                f"{fault}, or --scheduler metalr, which skips such steps"
            ) from fault
        return _result(prepared, fault.outcome) | {"failed": str(fault)}
    finally:
        if profile:
            profile.close()
        if checkpoints:
            checkpoints.close()
        # What was traced and compiled serves no other run, and jax would keep it, and
        # cycles its arrays: some MB a run of a process that carries out hundreds.
        gc.collect()
        jax.clear_caches()
    return _result(prepared, outcome)


def _result(prepared: Prepared, outcome: loop.Outcome) -> dict[str, Any]:
    data, model = prepared.data, prepared.model
    scores = lambda row: {  # noqa: E731
        k: v for k, v in row.items() if k not in ("step", "epoch")
    }
    references = {name: metrics.chance(name, _gold(data)) for name in data.task.metrics}
    return {
        "task": data.task.name,
        "model": prepared.config.model,
        "data": data.origin,
        "reading": data.reading.to_json(),
        "weights": model.origin,
        "scheduler": prepared.config.scheduler,
        "seed": prepared.config.seed,
        "settings": prepared.config.to_json(),
        "versions": versions(),
        "metric": data.task.metric,
        "metrics": scores(outcome.best),
        "last_metrics": scores(outcome.last),
        "chance": references,
        "best_step": outcome.best.get("step"),
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 3),
        "stopped": outcome.stopped,
        "notes": prepared.notes + _counts(outcome),
        "history": outcome.history,
    }


def _counts(outcome: loop.Outcome) -> list[str]:
    """Returns in words what the transformation counted, where it counts."""
    logged = [row for row in outcome.history if "loss" in row]
    said = {
        "skipped_steps": "skipped: the loss or the gradient was not finite",
        "relaxed_steps": "unlike any in training: the multiplier moved toward 1",
        "braked_steps": "with a loss far above its start: the multiplier fell",
    }
    found = {name: int(logged[-1].get(name, 0)) for name in said} if logged else {}
    return [
        f"{count} of {outcome.steps} steps {said[name]}"
        for name, count in found.items()
        if count
    ]


def _gold(data: tasks.TaskData) -> list[Any]:
    rows = next(iter(data.validation.values()))
    return [row[data.task.label] for row in rows]


def versions() -> dict[str, str]:
    """Returns the versions of what a number may depend on.

    A copy of metalr that is only on the path has none: it is then "not installed".
    """
    found = {"python": platform.python_version()}
    for name in ("metalr", "jax", "flax", "optax", "transformers", "orbax-checkpoint"):
        found[name] = "not installed"
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def keep_compilations() -> None:
    """Keeps compiled steps on disk, so that a second start begins at once."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = os.environ.get("METALR_CACHE", str(default / "metalr" / "jax"))
    _prune(Path(folder))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _prune(folder: Path, most: int = 2 * 2**30) -> None:
    """Removes the oldest compiled steps until the rest has at most `most` bytes.

    jax can bound its cache too, but a kill between the two files that it then keeps of
    a program is the end of all caching there.
    """
    sizes: list[tuple[float, int, Path]] = []
    with contextlib.suppress(OSError):  # others may be pruning, or there is none
        for path in folder.iterdir():
            found = path.stat()
            sizes.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in sizes)
        for _, size, path in sorted(sizes):
            if total <= most:
                return
            path.unlink(missing_ok=True)
            total -= size
