"""Sweeps whose best rate is known, for labels, fit and rounds."""

import numpy as np

from metalr.features import NAMES
from metalr.meta import traces

STEPS = 30
LEARNED = STEPS - 1  # steps of a run that an example is made of


def run(peak, outcome, *, offset=0.0, kind="peak", seed=0, **about):
    """Return a run whose slope shows where the best rate, 2**-11 here, lies."""
    rng = np.random.default_rng([seed, int(1e4 * (20 + np.log2(peak)))])
    features = rng.normal(size=(STEPS, len(NAMES))).astype(np.float32)
    features[:, NAMES.index("slope")] = np.tanh((-11 - np.log2(peak)) / 3)
    features[:, NAMES.index("slope")] += 0.1 * rng.normal(size=STEPS)
    features[:, NAMES.index("horizon_known")] = 1
    features[:, NAMES.index("level")] = 0  # a constant rate
    # The best rate is one of these updates beside the weights, by the prior.
    features[:, NAMES.index("relative_rate")] = np.log2(peak) + 3
    about = {
        "kind": kind,
        "base_rate": peak * 2**-offset,
        "sweep_id": 0,
        "task": "sst2",
        "model": "minilm:1",
        "depth": 1,
        "width": 384,
        "origin": "toy",
        "seed": seed,
    } | about
    if kind == "peak":
        about["peak"] = peak
    return traces.Run(
        traces.About(**about),
        [{"step": 0, "eval_loss": 0.5}, {"step": STEPS, "eval_loss": outcome / 2}],
        features,
        np.full(STEPS, peak, np.float32),
        np.full(STEPS, 2**offset, np.float32),
        np.ones(STEPS, np.float32),
    )


def sweep(sweep_id=0, **about):
    """Return five peaks: J rises by 0.05 of the first loss per octave off the best."""
    rng = np.random.default_rng(sweep_id)
    return [
        run(
            2.0**log2,
            0.5 + 0.05 * abs(log2 + 11),
            offset=rng.uniform(-5, 5),
            seed=sweep_id,
            sweep_id=sweep_id,
            **about,
        )
        for log2 in np.linspace(-14.5, -7.5, 5)
    ]


def sweeps():
    """Return twelve sweeps, four of each of three tasks."""
    return [
        run for i in range(12) for run in sweep(i, task=("sst2", "qqp", "rte")[i % 3])
    ]
