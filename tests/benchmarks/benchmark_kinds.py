"""What metalr does to runs that are no fine-tune, and that no predictor has seen.

    python -m tests.benchmarks.benchmark_kinds [--predictor FOLDER] [--seeds 3]
        [--shape linear|hold|constant] [--problems NAME ...]

scikit-learn's digits and Python's own sources are kept out of the traces and of every
choice. Each row is a problem and an optimizer. Its tuned rate is the best of a grid of
factors of 4 under linear decay (or --shape), by the last validation loss of the first
seed; then plain and metalr run from it, from 16x below and from 16x above, on other
seeds. A row is *worse* where the validation loss is above the plain one by over 5 % and
by two standard errors of the paired difference.
"""

import argparse
import math
import sysconfig
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.controller import MAX_MULTIPLIER
from metalr.meta.zoo import nets, sweeps
from metalr.optax_schedule import default_schedule, wrap
from metalr.stored_predictor import load_predictor

STEPS, BATCH = 300, 32
LINEAR = default_schedule(1.0, STEPS)


def digits() -> tuple[dict, dict]:
    """Return scikit-learn's digits, three quarters to train on."""
    from sklearn import datasets

    found: Any = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(found.data))
    x = (found.data[order] / 8 - 1).astype(np.float32)
    y = found.target[order].astype(np.int32)
    return {"x": x[450:], "y": y[450:]}, {"x": x[:450], "y": y[:450]}


def sources(length: int = 24) -> tuple[dict, dict]:
    """Return windows of characters of Python's standard library."""
    folder = Path(sysconfig.get_path("stdlib"))
    names = ("argparse.py", "ast.py", "calendar.py", "csv.py", "datetime.py")
    text = "".join((folder / name).read_text(errors="ignore") for name in names)
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    ids = np.where((codes >= 32) & (codes < 128), codes - 32, 0).astype(np.int32)
    starts = np.random.default_rng(0).integers(0, len(ids) - length - 1, 4096)
    rows = ids[starts[:, None] + np.arange(length + 1)[None]]
    return {"ids": rows[512:]}, {"ids": rows[:512]}


def entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def perceptron(key: jax.Array) -> tuple[Any, Any, tuple[dict, dict]]:
    """Two hidden layers of 64 on the digits."""
    loss = lambda p, b: entropy(nets.run_mlp(p, b["x"], "relu"), b["y"])  # noqa: E731
    return nets.mlp(key, [64, 64, 64, 10], 1.4), loss, digits()


def convolution(key: jax.Array) -> tuple[Any, Any, tuple[dict, dict]]:
    """Two convolutions on the digits."""
    a, b = jax.random.split(key)
    params = {
        "layers": nets.convolutions(a, [1, 16, 32]),
        "last": nets.dense(b, 32, 10),
    }

    def loss(params, batch):
        x = nets.run_convolutions(params["layers"], batch["x"].reshape(-1, 8, 8, 1))
        return entropy(nets.apply(params["last"], x), batch["y"])

    return params, loss, digits()


def classifier(key: jax.Array) -> tuple[Any, Any, tuple[dict, dict]]:
    """Make a linear classifier of the digits, from zeros."""
    del key
    params = {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}
    loss = lambda p, b: entropy(nets.apply(p, b["x"]), b["y"])  # noqa: E731
    return params, loss, digits()


def autoencoder(key: jax.Array) -> tuple[Any, Any, tuple[dict, dict]]:
    """Make an autoencoder of the digits: a regression without noise in its targets."""
    params = nets.mlp(key, [64, 64, 16, 64, 64], 1.2)
    loss = lambda p, b: jnp.mean((nets.run_mlp(p, b["x"], "tanh") - b["x"]) ** 2)  # noqa: E731
    return params, loss, digits()


def language(key: jax.Array) -> tuple[Any, Any, tuple[dict, dict]]:
    """Make a model of Python's sources by character, a transformer of two layers."""
    a, b = jax.random.split(key)
    params = {"body": nets.transformer(a, 96, 48, 2, 24), "last": nets.dense(b, 48, 96)}

    def loss(params, batch):
        ids = batch["ids"]
        states = nets.run_transformer(params["body"], ids[:, :-1], causal=True)
        return entropy(nets.apply(params["last"], states), ids[:, 1:])

    return params, loss, sources()


PROBLEMS = {
    "perceptron": (perceptron, ("adam", "momentum", "lion", "muon", "adafactor")),
    "convolution": (convolution, ("adamw", "sgd")),
    "classifier": (classifier, ("adam", "sgd")),
    "autoencoder": (autoencoder, ("adam", "rmsprop")),
    "language": (language, ("adamw", "lion")),
}


def runner(problem: Any, optimizer: str, predictor: Any, shape: Any = LINEAR) -> Any:
    """Compile runs over (seeds, rates): last and mean validation loss [S, R]."""
    _, loss, (train, validation) = problem(jax.random.key(0))
    rows = len(next(iter(train.values())))

    def one(seed, rate):
        params, _, _ = problem(jax.random.key(seed))
        inner = optax.chain(
            sweeps.optimizer(optimizer, 0.01, 1.0),
            optax.scale_by_schedule(lambda step: rate * shape(step)),
        )
        tx = optax.with_extra_args_support(inner)
        if predictor is not None:
            tx = wrap(
                inner,
                predictor,
                total_steps=STEPS,
                schedule=shape,
                max_multiplier=MAX_MULTIPLIER,
            )

        def step(carry, key):
            params, state = carry
            chosen = jax.random.randint(key, (BATCH,), 0, rows)
            batch = jax.tree.map(lambda x: jnp.asarray(x)[chosen], train)
            value, grads = jax.value_and_grad(loss)(params, batch)
            updates, state = tx.update(grads, state, params, value=value)
            params = optax.apply_updates(params, updates)
            m = 1.0 if predictor is None else optax.tree.get(state, "lr_multiplier")
            return (params, state), m

        keys = jax.random.split(jax.random.key(seed + 100), STEPS)
        (params, state), m = jax.lax.scan(step, (params, tx.init(params)), keys)
        out = optax.tree.get(state, "out_of_range_steps", 0)
        return loss(params, validation), jnp.asarray(m)[STEPS // 3], out

    over_rates = jax.vmap(one, in_axes=(None, 0))
    return jax.jit(jax.vmap(over_rates, in_axes=(0, None)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictor", help="folder (default: the shipped one)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shape", choices=("linear", "hold", "constant"))
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    args = parser.parse_args()
    shape = LINEAR
    if args.shape:
        levels = jnp.asarray(sweeps.level(args.shape, STEPS, STEPS // 10))
        shape = lambda step: jnp.take(levels, step, mode="clip")  # noqa: E731
    predictor = load_predictor(args.predictor)
    print(
        "| problem | optimizer | tuned rate | plain | metalr | m | out of range "
        "| 16x below, plain | metalr | 16x above, plain | metalr |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    worse = better = far = 0
    count = 0
    for name in args.problems:
        problem, optimizers = PROBLEMS[name]
        for optimizer in optimizers:
            plain = runner(problem, optimizer, None, shape)
            centre = sweeps.CENTRES[optimizer]
            grid = centre * 4.0 ** np.arange(-3, 4)
            tuned = grid[np.nanargmin(np.asarray(plain(np.arange(1), grid)[0])[0])]
            rates = tuned * np.array([1.0, 1 / 16, 16.0])
            seeds = np.arange(1, args.seeds + 1)
            own = np.asarray(plain(seeds, rates)[0])
            ours, m, out = map(
                np.asarray, runner(problem, optimizer, predictor, shape)(seeds, rates)
            )
            gap = np.nan_to_num(ours[:, 0], nan=np.inf) - own[:, 0]
            error = gap.std(ddof=1) / math.sqrt(len(gap)) if len(gap) > 1 else 0.0
            level = np.mean(own[:, 0])
            is_worse = gap.mean() > max(0.05 * abs(level), 2 * error)
            worse, count = worse + is_worse, count + 1
            for k in (1, 2):
                far += 1
                plainly = np.nan_to_num(own[:, k], nan=np.inf).mean()
                better += bool(np.nan_to_num(ours[:, k], nan=np.inf).mean() < plainly)
            mean = lambda x: f"{np.mean(x):.4g}"  # noqa: E731
            print(
                f"| {name} | {optimizer} | {tuned:.2g} | {mean(own[:, 0])} "
                f"| {mean(ours[:, 0])}{' (worse)' if is_worse else ''} "
                f"| {np.median(m[:, 0]):.2f} | {np.mean(out[:, 0]) / STEPS:.0%} "
                f"| {mean(own[:, 1])} | {mean(ours[:, 1])} "
                f"| {mean(own[:, 2])} | {mean(ours[:, 2])} |",
                flush=True,
            )
    print(f"\nat the tuned rate worse: {worse} of {count}")
    print(f"16x off better than plain: {better} of {far}")


if __name__ == "__main__":
    main()
