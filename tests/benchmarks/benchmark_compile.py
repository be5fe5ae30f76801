"""What metalr adds to the compilation of an update, and to its number of kernels.

    python -m tests.benchmarks.benchmark_compile [--leaves 4 100]

AdamW alone and under `wrap`, for trees of small leaves, half of them matrices. Seconds
are of the processor, all threads together, without tracing; nothing is cached.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import optax

from metalr.optax_schedule import wrap


def compiled(tx: optax.GradientTransformationExtraArgs, leaves: int) -> tuple:
    """Return the seconds that XLA takes for an update, and the kernels it makes."""
    shapes = [(16, 16) if k % 2 else (16,) for k in range(leaves)]
    params = {f"leaf{k}": jnp.ones(shape) for k, shape in enumerate(shapes)}

    def update(grads, state, params):
        return tx.update(grads, state, params, value=jnp.float32(1))

    lowered = jax.jit(update).lower(params, tx.init(params), params)
    begun = time.process_time()
    text = lowered.compile().as_text() or ""
    return time.process_time() - begun, text.count(" fusion(")


def main() -> None:
    """Print one line a tree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, nargs="+", default=[4, 100, 200])
    plain = optax.with_extra_args_support(optax.adamw(1e-3))
    rows = {"AdamW": plain, "with metalr": wrap(optax.adamw(1e-3), total_steps=100)}
    for leaves in parser.parse_args().leaves:
        found = {name: compiled(tx, leaves) for name, tx in rows.items()}
        each = (f"{name} {s:.1f} s, {n} kernels" for name, (s, n) in found.items())
        print(f"{leaves} leaves: {'; '.join(each)}")


if __name__ == "__main__":
    main()
