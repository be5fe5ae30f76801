"""Memory and time to read and tokenize millions of short rows, in a fresh process.

    python -m tests.benchmarks.benchmark_loading --rows 3600000 --most 1500

Writes a CSV file of generated rows, reads it, holds out a tenth and tokenizes all of
it for MiniLM, and prints the peak of the resident memory after each part: as the first
run on these rows, and as the second, which finds their tokens in the cache. Ends with
status 1 where one is over `--most` megabytes.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = (
    "the film was good bad slow story actor music scene plot very not and with long "
    "short funny sad first last never again old new"
).split()


def write(path: Path, rows: int) -> None:
    """Write rows of 4 to 12 words, no two of them equal, and one of five labels."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for number in range(rows):
            words = rng.choices(WORDS, k=rng.randint(3, 11))
            file.write(f"{' '.join(words)} {number},{rng.randint(1, 5)}\n")


def peak() -> float:
    """Return the most memory that this process has had, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def measure(path: str) -> None:
    """Read and tokenize a file, and print what each part took."""
    begun = time.perf_counter()

    def say(what: str) -> None:
        nonlocal begun
        now = time.perf_counter()
        print(f"{what:12} {now - begun:7.1f} s   peak {peak():6.0f} MB", flush=True)
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
    print(f"{sum(len(entries.input_ids) for entries in encoded)} rows")


def main() -> int:
    """Write the file, and measure in another process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_600_000)
    parser.add_argument("--most", type=float, default=1500.0, help="megabytes")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure)
        return int(peak() > args.most)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        write(path, args.rows)
        print(f"{args.rows} rows, {path.stat().st_size / 1e6:.0f} MB", flush=True)
        of = ["--measure", str(path), "--most", str(args.most)]
        module = "tests.benchmarks.benchmark_loading"
        environment = os.environ | {"METALR_CACHE": f"{folder}/cache"}
        command = [sys.executable, "-m", module, *of]
        runs = [subprocess.run(command, env=environment) for _ in range(2)]
        return max(run.returncode for run in runs)


if __name__ == "__main__":
    sys.exit(main())
