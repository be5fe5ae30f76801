"""The stores that ship, what the documents say, and how numbers are printed there."""

from pathlib import Path

import numpy as np

from metalr.compare import comparison, criteria, paired
from metalr.compare import store as stores

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TEXT = "".join(p.read_text() for p in sorted((ROOT / "docs").glob("results*.md")))
WORDS = " ".join(TEXT.split())
TASKS = {"sst2": "SST-2", "imdb": "IMDB", "ag_news": "AG News", "squad": "SQuAD, F1"}
FRESH = {"emotion": "emotion", "sick": "SICK", "sst5": "SST-5", "mr": "MR"}
FRESH["financial_phrasebank"] = "Financial PhraseBank"
RATES = (1.25e-6, 2e-5, 3.2e-4)  # of metalr


def store(name):
    return stores.read_lines(ROOT / f"checkpoints/{name}.jsonl")


def shipped(name):
    # The older lines of one store name no device.
    lines = store(f"{name}/runs")
    return comparison.from_lines(lines, None, mix_devices=name == "comparison")


def final(run):
    return run["last_metrics"][run["metric"]]


def cell(runs, seeds=3):
    scores = [final(run) for run in runs]
    assert len(scores) == seeds
    if seeds == 1:
        return f"{scores[0]:.3f}"
    return f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}"


def rate_names(runs):
    """Return the rates of runs, each once: seeds may choose different ones."""
    rates = sorted({criteria.base_rate(run) for run in runs})
    return " and ".join(map(criteria.format_rate, rates))


def rate(number):
    return f"{number:.1e}".replace("e-0", "e-")


def difference(found, method, other):
    """Return the paired difference of two methods with its interval, as it is said."""
    gap = paired.score_difference(found, method, other)
    return f"{gap.estimate:+.3f}, 95 % interval {gap.low:+.3f} to {gap.high:+.3f}"


def of_metalr(found, place, rate):
    """Return the runs of metalr from a base rate, in the order of their seeds."""
    runs = [
        run
        for run in found.runs
        if criteria.workload(run) == place
        and (run["scheduler"], criteria.base_rate(run)) == ("metalr", rate)
    ]
    return sorted(runs, key=lambda run: run["seed"])


def shares(found, row, model=""):
    """Return a row's mean share of the best, each task alike, as it is printed."""
    others = tuple(p for p in found.references if not p.model.endswith(model))
    kept = found._replace(unlearned=(*found.unlearned, *others))
    return f"{kept.mean(row, 'share of the best'):.3f}"


def as_soon(runs, others):
    """Tell of each run whether it is as soon as the other one of its seed.

    At 99 % of what the other one ends with above chance.
    """
    of_seed, soon = {run["seed"]: run for run in others}, []
    for run in runs:
        other, metric = of_seed[run["seed"]], run["metric"]
        chance = run["chance"][metric]
        target = chance + 0.99 * (final(other) - chance)
        first, its_first = (
            min(
                (
                    row["step"]
                    for row in one["history"]
                    if row.get(metric, -1) >= target
                ),
                default=np.inf,
            )
            for one in (run, other)
        )
        soon.append(first <= its_first)
    return soon
