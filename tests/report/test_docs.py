"""The documents say what the shipped stores hold, and their links lead somewhere."""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from metalr.compare import comparison, criteria
from metalr.compare import store as stores
from metalr.report import document, report

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TEXT = "".join(p.read_text() for p in sorted((ROOT / "docs").glob("results*.md")))
WORDS = " ".join(TEXT.split())
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
DOCUMENTS += (ROOT / ".github").glob("*.md")
TASKS = {"sst2": "SST-2", "imdb": "IMDB", "ag_news": "AG News", "squad": "SQuAD, F1"}
PLAIN = ("linear", "static")  # methods at 2e-5
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
    return f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}"


def rate_names(runs):
    """Return the rates of runs, each once: seeds may choose different ones."""
    rates = sorted({criteria.base_rate(run) for run in runs})
    return " and ".join(map(criteria.format_rate, rates))


def difference(found, method, other):
    """Return the paired difference of two methods with its interval, as it is said."""
    gap = comparison.score_difference(found, method, other)
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


def test_table_of_the_methods_is_that_of_the_shipped_store(tmp_path):
    found = shipped("comparison")
    table = document.to_markdown([report.compact_table(found)], tmp_path)
    assert table.strip() in TEXT
    assert not any(found.is_toy(place) for place in found.references)


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
    lost = comparison.sensitivity(found, "metalr")
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


def rate(number):
    return f"{number:.1e}".replace("e-0", "e-")


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


def test_scores_of_version_3_on_the_targets_are_those_of_their_store():
    # The other two columns are those of the sizes left out.
    for task in ("imdb", "ag_news"):
        runs = [run for run in store("targets/version-3") if run["task"] == task]
        words = TEXT[TEXT.index("| metalr, version 3 |") :]
        row = re.search(rf"\| {TASKS[task]}, 2 layers \|(.*)\|\n", words)
        assert row and row[1].split("|")[-1].strip() == cell(runs)


def test_scores_of_version_4_on_the_targets_are_those_of_their_store():
    found, words = shipped("targets"), TEXT[TEXT.index("### Old targets with six") :]
    for run in store("targets/version-4"):
        (tuned,) = (
            other
            for other in found.runs_of("linear tuned", criteria.workload(run))
            if other["seed"] == run["seed"]
        )
        name = f"{TASKS[run['task']]}, {('first', 'second')[run['seed']]}"
        assert f"| {name} | {final(tuned):.3f} | {final(run):.3f} |" in words


FRESH = {"emotion": "emotion", "sick": "SICK", "sst5": "SST-5", "mr": "MR"}
FRESH["financial_phrasebank"] = "Financial PhraseBank"


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
        gap = comparison.score_difference(found, "metalr", row)
        assert f"{words}{gap.estimate:+.3f})" in WORDS


DEPTH_TASKS = ("mr", "emotion", "sst5", "financial_phrasebank")
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
    assert len(found.learned) == 10
    shown = {
        row: f"{found.mean(row, 'share of the best'):.3f}" for row in found.methods
    }
    assert f"| metalr from 2e-5 | {shown['metalr']} | |" in TEXT
    for row, name in ALL_DEPTHS.items():
        gap = comparison.score_difference(found, "metalr", row)
        ends = f"{gap.low:+.3f} to {gap.high:+.3f}, {gap.pairs} pairs"
        assert f"| {name} | {shown[row]} | {gap.estimate:+.3f} ({ends}) |" in TEXT
        if row in ("wsd 1e-4", "wsd 3.2e-4"):
            assert f"{gap.estimate:+.3f}" in WORDS and gap.low > 0
        elif row == "wsd 1.6e-4":
            words = f"at 1.6e-4 by {gap.estimate:+.3f}, whose interval just holds 0"
            assert words in WORDS and -0.02 < gap.low < 0
    order = ["metalr", *reversed(ALL_DEPTHS)][:3] + [*ALL_DEPTHS][:3]
    assert f"| {' | '.join(shown[row] for row in order)} |" in README


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


def test_words_on_fresh_tasks_are_what_their_store_says():
    found = shipped("fresh")
    lost = comparison.sensitivity(found, "metalr")
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


def test_words_on_a_long_run_are_what_its_store_says():
    runs = {run["scheduler"]: run for run in store("long/runs")}
    scores = {name: f"{final(run):.3f}" for name, run in runs.items()}
    assert f"ends at {scores['metalr']}, linear decay at 3.2e-4 at" in WORDS
    assert f"3.2e-4 at {scores['linear']}, with a standard" in WORDS
    m = {
        row["step"]: row["lr_multiplier"]
        for row in runs["metalr"]["history"]
        if row.get("lr_multiplier") and row["step"] >= 1000
    }
    assert f"multiplier is {m[1000]:.1f} after a third" in WORDS
    low, high = min(m.values()), max(m.values())
    assert f"at most {high:.1f} and at least {low:.1f} from there on" in WORDS
    assert f"drift of {np.log2(high / low):.2f} octaves" in WORDS


def shares(found, row, model=""):
    """Return a row's mean share of the best, each task alike, as it is printed."""
    others = tuple(p for p in found.references if not p.model.endswith(model))
    kept = found._replace(unlearned=(*found.unlearned, *others))
    return f"{kept.mean(row, 'share of the best'):.3f}"


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
        pairs = [
            sorted(runs, key=lambda run: run["seed"])
            for runs in (
                found.runs_of("metalr", place),
                found.runs_of("linear tuned", place),
            )
        ]
        own, tuned = ([final(run) for run in runs] for runs in pairs)
        narrower.append(np.std(own) < np.std(tuned))
        for run, other in zip(*pairs, strict=True):
            chance = run["chance"][run["metric"]]
            target = chance + 0.99 * (final(other) - chance)
            first = [
                next(
                    (
                        row["step"]
                        for row in its["history"]
                        if row.get(run["metric"], -1) >= target
                    ),
                    np.inf,
                )
                for its in (run, other)
            ]
            soon.append(first[0] <= first[1])
    assert (sum(soon), len(soon)) == (12, 24) and not any(narrower)
    assert "as soon as that run in 12 of 24 runs only" in WORDS


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


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_the_documents_lead_to_files(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_readme_is_short_and_has_one_line_that_runs_the_tests():
    code = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for block in code for line in block.splitlines()]
    assert sum("pytest" in line for line in lines) == 1
    assert 600 <= len(README.split()) <= 800
