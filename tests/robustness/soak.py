"""Many short fine-tunes in one process: does memory, or do open files, grow?

    python -m tests.robustness.soak --minutes 3

They are, in turn, runs as `metalr compare` has them, and runs that save checkpoints
into a folder and export a model. Prints the slope of the resident memory over the runs
after the first few (least squares), the open file handles before and after, and the
size of the compile cache.
"""

import argparse
import ctypes
import dataclasses
import os
import tempfile
import time
from pathlib import Path

import numpy as np

WARM = 3  # runs that may fill caches of the libraries


def resident() -> float:
    """Return the memory of this process in MB, without what malloc keeps for later."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def handles() -> int:
    """Return the number of open files of this process."""
    return len(os.listdir("/proc/self/fd"))


def main() -> None:
    """Run fine-tunes until the time is up, and print what grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--runs", type=int, default=10**6, help="at most")
    args = parser.parse_args()
    from metalr import cli
    from metalr.compare import execute
    from metalr.finetune import display, run_folder
    from metalr.finetune.config import RunConfig
    from metalr.finetune.run import run as carry_out
    from metalr.runtime import compilation
    from tests.models import small_models

    cli.hush_libraries()
    until = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as work:
        tiny, cache = Path(work, "tiny"), Path(work, "cache")
        os.environ["METALR_CACHE"] = str(cache)
        small_models.save_bert(tiny)
        compilation.use_cache()
        config = RunConfig(
            task="sst2",
            model=str(tiny),
            data="toy",
            train_rows=64,
            validation_rows=32,
            max_steps=6,
            save_every=3,
            eval_every=3,
        )
        memory, files = [], []
        for number in range(args.runs):
            if time.monotonic() > until:
                break
            run = dataclasses.replace(config, seed=number)
            if number % 2:
                result = execute.execute_run(run)
            else:
                with run_folder.held(folder := Path(work, f"run-{number}")):
                    quiet = display.create(quiet=True)
                    result = carry_out(run, quiet, folder=folder)
            assert result["steps"] == config.max_steps
            memory.append(resident())
            files.append(handles())
        size = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file()) / 1e6
    after = memory[WARM:]
    slope = np.polyfit(np.arange(len(after)), after, 1)[0] if len(after) > 2 else np.nan
    print(f"runs            {len(memory)}, the first {WARM} not counted")
    print(f"memory          {memory[0]:.0f} MB to {memory[-1]:.0f} MB")
    print("                " + " ".join(f"{m:.0f}" for m in memory))
    print(f"slope           {slope:.2f} MB a run")
    print(f"open files      {files[min(WARM, len(files) - 1)]} to {files[-1]}")
    print(f"compile cache   {size:.1f} MB")


if __name__ == "__main__":
    main()
