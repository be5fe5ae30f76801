"""How often the interval of a comparison holds the true difference.

    python -m tests.benchmarks.interval_coverage

Differences of two methods that are equally good: each problem has one of its own,
normal with a deviation of 1, and each seed another 1 about that. An interval of 95 %
should miss 0 in 5 % of such comparisons; in so many it does, by problems and seeds.
"""

import numpy as np

from metalr.compare import aggregates

SIZES = ((1, 3), (2, 3), (3, 3), (4, 3), (5, 3), (5, 5), (7, 3), (12, 5))
COMPARISONS, DRAWS = 1000, 1000


def missed(problems: int, seeds: int) -> float:
    """Return the share of intervals that do not hold 0."""
    rng = np.random.default_rng(0)
    outside = 0
    for number in range(COMPARISONS):
        means = rng.normal(size=(problems, 1))
        found = aggregates.hierarchical_bootstrap(
            list(means + rng.normal(size=(problems, seeds))), draws=DRAWS, seed=number
        )
        outside += not found.low <= 0 <= found.high
    return outside / COMPARISONS


if __name__ == "__main__":
    print("| problems | seeds | said better or worse |\n|--:|--:|--:|")
    for size in SIZES:
        print(f"| {size[0]} | {size[1]} | {missed(*size):.1%} |", flush=True)
