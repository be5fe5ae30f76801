"""How soon a second start takes its first step, and what other ways to step would save.

    python tests/benchmarks/benchmark_start.py [--starts 5] [--model minilm]

A start is `finetune.py` from typing the command to the row of step 1; before the first
that counts one run has filled the compilation cache. "Depth" compiles a training step
with the layers one after another, scanned, and computed again, and times it in turns.
"Dispatch" is what a step costs besides its computation, all that a loop of several
steps inside one program (`jax.lax.scan`) could save, beside the smallest step there is.
Promised is a second start under 12 s.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def seconds_to_first_step(model: str, cache: str) -> float:
    """Start finetune.py and end it when it has shown a step."""
    import os

    command = [sys.executable, "-u", str(ROOT / "finetune.py"), "--model", model]
    command += ["--task", "sst2", "--data", "toy", "--train-rows", "512"]
    command += ["--max-steps", "200", "--log-every", "1"]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--output", f"{folder}/run"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "METALR_CACHE": cache},
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.lstrip().startswith("step"):
                break
        else:
            raise RuntimeError("finetune.py ended without a step")
        taken = time.perf_counter() - begun
        process.terminate()
        process.stdout.read()
        process.wait()
    return taken


def compiled(layers: int, batch_size: int, length: int, **how):
    """Compile a training step; return the seconds it took and a call of one step."""
    import jax
    import jax.numpy as jnp
    import optax

    from metalr.models import heads, huggingface

    model = huggingface.load(f"minilm:{layers}", "classification", ("0", "1"), seed=0)
    shape = (batch_size, length)
    batch = {
        "input_ids": jnp.ones(shape, jnp.int32),
        "token_type_ids": jnp.zeros(shape, jnp.int32),
        "attention_mask": jnp.ones(shape, bool),
        "labels": jnp.zeros(batch_size, jnp.int32),
        "weights": jnp.ones(batch_size),
    }
    tx = optax.adamw(2e-5)

    def loss(params, key):
        logits = heads.apply(model.graphdef, params, batch, dropout_key=key, **how)
        return heads.loss("classification", logits, batch)

    def step(params, state, key):
        grads = jax.grad(loss)(params, key)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    carry = (jax.tree.map(jnp.array, model.params), jax.jit(tx.init)(model.params))
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*carry, jax.random.key(0))
    begun = time.perf_counter()
    run = lowered.compile()
    taken = time.perf_counter() - begun
    memory: Any = run.memory_analysis()

    def advance() -> float:
        nonlocal carry
        begun = time.perf_counter()
        carry = jax.block_until_ready(run(*carry, jax.random.key(0)))
        return time.perf_counter() - begun

    return taken, memory.temp_size_in_bytes, advance


def depth(layers: int, pairs: int) -> None:
    kinds = {
        "unrolled": {},
        "scan": {"scan": True},
        "remat": {"remat": True},
        "both": {"scan": True, "remat": True},
    }
    made = {name: compiled(layers, 32, 64, **how) for name, how in kinds.items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(pairs + 1):
        for name, (_, _, advance) in made.items():
            taken = advance()
            if turn:  # the first one warms up
                times[name].append(taken)
    print("layers       compile s   temporaries MB   step / unrolled")
    for name, (taken, memory, _) in made.items():
        ratios = np.divide(times[name], times["unrolled"])
        print(f"{name:<10} {taken:>11.1f} {memory / 1e6:>16.0f} ", end="")
        print(f"{np.median(ratios):>16.2f}")


def dispatch(pairs: int) -> None:
    """Time a program that returns its state, and a step of one layer at 16 x 16."""
    import jax
    import optax

    from metalr import inject
    from metalr.models import huggingface
    from metalr.predictor import init_predictor

    _, _, advance = compiled(1, 16, 16)
    model = huggingface.load("minilm:1", "classification", ("0", "1"), seed=0)
    tx = inject(optax.adamw, 2e-5, init_predictor(), total_steps=1000)
    state = jax.tree.map(jax.numpy.copy, (model.params, tx.init(model.params)))
    empty = jax.jit(lambda state: state, donate_argnums=0).lower(state).compile()
    nothing, whole = [], []
    for turn in range(pairs + 1):
        begun = time.perf_counter()
        for _ in range(100):
            state = empty(state)
        jax.block_until_ready(state)
        taken = (time.perf_counter() - begun) / 100
        step = advance()
        if turn:
            nothing.append(taken)
            whole.append(step)
    share = np.median(np.divide(nothing, whole))
    print(
        f"dispatch of {len(jax.tree.leaves(state))} arrays: "
        f"{1e6 * np.median(nothing):.0f} us, {share:.1%} of a step of one layer at "
        f"16 x 16 ({1e3 * np.median(whole):.1f} ms)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.starts:
        with tempfile.TemporaryDirectory() as cache:
            cold = seconds_to_first_step(arguments.model, cache)
            print(f"first start  {cold:.1f} s", flush=True)
            warm = [
                seconds_to_first_step(arguments.model, cache)
                for _ in range(arguments.starts)
            ]
        print(f"second start {statistics.median(warm):.1f} s (median of {len(warm)})")
    if arguments.layers:
        depth(arguments.layers, arguments.pairs)
        dispatch(arguments.pairs)


if __name__ == "__main__":
    main()
