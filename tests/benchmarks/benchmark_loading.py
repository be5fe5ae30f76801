"""Memory and time to read and tokenize large sets of rows, in a fresh process.

    python -m tests.benchmarks.benchmark_loading --rows 3600000 --most 1500
    python -m tests.benchmarks.benchmark_loading --rows 2000000 --words 300 --most 1500

Writes a CSV file of generated rows, reads it, holds out a tenth and tokenizes all of
it for MiniLM, and prints the peak of the memory after each part: as the first run on
these rows, and as the second, which finds their tokens in the cache if they are few
enough. What a file is mapped to is not counted (RssAnon, looked at every 20 ms): the
system takes it back where others need the memory. Ends with status 1 where a peak is
over `--most` megabytes.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

WORDS = (
    "the film was good bad slow story actor music scene plot very not and with long "
    "short funny sad first last never again old new"
).split()


def write(path: Path, rows: int, most: int) -> None:
    """Write rows of 4 to `most` words, no two of them equal, and one of five labels."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for number in range(rows):
            words = rng.choices(WORDS, k=rng.randint(3, most - 1))
            file.write(f"{' '.join(words)} {number},{rng.randint(1, 5)}\n")


class Peak(threading.Thread):
    """The most memory of its own that this process has had, in MB."""

    most = 0.0

    def run(self) -> None:
        """Look again and again."""
        while True:
            status = Path("/proc/self/status").read_text()
            now = int(status.split("RssAnon:")[1].split()[0]) / 1000
            self.most = max(self.most, now)
            time.sleep(0.02)


def measure(path: str) -> float:
    """Read and tokenize a file, print what each part took, and return the peak."""
    begun = time.perf_counter()
    peak = Peak(daemon=True)
    peak.start()

    def say(what: str) -> None:
        nonlocal begun
        now = time.perf_counter()
        print(f"{what:12} {now - begun:7.1f} s   peak {peak.most:6.0f} MB", flush=True)
        begun = now

    from metalr.data import encode, loading, token_cache
    from metalr.models import huggingface

    say("imports")
    data = loading.load("file", train_file=path)
    say("reading")
    loading.fingerprint(data)
    say("fingerprint")
    model = huggingface.load("minilm", data.task.kind, data.task.labels, seed=0)
    say("model")
    splits = [data.train, *data.validation.values()]
    of = (data.task, model.tokenizer, 128)
    found = [token_cache.encoded(rows, *of, stride=128) for rows in splits]
    encoded = [entries for entries, _ in found]
    say("tokens" if found[0][1] is None else "tokens, kept")
    used = encode.used_ids(encoded)
    encoded = [encode.remap_ids(entries, used) for entries in encoded]
    say("vocabulary")
    tokens = sum(entries.lengths.sum() for entries in encoded)
    print(f"{sum(len(entries.input_ids) for entries in encoded)} rows, {tokens} tokens")
    return peak.most


def main() -> int:
    """Write the file, and measure in another process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_600_000)
    parser.add_argument("--words", type=int, default=12, help="most words of a row")
    parser.add_argument("--most", type=float, default=1500.0, help="megabytes")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return int(measure(args.measure) > args.most)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        write(path, args.rows, args.words)
        print(f"{args.rows} rows, {path.stat().st_size / 1e6:.0f} MB", flush=True)
        of = ["--measure", str(path), "--most", str(args.most)]
        module = "tests.benchmarks.benchmark_loading"
        environment = os.environ | {"METALR_CACHE": f"{folder}/cache"}
        command = [sys.executable, "-m", module, *of]
        runs = [subprocess.run(command, env=environment) for _ in range(2)]
        return max(run.returncode for run in runs)


if __name__ == "__main__":
    sys.exit(main())
