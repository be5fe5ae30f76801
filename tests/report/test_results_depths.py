"""The results page says what the shipped stores hold: depths and long runs."""

import re
from collections import defaultdict

import numpy as np
import pytest

from metalr.compare import comparison, criteria, paired
from metalr.compare import store as stores
from tests.report.shipped_stores import (
    FRESH,
    README,
    TASKS,
    TEXT,
    WORDS,
    as_soon,
    cell,
    difference,
    final,
    of_metalr,
    rate,
    rate_names,
    shares,
    store,
)

pytestmark = pytest.mark.fast

DEPTH_TASKS = ("mr", "emotion", "sst5", "financial_phrasebank", "sick")
DEPTHS = {
    "2 layers": "minilm:2",
    "6 layers": "minilm:6",
    "12 layers (e5-small, 4 bits)": "encoders/e5-small",
}
DEPTH_ROWS = [("wsd", 1e-4), ("wsd", 1.6e-4), ("wsd", 3.2e-4)]
DEPTH_ROWS += [("linear", 1e-4), ("linear", 3.2e-4), ("metalr", 2e-5)]


def depth_scores(name):
    """Return the final scores of an encoder by task, row and base rate."""
    scores = defaultdict(list)
    for place in ("fresh/runs", "fresh/depths", "twelve-layers/runs"):
        for run in store(place):
            if run["kind"] == stores.RUN and run["model"] == DEPTHS[name]:
                row = run["task"], run["scheduler"], criteria.base_rate(run)
                scores[row].append(final(run))
    return scores


@pytest.mark.parametrize("name", DEPTHS)
def test_scores_at_other_depths_are_those_of_their_stores(name):
    scores = depth_scores(name)
    for task in DEPTH_TASKS:
        found = {row: scores.get((task, *row), ()) for row in DEPTH_ROWS}
        mean = {row: f"{np.mean(of):.3f}" if of else "–" for row, of in found.items()}
        cells = [f"{mean[row]} ({len(of)})" if of else "–" for row, of in found.items()]
        if found["metalr", 2e-5]:
            assert f"| {' | '.join([name, FRESH[task], *cells])} |" in TEXT


ALL_DEPTHS = {
    "wsd 1e-4": "hold 1e-4",
    "wsd 1.6e-4": "hold 1.6e-4",
    "wsd 3.2e-4": "hold 3.2e-4",
    "linear tuned": "linear, tuned for each problem",
    "best shape tuned": "the better of both shapes, tuned for each",
}


def test_shares_over_all_depths_are_those_of_their_stores():
    lines = [
        run
        for place in ("fresh/runs", "fresh/depths", "twelve-layers/runs")
        for run in store(place)
        if run["kind"] == stores.RUN
        and run["task"] in DEPTH_TASKS
        and run["model"] in DEPTHS.values()
    ]
    found = comparison.from_lines(lines, "wsd 1e-4")
    assert len(found.learned) == 11
    shown = {
        row: f"{found.mean(row, 'share of the best'):.3f}" for row in found.methods
    }
    assert f"| metalr from 2e-5 | {shown['metalr']} | |" in TEXT
    for row, name in ALL_DEPTHS.items():
        gap = paired.score_difference(found, "metalr", row)
        ends = f"{gap.low:+.3f} to {gap.high:+.3f}, {gap.pairs} pairs"
        assert f"| {name} | {shown[row]} | {gap.estimate:+.3f} ({ends}) |" in TEXT
        if row in ("wsd 1e-4", "wsd 3.2e-4"):
            assert f"{gap.estimate:+.3f}" in WORDS and gap.low > 0
        elif row == "wsd 1.6e-4":
            words = f"at 1.6e-4 by {gap.estimate:+.3f}, whose interval just holds 0"
            assert words in WORDS and -0.02 < gap.low < 0
    order = ["metalr", *reversed(ALL_DEPTHS)][:3] + [*ALL_DEPTHS][:3]
    assert f"| {' | '.join(shown[row] for row in order)} |" in README


def test_words_on_six_layers_alone_are_what_their_store_says():
    runs = [run for run in store("fresh/depths") if run["kind"] == stores.RUN]
    found = comparison.from_lines(runs, "wsd 1e-4")
    held, linear = (
        f"{shares(found, row)} (difference {difference(found, 'metalr', row)})"
        for row in ("wsd 1e-4", "linear 1e-4")
    )
    own = shares(found, "metalr")
    assert (
        f"with six layers alone metalr ends at {own} of the best, the hold at 1e-4 at "
        f"{held}, linear decay at 1e-4 at {linear}"
    ) in WORDS


def test_highest_rates_at_each_depth_are_those_of_the_histories():
    said = []
    for model in DEPTHS.values():
        for task in ("mr", "emotion"):
            rates = [
                max(row.get("learning_rate", 0) for row in run["history"])
                for place in ("fresh/runs", "fresh/depths", "twelve-layers/runs")
                for run in store(place)
                if (run.get("model"), run.get("task")) == (model, task)
                and (run["scheduler"], criteria.base_rate(run)) == ("metalr", 2e-5)
            ]
            ends = dict.fromkeys(map(rate, (min(rates), max(rates))))
            said.append(" to ".join(ends))
    assert (
        f"its highest rates are {said[0]} (MR) and {said[1]} (emotion) with two "
        f"layers, {said[2]} and {said[3]} with six, {said[4]} and {said[5]} with twelve"
    ) in WORDS


def test_scores_of_mpnet_are_those_of_their_store():
    found = {
        (run["task"], run["scheduler"], criteria.base_rate(run)): run
        for run in store("twelve-layers/runs")
        if run["kind"] == stores.RUN and run["model"].endswith("mpnet-base")
    }
    assert len(found) == 6
    for task in ("mr", "emotion"):
        rows = [("linear", 3.2e-5), ("linear", 1e-4), ("metalr", 2e-5)]
        cells = [f"{final(found[task, *row]):.3f}" for row in rows]
        history = found[task, "metalr", 2e-5]["history"]
        cells.append(rate(max(row.get("learning_rate", 0) for row in history)))
        name = {"mr": "MR"}.get(task, task)
        assert f"| {name}, 12 x 768 | {' | '.join(cells)} |" in TEXT


def test_runs_without_six_layers_all_learn_as_the_results_say():
    runs = store("targets/without-6-version-4")
    scores = [final(run) for run in runs]
    highest = [max(row.get("learning_rate", 0) for row in r["history"]) for r in runs]
    assert [run["seed"] for run in runs] == list(range(10))
    said = (
        f"all ten learn, from {min(scores):.3f} to {max(scores):.3f} "
        f"({np.mean(scores):.3f}), with a highest rate of {rate(min(highest))} to "
        f"{rate(max(highest))}."
    )
    assert said in WORDS


def targets():
    """Return version 4 on the old targets beside the other rows of their store."""
    others = [
        run
        for run in store("targets/runs")
        if not run["scheduler"].startswith("metalr")
    ]
    lines = [*others, *store("targets/version-4")]
    return comparison.from_lines(lines, mix_devices=True)


def target_cells(found, place):
    """Return the cells of an old target; those of tuned decay are of the same seeds."""
    own = of_metalr(found, place, 2e-5)
    seeds = {run["seed"] for run in own}
    tuned = [
        run for run in found.runs_of("linear tuned", place) if run["seed"] in seeds
    ]
    highest = [max(row.get("learning_rate", 0) for row in r["history"]) for r in own]
    return [
        f"{TASKS[place.task]}, {place.model[-1]} layers",
        f"{cell(tuned, len(seeds))} at {rate_names(tuned)}",
        cell(own, len(seeds)),
        " to ".join(dict.fromkeys(map(rate, (min(highest), max(highest))))),
    ]


def test_scores_of_version_4_on_the_targets_are_those_of_their_store():
    found = targets()
    for place in found.references:
        if of_metalr(found, place, 2e-5):
            assert f"| {' | '.join(target_cells(found, place))} |" in TEXT
    own, tuned, fixed = (
        shares(found, row) for row in ("metalr", "linear tuned", "linear 3.2e-4")
    )
    gap = difference(found, "metalr", "linear tuned")
    soon = [
        is_soon
        for place in found.learned
        for is_soon in as_soon(
            of_metalr(found, place, 2e-5), found.runs_of("linear tuned", place)
        )
    ]
    assert (
        f"metalr ends at {own} of the best score above chance, tuned linear decay at "
        f"{tuned} (difference {gap}), linear decay at 3.2e-4 at {fixed}. It reaches "
        f"99 % of the tuned run's final score as soon as that run in "
        f"{sum(soon)} of {len(soon)} runs."
    ) in WORDS


def test_words_on_ag_news_with_six_layers_are_what_the_store_says():
    found = targets()
    (place,) = (p for p in found.references if p[:2] == ("ag_news", "minilm:6"))
    own = of_metalr(found, place, 2e-5)
    tuned = {run["seed"]: run for run in found.runs_of("linear tuned", place)}
    gaps = [100 * (final(tuned[run["seed"]]) - final(run)) for run in own]
    assert len(gaps) == 5 and min(gaps) > 0
    said = (
        f"behind on AG News with six in each of five pairs ({np.mean(gaps):.1f} points"
    )
    assert said in WORDS


LONG = {"1 layer": "minilm:1", "2 layers": "minilm:2"}
LONG_ROWS = [("linear", 1e-4), ("linear", 3.2e-4), ("linear", 1e-3)]
LONG_ROWS += [("wsd", 1e-4), ("wsd", 3.2e-4), ("metalr", 2e-5)]


def long_cells(name):
    """Return the cells of an encoder in the table of long runs."""
    scores = defaultdict(list)
    for run in store("long/runs"):
        if run["model"] == LONG[name]:
            scores[run["scheduler"], criteria.base_rate(run)].append(final(run))
    found = [scores[row] for row in LONG_ROWS]
    return [name, *(f"{np.mean(of):.3f} ({len(of)})" if of else "–" for of in found)]


@pytest.mark.parametrize("name", LONG)
def test_scores_of_long_runs_are_those_of_their_store(name):
    assert f"| {' | '.join(long_cells(name))} |" in TEXT


def long_multipliers():
    """Return the multipliers of long runs after a third: lowest, highest, drifts."""
    lows, highs = [], []
    for run in store("long/runs"):
        if run["scheduler"] == "metalr":
            m = [
                row["lr_multiplier"]
                for row in run["history"]
                if row.get("lr_multiplier") and row["step"] >= 1000
            ]
            lows.append(min(m))
            highs.append(max(m))
    return lows, highs, np.log2(np.divide(highs, lows))


def long_words():
    """Return how far metalr is from the best fixed rate of each encoder, in words."""
    behind, lost = [], 0
    for model in LONG.values():
        scores = defaultdict(dict)
        for run in store("long/runs"):
            if run["model"] == model:
                row = run["scheduler"], criteria.base_rate(run)
                scores[row][run["seed"]] = final(run)
        means = {row: np.mean([*of.values()]) for row, of in scores.items()}
        own = means.pop(("metalr", 2e-5))
        best = max(means, key=lambda row: means[row])
        assert best == ("linear", 1e-4)
        assert own > max(means["linear", 3.2e-4], means["wsd", 3.2e-4])
        behind.append(f"{100 * (means[best] - own):.1f}")
        lost += sum(of < scores[best][k] for k, of in scores["metalr", 2e-5].items())
    return (
        f"metalr ends {behind[0]} and {behind[1]} points behind linear decay at 1e-4, "
        f"the best of these rates at both sizes (in {lost} of 4 pairs), and ahead of "
        "both rows at 3.2e-4."
    )


def test_words_on_long_runs_are_what_their_store_says():
    said = long_words()
    assert said in WORDS
    most = max(map(float, re.findall(r"\d\.\d(?= and| points)", said)))
    assert f"(3,000: up to {most} points behind linear 1e-4)" in README
    lows, highs, drifts = long_multipliers()
    assert (
        f"From a third of the run on the multiplier stays within {min(lows):.1f} and "
        f"{max(highs):.1f}, a drift of {drifts.min():.2f} to {drifts.max():.2f} octaves"
    ) in WORDS


def twelve_words():
    """Return the scores of two rows with twelve layers, in words."""
    scores = depth_scores("12 layers (e5-small, 4 bits)")
    cells = [
        f"{np.mean(scores[task, *row]):.3f}"
        for row in (("linear", 1e-4), ("metalr", 2e-5))
        for task in ("mr", "emotion")
    ]
    return (
        f"with twelve, linear decay at 1e-4 has {cells[0]} and {cells[1]}, metalr "
        f"{cells[2]} and {cells[3]}."
    )


def test_words_on_twelve_layers_are_what_their_store_says():
    assert twelve_words() in WORDS
