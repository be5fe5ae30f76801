"""The plan of a comparison: schedulers x tasks x models x seeds.

A plan is a TOML or JSON file, or the name of one that is shipped; `expand` turns it
into a list of runs. All but the learning rate is the same for every run: rows, order,
dropout, head, loop, evaluation.
"""

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metalr.compare import methods, store
from metalr.data import loading
from metalr.data.formats import opening
from metalr.data.tasks import TASKS
from metalr.errors import MetalrError, unknown_name
from metalr.finetune import schedulers
from metalr.finetune.config import RunConfig
from metalr.finetune.config_rules import check
from metalr.finetune.settings import check_type
from metalr.models import locate
from metalr.runtime.files import is_number

PLANS = Path(__file__).parent / "plans"
_LARGEST_PLAN = 2**20  # bytes; the shipped plans have some thousand
_MOST_RUNS = 100_000  # years of a GPU


@dataclass(frozen=True)
class Plan:
    """What is compared, and on which workloads."""

    tasks: Mapping[str, Mapping[str, Any]]  # name -> settings of this task alone
    models: Sequence[str]
    schedulers: Sequence[str]  # each at its default base rate
    seeds: int
    tuned: Sequence[str] = ()  # schedulers that also run at each of `rates`
    rates: Sequence[float] = ()
    rates_of: Mapping[str, Sequence[float]] = field(default_factory=dict)
    evaluations: int = 20  # in a run
    settings: Mapping[str, Any] = field(default_factory=dict)  # of `RunConfig`
    protocol: int | None = None  # version of docs/protocol.md that it follows


def read_plan(name: str) -> Plan:
    """Read a plan.

    Args:
      name: Name of a shipped plan, or a TOML or JSON file.

    Raises:
      MetalrError: There is no such plan, or a field is unknown, missing or of another
        type.
    """
    shipped = sorted(path.stem for path in PLANS.glob("*.toml"))
    path = PLANS / f"{name}.toml" if name in shipped else Path(name)
    if not path.is_file():
        raise MetalrError(
            f"no plan {name!r}: give a .toml or .json file, or one of "
            f"{', '.join(shipped)}"
        )
    if path.stat().st_size > _LARGEST_PLAN:
        raise MetalrError(f"{path} is larger than 1 MB, and a plan is far smaller")
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise MetalrError(f"{path} is not a plan: {error}") from error
    return _check_fields(found, str(path))


def _check_fields(found: Any, where: str) -> Plan:
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
    kinds |= {"seeds": int, "evaluations": int, "protocol": int}
    faults += [
        f"{name} must be a {kinds[name].__name__}, got {found[name]!r:.80}"
        for name in found.keys() & fields.keys()
        if not isinstance(found[name], kinds[name]) or isinstance(found[name], bool)
    ]
    faults = faults or _entry_faults(found)
    if faults:
        known = ", ".join(fields)
        raise MetalrError(f"{where}: {'; '.join(faults)}. A plan has {known}")
    return Plan(**found)


def _entry_faults(found: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the entries of a plan's lists and tables."""
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


def override(
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
    """Return a copy of a plan with the arguments that are not None in place.

    Args:
      plan: The plan.
      tasks: These tasks alone; a task of the plan keeps its settings.
      schedulers: These schedulers alone, each at its default base rate.
      tuned: Schedulers to run at each of the plan's rates.
      steps: Steps of every run.
      data: Where rows come from.
      predictor: Folder of a learned predictor.
      **fields: Other fields of `Plan`.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    settings = dict(plan.settings)
    own = {name: dict(plan.tasks.get(name, {})) for name in tasks or plan.tasks}
    if data:
        settings["data"] = data
    if predictor:
        settings["predictor"] = predictor
    if steps is not None:
        # As many epochs as that takes.
        length = {"max_steps": steps, "epochs": float(min(max(steps, 1), 10**6))}
        settings |= length
        given["protocol"] = None  # which says how long runs are
        own = {k: {**v, **length} for k, v in own.items()}
    if schedulers:
        given |= {"schedulers": schedulers, "tuned": (), "rates_of": {}}
    if tuned:
        given["tuned"] = tuned
    return dataclasses.replace(plan, tasks=own, settings=settings, **given)


# ------------------------------------------------------------------ the runs


def resolve_data(runs: Sequence[RunConfig]) -> tuple[list[RunConfig], str]:
    """Replace "auto" by "hub" or "toy", the same for all runs.

    If each run asked by itself, a hub that fails once would mix toy rows with real
    ones.

    Returns:
      The runs, and a note for the user ("" if there is none).
    """
    is_open = lambda run: run.data == "auto" and not run.train_file  # noqa: E731
    names = [run.task_name for run in runs if is_open(run)]
    if not names:
        return list(runs), ""
    data, note = loading.resolve(names, "auto")
    resolve = lambda run: dataclasses.replace(run, data=data)  # noqa: E731
    return [resolve(run) if is_open(run) else run for run in runs], note


def check_places(runs: Sequence[RunConfig]) -> None:
    """Refuse rows and models that are not there, before the first run.

    Raises:
      MetalrError: Of the first that is not; what the hub holds is not asked for.
    """
    of_tasks = (run for run in runs if run.task_name in TASKS and not run.train_file)
    for name, data in dict.fromkeys((run.task_name, run.data) for run in of_tasks):
        if not opening.is_one(data):  # a file is read by its first run
            loading.check_folder(name, data)
    for model in dict.fromkeys(run.model for run in runs):
        locate.check(model)


def expand(plan: Plan) -> list[RunConfig]:
    """Return the runs of a plan, all of seed 0 first, so that early results compare.

    Raises:
      MetalrError: A task, scheduler or setting is unknown or out of its range.
    """
    _check_names(plan)
    runs: dict[str, RunConfig] = {}
    for seed in range(plan.seeds):
        for model in plan.models:
            for task, own in plan.tasks.items():
                settings = {**plan.settings, **own}
                for scheduler, rate in _scheduler_rates(plan):
                    config = _config(
                        settings,
                        task=task,
                        model=model,
                        scheduler=scheduler,
                        learning_rate=rate,
                        seed=seed,
                    )
                    config = _spread_evaluations(config, plan.evaluations)
                    runs.setdefault(key(config), config)
    return list(runs.values())


def choose_baseline(runs: Sequence[RunConfig], name: str | None) -> str:
    """Return the baseline as `methods.choose_baseline`, before hours of runs.

    Raises:
      MetalrError: There is no such method; the message has the nearest names.
    """
    unrun = [
        {
            "task": config.task,
            "model": config.model,
            "scheduler": config.scheduler,
            "seed": config.seed,
            "settings": config.to_json(),
            "metric": "",
            "chance": {"": 0.0},
            "history": [],
        }
        for config in runs
    ]
    return methods.choose_baseline(methods.group(unrun), name)


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
    # Repeated rates count twice here: finding them would need the memory of the list.
    rates = len(plan.schedulers) + len(plan.tuned) * len(plan.rates)
    rates += sum(map(len, plan.rates_of.values()))
    runs = plan.seeds * len(plan.models) * len(plan.tasks) * rates
    if runs > _MOST_RUNS:
        raise MetalrError(
            f"a plan has at most {_MOST_RUNS} runs, got up to {runs}; split it"
        )


def _scheduler_rates(plan: Plan) -> list[tuple[str, float]]:
    """Return (scheduler, base rate) without repetition, in the plan's order."""
    found = [(name, schedulers.get(name).learning_rate) for name in plan.schedulers]
    found += [(name, rate) for name in plan.tuned for rate in plan.rates]
    found += [(name, rate) for name, rates in plan.rates_of.items() for rate in rates]
    return list(dict.fromkeys(found))


_VARIED_BY_PLAN = ("task", "model", "scheduler", "learning_rate", "seed", "output")


def _config(settings: Mapping[str, Any], **varied: Any) -> RunConfig:
    """Return a checked run with settings from a file and those that a plan varies."""
    for name, value in settings.items():
        if name in _VARIED_BY_PLAN:
            raise MetalrError(
                f"{name} is varied by the plan and cannot be one of its settings"
            )
        if name in ("eval_every", "evals_per_epoch"):
            raise MetalrError(
                f"a plan says `evaluations`, of a whole run; leave {name} out of its "
                "settings"
            )
        check_type(name, value)
    if settings.get("metric") == "eval_loss":
        raise MetalrError(
            "runs are compared by a score, where more is better; got the setting "
            "metric = 'eval_loss'"
        )
    return check(RunConfig(**settings, **varied))


def _spread_evaluations(config: RunConfig, evaluations: int) -> RunConfig:
    """Spread the evaluations over the run, whose length is in steps or epochs."""
    if config.max_steps:
        every = -(-config.max_steps // evaluations)
        return dataclasses.replace(config, eval_every=every)
    per_epoch = math.ceil(min(evaluations / config.epochs, _MOST_RUNS))
    return dataclasses.replace(config, evals_per_epoch=per_epoch)


def length(config: RunConfig) -> int:
    """Return the tokens that the settings allow an entry; the model may read fewer."""
    return config.max_length or TASKS[config.task_name].max_length


def key(config: RunConfig) -> str:
    """Return the key of a run in the store.

    Settings at their defaults are left out, so that keys stay the same when a later
    version adds a setting; whoever changes a default must change `store.VERSION`. The
    key of a run under metalr also depends on the predictor and the controller.
    """
    learned = {"predictor_sha256": None} | schedulers.learned_by(config)
    defaults = RunConfig().to_json()
    set_by_user = {k: v for k, v in config.to_json().items() if v != defaults[k]}
    return store.key(set_by_user, **learned)
