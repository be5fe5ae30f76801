"""Whether networks that lack one kind of run each disagree on a kind that all lack.

    python tests/benchmarks/disagreement.py [checkpoints/traces] [--rows 40000]

For each kind K, one network is fitted without K and each other kind in turn. Their
spread (standard deviation of the correction, in octaves) on steps of K, which none has
seen, is held against that on steps of the other kinds, each of which one network lacks:
the limit is what 1 % of those exceed. It is generous: the known steps were fitted to.
"""

import argparse
import itertools
import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from metalr.meta import fit, trace_files
from metalr.predictor import evidence
from metalr.runtime import progress

QUANTILE = 0.99


def main() -> None:
    """Print a line a kind."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("traces", type=Path, nargs="?", default="checkpoints/traces")
    parser.add_argument(
        "--rows", type=int, default=40_000, help="steps that are scored"
    )
    flags = parser.parse_args()
    _, runs = trace_files.read_all(trace_files.paths_in(flags.traces))
    data = fit.examples(runs)
    rng = np.random.default_rng(0)
    rows = rng.choice(len(data.target), min(flags.rows, len(data.target)), False)
    kind, weight = data.kind[rows], data.weight[rows]
    predict = jax.jit(jax.vmap(evidence, in_axes=(None, 0)))
    found = {}
    pairs = [*itertools.combinations(map(str, np.unique(data.kind)), 2)]
    with progress.counting(len(pairs)) as log:
        for pair in pairs:
            kept = ~np.isin(data.kind, pair)
            network = fit._fitted(data, kept, fit.Settings())
            found[pair] = np.asarray(predict(network, data.features[rows])[0])
            log(" and ".join(pair))
    print("| kind left out | steps beyond | spread there | spread of known kinds |")
    print("|---|--:|--:|--:|")
    for name in map(str, np.unique(data.kind)):
        spread = np.std([m for pair, m in found.items() if name in pair], axis=0)
        out = kind == name
        beyond = spread[out] > np.quantile(spread[~out], QUANTILE)
        print(
            f"| {name} | {100 * np.average(beyond, weights=weight[out]):.1f} % "
            f"| {np.median(spread[out]):.2f} | {np.median(spread[~out]):.2f} |"
        )


if __name__ == "__main__":
    main()
