"""How a predictor of short runs does on long ones.

    python tests/benchmarks/longer_runs.py [checkpoints/traces]

A predictor is fitted to the runs of at most 300 steps and scored on those of 700 and of
1,000 and more, all of which are of the zoo; and one is fitted without the fine-tunes of
encoders of over 150 steps and scored on those of 400 and more. Beside each stands one
that was fitted to as many sweeps of each kind, drawn among those of any length that are
not scored: what length costs is the difference.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from metalr.meta import fit, labels, scoring, trace_files
from metalr.meta.labels import ENCODER
from metalr.runtime import progress

COLUMNS = ("sign", "rmse", "first", "prior", "still", "within", "far")
HEAD = (
    "fitted to | right direction | error | first ten steps | prior alone | "
    "without metalr | within one deviation | out of range"
)


def main() -> None:
    """Print a row a fit."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("traces", type=Path, nargs="?", default="checkpoints/traces")
    flags = parser.parse_args()
    _, runs = trace_files.read_all(trace_files.paths_in(flags.traces))
    data = fit.examples(runs)
    length = lengths(runs)
    steps = np.array([length[str(name)] for name in data.sweep])
    encoders = data.kind == ENCODER
    checks = {
        "zoo": (steps <= 300, {k: steps >= k for k in (700, 1000)}),
        "encoders": (~encoders | (steps <= 150), {400: encoders & (steps >= 400)}),
    }
    print(f"| scored on | sweeps | {HEAD} |\n|---|--:|---|{'--:|' * len(COLUMNS)}")
    with progress.counting(2 * len(checks)) as log:
        for name, (short, outs) in checks.items():
            every = np.logical_or.reduce([*outs.values()])
            fits = {"short": short, "any length": others(data, short, every)}
            for called, kept in fits.items():
                predictor = fit.fit(data, kept=kept)
                for least, out in outs.items():
                    held = labels.Examples(*(column[out] for column in data))
                    scored = f"{name}, {least} and more | {len(np.unique(held.sweep))}"
                    found = cells(scoring.score(predictor, held))
                    print(f"| {scored} | {called} | {found} |", flush=True)
                log(f"{name}, {called}")


def lengths(runs) -> dict[str, int]:
    """Return the steps of the runs of each sweep."""
    found = {}
    for name, of_sweep in labels.by_sweep(runs).items():
        (found[str(name)],) = {run.evaluations[-1]["step"] for run in of_sweep}
    return found


def others(data: labels.Examples, short: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Return rows of as many sweeps as are short, drawn among all that are not scored.

    Each kind has as many as before, as far as it goes.
    """
    rng, kept = np.random.default_rng(0), np.zeros(len(out), bool)
    for kind in np.unique(data.kind):
        of_kind = data.kind == kind
        count = len(np.unique(data.sweep[of_kind & short]))
        drawn = rng.permutation(np.unique(data.sweep[of_kind & ~out]))[:count]
        kept |= of_kind & np.isin(data.sweep, drawn)
    return kept


def cells(found: dict[str, float]) -> str:
    """Return the cells of a row."""
    shares = ("sign", "within", "far")
    shown = [
        f"{100 * found[c]:.1f} %" if c in shares else f"{found[c]:.2f}" for c in COLUMNS
    ]
    return " | ".join(shown)


if __name__ == "__main__":
    main()
