"""`metalr predict` on many rows: rows a second and the peak of its memory.

    python -m tests.benchmarks.benchmark_predict --rows 100000 --model minilm:2

Fine-tunes for a few steps on generated reviews, writes a CSV file of rows of 4 to 40
words, and labels it in a fresh process, as the command does. A tenth of the rows first,
so that what grows with the rows shows in the memory, and what does not in the speed.
"""

import argparse
import csv
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.benchmark_loading import WORDS

ROOT = Path(__file__).parents[2]


def write(path: Path, rows: int) -> None:
    """Write so many rows of one text."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["sentence"])
        for _ in range(rows):
            table.writerow([" ".join(rng.choices(WORDS, k=rng.randint(4, 40)))])


def predict(run: Path, rows: Path, output: Path) -> tuple[float, float]:
    """Label a file; return the seconds and the peak in MB of the largest child yet."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "metalr", "predict", run, "--file", rows]
    subprocess.run([*command, "--output", output, "--quiet"], check=True, cwd=ROOT)
    taken = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return taken, peak / 1024


def main() -> None:
    """Print a line for each number of rows."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--model", default="minilm:2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run = Path(place, "run")
        flags = ["--task", "sst2", "--data", "toy", "--train-rows", "256"]
        flags += ["--max-steps", "4", "--quiet", "--output", str(run)]
        tune = [sys.executable, str(ROOT / "finetune.py"), "--model", arguments.model]
        subprocess.run([*tune, *flags], check=True, cwd=ROOT)
        print(f"the fine-tune took {children():.0f} MB, the least that shows below")
        last = None
        for count in (max(1, arguments.rows // 10), arguments.rows):
            rows, output = Path(place, f"{count}.csv"), Path(place, f"{count}.jsonl")
            write(rows, count)
            taken, peak = predict(run, rows, output)
            with output.open(encoding="utf-8") as file:
                assert sum(1 for _ in file) == count
            print(f"{count} rows  {taken:.1f} s  {count / taken:.0f} rows/s", end="")
            if last:
                more = (count - last[0]) / (taken - last[1])
                print(f" ({more:.0f} rows/s without the start)", end="")
            print(f"  peak {peak:.0f} MB", flush=True)
            last = count, taken


def children() -> float:
    """Return the peak of the largest child so far, in MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
