"""What metalr does on problems of the zoo that are in no trace, from three base rates.

    python -m tests.benchmarks.benchmark_closed_loop                 # shipped predictor
    python -m tests.benchmarks.benchmark_closed_loop --without-kind  # fits of its own

Sweeps number 700 to 799 are in no trace and entered no choice. Each has a tuned rate,
the best of 25 peaks on one seed, under linear decay or --shape; then plain runs and
runs under metalr see the same rows on two other seeds, from that rate, from 16x below
and from 16x above. A run is *worse* where its mean last validation loss is above the
plain one by over 5 % and by two standard errors of the paired difference, *better*
where it is below. With --without-kind each kind is judged by a predictor fitted to the
traces of all others. Results are kept in OUTPUT line by line; the same command resumes.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metalr.meta import fit, labels, trace_files
from metalr.meta.zoo import closed_loop, sweeps
from metalr.meta.zoo.problems import KINDS
from metalr.predictor import Predictor
from metalr.runtime import compilation
from metalr.stored_predictor import load_predictor, read_metadata

OFF = np.array([1.0, 1 / 16, 16.0])
SEEDS = range(1, 3)
INFINITE = 1e9  # stands for a loss that is not finite


def chosen(first: int, count: int) -> Iterator[int]:
    """Yield the first sweep of each program that takes seconds and not minutes."""
    for index in range(first, first + count):
        sweep = sweeps.draw(index, 0)
        cheap = sweep.horizon <= 400 and sweep.batch < 4096
        if index % sweeps.PER_PROGRAM == 0 and cheap and sweep.kind != "tuned":
            yield index


def judge(index: int, predictor: Predictor, shape: str) -> dict[str, Any]:
    """Run one sweep and return its line of the store."""
    sweep = sweeps.draw(index, 0)
    problem = sweeps.build(sweep)
    programs = closed_loop.make_programs(sweep, problem, shape)
    tuned = closed_loop.tuned_rate(sweep, problem, programs)
    run = lambda *more: closed_loop.carry_out(  # noqa: E731
        sweep, problem, programs, tuned * OFF, SEEDS, *more
    )
    plain, ours = run(), run(predictor)
    last = lambda runs: np.nan_to_num(  # noqa: E731
        runs.losses[..., -1], nan=INFINITE, posinf=INFINITE
    ).clip(max=INFINITE)
    assert ours.multipliers is not None
    return {
        "index": index,
        "kind": sweep.kind,
        "optimizer": sweep.optimizer,
        "steps": sweep.horizon,
        "first": float(plain.losses[0, 0, 0]),
        "plain": last(plain).tolist(),  # [seeds, rates]
        "metalr": last(ours).tolist(),
        "multiplier": ours.multipliers[0, :, -1].tolist(),
    }


def verdict(line: dict[str, Any]) -> dict[str, Any]:
    """Return whether metalr is worse and better, and what it loses of the progress."""
    plain, ours = np.array(line["plain"]), np.array(line["metalr"])
    apart = ours - plain
    error = apart.std(0, ddof=1) / np.sqrt(len(apart))
    worse = (apart.mean(0) > 0.05 * abs(plain.mean(0))) & (apart.mean(0) > 2 * error)
    best = plain[:, 0].mean()
    progress = max(line["first"] - best, 1e-9)
    lost = lambda x: np.clip((x.mean(0) - best) / progress, -1, 2)  # noqa: E731
    return {
        "worse": worse,
        "better": apart.mean(0) < 0,
        "lost": lost(ours),
        "plain": lost(plain),
    }


def show(lines: list[dict[str, Any]]) -> str:
    """Return a table by kind as Markdown."""
    rows = [
        "| kind | sweeps | worse at the tuned rate | better 16x below | 16x above |"
    ]
    rows.append("|---|--:|--:|--:|--:|")
    names = [k for k in KINDS if any(line["kind"] == k for line in lines)]
    for name in [*names, "all"]:
        of = [verdict(x) for x in lines if name in (x["kind"], "all")]
        rows.append(
            f"| {name} | {len(of)} | {sum(x['worse'][0] for x in of)} "
            f"| {sum(x['better'][1] for x in of)} | {sum(x['better'][2] for x in of)} |"
        )
    found = [verdict(line) for line in lines]
    for name in ("plain", "lost"):
        median = np.median([x[name] for x in found], axis=0)
        rows.append(
            f"\nMedian share of the tuned run's progress that is lost, "
            f"{'plain' if name == 'plain' else 'metalr'}, from the tuned rate / 16x "
            "below / 16x above: " + " / ".join(f"{x:.3f}" for x in median)
        )
    return "\n".join(rows)


def main() -> None:
    """Run the sweeps that are in no line yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=700)
    parser.add_argument("--count", type=int, default=90)
    parser.add_argument("--predictor", type=Path)
    parser.add_argument("--shape", choices=sweeps.SHAPES, default="linear")
    parser.add_argument("--without-kind", action="store_true")
    parser.add_argument("--traces", type=Path, default=Path("checkpoints/traces"))
    parser.add_argument("--output", type=Path, default=Path("runs/closed_loop.jsonl"))
    args = parser.parse_args()
    compilation.use_cache()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    if args.output.exists():
        lines = [json.loads(x) for x in args.output.read_text().splitlines()]
    # Lines of another predictor, shape or way to fit are of another table.
    learned = read_metadata(args.predictor)["sha256"] if not args.without_kind else None
    of = {"shape": args.shape, "predictor": learned}
    lines = [line for line in lines if of.items() <= line.items()]
    done = {line["index"] for line in lines}
    todo = [k for k in chosen(args.first, args.count) if k not in done]
    data = None
    for kind in KINDS:
        own = [k for k in todo if sweeps.draw(k, 0).kind == kind]
        if not own:
            continue
        if args.without_kind:
            if data is None:
                _, runs = trace_files.read_all(trace_files.paths_in(args.traces))
                data = labels.examples(runs)
            predictor = fit.fit(data, kept=data.kind != kind)
        else:
            predictor = load_predictor(args.predictor)
        for index in own:
            lines.append(of | judge(index, predictor, args.shape))
            with args.output.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(json.dumps(lines[-1]), flush=True)
    print(show(lines))


if __name__ == "__main__":
    main()
