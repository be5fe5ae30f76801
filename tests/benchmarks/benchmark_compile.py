"""What metalr adds to the compilation of an update, and to its number of kernels.

    python -m tests.benchmarks.benchmark_compile [--leaves 4 100]

AdamW alone and under `wrap`, for trees of small leaves, half of them matrices. Seconds
are of the processor, all threads together, without tracing; nothing is cached. Then the
seconds in which `wrap` reads the schedule of 300 steps off a finished AdamW, all told.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import optax

from metalr.optax_schedule import wrap
from metalr.read_schedule import read_schedule


def tree_of(leaves: int) -> dict[str, jax.Array]:
    """Make parameters of that many leaves."""
    shapes = [(16, 16) if k % 2 else (16,) for k in range(leaves)]
    return {f"leaf{k}": jnp.ones(shape) for k, shape in enumerate(shapes)}


def compiled(tx: optax.GradientTransformationExtraArgs, leaves: int) -> tuple:
    """Return the seconds that XLA takes for an update, and the kernels it makes."""
    params = tree_of(leaves)

    def update(grads, state, params):
        return tx.update(grads, state, params, value=jnp.float32(1))

    lowered = jax.jit(update).lower(params, tx.init(params), params)
    begun = time.process_time()
    text = lowered.compile().as_text() or ""
    return time.process_time() - begun, text.count(" fusion(")


def reading(leaves: int) -> float:
    """Return the seconds that it takes to read a schedule."""
    tx = optax.adamw(optax.warmup_cosine_decay_schedule(0, 1e-3, 30, 300))
    begun = time.process_time()
    read_schedule(optax.with_extra_args_support(tx), tree_of(leaves), 300)
    return time.process_time() - begun


def main() -> None:
    """Print one line a tree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, nargs="+", default=[4, 100, 200])
    plain = optax.with_extra_args_support(optax.adamw(1e-3))
    rows = {"AdamW": plain, "with metalr": wrap(optax.adamw(1e-3), total_steps=100)}
    for leaves in parser.parse_args().leaves:
        found = {name: compiled(tx, leaves) for name, tx in rows.items()}
        each = (f"{name} {s:.1f} s, {n} kernels" for name, (s, n) in found.items())
        print(f"{leaves} leaves: {'; '.join(each)}; read in {reading(leaves):.1f} s")


if __name__ == "__main__":
    main()
