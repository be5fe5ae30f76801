"""Trace collection against a plain loop of finetune.py calls, on the same runs.

    python tests/benchmarks/benchmark_collection.py [--sweeps 2] [--model minilm:2]

Both sides train the same sweeps of the same rows and steps, from an empty folder, with
a warm compilation cache, in turns: `collect.collect` with one process a core, and
`finetune.py` once a run, as many at a time. Promised is a ratio of 2 at two layers.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent import futures
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


def jobs(count: int, model: str):
    from metalr.meta import sweeps

    sources = sweeps.Sources(("sst2",), (model,), "toy", paired=0.0, **sweeps.SMALL)
    return [sweeps.Job(sweeps.draw(index, sources, seed=0)) for index in range(count)]


def collected(todo, workers: int) -> float:
    from metalr.meta import collect

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        assert collect.collect(todo, Path(folder), workers=workers)
        return time.perf_counter() - begun


def called(todo, workers: int, cache: str) -> float:
    """Run finetune.py for every peak of every sweep, as many at a time."""

    def one(argv: list[str]) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=environment)

    environment = {**os.environ, "METALR_CACHE": cache}
    with tempfile.TemporaryDirectory() as folder:
        commands = []
        for job in todo:
            sweep = job.sweep
            for run in range(len(sweep.peaks) + sweep.walks):
                argv = [
                    "--task",
                    sweep.task,
                    "--data",
                    sweep.data,
                    "--model",
                    sweep.model,
                ]
                argv += ["--batch-size", sweep.batch, "--max-length", sweep.length]
                argv += ["--max-steps", sweep.horizon, "--epochs", sweep.horizon]
                argv += ["--train-rows", sweep.horizon * sweep.batch]
                argv += [
                    "--validation-rows",
                    sweep.validation_rows,
                    "--seed",
                    sweep.seed,
                ]
                argv += ["--eval-every", sweep.horizon // sweep.evaluations]
                argv += ["--learning-rate", (sweep.peaks * 2)[run], "--log-every", 1]
                argv += ["--output", f"{folder}/{job.name}-{run}", "--quiet"]
                script = [sys.executable, str(ROOT / "finetune.py")]
                commands.append([*script, *map(str, argv)])
        begun = time.perf_counter()
        with futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, commands))
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=2)
    parser.add_argument("--model", default="minilm:2")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    from metalr.runtime import executors

    workers = len(executors.cores())
    todo = jobs(arguments.sweeps, arguments.model)
    runs = sum(len(job.sweep.peaks) + job.sweep.walks for job in todo)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["METALR_CACHE"] = cache
        for pair in range(arguments.pairs + 1):
            ours, theirs = collected(todo, workers), called(todo, workers, cache)
            note = "" if pair else "   (fills the compilation cache)"
            print(
                f"{runs} runs: collect {ours:.1f} s, finetune.py {theirs:.1f} s, "
                f"ratio {theirs / ours:.2f}{note}",
                flush=True,
            )


if __name__ == "__main__":
    main()
