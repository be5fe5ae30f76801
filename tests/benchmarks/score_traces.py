"""How far off a predictor is on sweeps that it was not fitted to.

    python -m tests.benchmarks.score_traces FOLDER [--predictor FOLDER]

A row for each sweep in the folder: the best peak, what the runs at each peak came to
(J of `metalr.meta.labels`; lower is better, 0 is no progress), and the error of single
steps in octaves, as the check of `train_meta.py` has it.
"""

import argparse
from pathlib import Path

import numpy as np

from metalr.meta import labels, scoring, trace_files
from metalr.stored_predictor import load_predictor


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("traces", type=Path)
    parser.add_argument("--predictor")
    args = parser.parse_args()
    predictor = load_predictor(args.predictor)
    _, runs = trace_files.read_all(trace_files.paths_in(args.traces))
    data = labels.examples(runs)
    print(
        "| task, size | steps | best peak | J by peak | right direction | error "
        "| first ten | prior alone | without metalr | out of range |"
    )
    print("|---|--:|--:|---|--:|--:|--:|--:|--:|--:|")
    errors = []
    for number, of_sweep in labels.by_sweep(runs).items():
        rows = data.sweep == str(number)
        found = scoring.score(predictor, labels.Examples(*(c[rows] for c in data)))
        own = labels.at_peaks(of_sweep)
        peaks = {run.peak: labels.outcome(run.evaluations) for run in own}
        curve = ", ".join(f"{peak:.1e}: {peaks[peak]:.2f}" for peak in sorted(peaks))
        best = 2 ** labels.best_rate(own).log2_rate.max()
        errors.append([found[name] for name in ("rmse", "first", "prior", "still")])
        print(
            f"| {of_sweep[0].about['task']}, {labels.size(of_sweep[0])} "
            f"| {of_sweep[0].steps} | {best:.1e} | {curve} | {found['sign']:.0%} "
            f"| {found['rmse']:.2f} | {found['first']:.2f} | {found['prior']:.2f} "
            f"| {found['still']:.2f} | {found['far']:.1%} |"
        )
    mean = " | ".join(f"{value:.2f}" for value in np.mean(errors, axis=0))
    print(f"| mean | | | | | {mean} | |")


if __name__ == "__main__":
    main()
