"""Whether a limit for each kind of run would tell a kind that training lacks.

    python tests/benchmarks/density_limits.py [checkpoints/traces]

A step is out of range where it lies beyond a limit from every kind of run in training
(`metalr.predictor.distance`). There is one limit for all kinds, at which 1 % of the
steps of left-out sweeps lie outside. Here it is held against one limit a kind, with
sweeps left out one by one, or with all those of one program of the zoo, whose runs
share rows and architecture; and against kinds that are left out whole.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from metalr.meta import facts, fit, labels, trace_files
from metalr.meta.zoo.sweeps import FIRST_ID, PER_PROGRAM

FOLDS, QUANTILE = 3, 0.99


def apart(data: labels.Examples, known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return how far rows are from each kind among the known ones: [n, K]."""
    seen = facts.densities(data.features[known], data.kind[known])
    x = data.features[rows].astype(np.float64)
    each = zip(seen.centre, seen.whitening, strict=True)
    return np.stack([(((x - c) @ w.T) ** 2).mean(1) for c, w in each], 1)


def left_out(
    data: labels.Examples, kept: np.ndarray, group: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield for each fold the kinds known, those of its rows, and how far they are."""
    names = np.unique(group[kept])
    fold_of = np.random.default_rng(0).integers(FOLDS, size=len(names))
    for fold in range(FOLDS):
        out = kept & np.isin(group, names[fold_of == fold])
        known = kept & ~out
        yield np.unique(data.kind[known]), data.kind[out], apart(data, known, out)


def limits(
    data: labels.Examples, kept: np.ndarray, group: np.ndarray
) -> tuple[float, dict[str, float]]:
    """Return the limit for all kinds and the one of each."""
    nearest, own = [], {str(kind): [] for kind in np.unique(data.kind[kept])}
    for kinds, of_row, far in left_out(data, kept, group):
        nearest.append(far.min(1))
        for k, kind in enumerate(kinds):
            own[str(kind)].append(far[of_row == kind, k])
    at = lambda parts: float(np.quantile(np.concatenate(parts), QUANTILE))  # noqa: E731
    return at(nearest), {kind: at(parts) for kind, parts in own.items()}


def main() -> None:
    """Print the limits, and what lies beyond them of each kind left out."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("traces", type=Path, nargs="?", default="checkpoints/traces")
    _, runs = trace_files.read_all(trace_files.paths_in(parser.parse_args().traces))
    data = fit.examples(runs)
    program = np.array([_program(int(sweep)) for sweep in data.sweep])
    for name, group in (("sweeps", data.sweep), ("programs", program)):
        one, own = limits(data, np.ones(len(data.sweep), bool), group)
        said = ", ".join(f"{kind} {limit:.1f}" for kind, limit in own.items())
        print(f"by {name} left out: one limit {one:.2f}; of each kind: {said}")
    print("\n| kind left out | beyond one limit | beyond those of each kind | like |")
    print("|---|--:|--:|---|")
    for kind in np.unique(data.kind):
        out = data.kind == kind
        one, own = limits(data, ~out, program)
        far = apart(data, ~out, out)
        scaled = far / np.array(list(own.values()))
        share = lambda x, w=data.weight[out]: 100 * np.average(x, weights=w)  # noqa: E731
        most = np.array(list(own))[np.bincount(scaled.argmin(1)).argmax()]
        print(
            f"| {kind} | {share(far.min(1) > one):.1f} % "
            f"| {share(scaled.min(1) > 1):.1f} % | {most} |",
            flush=True,
        )


def _program(sweep: int) -> int:
    """Return what a sweep of the zoo shares with others; one of an encoder, nothing.

    >>> _program(FIRST_ID + 4) == _program(FIRST_ID + 3), _program(4) == _program(3)
    (True, False)
    """
    return sweep if sweep < FIRST_ID else -1 - (sweep - FIRST_ID) // PER_PROGRAM


if __name__ == "__main__":
    main()
