"""What a hold before the decay gains over linear decay, by the sweeps that have both.

    python tests/benchmarks/shapes.py [--traces checkpoints/traces]

Encoders: a hold to four fifths of the run (WSD); the zoo: to seven tenths. A gain is a
share of what linear decay gains at its best peak, in J of `metalr.meta.labels` (half
the mean, half the last validation loss, as logarithms): each shape at its own best
peak, and the hold at that of linear decay. The shift is that of the best peak, in
octaves. Sweeps in which neither learns are left out.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

LEARNS = -0.05  # J, of the better shape


def main() -> None:
    """Print a line a kind of problem, and one a sweep of encoders."""
    from metalr.meta import labels, trace_files

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
        "| kind | sweeps | hold better | gain at the best | at linear's best | shift |"
    )
    print("|---|--:|--:|--:|--:|--:|")
    for kind, pairs in sorted(found.items()):
        best, same, shift, won = np.array([p.gains() for p in pairs]).T
        print(
            f"| {kind} | {len(pairs)} | {won.mean():.0%} | {np.median(best):+.1%} "
            f"| {np.median(same):+.1%} | {np.median(shift):+.2f} |"
        )


class Pair:
    """Both curves of a sweep."""

    def __init__(self, peaks: np.ndarray, outcomes: np.ndarray, shift: float):
        self.peaks, self.outcomes, self.shift = peaks, outcomes, shift

    def gains(self) -> tuple[float, float, float, bool]:
        """Return gain at the best, at linear's best, shift, and who is better."""
        linear, hold = self.outcomes
        scale = max(-linear.min(), -LEARNS)
        best = (linear.min() - hold.min()) / scale
        same = (linear.min() - hold[linear.argmin()]) / scale
        return best, same, self.shift, best > 0


def curves(of_sweep, hold: str) -> Pair | None:
    """Return J [2, P] of a sweep with linear decay and with a hold, if it has both."""
    from metalr.meta import labels
    from metalr.meta.probe_table import best_peak

    both = [labels.at_peaks(of_sweep, shape) for shape in ("linear", hold)]
    if not both[1] or len(both[0]) != len(both[1]):
        return None
    outcomes = np.minimum(
        [[labels.outcome(run.evaluations) for run in own] for own in both], 0.1
    )
    peaks = np.log2([run.peak for run in both[0]])
    linear, held = (best_peak(peaks, row) for row in outcomes)
    return Pair(peaks, outcomes, held - linear)


if __name__ == "__main__":
    main()
