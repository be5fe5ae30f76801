"""What metalr costs: step time, optimizer memory and import, in pairs.

    python tests/benchmarks/benchmark_step_cost.py [--cases 6:32x128full] [--pairs 15]
    python tests/benchmarks/benchmark_step_cost.py --cases 6:32x128full --devices 8
    python tests/benchmarks/benchmark_step_cost.py --cases 2:8x96full --forms

A case is LAYERS:BATCHxLENGTH of the MiniLM encoder; `full` after it keeps the whole
vocabulary, else only the 3000 rows that a small task uses are trained. A pair is one
step under `optax.inject_hyperparams(optax.adamw)` and one under
`metalr.inject(optax.adamw)`, whole training steps, in alternating order, on the same
batch. Promised is a median ratio of 1.01 for 6:32x128 and 1.03 for 1:16x32. The ratio
of processor time is the one to read where other programs run. With `--forms`, metalr
also runs with other ways to skip a step that is not finite. With `--devices` rows,
parameters and optimizer state are cut over so many CPU devices.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
VOCABULARY = 3000


def problem(layers, batch_size, length, full):
    """Make parameters, a loss and one batch."""
    import jax.numpy as jnp

    from metalr.models import heads, huggingface

    model = huggingface.load(f"minilm:{layers}", "classification", ("0", "1"), seed=0)
    params, rng = model.params, np.random.default_rng(0)
    if not full:
        params, _ = huggingface.trim_vocabulary(params, np.arange(VOCABULARY))
    shape = (batch_size, length)
    batch = {
        "input_ids": rng.integers(0, VOCABULARY, shape, dtype=np.int32),
        "token_type_ids": np.zeros(shape, np.int32),
        "attention_mask": np.ones(shape, bool),
        "labels": rng.integers(0, 2, batch_size).astype(np.int32),
        "weights": np.ones(batch_size, np.float32),
    }

    def loss_fn(params, batch):
        logits = heads.apply(model.graphdef, params, batch)
        return heads.loss("classification", logits, batch)

    return params, loss_fn, {key: jnp.asarray(value) for key, value in batch.items()}


def compiled(tx, params, loss_fn, batch, layout):
    """Compile a training step and start it: a function that takes one step."""
    import jax
    import jax.numpy as jnp
    import optax

    def step(params, state, batch):
        value, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    params = layout.put_state(jax.tree.map(jnp.array, params))
    carry, batch = (params, layout.init(tx.init, params)), layout.put(batch)
    out = None if layout.mesh is None else layout.shardings(carry)
    jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=out)
    run = jitted.lower(*carry, batch).compile()

    def advance():
        nonlocal carry
        start = time.perf_counter(), time.process_time()
        carry = jax.block_until_ready(run(*carry, batch))
        return np.subtract((time.perf_counter(), time.process_time()), start)

    memory: Any = run.memory_analysis()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(carry[1]))
    return advance, size, memory.temp_size_in_bytes


def middle(values):
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.3f} (middle half {low:.3f} to {high:.3f})"


FORMS = ("where", "cond")


def skipping(form):
    """Make a choice of the gradient or zeros in another form than metalr's."""
    import jax
    import jax.numpy as jnp

    def zeroed(finite, updates):
        if form == "where":
            return jax.tree.map(lambda x: jnp.where(finite, x, 0), updates)
        zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)  # noqa: E731
        return jax.lax.cond(finite, lambda tree: tree, zeros, updates)

    return zeroed


def measure(case, pairs, layout, forms):
    import optax

    from metalr import inject, transformation
    from metalr.optax_schedule import default_schedule
    from metalr.predictor import init_predictor

    layers, rest = case.removesuffix("full").split(":")
    batch_size, length = map(int, rest.split("x"))
    params, loss_fn, batch = problem(
        layers, batch_size, length, full=case.endswith("full")
    )
    adamw = optax.inject_hyperparams(optax.adamw)(
        learning_rate=default_schedule(2e-5, 1000)
    )
    adamw = optax.with_extra_args_support(adamw)
    metalr = inject(optax.adamw, 2e-5, init_predictor(), total_steps=1000)
    sides = {"adamw": compiled(adamw, params, loss_fn, batch, layout)}
    own = transformation._zeroed
    for form in ("metalr", *forms):
        transformation._zeroed = own if form == "metalr" else skipping(form)
        sides[form] = compiled(metalr, params, loss_fn, batch, layout)
    transformation._zeroed = own
    times = {name: [] for name in sides}
    for pair in range(pairs + 2):
        for name in list(sides) if pair % 2 else reversed(list(sides)):
            taken = sides[name][0]()
            if pair >= 2:  # the first two warm up
                times[name].append(taken)
    size = sum(leaf.nbytes for leaf in params_leaves(params))
    for name in list(sides)[1:]:
        ratios = np.divide(times[name], times["adamw"])
        print(f"{case}, {name}: step time ratio {middle(ratios[:, 0])}")
        print(f"{case}, {name}: processor time ratio {middle(ratios[:, 1])}")
        extra = (sides[name][1] - sides["adamw"][1]) / size
        print(f"{case}, {name}: optimizer state +{100 * extra:.2f} % of the parameters")
        memory = [sides[side][2] / 1e6 for side in ("adamw", name)]
        print(f"{case}, {name}: temporaries {memory[0]:.0f} -> {memory[1]:.0f} MB")


def params_leaves(params):
    import jax

    return jax.tree.leaves(params)


def measure_import(pairs):
    def seconds(module):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True)
        return time.perf_counter() - start

    ratios = []
    for _ in range(pairs):
        theirs, ours = seconds("flax.nnx"), seconds("metalr.optax_schedule")
        ratios.append(ours / theirs)
        print(f"  flax.nnx {theirs:.2f} s   metalr.optax_schedule {ours:.2f} s")
    print(f"import time ratio {statistics.median(ratios):.2f}")


def main():
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=["6:32x128full", "1:16x32"])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--forms", action="store_true")
    parser.add_argument("--no-import", action="store_true", help="of modules, timed")
    arguments = parser.parse_args()
    import jax

    jax.config.update("jax_num_cpu_devices", arguments.devices)
    from metalr.finetune import sharding

    layout = sharding.ONE
    if arguments.devices > 1:
        layout = sharding.create_layout("jit", shard_params=True)
    for case in arguments.cases:
        measure(case, arguments.pairs, layout, FORMS if arguments.forms else ())
    if layout is sharding.ONE and not arguments.no_import:
        measure_import(min(arguments.pairs, 7))


if __name__ == "__main__":
    main()
