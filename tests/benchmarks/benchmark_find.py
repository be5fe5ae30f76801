"""How near `metalr.find` comes to the best rate of sweeps that no fit has seen.

    python -m tests.benchmarks.benchmark_find [--sweeps 30] [--kinds 6] [--output FILE]

Parts, each result a line of FILE as it comes; the same command goes on.

- *zoo*: sweeps of the zoo from number 400 on. The best rate is that of 13 peaks on
  linear decay; then a probe, and fastai's range test of 100 steps from 1e-7 to 10, read
  as valley and as steepest, on the same problem and batches.
- *tasks*: recorded sweeps of encoders and of the zoo, each task left out of a fit
  (`metalr.meta.probe_table`), with the run that is nearest to the prior as the probe;
  and *sizes*: those of encoders, each size left out.
- *kinds*: problems whose rows are kept out of all traces (scikit-learn's digits,
  Python's sources; `benchmark_kinds`). A finder that gives no rate there was right to
  if the one that it would have given is over an octave off.

Errors are in octaves. Lines depend on the weights: their SHA-256 is in each of them,
and others are not counted.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.finding import experience, finder, findings
from metalr.finetune.rules import lr_find
from metalr.meta import labels, probe_table, trace_files, traces
from metalr.meta.peak_curves import best_peak
from metalr.meta.zoo import sweeps
from metalr.optax_schedule import default_schedule
from metalr.runtime import compilation
from metalr.stored_predictor import load_predictor, read_metadata
from tests.benchmarks import benchmark_kinds

FIRST = 400
_POINTS = lr_find.MOST_STEPS


def digest(*trees: Any) -> str:
    """Return a hash of every byte of some trees."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        found.update(np.asarray(leaf).tobytes())
    found.update(repr(np.random.get_state(legacy=True)).encode())
    return found.hexdigest()


def seconds(work: Any) -> tuple[Any, float]:
    """Return what a function returns, and how long it took."""
    begun = time.perf_counter()
    found = work()
    return found, time.perf_counter() - begun


# ---------------------------------------------------------------------- the zoo


def peaks_of(sweep: sweeps.ZooSweep, problem: Any, program: Any) -> list[traces.Run]:
    """Carry out the peaks of a sweep on linear decay, and no other run."""
    whole = sweeps.schedules

    def linear(sweep: sweeps.ZooSweep) -> Any:
        runs, logs, rates = whole(sweep)
        own = lambda run: run["kind"] == "peak" and run["shape"] == "linear"  # noqa: E731
        kept = [k for k, run in enumerate(runs) if own(run)]
        return [runs[k] for k in kept], logs[kept], rates[kept]

    sweeps.schedules = linear
    try:
        return sweeps.run(sweep, problem, program)
    finally:
        sweeps.schedules = whole


def batches_of(rows: dict[str, np.ndarray], batch: int, seed: int) -> list[Any]:
    """Return batches of a shuffled pass or more, as many as a finder reads."""
    size, rng = len(next(iter(rows.values()))), np.random.default_rng(seed)
    batch = min(batch, size)
    passes = -(-(_POINTS + 1) * batch // size)
    order = np.concatenate([rng.permutation(size) for _ in range(passes)])
    order = order[: (_POINTS + 1) * batch].reshape(-1, batch)
    return [jax.tree.map(lambda x, k=k: x[k], rows) for k in order]


def range_test(loss: Any, params: Any, inner: Any, batches: Any) -> dict[str, float]:
    """Read fastai's range test as valley and as steepest: log2 of the rates."""
    rates = np.geomspace(lr_find.LOWEST, lr_find.HIGHEST, _POINTS)

    @jax.jit
    def step(params: Any, state: Any, batch: Any, rate: Any, index: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, batch, index)
        updates, state = inner.update(grads, state, params)
        moved = jax.tree.map(
            lambda p, u: p + (rate * u).astype(p.dtype), params, updates
        )
        return moved, state, value

    state, smooth, losses = inner.init(params), 0.0, []
    for index, rate in enumerate(rates):
        params, state, value = step(
            params, state, batches[index], np.float32(rate), jnp.int32(index)
        )
        smooth = lr_find.SMOOTHING * smooth + (1 - lr_find.SMOOTHING) * float(value)
        losses.append(smooth / (1 - lr_find.SMOOTHING ** (index + 1)))
        # Negative losses, which fastai does not know, end by their fall alone.
        bound = lr_find.DIVERGED * abs(min(losses))
        if not math.isfinite(losses[-1]) or losses[-1] > bound:
            break
    table = np.full(_POINTS, np.inf)
    table[: len(losses)] = losses
    count = np.arange(_POINTS)
    used = (count >= _POINTS // 10) & (count < len(losses) - 5) & np.isfinite(table)
    given = jnp.log(rates), jnp.asarray(table, jnp.float32), jnp.asarray(used)
    found = {"valley": lr_find.valley(*given), "steep": lr_find.steep(*given)}
    return {name: math.log2(rates[int(place)]) for name, place in found.items()}


def zoo(count: int, done: set[str], predictor: Any) -> Iterator[dict[str, Any]]:
    """Yield a line a sweep."""
    made = None
    drawn = [sweeps.draw(index, 0) for index in range(FIRST, FIRST + count)]
    for sweep in sorted(drawn, key=lambda s: s.kind == "convolution"):  # slow: last
        index = sweep.number
        if f"zoo {index}" in done:
            continue
        problem = sweeps.build(sweep)
        own = (sweep.program, problem.architecture)
        if made is None or made[0] != own:
            made = own, sweeps.make_program(sweep, problem)
        runs, taken = seconds(lambda s=sweep, p=problem, m=made: peaks_of(s, p, m[1]))
        outcome = labels.outcomes(runs)
        peaks = np.log2([run.peak for run in runs])
        loss = lambda params, batch, index, p=problem: p.loss(  # noqa: E731
            params, batch, jax.random.fold_in(jax.random.key(0), index)
        )
        inner = sweeps.optimizer(sweep.optimizer, sweep.weight_decay, sweep.clip)
        batches = batches_of(problem.train, sweep.batch, index)
        best = best_peak(peaks, outcome)
        good = runs[int(np.argmin(abs(peaks - best)))]
        yield {
            "part": "zoo",
            "key": f"zoo {index}",
            "kind": sweep.kind,
            "optimizer": sweep.optimizer,
            "horizon": sweep.horizon,
            "best": best,
            "signal": labels.best_rate(runs).signal,
            "sweep_seconds": taken,
            **range_test(loss, problem.params, inner, batches),
            **probed(problem.loss, problem.params, sweep, batches, predictor),
            "last_loss": good.evaluations[-1]["eval_loss"],
        }


def probed(
    loss: Any, params: Any, sweep: Any, batches: Any, predictor: Any
) -> dict[str, Any]:
    """Find a rate, and returns what there is to say about it."""
    factor = sweeps.level("linear", sweep.horizon, sweep.warmup)
    inner = sweeps.optimizer(sweep.optimizer, sweep.weight_decay, sweep.clip)
    shape = lambda step: jnp.take(jnp.asarray(factor), step, mode="clip")  # noqa: E731
    optimizer = optax.chain(
        inner, optax.scale_by_schedule(lambda step: 1e-3 * shape(step))
    )
    key = jax.random.key(0)
    mine = params, optimizer.init(params), batches, key
    before = digest(mine)
    told = experience.load_experience()
    (found, log), taken = seconds(
        lambda: _find(loss, params, optimizer, batches, sweep, shape, key, predictor)
    )
    forecast = told.final_loss(experience.ANY, np.array(found.losses))
    return {
        "found": math.log2(log),
        "prior": math.log2(found.prior),
        "interval": told.width * found_deviation(found),
        "known": found.known,
        "distance": found.distance,
        "steps": found.steps,
        "find_seconds": taken,
        "restored": digest(mine) == before,
        "forecast": forecast and forecast[1],
        "error_of_forecast": forecast and math.log(forecast[2] / forecast[1]),
    }


def _find(loss, params, optimizer, batches, sweep, shape, key, predictor):
    found = finder.find(
        loss,
        params,
        optimizer,
        batches,
        steps=sweep.horizon,
        learning_rate=1e-3,
        schedule=shape,
        key=key,
        predictor=predictor,
    )
    return found, found.means[-1]


def found_deviation(found: findings.Finding) -> float:
    """Return the standard deviation that an interval was made of; NaN without one."""
    if found.high is None or found.rate is None:
        return math.nan
    return math.log2(found.high / found.rate) / experience.load_experience().width


# ---------------------------------------------------------------- tasks and kinds


def recorded(part: str, done: set[str]) -> Iterator[dict[str, Any]]:
    """Yield a line a recorded sweep, its task or size left out: minutes at once."""
    if any(name.startswith(f"{part} ") for name in done):
        return
    _, runs = trace_files.read_all(trace_files.paths_in(Path("checkpoints/traces")))
    if part == "sizes":
        runs = [run for run in runs if labels.size(run)]
    for found in probe_table.probes(runs, by=part.removesuffix("s"), tell=print):
        row = {k: x for k, x in found._asdict().items() if k not in ("name", "size")}
        scale = experience.load_experience().scale * experience.load_experience().width
        yield {
            "part": part,
            "key": f"{part} {found.name}",
            **row,
            "known": found.distance <= 1,
            "interval": scale * found.deviation,
        }


def kinds(count: int, done: set[str], predictor: Any) -> Iterator[dict[str, Any]]:
    """Yield a line a foreign problem and optimizer."""
    todo = [
        (name, optimizer)
        for name, (_, optimizers) in benchmark_kinds.PROBLEMS.items()
        for optimizer in optimizers
    ]
    todo.sort(key=lambda row: row[0] == "convolution")  # slow: last
    for name, optimizer in todo[:count]:
        if f"kinds {name} {optimizer}" in done:
            continue
        problem = benchmark_kinds.PROBLEMS[name][0]
        params, loss, (train, _) = problem(jax.random.key(0))
        plain = benchmark_kinds.runner(problem, optimizer, None)
        peaks = np.log2(sweeps.CENTRES[optimizer]) + np.arange(-6.0, 7.0, 1.5)
        last = np.asarray(plain(np.arange(2), 2.0**peaks)[0], np.float64)
        first = float(loss(params, train))
        outcome = np.log(np.minimum(np.nan_to_num(last, nan=np.inf), first) / first)
        steps = benchmark_kinds.STEPS
        batches = batches_of(train, benchmark_kinds.BATCH, 0)
        inner = sweeps.optimizer(optimizer, 0.01, 1.0)
        shape = default_schedule(1.0, steps)
        found = finder.find(
            loss,
            params,
            optax.chain(inner, optax.scale_by_schedule(lambda s, f=shape: 1e-3 * f(s))),
            batches,
            steps=steps,
            learning_rate=1e-3,
            schedule=shape,
            predictor=predictor,
        )
        yield {
            "part": "kinds",
            "key": f"kinds {name} {optimizer}",
            "kind": name,
            "optimizer": optimizer,
            "best": best_peak(peaks, outcome.mean(0)),
            "found": math.log2(found.means[-1]),
            "known": found.known,
            "distance": found.distance,
            "interval": experience.load_experience().width * found_deviation(found),
            **range_test(lambda p, b, i, f=loss: f(p, b), params, inner, batches),
        }


# --------------------------------------------------------------------- the figures


def show(lines: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    rows = ["| part | rule | sweeps | median error | within 1/2 | within 1 |"]
    rows.append("|---|---|--:|--:|--:|--:|")
    encoders = [
        x | {"part": "encoders"}
        for x in lines
        if x["kind"] == "encoder" and x["part"] == "tasks"
    ]
    lines = [*lines, *encoders]
    for part in ("zoo", "tasks", "encoders", "sizes", "kinds"):
        own = [x for x in lines if x["part"] == part and x.get("signal", 1) >= 0.5]
        for rule in ("found", "prior", "valley", "steep"):
            # Where the finder gives no rate it has no error, whatever others have.
            errors = [abs(x[rule] - x["best"]) for x in own if rule in x and x["known"]]
            if errors:
                share = lambda most, e=errors: np.mean(np.array(e) < most)  # noqa: E731
                rows.append(
                    f"| {part} | {rule} | {len(errors)} | {np.median(errors):.2f} "
                    f"| {share(0.5):.0%} | {share(1):.0%} |"
                )
    rows.append("")
    for part in ("zoo", "tasks", "encoders", "sizes", "kinds"):
        rows += _facts(part, [x for x in lines if x["part"] == part])
    return "\n".join(rows)


def _facts(part: str, own: list[dict[str, Any]]) -> Iterator[str]:
    if not own:
        return
    off = [abs(x["found"] - x["best"]) for x in own]
    given = [(e, x["interval"]) for e, x in zip(off, own, strict=True) if x["known"]]
    if given:
        held = np.mean([e <= width for e, width in given])
        yield f"- {part}: intervals hold the best rate in {held:.0%} of {len(given)}"
    silent = [e for e, x in zip(off, own, strict=True) if not x["known"]]
    if part == "kinds" or silent:
        right = sum(e > 1 for e in silent)
        loud = sum(e > 1 for e, _ in given)
        yield (
            f"- {part}: no rate for {len(silent)} of {len(own)}, rightly {right} "
            f"times; a rate over an octave off for {loud} of the others"
        )
    if part == "zoo":
        forecast = [
            abs(math.log(x["forecast"] / x["last_loss"]))
            for x in own
            if x["forecast"] and x["last_loss"] and x["last_loss"] > 0
        ]
        if forecast:
            factor = np.exp(np.median(forecast))
            yield f"- zoo: final loss off by a factor of {factor:.2f}"
        whole = sum(x["restored"] for x in own)
        yield f"- zoo: state restored by hash in {whole} of {len(own)}"
        taken, whole = (
            np.median([x[n] for x in own]) for n in ("find_seconds", "sweep_seconds")
        )
        yield (
            f"- zoo: {taken:.1f} s a probe with its compilation, {whole:.1f} s the 13 "
            f"runs of a sweep with theirs; {np.median([x['steps'] for x in own]):.0f} "
            f"steps of {np.median([x['horizon'] for x in own]):.0f}"
        )


def main() -> None:
    """Carry out what FILE lacks, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=30)
    parser.add_argument("--kinds", type=int, default=13, help="foreign problems")
    parser.add_argument("--output", type=Path, default=Path("runs/find.jsonl"))
    args = parser.parse_args()
    compilation.use_cache()
    predictor, sha256 = load_predictor(), read_metadata()["sha256"]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    text = args.output.read_text() if args.output.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    lines = [line for line in lines if line["predictor"] == sha256]
    done = {line["key"] for line in lines}
    parts = (
        kinds(args.kinds, done, predictor),
        zoo(args.sweeps, done, predictor),
        recorded("tasks", done),
        recorded("sizes", done),
    )
    for part in parts:
        for line in part:
            line = {"predictor": sha256, **line}
            with open(args.output, "a") as store:
                store.write(json.dumps(line) + "\n")
            lines.append(line)
            print(
                f"{line['key']}: best {line['best']:.2f}, found {line['found']:.2f}, "
                f"{'known' if line['known'] else 'unknown'}",
                flush=True,
            )
    print(show(lines))


if __name__ == "__main__":
    main()
