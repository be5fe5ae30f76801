"""Collects banks, and then rounds of what the predictor does on them itself.

A fit to one set of traces drifts off them when it is applied: its own states have to be
in the traces too (DAgger; Ross, Gordon and Bagnell 2011, arXiv 1011.0686). Round r is
made with the predictor of all traces of the rounds before it, so that a round which was
cut goes on with the same one.
"""

import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metalr.meta import collect, fit, labels, traces
from metalr.meta.banks import Bank, Job

TELLING = 0.1  # signal of a bank that is worth a round's runs


def gather(
    chosen: Sequence[Bank],
    output: Path,
    *,
    rounds: int,
    per_bank: int = 2,
    seconds: float = math.inf,
    executor: str = "processes",
    workers: int | None = None,
    together: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], object] = lambda line: None,
    settings: fit.Settings | None = None,
) -> bool:
    """Collects the banks, then rounds of what the predictor so far does on them.

    Args:
      chosen: The banks.
      output: Folder for the traces.
      rounds: Rounds after the banks' own.
      per_bank: Runs of a round on each bank; every other one explores.
      seconds: For all of it. A round begins when all before it is done, now or when
        the same is asked again.
      executor: As in `collect.collect`.
      workers: As in `collect.collect`.
      together: As in `collect.collect`.
      stop: As in `collect.collect`.
      tell: Told what goes on.
      settings: Of the fits.

    Returns:
      Whether all is done.
    """
    deadline = time.monotonic() + seconds
    left = lambda: deadline - time.monotonic()  # noqa: E731
    tell(f"{len(chosen)} banks of {len(chosen[0].peaks) + chosen[0].walks} runs")
    options: dict[str, Any] = {
        "executor": executor,
        "workers": workers,
        "together": together,
        "stop": stop,
    }
    whole = collect.collect(list(map(Job, chosen)), output, seconds=left(), **options)
    for number in range(1, rounds + 1):
        if not whole or stop():  # a predictor of a part would not be the same again
            return False
        paths = [p for p in traces.paths_in(output / "traces") if round_of(p) < number]
        _, runs = traces.read_all(paths)
        telling = _telling(runs)
        predictor = fit.fit(labels.examples(runs), settings)
        jobs = [
            Job(bank, number, predictor, per_bank)
            for bank in chosen
            if bank.bank_id in telling
        ]
        tell(f"round {number}: the predictor so far on {len(jobs)} banks")
        whole &= collect.collect(jobs, output, seconds=left(), **options)
    return whole


def _telling(runs: Sequence[traces.Run]) -> set[int]:
    """Returns the banks that hindsight tells something about, or else all whole ones.

    The others' runs would get no weight.
    """
    signals = {k: labels.best_rate(of).signal for k, of in labels.by_bank(runs).items()}
    return {k for k, signal in signals.items() if signal > TELLING} or set(signals)


def round_of(path: Path) -> int:
    """Returns the round that a trace file is of.

    >>> [round_of(Path(f"{name}.parquet")) for name in ("bank-02", "round-3-bank-02")]
    [0, 3]
    """
    found = re.match(r"round-(\d+)-", path.name)
    return int(found[1]) if found else 0
