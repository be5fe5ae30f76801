"""A store of runs that nobody trained: learning curves drawn with noise."""

import itertools
import math

import numpy as np

from metalr.finetune import config

CHANCE = {"accuracy": 0.5, "f1": 0.0, "matthews": 0.0}
TASKS = {"sst2": "accuracy", "cola": "matthews", "squad": "f1", "ag_news": "accuracy"}
MODELS = ("minilm:2", "minilm:6")
RATES = (5e-6, 2e-5, 8e-5, 3.2e-4, 1.28e-3)
BEST_RATE = 2e-4  # of every problem, in this world
OWN_RATE = {"prodigy": 1.0, "dowg": 1.0, "momo_adam": 1.0}


def a_run(
    task="sst2",
    model="minilm:2",
    scheduler="linear",
    rate=2e-5,
    seed=0,
    *,
    scores=None,
    every=10,
    history=None,
    **fields,
):
    """Return a run as a store gives it back; `scores` are those of its evaluations."""
    metric = TASKS.get(task, "accuracy")
    scores = [0.6, 0.7, 0.8] if scores is None else scores
    steps = every * len(scores)
    if history is None:
        history = []
        for index, score in enumerate(scores, 1):
            step, epoch = every * index, index / 2
            row = {"step": step, "epoch": epoch, "loss": 1 / step}
            row["learning_rate"] = rate * (1 - step / (steps + 1))
            if scheduler.startswith("metalr"):
                row["lr_multiplier"] = 2.0 ** min(index, 4)
                row["learning_rate"] *= row["lr_multiplier"]
            history.append(row)
            scored = {metric: score, "eval_loss": 0.5}
            history.append({"step": step, "epoch": epoch, **scored})
    known = [(score, row["step"]) for row in history if (score := row.get(metric))]
    best = max((x for x in known if x[0] == x[0]), default=(None, None))
    settings = config.RunConfig(
        task=task, model=model, scheduler=scheduler, learning_rate=rate, seed=seed
    ).to_json()
    return {
        "version": 1,
        "kind": "run",
        "key": f"{task}-{model}-{scheduler}-{rate}-{seed}",
        "failed": None,
        "task": task,
        "model": model,
        "data": {"kind": "folder", "where": "glue"},
        "weights": {"kind": "package", "where": "minilm"},
        "scheduler": scheduler,
        "seed": seed,
        "settings": settings,
        "versions": {"python": "3.11.9", "jax": "0.10.2", "metalr": "0.1.0"},
        "metric": metric,
        "metrics": {metric: best[0]} if known else {},
        "last_metrics": {metric: scores[-1]} if scores else {},
        "chance": {metric: CHANCE[metric]},
        "best_step": best[1],
        "steps": steps,
        "seconds": 12.5,
        "stopped": None,
        "notes": [],
        "history": history,
    } | fields


def pair_of_rows(own, other, tasks=("sst2", "cola"), **fields):
    """Return runs of metalr and linear at 2e-5, three seeds, with those scores."""
    return [
        a_run(task, scheduler=scheduler, seed=seed, scores=scores, **fields)
        for scheduler, scores in (("metalr", own), ("linear", other))
        for task in tasks
        for seed in range(3)
    ]


def overhead(scheduler, ratios=(1.01, 0.99, 1.02), state=1.5):
    return {
        "version": 1,
        "kind": "overhead",
        "key": f"overhead-{scheduler}",
        "scheduler": scheduler,
        "model": "minilm:2",
        "batch_size": 16,
        "max_length": 32,
        "device": "cpu",
        "step_ratio": list(ratios),
        "state_ratio": state,
    }


def learning_curve(rng, chance, best, speed, evaluations=20):
    """Return scores that rise toward `best`, saturating, with noise."""
    t = np.linspace(1 / evaluations, 1, evaluations)
    rise = 1 - np.exp(-speed * t)
    noise = rng.normal(0, 0.01, evaluations)
    return [float(x) for x in chance + (best - chance) * rise + noise]


def store(tasks=tuple(TASKS), models=MODELS, seeds=5, seed=0):
    """Return runs of every scheduler on every problem: 500 with the defaults' 12."""
    rng = np.random.default_rng(seed)
    ways = [(s, r) for s in ("constant", "linear") for r in RATES]
    ways += [(s, 2e-5) for s in ("plateau", "metalr", "metalr_fixed")]
    ways += list(OWN_RATE.items())[:1]
    runs = []
    problems = itertools.product(tasks, models)
    grid = itertools.product(problems, ways, range(seeds))
    for (task, model), (scheduler, rate), number in grid:
        chance = CHANCE[TASKS[task]]
        octaves = 0.5 if scheduler in ("metalr", *OWN_RATE) else None
        if octaves is None:
            octaves = abs(math.log2(rate / BEST_RATE))
        best = chance + (0.92 - chance) / (1 + 0.03 * octaves**2)
        speed = 8 / (1 + octaves)
        scores = learning_curve(rng, chance, best, speed)
        run = a_run(task, model, scheduler, rate, number, scores=scores)
        if rate == max(RATES) and number == 0 and scheduler == "constant":
            run["history"] = run["history"][:8]
            run |= {"failed": "the loss was not finite at step 50", "metrics": {}}
        runs.append(run)
    return runs + [overhead("prodigy"), overhead("metalr", state=1.02)]
