"""How much the best rates of sweeps of the same task and encoder differ.

    python tests/benchmarks/label_spread.py [checkpoints/traces]

Such sweeps differ in seed, rows, batch, steps and schedule, and each is of one seed.
The standard deviation within groups bounds from below what any rule reaches that knows
task and encoder alone, and what is left of it after the known settings is noise of the
labels. Sweeps with a changed model (rescaled, frozen, shuffled) and those that hardly
tell a best rate (signal below 0.5) are left out.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from metalr.meta import labels, trace_files, traces


def main() -> None:
    """Print groups of two sweeps and more, and the deviation within them."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("traces", type=Path, nargs="?", default="checkpoints/traces")
    _, runs = trace_files.read_all(trace_files.paths_in(parser.parse_args().traces))
    groups = defaultdict(list)
    for of_sweep in labels.by_sweep([r for r in runs if labels.size(r)]).values():
        about, best = of_sweep[0].about, labels.best_rate(of_sweep)
        changed = any(about.get(k) for k in ("rescaled", "frozen", "shuffled"))
        if best.signal >= 0.5 and not changed:
            # At its peak; of the steps that a sweep shares, any would do.
            groups[about["task"], about["model"]].append(best.log2_rate.max())
    groups = {key: np.array(found) for key, found in groups.items() if len(found) > 1}
    for (task, model), found in sorted(groups.items()):
        print(f"{task}, {model}: {', '.join(f'{2**x:.1e}' for x in sorted(found))}")
    free = sum(len(found) - 1 for found in groups.values())
    squares = sum(((found - found.mean()) ** 2).sum() for found in groups.values())
    every = np.concatenate([*groups.values()])
    print(
        f"{len(every)} sweeps in {len(groups)} groups: standard deviation of log2 of "
        f"the best peak {np.sqrt(squares / free):.2f} octaves within groups "
        f"({free} degrees of freedom), {every.std(ddof=1):.2f} in all"
    )
    sweeps = list(labels.by_sweep(runs).values())
    mixed = sum(len({*map(_is_positive, of_sweep)} - {None}) > 1 for of_sweep in sweeps)
    print(
        f"{mixed} of {len(sweeps)} sweeps hold runs whose losses stay positive, of "
        "which J takes logarithms, and others, of which it takes differences"
    )


def _is_positive(run: traces.Run) -> bool | None:
    """Tell whether all losses are; None where one is not finite, which J is not of."""
    losses = [row["eval_loss"] for row in run.evaluations]
    return None if None in losses else min(losses) > 0


if __name__ == "__main__":
    main()
