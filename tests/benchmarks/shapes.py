"""What a hold before the decay gains over linear decay, by the sweeps that have both.

    python -m tests.benchmarks.shapes [--traces checkpoints/traces]

Encoders: a hold to four fifths of the run (WSD); the zoo: to seven tenths. A gain is a
share of what linear decay gains at its best peak, in J of `metalr.meta.labels` (half
the mean, half the last validation loss, as logarithms): each shape at its own best
peak, and the hold at that of linear decay. The shift is that of the best peak, in
octaves, and beside it stands what the shipped prior expects of it. Sweeps in which
neither learns are left out.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from metalr.features import OF_STATIC
from metalr.meta import labels, trace_files
from metalr.meta.peak_curves import best_peak
from metalr.predictor import best_relative_rate
from metalr.stored_predictor import load_predictor

ROOT = Path(__file__).parents[2]
LEARNS = -0.05  # J, of the better shape


def main() -> None:
    """Print a line a kind of problem, and one a sweep of encoders."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--traces", type=Path, default=ROOT / "checkpoints/traces")
    _, runs = trace_files.read_all(trace_files.paths_in(parser.parse_args().traces))
    found = defaultdict(list)
    print("| sweep | best J, linear | best J, hold | shift of the best peak |")
    print("|---|--:|--:|--:|")
    for number, of_sweep in labels.by_sweep(runs).items():
        about = of_sweep[0].about
        kind = about.get("problem", "encoder")
        pairs = curves(of_sweep, "hold" if "problem" in about else "wsd")
        if pairs is None or pairs.outcomes.min() > LEARNS:
            continue
        for group in (kind, *["zoo, all"] * (kind != "encoder")):
            found[group].append(pairs)
        if kind == "encoder":
            linear, hold = pairs.outcomes.min(1)
            name = f"{number}, {about['task']}, {about['model']}"
            print(f"| {name} | {linear:.3f} | {hold:.3f} | {pairs.shift:+.2f} |")
    print()
    print(
        "| kind | sweeps | hold better | gain at the best | at linear's best | shift "
        "| the prior's |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for kind, pairs in sorted(found.items()):
        best, same, won = np.array([gains(pair) for pair in pairs]).T
        shift, expected = np.median([pair[1:] for pair in pairs], axis=0)
        print(
            f"| {kind} | {len(pairs)} | {won.mean():.0%} | {np.median(best):+.1%} "
            f"| {np.median(same):+.1%} | {shift:+.2f} | {expected:+.2f} |"
        )


class Pair(NamedTuple):
    """Both curves of a sweep."""

    outcomes: np.ndarray  # [2, P] J by peak, with linear decay and with a hold
    shift: float  # of the best peak, in octaves
    expected: float  # by the shipped prior


def gains(pair: Pair) -> tuple[float, float, bool]:
    """Return gain at the best, at linear's best, and whether the hold is better."""
    linear, hold = pair.outcomes
    scale = max(-linear.min(), -LEARNS)
    best = (linear.min() - hold.min()) / scale
    return best, (linear.min() - hold[linear.argmin()]) / scale, best > 0


def curves(of_sweep: Any, hold: str) -> Pair | None:
    """Return both curves of a sweep, if it has them."""
    both = [labels.at_peaks(of_sweep, shape) for shape in ("linear", hold)]
    if not both[1] or len(both[0]) != len(both[1]):
        return None
    outcomes = np.array([*map(labels.outcomes, both)])
    peaks = np.log2([run.peak for run in both[0]])
    linear, held = (best_peak(peaks, row) for row in outcomes)
    facts = jnp.array([own[0].features[1, OF_STATIC] for own in both])
    said = np.asarray(best_relative_rate(load_predictor(), facts)[0])
    return Pair(outcomes, held - linear, float(said[1] - said[0]))


if __name__ == "__main__":
    main()
