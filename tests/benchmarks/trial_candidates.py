"""What else a predictor could be learned by: the two candidates that lost, once more.

    python -m tests.benchmarks.trial_candidates advantages --data DATA
    python -m tests.benchmarks.trial_candidates evolution --data DATA --minutes 30

Both are held against the labels of banks (`metalr.meta.labels`) on traces of the
checkout, and where they have not seen SST-2, in runs of their own on three of its
banks. What they gave is in the docstring of `metalr.meta.train`.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from metalr.meta import banks, fit, labels, record, traces
from metalr.predictor import Predictor, apply

TRACES = Path(__file__).parents[2] / "checkpoints" / "traces"
LEFT_OUT = {"task": ("sst2", "qqp", "part", "cloze"), "size": ("6x384", "2x384")}
WINDOW = 0.2  # of a run: where its rate went within it is what a step has done
WEIGHING = (0.3, 1.0)  # beta of exp(advantage / beta)

LEARNED, CHECKED = (2003, 9000, 2007), (2000, 8004, 5008)  # banks; these are SST-2's
BASES = {"learn": (2e-6, 2e-5, 2e-4), "check": (1.25e-6, 2e-5, 3.2e-4)}
# Bias of the correction, log of its scale, bias of the confidence, log of the gain.
SIGMA = np.array([0.4, 0.2, 0.6, 0.2])


def runs() -> list[traces.Run]:
    """Returns all runs of the checkout, in the order of `labels.examples`."""
    _, found = traces.read_all(traces.paths_in(TRACES))
    return [run for of_bank in labels.by_bank(found).values() for run in of_bank]


# ------------------------------------------------- advantage-weighted regression


def actions(run: traces.Run) -> np.ndarray:
    """Returns how far the multiplier went in the next fifth of the run: [T] octaves."""
    log_m = np.log2(np.asarray(run.multiplier, np.float64))
    total = np.concatenate([[0.0], np.cumsum(log_m)])
    step = np.arange(run.steps)
    end = np.minimum(step + max(1, int(WINDOW * run.steps)), run.steps)
    before = np.concatenate([[0.0], log_m[:-1]])
    return np.clip((total[end] - total[step]) / (end - step) - before, -6, 6)


def returns(run: traces.Run) -> np.ndarray:
    """Returns -J over the evaluations that a step has still before it: [T]."""
    first = run.evaluations[0]["eval_loss"]
    losses = np.array(
        [
            min(row["eval_loss"] or np.inf, 1.1 * first) / first
            for row in run.evaluations
        ]
    )
    at = np.array([row["step"] for row in run.evaluations])
    rest = (losses[at > step] for step in range(run.steps))
    return np.array([-(left.mean() + left[-1]) / 2 for left in rest])


def advantages(data_folder: str) -> Iterator[str]:
    """Yields, for each part that is left out, how well each way of learning points."""
    without_sst2: dict[str, Predictor] = {}
    own = runs()
    data = fit.label(own)
    action, gain = (np.concatenate([*map(f, own)]) for f in (actions, returns))
    for column, values in LEFT_OUT.items():
        for value in values:
            kept = getattr(data, column) != value
            held = labels.Examples(*(part[~kept] for part in data))
            made = {"banks": fit.fit(data, kept=kept)}
            goal = (gain - gain[kept].mean()) / gain[kept].std()
            state_value = fit.fit(data._replace(target=goal), kept=kept)
            surplus = goal - np.asarray(
                apply(state_value, jnp.asarray(data.features))[0]
            )
            surplus /= surplus[kept].std()
            for beta in WEIGHING:
                weight = data.weight * np.exp(np.clip(surplus / beta, -20, 3))
                weight /= weight[kept].mean()
                taken = data._replace(target=action, weight=weight)
                made[f"beta {beta}"] = fit.fit(taken, kept=kept)
            found = {
                name: fit.score(predictor, held) for name, predictor in made.items()
            }
            if value == "sst2":
                without_sst2 = made
            yield f"{value:6}" + "".join(
                f"  {name}: {row['sign']:.0%}, {row['rmse']:.2f} octaves"
                for name, row in found.items()
            )
    yield from check(without_sst2, data_folder)


# ---------------------------------------------------------- evolution strategies


def bent(predictor: Predictor, theta: np.ndarray) -> Predictor:
    """Returns the predictor with four numbers of its own changed, see `SIGMA`."""
    bias, scale, confidence, gain = theta
    last = predictor.weights["last"]
    kernel = last["kernel"] * np.array([np.exp(scale), 1], np.float32)
    shift = np.array([bias, confidence], np.float32)
    last = {"kernel": kernel, "bias": last["bias"] * [np.exp(scale), 1] + shift}
    weights = predictor.weights | {"last": last}
    return predictor._replace(weights=weights, gain=predictor.gain * np.exp(gain))


class Ground:
    """A bank of the checkout, for runs of any predictor."""

    def __init__(self, of_bank: list[traces.Run], data: str, **changes: int):
        """Loads its rows and model."""
        about: dict[str, Any] = {**of_bank[0].about, "data": data, **changes}
        about["peaks"] = tuple(about["peaks"])
        self._bank = banks.Bank(**{name: about[name] for name in banks.Bank._fields})
        self._opened = record.open_bank(self._bank)
        peaks = [run for run in of_bank if run.about["kind"] == "peak"]
        found = [labels.outcome(run.evaluations) for run in peaks]
        self._best, self._worst = min(found), min(1.1, max(found))

    def loss(self, predictor: Predictor, base: float) -> float:
        """Returns what is lost of all that the rate decides, 0 at the best peak."""
        rate = np.float32(base) * banks.prior(self._bank)
        about = {"kind": "policy", "base_rate": base}
        plan = banks.Plan(about, rate, np.zeros_like(rate), predictor)
        run = record.take(self._opened, [plan])
        assert run is not None  # nobody asks it to stop
        lost = labels.outcome(run[0].evaluations) - self._best
        return min(lost / (self._worst - self._best), 1.5)


def check(predictors: dict[str, Predictor], data: str) -> Iterator[str]:
    """Yields what each loses on the banks of `CHECKED`, from three base rates."""
    found = labels.by_bank(runs())
    for bank in CHECKED:
        ground = Ground(found[bank], data)
        for name, predictor in predictors.items():
            lost = [ground.loss(predictor, base) for base in BASES["check"]]
            yield f"bank {bank}, {name}: {np.round(lost, 3).tolist()}"


def evolution(data: str, minutes: float) -> Iterator[str]:
    """Yields the steps of antithetic evolution over whole runs, then the check."""
    begun, found = time.monotonic(), labels.by_bank(runs())
    examples = fit.label([run for of_bank in found.values() for run in of_bank])
    start = fit.fit(examples, kept=examples.task != "sst2")
    rng, theta = np.random.default_rng(0), np.zeros(4)
    short = {"evaluations": 5, "validation_rows": 150}
    grounds = [Ground(found[bank], data, **short) for bank in LEARNED]
    turn = 0
    while time.monotonic() - begun < 60 * minutes:
        base = BASES["learn"][turn // 3 % 3]
        ways = rng.normal(size=(3, 4))
        lost = [
            [
                grounds[turn % 3].loss(bent(start, theta + sign * SIGMA * way), base)
                for sign in (1, -1)
            ]
            for way in ways
        ]
        slope = (np.diff(lost)[:, 0] / -2 @ ways) / len(ways)
        theta = theta - 0.75 * SIGMA * np.clip(slope / 0.05, -1, 1)
        turn += 1
        yield f"{turn}: mean loss {np.mean(lost):.3f}, now {theta.round(3).tolist()}"
    yield from check({"before": start, "after": bent(start, theta)}, data)


def main() -> None:
    """Prints what one of the two gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("candidate", choices=("advantages", "evolution"))
    parser.add_argument("--data", default="auto", help="a folder with GLUE's tasks")
    parser.add_argument("--minutes", type=float, default=30, help="of evolution")
    args = parser.parse_args()
    if args.candidate == "advantages":
        lines = advantages(args.data)
    else:
        lines = evolution(args.data, args.minutes)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
