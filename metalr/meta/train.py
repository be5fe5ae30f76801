"""Fit a predictor to trace files, and check it on tasks and sizes it has not seen.

The check leaves out one task, size of encoder, kind of problem or optimizer at a time
(`metalr.meta.scoring.leave_one_out`). Its tables are saved beside the weights, in
`metadata.json`. What was tried on the way, and where it failed, stands in
`docs/method.md`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metalr.errors import unknown_name
from metalr.meta import fit, labels, scoring, trace_files, traces
from metalr.meta.rounds import INFORMATIVE
from metalr.predictor import Predictor
from metalr.runtime import files
from metalr.runtime.versions import versions
from metalr.stored_predictor import save_predictor


class FittedPredictor(NamedTuple):
    """A predictor with its check and its provenance."""

    predictor: Predictor
    tables: dict[str, list[dict[str, Any]]]  # trained, task, size, kind, optimizer
    provenance: dict[str, Any]


def fit_predictor(
    paths: Sequence[Path],
    settings: fit.Settings | None = None,
    *,
    check: bool = True,
    without: Sequence[str] = (),
    skip: Callable[[str], object] | None = None,
    log: Callable[[str], object] = lambda line: None,
) -> FittedPredictor:
    """Fit a predictor to trace files and check it.

    Args:
      paths: The files.
      settings: Of the fit.
      check: Whether to leave out one task, size, kind and optimizer at a time as well.
      without: Tasks, kinds of the zoo, and sizes as 6x384 (layers by width), whose
        runs are left out, so that the predictor can be checked on them.
      skip: Called with the message of each file that is refused, and the file is left
        out; None raises.
      log: Called with each message of progress.

    Raises:
      MetalrError: A file is refused and `skip` is None, no sweep has two peaks, or a
        name to leave out is in no trace.
    """
    settings = settings or fit.Settings()
    used, runs = trace_files.read_all(paths, skip=skip)
    if without:
        runs = _without(runs, without)
    data = fit.examples(runs, settings)
    log(f"fitting to {len(data.target)} steps of {len(runs)} runs")
    predictor = fit.fit(data, settings)
    tables = {"trained": [{"out": "nothing", **scoring.score(predictor, data)}]}
    for column in ("task", "size", "kind", "optimizer") if check else ():
        log(f"checking: one {column} left out at a time")
        tables[column] = scoring.leave_one_out(data, column, settings, predictor)
    about = _provenance(used, runs, settings)
    if about["signal"] < INFORMATIVE:
        log(
            "note: on these sweeps most rates do about equally well (mean signal "
            f"{about['signal']:.2f} of 1), so this predictor has learned little; use "
            "longer runs, more layers or other tasks"
        )
    about |= {"without": list(without), "check": tables}
    return FittedPredictor(predictor, tables, about)


def save(folder: Path, fitted: FittedPredictor) -> None:
    """Write the predictor with its provenance; see `save_predictor`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_predictor(folder, fitted.predictor, fitted.provenance)


def _without(runs: Sequence[traces.Run], names: Sequence[str]) -> list[traces.Run]:
    """Return the runs of all but these tasks, kinds of the zoo, and sizes."""
    of = lambda run: {run.about["task"], labels.size(run)} - {""}  # noqa: E731
    runs = [run for of_sweep in labels.by_sweep(runs).values() for run in of_sweep]
    known = set().union(*map(of, runs))
    for name in names:
        if name not in known:
            raise unknown_name("task or size to leave out", name, sorted(known))
    return [run for run in runs if not of(run) & set(names)]


def _provenance(
    paths: Sequence[Path], runs: Sequence[traces.Run], settings: fit.Settings
) -> dict[str, Any]:
    signals = [labels.best_rate(of).signal for of in labels.by_sweep(runs).values()]
    count = lambda name: dict(  # noqa: E731
        sorted(Counter(str(run.about.get(name)) for run in runs).items())
    )
    return {
        "traces": {"files": len(paths), "sha256": files.checksum(paths)},
        "runs": len(runs),
        "steps": sum(run.steps for run in runs),
        "sweeps": len(signals),
        "signal": round(float(np.mean(signals)), 4),
        **{
            f"runs by {name}": count(name)
            for name in ("task", "model", "kind", "origin")
        },
        "seeds": sorted({run.about["seed"] for run in runs}),
        "settings": settings._asdict() | {"hidden": list(settings.hidden)},
        "versions": versions(),
    }


def check_table(fitted: FittedPredictor) -> str:
    """Return the check as Markdown, a line for each value that was left out."""
    lines = [
        "| left out | steps | right direction | error, octaves | first ten steps "
        "| prior alone | without metalr | within one deviation | out of range |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, rows in fitted.tables.items():
        kind = "" if name == "trained" else f"{name} "
        lines += [
            f"| {kind}{r['out']} | {r['steps']} | {r['sign']:.0%} | {r['rmse']:.2f} "
            f"| {r['first']:.2f} | {r['prior']:.2f} | {r['still']:.2f} "
            f"| {r['within']:.0%} | {r['far']:.1%} |"
            for r in rows
        ]
        if len(rows) > 1:
            mean = {k: np.mean([r[k] for r in rows]) for k in rows[0] if k != "out"}
            lines.append(
                f"| mean over {name}s | | {mean['sign']:.0%} | {mean['rmse']:.2f} "
                f"| {mean['first']:.2f} | {mean['prior']:.2f} | {mean['still']:.2f} "
                f"| {mean['within']:.0%} | {mean['far']:.1%} |"
            )
    return "\n".join(lines)
