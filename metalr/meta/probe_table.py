"""Make the table of `metalr.finding.experience` from traces: what a probe should know.

    python -m metalr.meta.probe_table                  # beside the shipped predictor
    python -m metalr.meta.probe_table --predictor FOLDER --traces FOLDER

A recorded run on linear decay is a probe at a rate that nobody moved. Of each sweep the
run is taken whose peak is nearest to what the facts say, under a predictor that was
fitted without the sweep: tasks of encoders are left out whole, sweeps of the zoo one by
one. How far the estimate is from the best peak gives the width of the intervals. Costs
come from the outcomes of the sweeps themselves; forecasts are ridge regressions, whose
error is that on tasks and kinds left out.

The weights of a predictor have a part in the widths alone: make the table again with
every new one.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metalr.errors import MetalrError
from metalr.finding import experience, finder
from metalr.finding.experience import ANY, ENCODER
from metalr.finding.probe import MOST_STEPS
from metalr.meta import fit, forecasts, replays, trace_files, traces
from metalr.meta.forecasts import COVERAGE, forecast, good_runs
from metalr.meta.peak_curves import PeakCurve, curves
from metalr.predictor import Predictor
from metalr.runtime import files
from metalr.stored_predictor import folder_of, read_metadata

WIDTH = 1.2816  # deviations: a normal error lies within with a chance of COVERAGE
_OFF = 2.0  # octaves: 4x


class Probe(NamedTuple):
    """What a probe of a left-out sweep would have found; rates as log2."""

    name: str
    kind: str
    task: str
    size: str
    best: float
    prior: float
    prior_deviation: float
    found: float
    deviation: float
    steps: int
    distance: float


def probes(
    runs: Sequence[traces.Run],
    settings: fit.Settings | None = None,
    *,
    folds: int = 3,
    by: str = "task",
    tell: Callable[[str], object] = lambda line: None,
) -> list[Probe]:
    """Replay a probe of each sweep under a predictor that has not seen it.

    Args:
      runs: Of the sweeps.
      settings: Of the fits.
      folds: The number of fits.
      by: Of encoders each "task" or each "size" is left out with all of its sweeps; a
        sweep of the zoo by itself.
      tell: Called with each message of progress.
    """
    settings = settings or fit.Settings()
    data = fit.examples(runs, settings)
    sweeps = curves(runs)
    column = getattr(data, by)
    of_row = np.where(column != "", column, data.sweep)
    names = sorted(set(of_row))
    fold_of = dict(zip(names, _spread(len(names), folds), strict=True))
    number = np.array([fold_of[name] for name in of_row])
    found = []
    for fold in range(folds):
        tell(f"fold {fold + 1} of {folds}")
        predictor = fit.fit(data, settings, kept=number != fold)
        left_out = [c for c in sweeps if fold_of[_group(c, by)] == fold]
        found += list(_probed(predictor, left_out)) if left_out else []
    return found


def _group(sweep: PeakCurve, by: str) -> str:
    return getattr(sweep, by) if sweep.kind == ENCODER else sweep.name


def _spread(count: int, folds: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(count) % folds)


def _probed(predictor: Predictor, sweeps: Sequence[PeakCurve]) -> list[Probe]:
    """Replay the run of each sweep that is nearest to the prior."""
    first = [sweep.runs[len(sweep.runs) // 2] for sweep in sweeps]
    early = replays.replay(predictor, first, 4)
    priors = early.mean[:, 1]  # at the first update there is little more
    chosen = [
        sweep.runs[sweep.nearest(prior)]
        for sweep, prior in zip(sweeps, priors, strict=True)
    ]
    replay = replays.replay(predictor, chosen, MOST_STEPS)
    found = []
    for k, (sweep, run) in enumerate(zip(sweeps, chosen, strict=True)):
        steps = finder.longest(run.steps)
        found.append(
            Probe(
                *sweep[:4],
                best=sweep.best,
                prior=float(priors[k]),
                prior_deviation=math.sqrt(early.variance[k, 1]),
                found=float(replay.mean[k, steps - 1]),
                deviation=math.sqrt(replay.variance[k, steps - 1]),
                steps=steps,
                distance=float(np.median(replay.distance[k, 1:steps])),
            )
        )
    return found


def _scale(errors: np.ndarray, deviations: np.ndarray) -> float:
    """Return the factor on deviations at which intervals cover what they should.

    One more than the share of the rows asks for: a further one is as likely to lie
    between any two of them (Vovk et al. 2005).
    """
    ratios = np.sort(abs(errors) / deviations)
    place = min(len(ratios) - 1, math.ceil(COVERAGE * (len(ratios) + 1)) - 1)
    return float(ratios[place] / WIDTH)


def lost(sweeps: Sequence[PeakCurve]) -> dict[str, tuple[float, float, float]]:
    """Return the share of the fall of the loss that a rate 4x off loses: quartiles."""
    found = {}
    for way, off in (("4x lower", -_OFF), ("4x higher", _OFF)):
        shares = []
        for sweep in sweeps:
            at = sweep.best + off
            if sweep.peaks[0] - 0.5 <= at <= sweep.peaks[-1] + 0.5:
                found_at = np.interp([sweep.best, at], sweep.peaks, sweep.outcome)
                best, wrong = float(found_at[0]), float(found_at[1])
                shares.append(np.clip((wrong - best) / max(-best, 1e-3), 0, 1))
        if shares:
            low, middle, high = np.quantile(shares, [0.25, 0.5, 0.75]).round(3)
            found[way] = (float(low), float(middle), float(high))
    return found


def make(
    runs: Sequence[traces.Run],
    sha256: str,
    settings: fit.Settings | None = None,
    *,
    tell: Callable[[str], object] = lambda line: None,
) -> tuple[dict[str, Any], list[Probe]]:
    """Return the table as JSON, and the probes that its widths were read off."""
    sweeps = curves(runs)
    found = probes(runs, settings, tell=tell)
    if not found:
        raise MetalrError(
            "no sweep of the traces has three peaks on linear decay and tells its best "
            "rate, so that there is nothing to probe; collect more: train_meta.py"
        )
    best, prior, said = (
        np.array([getattr(p, name) for p in found])
        for name in ("best", "prior", "found")
    )
    deviations = np.array([p.deviation for p in found])
    of_prior = np.array([p.prior_deviation for p in found])
    encoders = [sweep for sweep in sweeps if sweep.row == ENCODER]
    kinds = {ANY: sweeps, ENCODER: encoders}
    good = {kind: good_runs(runs, its) for kind, its in kinds.items()}
    losses = {kind: forecast(forecasts.loss_rows(its)) for kind, its in good.items()}
    return {
        "predictor_sha256": sha256,
        "sweeps": len(found),
        "coverage": COVERAGE,
        "width": WIDTH,
        "scale": round(_scale(said - best, deviations), 4),
        "prior_scale": round(_scale(prior - best, of_prior), 4),
        "lost": {kind: lost(its) for kind, its in kinds.items() if lost(its)},
        "losses": {kind: row for kind, row in losses.items() if row},
        "scores": forecast(forecasts.score_rows(good[ENCODER])),
    }, found


def main() -> None:
    """Make the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictor", help="folder (default: the shipped one)")
    parser.add_argument("--traces", type=Path, default=Path("checkpoints/traces"))
    args = parser.parse_args()
    folder = folder_of(args.predictor)
    _, runs = trace_files.read_all(trace_files.paths_in(args.traces))
    table, _ = make(runs, read_metadata(folder)["sha256"], tell=print)
    text = json.dumps(table, indent=2) + "\n"
    files.replace(folder / experience.FILE, lambda draft: draft.write_text(text))
    print(text)


if __name__ == "__main__":
    main()
