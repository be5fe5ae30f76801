"""The history of the results says what the shipped stores hold."""

import re
from collections import defaultdict

import numpy as np
import pytest

from metalr.compare import criteria
from tests.report.shipped_stores import (
    RATES,
    TASKS,
    TEXT,
    WORDS,
    as_soon,
    cell,
    difference,
    final,
    of_metalr,
    rate_names,
    shares,
    shipped,
    store,
)

pytestmark = pytest.mark.fast

PLAIN = ("linear", "static")  # methods at 2e-5


@pytest.mark.parametrize("name", ["comparison", "targets"])
def test_final_scores_are_those_of_the_shipped_store(name):
    found = shipped(name)
    several = len({model for _, model in found.references}) > 1
    for place in found.references:
        task, model = place
        seeds = 5 if (name, model) == ("targets", "minilm:2") else 3
        tuned = found.runs_of("linear tuned", place)
        cells = [
            TASKS[task] + (f", {model[-1]} layers" if several else ""),
            *(cell(found.runs_of(f"{name} 2e-5", place), seeds) for name in PLAIN),
            f"{cell(tuned, seeds)} at {rate_names(tuned)}",
            *(
                cell(runs, seeds) if runs else "not run"
                for runs in (of_metalr(found, place, rate) for rate in RATES)
            ),
        ]
        assert f"| {' | '.join(cells)} |" in TEXT


def test_words_on_the_targets_are_what_their_store_says():
    found = shipped("targets")
    apart = difference(found, "metalr", "linear tuned")
    assert (
        f"ends at {shares(found, 'metalr')} of the best score above chance, linear "
        f"decay at the best of six rates at {shares(found, 'linear tuned')} (paired "
        f"difference {apart}), 2e-5 at {shares(found, 'static 2e-5')} without a "
        f"schedule and at {shares(found, 'linear 2e-5')} with linear decay"
    ) in WORDS
    two = {row: shares(found, row, ":2") for row in found.methods}
    assert (
        f"where metalr has {two['metalr']}, schedule-free AdamW has "
        f"{two['schedule_free']}, D-Adaptation {two['dadapt_adamw']}, Mechanic "
        f"{two['mechanic']} and Prodigy {two['prodigy']}"
    ) in WORDS


def test_base_rates_meet_and_end_alike_as_the_results_say():
    found = shipped("targets")
    lost = {}
    for place in found.references:
        of = [of_metalr(found, place, rate) for rate in RATES]
        for same_seed in zip(*of, strict=True):
            fifth = same_seed[0]["steps"] // 5
            rates = [
                row["learning_rate"]
                for run in same_seed
                for row in run["history"]
                if row["step"] == fifth and "learning_rate" in row
            ]
            assert len(rates) == 3 and max(rates) < 2 * min(rates)
        low, default, high = (np.mean([final(run) for run in runs]) for runs in of)
        lost[place] = [round(100 * abs(x - default), 1) for x in (low, high)]
    assert lost.pop(("squad", "minilm:2")) == [1.1, 2.8]
    assert max(max(both) for both in lost.values()) == 1.1
    assert "at most 1.1 points but for SQuAD with two layers from above (2.8;" in WORDS


def test_speed_and_spread_are_as_the_results_say():
    found, soon, narrower = shipped("targets"), [], []
    for place in found.references:
        rows = [found.runs_of(row, place) for row in ("metalr", "linear tuned")]
        own, tuned = (np.std([*map(final, runs)]) for runs in rows)
        narrower.append(own < tuned)
        soon += as_soon(*rows)
    assert (sum(soon), len(soon)) == (12, 24) and not any(narrower)
    assert "as soon as that run in 12 of 24 runs only" in WORDS


SIZES = {
    "2 layers": ("minilm:2", "runs", "without-2"),
    "6 layers": ("minilm:6", "runs", "without-6"),
    "4 layers, 256 wide": ("runs/bert-256", "width-shipped", "width"),
}


@pytest.mark.parametrize("size", SIZES)
def test_scores_on_sizes_left_out_are_those_of_their_stores(size):
    model, *names = SIZES[size]
    runs = defaultdict(list)
    for name in names:
        for run in store(f"targets/{name}"):
            if run["model"] == model and run["seed"] < 3:
                key = (name, run["task"], run["scheduler"], criteria.base_rate(run))
                runs[key].append(run)
    for task in {task for name, task, *_ in runs if name == names[1]}:
        # The narrow encoder has some of the rates with one seed only.
        linear = [
            of
            for (_, its, scheduler, _), of in runs.items()
            if (its, scheduler) == (task, "linear") and len(of) == 3
        ]
        cells = [
            f"{TASKS[task]}, {size}",
            cell(max(linear, key=lambda of: np.mean([final(run) for run in of]))),
            *(cell(runs[name, task, "metalr", 2e-5]) for name in names),
        ]
        assert f"| {' | '.join(cells)} |" in TEXT


def test_the_run_that_a_size_left_out_ruins_is_as_the_results_say():
    found = shipped("targets")
    shown = {
        (place[0], run["seed"]): run
        for place in found.references
        for run in found.runs_of("metalr", place)
        if place[1] == "minilm:6"
    }
    apart = {
        (run["task"], run["seed"]): round(
            100 * (final(run) - final(shown[run["task"], run["seed"]])), 1
        )
        for run in store("targets/without-6")
    }
    assert len(apart) == 9 and apart.pop(("imdb", 2)) < -20
    assert max(map(abs, apart.values())) == 1.6
    highest = max(
        row.get("lr_multiplier", 0)
        for run in store("targets/without-6")
        for row in run["history"]
        if (run["task"], run["seed"]) == ("imdb", 2) and row["step"] <= 30
    )
    assert round(highest) == 12


def test_scores_of_version_3_on_the_targets_are_those_of_their_store():
    # The other two columns are those of the sizes left out.
    for task in ("imdb", "ag_news"):
        runs = [run for run in store("targets/version-3") if run["task"] == task]
        words = TEXT[TEXT.index("| metalr, version 3 |") :]
        row = re.search(rf"\| {TASKS[task]}, 2 layers \|(.*)\|\n", words)
        assert row and row[1].split("|")[-1].strip() == cell(runs)
