"""The results page says what the shipped stores hold: fresh tasks, methods."""

import pytest

from metalr.compare import comparison, criteria, paired
from metalr.report import document, report
from tests.report.shipped_stores import (
    FRESH,
    RATES,
    README,
    TEXT,
    WORDS,
    cell,
    difference,
    of_metalr,
    rate_names,
    shares,
    shipped,
    store,
)

pytestmark = pytest.mark.fast


def test_table_of_the_methods_is_that_of_the_shipped_store(tmp_path):
    found = shipped("comparison")
    table = document.to_markdown([report.compact_table(found)], tmp_path)
    assert table.strip() in TEXT
    assert not any(found.is_toy(place) for place in found.references)


def test_words_on_the_methods_are_what_their_store_says():
    found = shipped("comparison")
    said = [
        ("metalr", "linear 3.2e-4", "3.2e-4 (difference "),
        ("metalr", "linear tuned", "chosen by two ("),
        ("metalr", "best shape tuned", "at six rates (three of the hold; "),
        ("metalr_wrap", "metalr", "(difference to metalr "),
        ("metalr", "metalr_prior", "(metalr is ahead by "),
        ("metalr", "metalr_linear", "metalr on linear decay is behind ("),
        ("find_linear", "lr_find_valley", "fastai's valley ("),
    ]
    for method, other, before in said:
        assert f"{before}{difference(found, method, other)}" in WORDS
    lost, _ = paired.sensitivity(found, "metalr")
    assert f"at a sensitivity of {lost:.3f}" in WORDS
    for shape, words in (("constant", "constant ("), ("static", "static (")):
        assert f"{words}{shares(found, f'{shape} tuned')})" in WORDS
    own = shares(found, "metalr_wrap")
    assert f"ends at {own} from 2e-5, where it corrects" in WORDS
    tuned = [
        run
        for run in found.runs
        if run["scheduler"] == "metalr_wrap" and criteria.base_rate(run) == 3.2e-4
    ]
    m = [
        row["lr_multiplier"] for run in tuned for row in run["history"] if "loss" in row
    ]
    assert f"m stays within {min(m):.2f} and {max(m):.2f}" in WORDS
    mixed = shares(found, "metalr_shuffled")
    assert f"metalr ends at {shares(found, 'metalr')} of the best" in WORDS
    assert f"prior alone ends at {shares(found, 'metalr_prior')} (" in WORDS
    assert f"whose prior is the right one, at {mixed} (" in WORDS


FRESH_ROWS = ("linear 3.2e-4", "linear tuned", "wsd 3.2e-4", "wsd tuned", "metalr")


def fresh_cells(found, place):
    """Return the cells of a fresh task; of tuned rows with the chosen rates."""
    cells = [FRESH[place[0]]]
    for row in FRESH_ROWS:
        runs = found.runs_of(row, place)
        at = f" at {rate_names(runs)}" if row.endswith("tuned") else ""
        cells.append(cell(runs, 5) + at)
    return cells


def test_scores_on_fresh_tasks_are_those_of_their_store():
    found = shipped("fresh")
    assert {place[0] for place in found.references} == FRESH.keys()
    for place in found.references:
        task, fixed, tuned, held, _, own = every = fresh_cells(found, place)
        assert f"| {' | '.join(every)} |" in TEXT
        few = (task, fixed, tuned.partition(" at ")[0], held, own)
        assert (f"| {' | '.join(few)} |" in README) == (place in found.learned)


def test_other_rows_on_fresh_tasks_are_those_of_their_store():
    found = shipped("fresh")
    for place in found.learned:
        cells = [
            FRESH[place[0]],
            cell(found.runs_of("metalr_prior", place), 5),
            # From the other base rates there are the first three seeds.
            *(cell(of_metalr(found, place, rate)[:3]) for rate in RATES),
        ]
        assert f"| {' | '.join(cells)} |" in TEXT


SHARES = {
    "best shape tuned": "the better of both shapes, tuned",
    "wsd 3.2e-4": "hold 3.2e-4",
    "wsd 1.6e-4": "hold 1.6e-4",
    "wsd 1e-4": "hold 1e-4",
    "wsd tuned": "hold, tuned",
    "linear 3.2e-4": "linear 3.2e-4",
    "linear 2e-5": "linear 2e-5",
    "linear tuned": "linear, tuned",
    "metalr_prior": "metalr, its prior alone",
    "kerashub": "KerasHub's recipe",
    "autogluon": "AutoGluon's recipe",
    "lr_find_valley": "fastai's valley, then linear",
    "schedule_free_plus": "ScheduleFree+",
    "prodigy": "Prodigy",
}


def test_shares_on_fresh_tasks_are_those_of_their_store():
    found = shipped("fresh")
    fewer = found._replace(
        unlearned=tuple(p for p in found.references if p.task in ("sick", "sst5"))
    )
    assert [p.task for p in found.unlearned] == ["sick"]
    for row, name in SHARES.items():
        seeds = {run["seed"] for run in found.averaged[row].runs}
        gap = difference(found, "metalr", row).replace(", 95 % interval", " (")
        cells = [name, shares(found, row), shares(fewer, row)]
        cells += [f"{gap.replace('( ', '(')})", str(len(seeds))]
        assert f"| {' | '.join(cells)} |" in TEXT
    own = f"| **metalr from 2e-5** | {shares(found, 'metalr')} |"
    assert f"{own} {shares(fewer, 'metalr')} |" in TEXT


def test_the_best_shape_without_its_last_candidate_is_as_the_results_say():
    lines = [
        line
        for line in store("fresh/runs")
        if (line.get("scheduler"), line["settings"]["learning_rate"]) != ("wsd", 1.6e-4)
    ]
    found = comparison.from_lines(lines)
    gap = difference(found, "metalr", "best shape tuned")
    said = f"ends at {shares(found, 'best shape tuned')} (difference of metalr {gap})"
    assert said in WORDS


def test_words_on_rivals_on_fresh_tasks_are_what_their_store_says():
    found = shipped("fresh")
    rows = ("lr_find_valley", "prodigy", "schedule_free_plus")
    valley, prodigy, plus = (shares(found, row) for row in rows)
    assert (
        f"fastai's valley ends at {valley} of the best, Prodigy at {prodigy}, "
        f"ScheduleFree+ at {plus} (three seeds)"
    ) in WORDS


def test_words_on_fresh_tasks_are_what_their_store_says():
    found = shipped("fresh")
    lost, _ = paired.sensitivity(found, "metalr")
    assert f"sensitivity of {lost:.3f}" in WORDS
    for row, words in (
        ("linear tuned", "1, tuned linear decay |"),
        ("best shape tuned", "2, the best shape |"),
        ("metalr_prior", "7, evidence | to the prior alone"),
    ):
        gap = difference(found, "metalr", row).replace(", 95 % interval", " (")
        assert f"{words} {gap.replace('( ', '(')})" in WORDS


def test_shares_in_the_readme_are_those_of_their_store():
    found = shipped("fresh")
    rows = ("metalr", "linear tuned", "linear 3.2e-4", "wsd 3.2e-4", "linear 2e-5")
    own, tuned, fixed, held, low = (shares(found, row) for row in rows)
    said = f"metalr ends here at {own}, the hold at {held}, linear 3.2e-4 at {fixed}, "
    words = " ".join(README.split())
    assert f"{said}tuned at {tuned}, linear 2e-5 at {low}" in words
    fewer = tuple(p for p in found.references if p.task in ("sick", "sst5"))
    rest = found._replace(unlearned=fewer)
    held, own = shares(rest, "wsd 3.2e-4"), shares(rest, "metalr")
    assert f"the hold leads ({held} to {own})" in words
    small = shipped("comparison")
    rows = ("metalr_wrap", "metalr", "linear tuned")
    wrapped, ours, tuned = (shares(small, row) for row in rows)
    said = f"it ends at {wrapped} of the best on three other tasks, `finetune.py`'s "
    assert f"{said}metalr at {ours}, tuned linear at {tuned}" in words


KINDS = {"stsb": "STS-B, Pearson", "conll2003": "CoNLL-2003, F1 of entities"}
KIND_ROWS = ("linear 3.2e-4", "linear tuned", "wsd 3.2e-4", "metalr_prior", "metalr")


def kind_cells(found, place):
    """Return the cells of a task of another kind."""
    cells = [cell(found.runs_of(row, place)) for row in KIND_ROWS]
    cells[1] += f" at {rate_names(found.runs_of('linear tuned', place))}"
    return [KINDS[place[0]], *cells]


def test_scores_on_tasks_of_other_kinds_are_those_of_their_store():
    found = shipped("kinds")
    assert {place[0] for place in found.references} == KINDS.keys()
    for place in found.references:
        assert f"| {' | '.join(kind_cells(found, place))} |" in TEXT
    rows = ("metalr", "wsd 3.2e-4", "best shape tuned", "metalr_prior", "linear tuned")
    own, held, shape, prior, tuned = (shares(found, row) for row in rows)
    assert (
        f"metalr has {own}, the hold at 3.2e-4 {held}, the best shape tuned {shape}, "
        f"metalr's prior alone {prior} and linear decay tuned {tuned}."
    ) in WORDS
    for row, words in (
        ("best shape tuned", "claim 2 is a **miss** ("),
        ("wsd 3.2e-4", "3 no win ("),
        ("metalr_prior", "7 **not met** ("),
    ):
        gap = paired.score_difference(found, "metalr", row)
        assert f"{words}{gap.estimate:+.3f})" in WORDS
