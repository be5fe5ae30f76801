"""What the transformation does where people put it: small runs on the digits.

    python -m tests.benchmarks.benchmark_mechanics [--predictor FOLDER] [--seeds 3]
    python -m tests.benchmarks.benchmark_mechanics --bounds

Each row is a way to use metalr that once went wrong, beside the same run without it:
accuracy on held-out digits, mean and deviation over the seeds, and the multiplier at
the end. With `--bounds`, a row is a base rate, and a column a bound of the multiplier.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from metalr.meta.zoo import nets
from metalr.optax_schedule import inject, wrap
from metalr.stored_predictor import load_predictor
from tests.benchmarks.benchmark_kinds import BATCH, digits, entropy

STEPS = 300


def accuracy(
    make: Callable[[Any], Any],
    seeds: int,
    *,
    rates: Sequence[float] = (0.0,),
    served: Callable[[Any, Any], Any] = lambda state, params: params,
    steps: int = STEPS,
    frozen: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Train perceptrons side by side.

    Args:
      make: Makes the optimizer from a base rate.
      seeds: Their number.
      rates: Base rates, each of them with every seed.
      served: Takes the parameters to score from the state and those that are trained.
      steps: Of each run.
      frozen: Whether a large leaf that is not trained lies beside the net.

    Returns:
      Accuracy on held-out digits, and the last multiplier: [rates, seeds].
    """
    train, held = digits()
    net = lambda params: params["net"] if frozen else params  # noqa: E731
    loss = lambda p, b: entropy(nets.run_mlp(net(p), b["x"], "relu"), b["y"])  # noqa: E731

    def run(seed, rate):
        tx = make(rate)
        params: Any = nets.mlp(jax.random.key(seed), [64, 64, 64, 10], 1.4)
        if frozen:  # beside it, what a masked optimizer never touches
            params = {"net": params, "frozen": {"w": 10 * jnp.ones((200, 200))}}

        def step(carry, key):
            params, state = carry
            rows = jax.random.randint(key, (BATCH,), 0, len(train["y"]))
            batch = jax.tree.map(lambda x: jnp.asarray(x)[rows], train)
            value, grads = jax.value_and_grad(loss)(params, batch)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(seed + 100), steps)
        (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
        logits = nets.run_mlp(net(served(state, params)), held["x"], "relu")
        ms = optax.tree.get_all_with_path(state, "lr_multiplier")
        m = ms[0][1] if ms else jnp.ones(())
        return jnp.mean(jnp.argmax(logits, -1) == held["y"]), m

    of_seeds = jax.vmap(run, in_axes=(0, None))
    of_rates = jax.jit(jax.vmap(of_seeds, in_axes=(None, 0)))
    found = of_rates(jnp.arange(seeds), jnp.asarray(rates))
    scores, ms = (np.asarray(x) for x in found)
    return scores, ms


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


def bounds(predictor: Any, seeds: int) -> None:
    """Print what the bound of the multiplier does to base rates that are far off."""
    widths = (4, 16, 64, 1024)
    print("\n| optimizer | base rate | plain | " + " | ".join(map(str, widths)) + " |")
    print("|---|--:|--:|" + "--:|" * len(widths))
    rules = {
        "adam": (optax.adam, 3e-3),
        "momentum": (lambda rate: optax.sgd(rate, momentum=0.9), 3e-2),
    }
    for name, (rule, usual) in rules.items():

        def plain(rate, rule=rule):
            return optax.with_extra_args_support(rule(rate))

        def within(rate, width, rule=rule):
            return wrap(
                rule(rate),
                predictor,
                total_steps=STEPS,
                schedule=optax.constant_schedule(1.0),
                max_multiplier=width,
            )

        offs = np.array([1 / 256, 1 / 16, 1, 16, 256])
        makes = [plain, *(functools.partial(within, width=w) for w in widths)]
        found = [accuracy(make, seeds, rates=offs * usual)[0] for make in makes]
        for off, *scores in zip(offs, *found, strict=True):
            cells = [f"{x.mean():.1%} ± {x.std(ddof=1):.1%}" for x in scores]
            print(f"| {name} | {off:.4g} x {usual:g} | {' | '.join(cells)} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictor", help="folder (default: the shipped one)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--uses", nargs="+", default=[""], help="that begin like this")
    parser.add_argument("--bounds", action="store_true", help="of the multiplier")
    args = parser.parse_args()
    predictor = load_predictor(args.predictor)
    if args.bounds:
        bounds(predictor, args.seeds)
        return
    print("| use | plain | with metalr | multiplier at the end |\n|---|--:|--:|--:|")
    for name, (plain, ours, settings) in rows(predictor).items():
        if not any(name.startswith(start) for start in args.uses):
            continue
        without, _ = accuracy(lambda rate, f=plain: f(), args.seeds, **settings)
        scores, ms = accuracy(lambda rate, f=ours: f(), args.seeds, **settings)
        print(
            f"| {name} | {without.mean():.1%} ± {without.std(ddof=1):.1%} "
            f"| {scores.mean():.1%} ± {scores.std(ddof=1):.1%} "
            f"| {ms.min():.2f} to {ms.max():.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
