"""Which runs may stand in one comparison: the same rows, settings and predictor."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from metalr.compare import criteria, store
from metalr.compare.criteria import Run, Workload
from metalr.errors import MetalrError
from metalr.finetune.config import NOTHING, PACE, RunConfig
from metalr.finetune.config_rules import that_change

# Settings in which runs of one workload may differ: those that belong to the method,
# and those that do not change any number.
OF_THE_METHOD = {"scheduler", "learning_rate", "warmup_steps", "predictor"}
WITHOUT_EFFECT = that_change(PACE, NOTHING) | {"tensorboard"}  # which is no more
DEFAULTS = RunConfig().to_json()  # of settings that an older metalr did not have


def latest(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines of a store without those that were run again later."""
    return [*{_identity(line): line for line in lines}.values()]


def check(runs: Sequence[Run]) -> None:
    """Refuse runs that do not belong in one comparison.

    Raises:
      MetalrError: Runs under one name differ in their settings or rows, or runs follow
        two versions of the protocol, or are learned by two predictors or controllers.
    """
    _check_settings(runs)
    _check_protocols(runs)
    _check_learned(runs)


def _check_protocols(runs: Sequence[Run]) -> None:
    """Refuse runs of two versions of the protocol; older runs name none."""
    versions = sorted({run["protocol"] for run in runs if "protocol" in run})
    if len(versions) > 1:
        raise MetalrError(
            "runs of one comparison must follow one version of docs/protocol.md, but "
            f"these follow {' and '.join(map(str, versions))}; keep them in separate "
            "stores"
        )


def _check_learned(runs: Sequence[Run]) -> None:
    """Refuse runs of two predictors or controllers, under one name or two.

    Older lines, and those of rows that learn nothing, do not name any.
    """
    first: Run | None = None
    for run in runs:
        if found := run.get("learned_by"):
            first = first or run
            if first["learned_by"] != found:
                raise MetalrError(
                    f"runs of one comparison must be learned by one predictor and "
                    f"controller, but those of {first['scheduler']} are by "
                    f"{first['learned_by']} and those of {run['scheduler']} by {found}"
                    "; keep them in separate stores, or run the older ones again"
                )


def _identity(line: Mapping[str, Any]) -> str:
    """Return what a line is about; its key also depends on the predictor used."""
    if line["kind"] != store.RUN:
        return json.dumps([line[name] for name in store.OVERHEAD_FIELDS])
    settings = DEFAULTS | line["settings"]
    settings = {k: v for k, v in settings.items() if k not in WITHOUT_EFFECT}
    return json.dumps([line["task"], line["model"], settings], sort_keys=True)


def _check_settings(runs: Sequence[Run]) -> None:
    """Refuse runs that would stand beside each other in a table though they differ."""
    first: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        workload = criteria.workload(run)
        method = (*workload, run["scheduler"], criteria.base_rate(run))
        for key, may_differ in ((workload, OF_THE_METHOD), (method, set[str]())):
            other = first.setdefault(key, run)
            names = run["settings"].keys() | other["settings"].keys()
            names -= WITHOUT_EFFECT | may_differ | {"seed"}
            value = lambda r, n: r["settings"].get(n, DEFAULTS.get(n))  # noqa: E731
            pairs = {n: [value(r, n) for r in (other, run)] for n in names}
            pairs["kind of data"] = [r["data"].get("kind") for r in (other, run)]
            pairs |= _rows_of(other, run)
            differ = [f"{n} {a!r} and {b!r}" for n, (a, b) in pairs.items() if a != b]
            if differ:
                raise MetalrError(
                    f"runs under one name must share their settings, but those of "
                    f"{' '.join(map(str, key))} differ ({', '.join(sorted(differ))}); "
                    "keep them in separate stores"
                )


def _rows_of(one: Run, other: Run) -> dict[str, list[Any]]:
    """Return what tells the rows of two runs apart, which need not have one seed.

    Older runs have no hash of their rows, but the score of the best constant guess.
    """
    hashes = [run["data"].get("sha256") for run in (one, other)]
    if None in hashes:
        return {"chance": [round(criteria.chance(run), 6) for run in (one, other)]}
    return {"rows": [of[:12] for of in hashes]}


def check_devices(of: Workload, pairs: Sequence[tuple[Run, Run]]) -> None:
    """Refuse pairs of runs from two kinds of device."""
    for own, theirs in pairs:
        if criteria.device(own) != criteria.device(theirs):
            names = " and ".join(
                f"{run['scheduler']} at {criteria.format_rate(criteria.base_rate(run))}"
                f" ({criteria.device(run)})"
                for run in (own, theirs)
            )
            raise MetalrError(
                f"runs that are paired must be of one kind of device, but on "
                f"{' with '.join(of)}, seed {own['seed']}, {names} are not; run one "
                "of them again, or say --mix-devices"
            )
