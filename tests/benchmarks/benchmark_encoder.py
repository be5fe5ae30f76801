"""Step time against PyTorch transformers: same model, batch, length and optimizer.

    python tests/benchmarks/benchmark_encoder.py [--data FOLDER] [--pairs 7]

Two processes, one with JAX and one with PyTorch, take turns on the same cores; while
one works the other sleeps. Each line is the median over the pairs of the ratio
PyTorch time / metalr time, with the range of its middle half: above 1, metalr is
faster. At fixed lengths both train the whole model, embeddings included, with dropout
and AdamW. "Rows" feeds real batches as either side would: metalr bucketed by length
with the vocabulary in use, PyTorch in random order padded to the longest row. SQuAD's
are windows of at most 256 tokens with a head for answers, the same on both sides.

The peak is that of a 2048^3 product in metalr's process, measured between the pairs;
the share of it counts the matmuls of the step alone (`metalr.compare.roofline`), of
padding too.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

BATCH, CLASSES, RATE = 32, 2, 2e-5
FIXED_STEPS = 4  # steps a turn
# task, column, longest input in tokens, steps a turn
ROWS = {
    "SST-2 rows": ("sst2", "sentence", 64, 20),
    "IMDB rows": ("imdb", "text", 128, 8),
    "SQuAD rows": ("squad", "question", 256, 4),
}


def kind_of(what: int | str) -> str:
    return "qa" if what == "SQuAD rows" else "classification"


def fixed_batches(length: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "input_ids": rng.integers(1000, 30000, (BATCH, length), dtype=np.int32),
            "token_type_ids": np.zeros((BATCH, length), np.int32),
            "attention_mask": np.ones((BATCH, length), bool),
            "labels": rng.integers(0, CLASSES, BATCH).astype(np.int32),
            "weights": np.ones(BATCH, np.float32),
        }
        for _ in range(FIXED_STEPS)
    ]


def rows_of(what: str, data: str) -> list[dict]:
    from metalr.data import loading

    task, _, _, steps = ROWS[what]
    found = loading.load(task, data, train_rows=steps * BATCH, validation_rows=8)
    return list(found.train)


def metalr_side(pipe: Connection, model: str, data: str) -> None:
    import jax
    import jax.numpy as jnp

    from metalr.compare import roofline
    from metalr.data import batches, encode, tasks
    from metalr.finetune import loop, schedulers
    from metalr.models import heads, huggingface

    plan = schedulers.RunPlan(RATE, 10_000, 500)
    inner = schedulers.adamw(weight_decay=0.01, clip_norm=1.0)
    tx = schedulers.SCHEDULERS["linear"].build(inner, plan)

    def step_of(kind: str, graphdef):
        def loss_fn(params, batch, key):
            logits = heads.apply(graphdef, params, batch, dropout_key=key)
            return heads.loss(kind, logits, batch)

        return loop.make_step(loss_fn, tx, accumulate=1)

    def feed(what: int | str, loaded):
        if isinstance(what, int):
            return loaded.params, fixed_batches(what)
        task, _, length, _ = ROWS[what]
        rows = rows_of(what, data)
        found = encode.encode(rows, tasks.TASKS[task], loaded.tokenizer, length)
        used = encode.used_ids([found], always=[loaded.config.pad_token_id])
        params, _ = huggingface.trim_vocabulary(loaded.params, used)
        pad = int(np.searchsorted(used, loaded.config.pad_token_id))
        plan = batches.TrainBatches(
            encode.remap_ids(found, used), BATCH, seed=0, pad_token_id=pad
        )
        return params, [plan.batch(i) for i in range(plan.steps_per_epoch)]

    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: (
            compilations.append(event) if "backend_compile" in event else None
        )
    )
    square = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)

    def peak() -> float:
        """Return the FLOPs a second of a large product, the best of three."""
        times = []
        for _ in range(3):
            start = time.perf_counter()
            product(square, square).block_until_ready()
            times.append(time.perf_counter() - start)
        return 2 * 2048**3 / min(times)

    while (what := pipe.recv()) is not None:
        loaded = huggingface.load(model, kind_of(what), ("0", "1"), seed=0)
        params, data_batches = feed(what, loaded)
        step = step_of(kind_of(what), loaded.graphdef)
        flops = sum(
            roofline.step(loaded.config, *batch["input_ids"].shape).flops
            for batch in data_batches
        )
        params = jax.tree.map(jnp.copy, params)
        state = loop.start(params, tx.init(params), seed=0)
        for batch in data_batches:  # compiles each shape
            state, logged = step(state, batch)
        jax.block_until_ready(state)
        peak()
        compilations.clear()
        pipe.send("ready")
        while (asked := pipe.recv()) != "next":
            if asked == "peak":
                pipe.send((peak(), flops / len(data_batches), len(compilations)))
                continue
            start = time.perf_counter()
            for batch in data_batches:
                state, logged = step(state, batch)
            jax.block_until_ready(state)
            pipe.send((time.perf_counter() - start) / len(data_batches))


def torch_side(pipe: Connection, model: str, data: str) -> None:
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    from metalr.data import batches, encode, tasks
    from metalr.models import locate

    source = locate.find(model)
    folder, layers = source.folder, source.layers
    config = AutoConfig.from_pretrained(folder, num_labels=CLASSES)
    config.num_hidden_layers = layers or config.num_hidden_layers
    tokenizer = AutoTokenizer.from_pretrained(folder)
    of_kind = {
        "classification": AutoModelForSequenceClassification,
        "qa": AutoModelForQuestionAnswering,
    }

    def as_torch(batch):
        names = ("input_ids", "token_type_ids", "attention_mask", "labels")
        return {n: torch.from_numpy(batch[n].astype(np.int64)) for n in names}

    def padded(rows, column, length):
        texts = [row[column] for row in rows]
        found = tokenizer(
            texts, truncation=True, max_length=length, padding=True, return_tensors="pt"
        )
        return {**found, "labels": torch.tensor([row["label"] for row in rows])}

    def windows(rows, length):
        found = encode.encode(rows, tasks.TASKS["squad"], tokenizer, length)
        for first in range(0, len(found.input_ids) - BATCH + 1, BATCH):
            part = range(first, first + BATCH)
            entries = found._replace(
                input_ids=[found.input_ids[i] for i in part],
                token_type_ids=[found.token_type_ids[i] for i in part],
                labels=found.labels[first : first + BATCH],
            )
            feed = batches.eval_batches(
                entries, BATCH, pad_token_id=tokenizer.pad_token_id, max_shapes=1
            )
            batch = as_torch(next(iter(feed))[1])
            starts, ends = batch.pop("labels").T
            yield {**batch, "start_positions": starts, "end_positions": ends}

    def feed(what):
        if kind_of(what) == "qa":
            return list(windows(rows_of(what, data), ROWS[what][2]))
        if isinstance(what, int):
            return [as_torch(batch) for batch in fixed_batches(what)]
        rows, (_, column, length, _) = rows_of(what, data), ROWS[what]
        pieces = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        return [padded(piece, column, length) for piece in pieces]

    def step(net, optimizer, batch):
        optimizer.zero_grad()
        net(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    while (what := pipe.recv()) is not None:
        net = of_kind[kind_of(what)].from_pretrained(folder, config=config)
        net.train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
        found = feed(what)
        for batch in found[:2]:
            step(net, optimizer, batch)
        pipe.send("ready")
        while pipe.recv() == "go":
            start = time.perf_counter()
            for batch in found:
                step(net, optimizer, batch)
            pipe.send((time.perf_counter() - start) / len(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--data", default="toy")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--lengths", type=int, nargs="*", default=[32, 128, 256])
    parser.add_argument("--rows", nargs="*", default=[*ROWS], choices=[*ROWS])
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    sides = {}
    for name, target in (("metalr", metalr_side), ("torch", torch_side)):
        here, there = spawn.Pipe()
        spawn.Process(
            target=target, args=(there, args.model, args.data), daemon=True
        ).start()
        sides[name] = here
    print(f"{args.model}, batch {BATCH}, float32, {args.pairs} pairs a line")
    print("              rows/s          ratio                 of the   compilations")
    print("what          PyTorch metalr  (middle half)         peak     after warm-up")
    for what in [*args.lengths, *args.rows]:
        for pipe in sides.values():
            pipe.send(what)
        for pipe in sides.values():
            assert pipe.recv() == "ready"
        times: dict[str, list[float]] = {"metalr": [], "torch": []}
        peaks = []
        for _ in range(args.pairs):
            for name, pipe in sides.items():
                pipe.send("go")
                times[name].append(pipe.recv())
            sides["metalr"].send("peak")
            peaks.append(sides["metalr"].recv())
        for pipe in sides.values():
            pipe.send("next")
        ratios = [t / m for t, m in zip(times["torch"], times["metalr"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rate = {name: BATCH / statistics.median(of) for name, of in times.items()}
        share = statistics.median(
            flops / taken / top
            for taken, (top, flops, _) in zip(times["metalr"], peaks, strict=True)
        )
        print(
            f"{what!s:<12} {rate['torch']:>8.1f} {rate['metalr']:>6.1f}  "
            f"{middle:.2f} ({low:.2f} to {high:.2f})  {share:>6.0%} "
            f"{peaks[-1][2]:>9}",
            flush=True,
        )
    for pipe in sides.values():
        pipe.send(None)


if __name__ == "__main__":
    main()
