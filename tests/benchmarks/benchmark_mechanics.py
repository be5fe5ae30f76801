"""What the transformation does where people put it: small runs on the digits.

    python -m tests.benchmarks.benchmark_mechanics [--predictor FOLDER] [--seeds 3]

Each row is a way to use metalr that once went wrong, beside the same run without it:
accuracy on held-out digits, mean over the seeds, and the multiplier at the end.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from metalr.meta.zoo import nets
from metalr.optax_schedule import inject, wrap
from metalr.predictor import load_predictor
from tests.benchmarks.benchmark_kinds import BATCH, digits, entropy

STEPS = 300


def accuracy(
    make: Callable[[], Any],
    seed: int,
    *,
    served: Callable[[Any, Any], Any] = lambda state, params: params,
    steps: int = STEPS,
    frozen: bool = False,
) -> tuple[float, float]:
    """Train a perceptron and return its accuracy and the last multiplier."""
    train, held = digits()
    params: Any = nets.mlp(jax.random.key(seed), [64, 64, 64, 10], 1.4)
    if frozen:  # beside it, what a masked optimizer never touches
        params = {"net": params, "frozen": {"w": 10 * jnp.ones((200, 200))}}
    net = lambda params: params["net"] if frozen else params  # noqa: E731
    tx = make()
    loss = lambda p, b: entropy(nets.run_mlp(net(p), b["x"], "relu"), b["y"])  # noqa: E731

    @jax.jit
    def run(params):
        def step(carry, key):
            params, state = carry
            rows = jax.random.randint(key, (BATCH,), 0, len(train["y"]))
            batch = jax.tree.map(lambda x: jnp.asarray(x)[rows], train)
            value, grads = jax.value_and_grad(loss)(params, batch)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(seed + 100), steps)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[0]

    params, state = run(params)
    logits = nets.run_mlp(net(served(state, params)), held["x"], "relu")
    found = float(np.mean(np.argmax(logits, -1) == held["y"]))
    ms = optax.tree.get_all_with_path(state, "lr_multiplier")
    return found, float(ms[0][1]) if ms else 1.0


def waits(rate: float, still: int) -> optax.Schedule:
    """Return a rate of 0 for some steps, then a constant one."""
    return lambda step: jnp.where(jnp.asarray(step) < still, 0.0, rate)


def rows(predictor: Any) -> dict[str, tuple[Callable, Callable, dict]]:
    """Return (plain, with metalr, settings of the run) by name."""
    ext = optax.with_extra_args_support
    own = lambda tx, **kw: wrap(tx, predictor, total_steps=STEPS, **kw)  # noqa: E731
    decay = optax.linear_schedule(3e-3, 0.0, STEPS)
    adam = lambda: optax.adamw(3e-3)  # noqa: E731
    labels = lambda params: {"net": "train", "frozen": "stop"}  # noqa: E731

    def masked(tx: Any) -> Any:
        return optax.multi_transform({"train": tx, "stop": optax.set_to_zero()}, labels)

    free = lambda tx: contrib.schedule_free(tx, 3e-3, b1=0.9)  # noqa: E731

    def average(state, params):
        return contrib.schedule_free_eval_params(state, params)

    return {
        "a rate of 0 for 40 steps": (
            lambda: ext(optax.adamw(waits(3e-3, 40))),
            lambda: own(optax.adamw(waits(3e-3, 40))),
            {},
        ),
        "a rate of 0 for 100 steps": (
            lambda: ext(optax.adamw(waits(3e-3, 100))),
            lambda: own(optax.adamw(waits(3e-3, 100))),
            {},
        ),
        "MultiSteps of 16 inside": (
            lambda: ext(optax.MultiSteps(adam(), 16).gradient_transformation()),
            lambda: own(optax.MultiSteps(adam(), 16).gradient_transformation()),
            {"steps": 4 * STEPS},
        ),
        "MultiSteps of 16 outside": (
            lambda: ext(optax.MultiSteps(adam(), 16).gradient_transformation()),
            lambda: optax.MultiSteps(own(adam()), 16).gradient_transformation(),
            {"steps": 4 * STEPS},
        ),
        "sgd at a rate that diverges": (
            lambda: ext(optax.sgd(8.0)),
            lambda: own(optax.sgd(8.0)),
            {},
        ),
        "wrap, schedule read": (
            lambda: ext(optax.adamw(decay)),
            lambda: own(optax.adamw(decay)),
            {},
        ),
        "wrap, schedule given": (
            lambda: ext(optax.adamw(decay)),
            lambda: own(optax.adamw(decay), schedule=decay),
            {},
        ),
        "inject": (
            lambda: ext(optax.adamw(decay)),
            lambda: inject(optax.adamw, decay, predictor, total_steps=STEPS),
            {},
        ),
        "frozen leaves, metalr outside": (
            lambda: ext(masked(adam())),
            lambda: own(masked(adam())),
            {"frozen": True},
        ),
        "frozen leaves, metalr inside": (
            lambda: ext(masked(adam())),
            lambda: masked(own(adam())),
            {"frozen": True},
        ),
        "schedule-free, metalr inside": (
            lambda: ext(free(optax.adam(3e-3, b1=0.0))),
            lambda: ext(free(own(optax.adam(3e-3, b1=0.0)))),
            {"served": average},
        ),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictor", help="folder (default: the shipped one)")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    print("| use | plain | with metalr | multiplier at the end |\n|---|--:|--:|--:|")
    for name, (plain, ours, settings) in rows(load_predictor(args.predictor)).items():
        seeds = range(args.seeds)
        without = [accuracy(plain, seed, **settings)[0] for seed in seeds]
        found = [accuracy(ours, seed, **settings) for seed in seeds]
        scores, ms = zip(*found, strict=True)
        print(
            f"| {name} | {np.mean(without):.1%} | {np.mean(scores):.1%} "
            f"| {min(ms):.2f} to {max(ms):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
