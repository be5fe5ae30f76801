"""A plan of a comparison: schedulers x tasks x models x seeds.

A plan is a file (TOML or JSON) or one that is shipped, and `expand` makes it a list of
runs. Everything but the rate is the same for every run: rows, order, dropout, head,
loop, evaluation.
"""

import dataclasses
import functools
import json
import math
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metalr import predictor
from metalr.compare import measures, store
from metalr.controller import CONTROLLER_VERSION
from metalr.data import loading
from metalr.data.tasks import TASKS
from metalr.errors import MetalrError, unknown_name
from metalr.finetune import schedulers
from metalr.finetune.config import RunConfig, check
from metalr.runtime.files import is_number

PLANS = Path(__file__).parent / "plans"
_LARGEST_PLAN = 2**20  # bytes; the shipped ones have one thousand
_MOST_RUNS = 100_000  # years of a GPU


@dataclass(frozen=True)
class Plan:
    """What is compared on what."""

    tasks: Mapping[str, Mapping[str, Any]]  # name -> settings of its own
    models: Sequence[str]
    schedulers: Sequence[str]  # each at its default base rate
    seeds: int
    tuned: Sequence[str] = ()  # schedulers that are also run at each of `rates`
    rates: Sequence[float] = ()
    rates_of: Mapping[str, Sequence[float]] = field(default_factory=dict)
    evaluations: int = 20  # in a run
    settings: Mapping[str, Any] = field(default_factory=dict)  # of `RunConfig`


def read_plan(name: str) -> Plan:
    """Reads a plan: the name of a shipped one, or a TOML or JSON file.

    Raises:
      MetalrError: There is none, or it says something that no plan says.
    """
    shipped = sorted(path.stem for path in PLANS.glob("*.toml"))
    path = PLANS / f"{name}.toml" if name in shipped else Path(name)
    if not path.is_file():
        raise MetalrError(
            f"no plan {name!r}: give a .toml or .json file, or one of "
            f"{', '.join(shipped)}"
        )
    if path.stat().st_size > _LARGEST_PLAN:
        raise MetalrError(f"{path} is over 1 MB; no plan is that long")
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise MetalrError(f"{path} is not a plan: {error}") from error
    return _checked(found, str(path))


def _checked(found: Any, where: str) -> Plan:
    fields = {f.name: f for f in dataclasses.fields(Plan)}
    if not isinstance(found, dict):
        raise MetalrError(f"{where}: a plan is a table, got {type(found).__name__}")
    faults = [f"unknown {name!r}" for name in found.keys() - fields.keys()]
    faults += [
        f"{name} is missing"
        for name in ("tasks", "models", "schedulers", "seeds")
        if name not in found
    ]
    tables = {"tasks", "rates_of", "settings"}
    kinds = {name: dict if name in tables else list for name in fields}
    kinds |= {"seeds": int, "evaluations": int}
    faults += [
        f"{name} must be a {kinds[name].__name__}, got {found[name]!r:.80}"
        for name in found.keys() & fields.keys()
        if not isinstance(found[name], kinds[name]) or isinstance(found[name], bool)
    ]
    faults = faults or _unfit(found)
    if faults:
        known = ", ".join(fields)
        raise MetalrError(f"{where}: {'; '.join(faults)}. A plan has {known}")
    return Plan(**found)


def _unfit(found: Mapping[str, Any]) -> list[str]:
    """Says what the lists and tables of a plan hold that they should not."""
    lists = {name: found.get(name, []) for name in ("models", "schedulers", "tuned")}
    faults = [
        f"{name} must be a list of names, got {entries!r:.80}"
        for name, entries in lists.items()
        if not all(isinstance(entry, str) for entry in entries)
    ]
    own = found.get("rates_of", {})
    for name, rates in {"rates": found.get("rates", []), **own}.items():
        if not isinstance(rates, list) or not all(map(is_number, rates)):
            faults.append(f"{name:.40} must have a list of rates, got {rates!r:.80}")
    if not all(isinstance(settings, dict) for settings in found["tasks"].values()):
        faults.append("each of tasks must be a table of settings")
    return faults


def changed(
    plan: Plan,
    *,
    tasks: Sequence[str] | None = None,
    schedulers: Sequence[str] | None = None,
    tuned: Sequence[str] | None = None,
    steps: int | None = None,
    data: str | None = None,
    predictor: str | None = None,
    **fields: Any,
) -> Plan:
    """Returns a plan with what is not None in place of its own.

    Args:
      plan: The plan.
      tasks: These alone; a task that the plan has keeps its settings.
      schedulers: These alone, and none at other base rates than their own.
      tuned: These at each of the plan's rates.
      steps: Of every run.
      data: Where rows come from.
      predictor: Folder of a learned one.
      **fields: Of `Plan`.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    settings = dict(plan.settings)
    own = {name: dict(plan.tasks.get(name, {})) for name in tasks or plan.tasks}
    if data:
        settings["data"] = data
    if predictor:
        settings["predictor"] = predictor
    if steps is not None:
        settings["max_steps"] = steps
        own = {k: {**v, "max_steps": steps} for k, v in own.items()}
    if schedulers:
        given |= {"schedulers": schedulers, "tuned": (), "rates_of": {}}
    if tuned:
        given["tuned"] = tuned
    return dataclasses.replace(plan, tasks=own, settings=settings, **given)


# ------------------------------------------------------------------ the runs


def settled(runs: Sequence[RunConfig]) -> tuple[list[RunConfig], str]:
    """Returns runs whose "auto" is the hub or toy rows, the same for all; and a note.

    Asked run by run, a hub that fails once would put toy rows among the real ones.
    """
    is_open = lambda run: run.data == "auto" and not run.train_file  # noqa: E731
    names = [str(run.task) for run in runs if is_open(run)]
    if not names:
        return list(runs), ""
    data, note = loading.settle(names, "auto")
    settle = lambda run: dataclasses.replace(run, data=data)  # noqa: E731
    return [settle(run) if is_open(run) else run for run in runs], note


def expand(plan: Plan) -> list[RunConfig]:
    """Returns the runs of a plan: all of seed 0 first, so that early rows compare.

    Raises:
      MetalrError: A task, scheduler or setting is unknown or out of its range.
    """
    _check_names(plan)
    runs: dict[str, RunConfig] = {}
    for seed in range(plan.seeds):
        for model in plan.models:
            for task, own in plan.tasks.items():
                settings = {**plan.settings, **own}
                for scheduler, rate in _rows(plan):
                    config = _config(
                        settings,
                        task=task,
                        model=model,
                        scheduler=scheduler,
                        learning_rate=rate,
                        seed=seed,
                    )
                    config = _paced(config, plan.evaluations)
                    runs.setdefault(key(config), config)
    return list(runs.values())


def baseline(runs: Sequence[RunConfig], name: str | None) -> str:
    """Returns the row to compare with as `measures.baseline`, before hours of runs.

    Raises:
      MetalrError: There is none; the message has the nearest names.
    """
    unrun = [
        {
            "task": config.task,
            "model": config.model,
            "scheduler": config.scheduler,
            "settings": config.to_json(),
            "metric": "",
            "chance": {"": 0.0},
            "history": [],
        }
        for config in runs
    ]
    return measures.baseline(measures.rows(unrun), name)


def _check_names(plan: Plan) -> None:
    for task in plan.tasks:
        if task not in TASKS:
            raise unknown_name("task", task, TASKS)
    for name in (*plan.schedulers, *plan.tuned, *plan.rates_of):
        schedulers.get(name)
    if not (plan.tasks and plan.models and plan.schedulers):
        raise MetalrError("a plan needs a task, a model and a scheduler at least")
    for name in ("seeds", "evaluations"):
        if not 1 <= getattr(plan, name) <= _MOST_RUNS:
            raise MetalrError(
                f"{name} must be 1 to {_MOST_RUNS}, got {str(getattr(plan, name)):.9}"
            )
    if plan.tuned and not plan.rates:
        raise MetalrError("a plan with `tuned` schedulers needs `rates` to try")
    # Repeated rows count twice here: to find them would take the memory that is spared.
    rows = len(plan.schedulers) + len(plan.tuned) * len(plan.rates)
    rows += sum(map(len, plan.rates_of.values()))
    runs = plan.seeds * len(plan.models) * len(plan.tasks) * rows
    if runs > _MOST_RUNS:
        raise MetalrError(
            f"a plan has at most {_MOST_RUNS} runs, got up to {runs}; split it"
        )


def _rows(plan: Plan) -> list[tuple[str, float]]:
    """Returns (scheduler, base rate) without repetition, in the plan's order."""
    rows = [(name, schedulers.get(name).learning_rate) for name in plan.schedulers]
    rows += [(name, rate) for name in plan.tuned for rate in plan.rates]
    rows += [(name, rate) for name, rates in plan.rates_of.items() for rate in rates]
    return list(dict.fromkeys(rows))


_HINTS = typing.get_type_hints(RunConfig)
# At a multiplier of 1 it makes no difference who would have been asked.
_LEARNED = ("metalr", "metalr_shuffled")
_VARIED = ("task", "model", "scheduler", "learning_rate", "seed", "output")


def _config(settings: Mapping[str, Any], **varied: Any) -> RunConfig:
    for name, value in settings.items():
        if name in _VARIED:
            raise MetalrError(f"{name} is the plan's to vary, not one of its settings")
        if name not in _HINTS:
            raise unknown_name("setting", name, _HINTS)
        # TOML's 3 is a fine 3.0, and a bool is no int.
        allowed = typing.get_args(_HINTS[name]) or (_HINTS[name],)
        fits = type(value) in allowed or (type(value) is int and float in allowed)
        if not fits:
            raise MetalrError(f"the setting {name} can't be {value!r:.80}")
    if settings.get("metric") == "eval_loss":
        raise MetalrError(
            "runs are compared by a score, which rises; got the setting metric = "
            "'eval_loss'"
        )
    return check(RunConfig(**settings, **varied))


def _paced(config: RunConfig, evaluations: int) -> RunConfig:
    """Spreads the evaluations over the run, which may be given in steps or epochs."""
    if config.max_steps:
        every = -(-config.max_steps // evaluations)
        return dataclasses.replace(config, eval_every=every)
    per_epoch = math.ceil(min(evaluations / config.epochs, _MOST_RUNS))
    return dataclasses.replace(config, evals_per_epoch=per_epoch)


def key(config: RunConfig) -> str:
    """Returns the run's name in the store.

    Settings at their defaults are not in it, so that a setting which a later metalr
    adds leaves stores as they are; a default that changes has to change
    `store.VERSION`. A run under metalr is another one when predictor or controller are.
    """
    learned = config.scheduler in _LEARNED
    digest = _digest(config.predictor) if learned else None
    more = {"controller": CONTROLLER_VERSION} if learned else {}
    defaults = RunConfig().to_json()
    told = {k: v for k, v in config.to_json().items() if v != defaults[k]}
    return store.key(told, predictor_sha256=digest, **more)


@functools.cache
def _digest(path: str | None) -> str:
    return predictor.read_metadata(path)["sha256"]
