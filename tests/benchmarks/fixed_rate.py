"""Which one rate is best for all sweeps of the source tasks, and what others cost.

    python tests/benchmarks/fixed_rate.py [--traces checkpoints/traces]

A sweep is a task, seed, model and horizon, run at several peak rates. Between two peaks
its outcome is interpolated in log2(rate), beyond the outer ones it is theirs. The
outcome is J of `metalr.meta.labels`, a logarithm: 0 is no progress.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

RATES = (2e-5, 3.2e-5, 1e-4, 1.6e-4, 3.2e-4, 6.4e-4, 1e-3)
WORST = math.log(2)  # a run that diverged counts as much as a loss that doubled


def main() -> None:
    """Print the mean outcome of each rate, of all sweeps and by size."""
    from metalr.meta import labels, trace_files

    parser = argparse.ArgumentParser()
    parser.add_argument("--traces", type=Path, default=ROOT / "checkpoints/traces")
    _, runs = trace_files.read_all(trace_files.paths_in(parser.parse_args().traces))
    found: dict[str, list[np.ndarray]] = {}
    for of_sweep in labels.by_sweep(runs).values():
        own = labels.at_peaks(of_sweep)
        if "problem" in own[0].about:  # of the zoo
            continue
        peaks = np.log2([run.peak for run in own])
        outcomes = np.minimum([labels.outcome(r.evaluations) for r in own], WORST)
        at = np.interp(np.log2(RATES), peaks, outcomes)
        for group in ("all", labels.size(own[0])):
            found.setdefault(group, []).append(at)
    print("| sweeps | number |", " | ".join(f"{rate:g}" for rate in RATES), "|")
    print("|---" * (2 + len(RATES)) + "|")
    for group in sorted(found):
        means = " | ".join(f"{mean:.3f}" for mean in np.mean(found[group], axis=0))
        print(f"| {group} | {len(found[group])} | {means} |")


if __name__ == "__main__":
    main()
