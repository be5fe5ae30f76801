"""One run, from its settings to its result: data, model, optimizer, loop, export.

`finetune.py`, the collection of traces and the comparison all go through `run`, so that
all of them train in the same way.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metalr.data import loading
from metalr.errors import MetalrError, printable
from metalr.finetune import decode, journal, loop, run_folder, schedulers, usage
from metalr.finetune.checkpoint import Checkpoints
from metalr.finetune.config import RunConfig
from metalr.finetune.config_rules import refuse_flags_of_others
from metalr.finetune.display import Display
from metalr.finetune.preparation import Prepared, prepare
from metalr.finetune.profile import Profile
from metalr.finetune.result import Result
from metalr.models import huggingface, lora
from metalr.models.fingerprint import fingerprint
from metalr.runtime import devices, hosts
from metalr.runtime.versions import versions


def run(
    config: RunConfig,
    display: Display,
    *,
    folder: Path | None = None,
    overwrite: bool = False,
    stop: Callable[[], bool] = lambda: False,
    record_failure: bool = False,
) -> Result:
    """Carry out a run: prepare, train, and export the best model.

    Args:
      config: The settings.
      display: Shown what happens.
      folder: Where checkpoints and the model go; None keeps nothing.
      overwrite: Empty the folder first, once the settings are known to be valid.
      stop: Polled after each step; True saves and ends the run.
      record_failure: Return a result for a run that diverges, with the reason in
        "failed".

    Returns:
      The content of `result.json`.

    Raises:
      MetalrError: A setting or a file of the user is invalid, or the run diverged.
    """
    if folder:  # one run, and no part of a plan of which some read what others do not
        refuse_unread(config)
    prepared = prepare(config)
    if folder:
        refuse_flags_of_others(config, prepared.data.task)
    with _opened(folder, config, prepared, overwrite=overwrite) as files:
        display.start(title(prepared), prepared.pace.total_steps)
        try:
            outcome = loop.train(
                prepared.problem,
                prepared.tx,
                prepared.pace,
                display=display,
                checkpoints=files.checkpoints,
                stop=stop,
                layout=prepared.layout,
                on_step=files.profile or (lambda done, logged: None),
            )
        except journal.Diverged as fault:
            if not record_failure:
                raise MetalrError(
                    f"{fault}, or --scheduler metalr, which skips such steps"
                ) from fault
            return {**_result(prepared, fault.outcome), "failed": str(fault)}
        if folder and files.checkpoints and outcome.stopped != "asked":
            _export(prepared, outcome, files.checkpoints, folder / "model")
    return _result(prepared, outcome)


def refuse_unread(config: RunConfig) -> None:
    """Refuse flags that the scheduler does not read.

    A plan may have them for its other rows, but a flag of a single run is meant.

    Raises:
      MetalrError: One was given; the message names it.
    """
    for name in schedulers.get(config.scheduler).ignores:
        if getattr(config, name) != getattr(RunConfig, name):
            raise MetalrError(
                f"--{name.replace('_', '-')} is not read under --scheduler "
                f"{config.scheduler}; leave one of them out"
            )


class _Files(NamedTuple):
    """What a run writes to while it trains; None without a folder."""

    checkpoints: Checkpoints | None = None
    profile: Profile | None = None


@contextlib.contextmanager
def _opened(
    folder: Path | None, config: RunConfig, prepared: Prepared, *, overwrite: bool
) -> Iterator[_Files]:
    """Take a folder for this run, open its files, and close them at the end.

    The folder keeps the settings as the user gave them, so that the same command finds
    its run again.
    """
    hosts.wait_for_all("folder checked")
    if folder and hosts.is_first():
        rows = loading.fingerprint(prepared.data)
        model = fingerprint(prepared.model)
        run_folder.take(folder, config, rows, model, overwrite=overwrite)
    hosts.wait_for_all("folder taken")
    with contextlib.ExitStack() as closing:
        closing.callback(_forget_compiled)
        files = _Files()
        if folder:
            checkpoints = Checkpoints(folder / "checkpoints")
            closing.callback(checkpoints.close)
            files = _Files(checkpoints)
            if config.profile and hosts.is_first():
                profile = Profile(folder / "profile", prepared.pace.total_steps)
                closing.callback(profile.close)
                files = _Files(checkpoints, profile)
        yield files


def _forget_compiled() -> None:
    """Free what was traced and compiled for this run, and no other run uses.

    jax would keep it, and reference cycles its arrays: some MB a run in a process that
    carries out hundreds.
    """
    gc.collect()
    jax.clear_caches()


def _export(
    prepared: Prepared, outcome: journal.Outcome, checkpoints: Checkpoints, folder: Path
) -> None:
    """Write the parameters of the best step for transformers."""
    shapes = loop.abstract(outcome.params)
    found = checkpoints.best(shapes, outcome.best.get("step"))
    used = prepared.usage(found)
    best = prepared.layout.whole(found)
    if prepared.scale is not None:
        best = prepared.scale.restored(best)
    if hosts.is_first():
        huggingface.export(
            folder,
            prepared.model._replace(params=prepared.restore(best)),
            prepared.data.task.kind,
            prepared.data.task.labels,
        )
        usage.write(folder, used)
        if prepared.trained.pairs is not None:
            lora.export(
                folder.parent / run_folder.ADAPTER,
                best,
                prepared.trained.pairs,
                prepared.model.config,
                prepared.data.task.kind,
                _base(prepared, best, folder.parent / run_folder.BASE),
            )


def _base(prepared: Prepared, params: Any, folder: Path) -> str:
    """Return where transformers finds the model that an adapter changes.

    What its own files do not hold alone, such as the first layers of a deeper one, is
    written, or the adapter would be put on another model.

    Args:
      prepared: The run.
      params: With the adapter's pairs.
      folder: For the model, if it has to be written.
    """
    model, task = prepared.model, prepared.data.task
    if model.whole:
        hub = model.origin.kind == "hub"
        return model.origin.where if hub else str(model.files[0].parent.absolute())
    none = jax.tree.map(jnp.zeros_like, params[lora.KEY])
    plain = prepared.restore({**params, lora.KEY: none})
    huggingface.export(folder, model._replace(params=plain), task.kind, task.labels)
    return str(folder.absolute())


def title(prepared: Prepared) -> list[str]:
    """Return the first lines of a run: its task, model, rate and device."""
    config, data, model = prepared.config, prepared.data, prepared.model
    validation = sum(len(rows) for rows in data.validation.values())
    size = prepared.trained.size / 1e6
    device = jax.devices()[0]
    kind = getattr(device, "device_kind", device.platform)
    if prepared.layout.mesh is not None:
        kind = f"{prepared.layout.mesh.size} x {kind} ({prepared.layout.parallel})"
    lines = [
        f"task   {data.task.name}: {len(data.train)} training and {validation} "
        f"validation rows, {data.origin}",
        *(f"rows   {line}" for line in data.reading.lines()),
        f"model  {config.model}: {model.config.family}, {size:.1f} M parameters in "
        f"training, {model.origin}",
        f"rate   {config.scheduler}, base {config.learning_rate:g}, batch "
        f"{config.batch_size}, {prepared.pace.total_steps} steps on {kind}",
        *(f"note   {note}" for note in (*prepared.notes, *prepared.kept)),
    ]
    return [printable(line) for line in lines]  # names of files may be anything


def _result(prepared: Prepared, outcome: journal.Outcome) -> Result:
    data, model = prepared.data, prepared.model
    scores = lambda row: {  # noqa: E731
        k: v for k, v in row.items() if k not in ("step", "epoch")
    }
    rows, task = next(iter(data.validation.values())), data.task
    references: dict[str, float | None] = {
        name: decode.chance(name, task, rows) for name in task.metrics
    }
    return {
        "task": data.task.name,
        "model": prepared.config.model,
        # A name may lead to other rows tomorrow.
        "data": data.origin.to_json() | {"sha256": loading.fingerprint(data)["sha256"]},
        "reading": data.reading.to_json(),
        "weights": model.origin.to_json(),
        "scheduler": prepared.config.scheduler,
        "learned_by": schedulers.learned_by(prepared.config),
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
        "step_seconds": float(f"{outcome.step_seconds:.4g}"),
        "device": devices.describe(mesh.size if (mesh := prepared.layout.mesh) else 1),
        "stopped": outcome.stopped,
        "notes": prepared.notes + _counts(outcome),
        "history": outcome.history,
    }


def _counts(outcome: journal.Outcome) -> list[str]:
    """Return in words what the transformation counted, if it counts."""
    logged = [row for row in outcome.history if "loss" in row]
    meaning = {
        "skipped_steps": "skipped: the loss or the gradient was not finite",
        "out_of_range_steps": "unlike any in training: they counted less",
        "braked_steps": "with a loss far above its start: the multiplier fell",
    }
    found = {name: int(logged[-1].get(name, 0)) for name in meaning} if logged else {}
    return [
        f"{count} of {outcome.steps} steps {meaning[name]}"
        for name, count in found.items()
        if count
    ]
