"""The conclusions of a comparison say what its numbers say."""

import pytest

from metalr.compare import comparison
from metalr.report import conclusions
from tests.compare.synthetic_store import a_run, pair_of_rows

pytestmark = pytest.mark.fast


def sentences(lines, baseline="linear 2e-5"):
    return conclusions.sentences(comparison.from_lines(lines, baseline))


def test_answer_of_a_win_is_worked_out_by_hand():
    # sst2: 0.5 is chance, 0.9 the best, 0.7 half of it; cola: 0.9 and 7/9 of it.
    runs = pair_of_rows([0.9, 0.9, 0.9, 0.9], [0.5, 0.6, 0.7])
    good, shape, untuned, fast, lost = sentences(runs)
    assert "2 tasks, 1 model and 3 seeds" in good
    assert "metalr ends at 1.000" in good
    assert "linear 2e-5 at 0.639: better by +0.361" in good
    assert "6 pairs, fewer than 50), ahead on 2 and behind on 0 of 2 tasks" in good
    assert shape == "Against the best shape: no second shape was tuned here."
    assert untuned.endswith("none is in this comparison.")  # but the baseline
    # The median run of linear ends with 0.7, where metalr is at its first evaluation.
    assert fast.startswith("To 95 % of what the median run of linear 2e-5 ends with")
    assert "it needs 0.33 times the steps of linear 2e-5" in fast
    assert fast.endswith("it misses it in 0 of 6 runs, linear 2e-5 in 0 of 6.")
    assert "no method is better beyond the interval" in lost
    assert "it is behind linear 2e-5 on no task" in lost


def test_answer_of_a_loss_names_it():
    runs = pair_of_rows([0.5, 0.6, 0.7], [0.9, 0.9, 0.9])
    good, *_, fast, lost = sentences(runs)
    assert "worse by -0.361" in good and "ahead on 0 and behind on 2 of 2" in good
    assert fast.startswith("In half of the pairs or more it never reaches 95 % of")
    assert "it loses to linear 2e-5 (-0.361)" in lost
    assert "to linear 2e-5 (1.00 against 0.00)" in lost
    assert "sst2 with minilm:2 (-0.500) and cola with minilm:2 (-0.222)" in lost


def test_three_sentences_are_about_tuned_the_best_shape_and_the_best_untuned():
    ways = {
        ("metalr", 2e-5): 0.8,
        ("linear", 2e-5): 0.6,
        ("linear", 1e-3): 0.7,
        ("wsd", 2e-5): 0.6,
        ("wsd", 1e-3): 0.9,
        ("prodigy", 1.0): 0.75,
    }
    runs = [
        a_run(scheduler=scheduler, rate=rate, seed=seed, scores=[score])
        for (scheduler, rate), score in ways.items()
        for seed in range(6)
    ]
    tuned, shape, untuned, *_ = sentences(runs, None)
    assert "metalr ends at 0.750 of" in tuned
    assert "linear tuned at 0.500: better by +0.250" in tuned
    assert "(4 tries, ends at 1.000): worse by -0.250" in shape
    assert "prodigy (picked by these scores, ends at 0.625): better by" in untuned
    assert "ahead on 1 and behind on 0 of 1" in untuned


@pytest.mark.parametrize("scheduler", ["metalr_prior", "find_metalr", "prodigy"])
def test_what_metalr_alone_learns_is_named_and_the_rest_said_without_it(scheduler):
    runs = pair_of_rows([0.8, 0.8, 0.8], [0.7, 0.7, 0.7], tasks=("sst2",))
    # cola: chance is 0, and 0.1 the least that counts as learned.
    runs += pair_of_rows([0.4, 0.4, 0.4], [0.05, 0.05, 0.05], tasks=("cola",))
    runs += [a_run("cola", scheduler=scheduler, rate=1.0, scores=[0.3])]
    said = [x for x in sentences(runs) if x.startswith("No method but")]
    if scheduler == "prodigy":
        assert said == []
    else:
        assert said == [
            "No method but metalr and its variants learns cola with minilm:2; without "
            "it metalr ends at 1.000 and linear 2e-5 at 0.667."
        ]


def test_what_nobody_but_metalr_learns_is_said_where_nothing_is_left_without_it():
    runs = pair_of_rows([0.8, 0.8, 0.8], [0.5, 0.5, 0.5], tasks=("sst2",))
    (said,) = [x for x in sentences(runs) if x.startswith("No method but")]
    assert said == "No method but metalr and its variants learns sst2 with minilm:2."
    alone = [run for run in runs if run["scheduler"] == "metalr"]
    assert not [x for x in sentences(alone, None) if x.startswith("No method but")]


def test_answer_of_a_tie_claims_nothing():
    runs = pair_of_rows([0.6, 0.8], [0.6, 0.8], tasks=("sst2",))
    runs[0] = a_run(scheduler="metalr", seed=0, scores=[0.6], failed="not finite")
    good, *_, fast, lost = sentences(runs)
    assert "too few pairs to tell, different by -0.333" in good
    assert "1.00 times the steps of linear 2e-5" in fast and "seconds" not in fast
    assert "no method is better beyond the interval" in lost
    assert lost.endswith("and 1 of its 3 runs failed.")


def test_equal_runs_are_not_called_better():
    good, *_ = sentences(pair_of_rows([0.8], [0.8]))
    assert "not distinguishable with these runs, different by +0.000" in good
    assert "better" not in good


def test_interval_that_holds_nothing_claims_nothing():
    runs = pair_of_rows([0.6, 0.8], [0.6, 0.8])
    runs[0] = a_run(scheduler="metalr", seed=0, scores=[0.6], failed="not finite")
    good, *_ = sentences(runs)
    assert "not distinguishable with these runs, different by" in good


def test_seconds_are_told_beside_steps_where_runs_know_them():
    runs = pair_of_rows([0.8, 0.8], [0.6, 0.8], tasks=("sst2",), step_seconds=0.5)
    for run in runs[:3]:
        run["step_seconds"] = 1.5
    fast = sentences(runs)[3]
    assert "it needs 0.50 times the steps" in fast
    assert "and 1.50 times the seconds (1.50 to 1.50)" in fast


def test_answer_about_the_baseline_itself_compares_it_with_nothing():
    good, *_, fast, _ = sentences([a_run(scheduler="metalr")], baseline="metalr")
    assert good.endswith("it is the baseline.")
    assert fast.startswith("It reaches 95 % of what the median run of metalr ends with")


def test_seeds_that_only_one_has_do_not_put_it_behind():
    own = [(0, 0.8), (1, 0.81), (2, 0.6)]
    runs = [a_run(scheduler="metalr", seed=n, scores=[score]) for n, score in own]
    runs += [a_run(seed=n, scores=[score - 0.01]) for n, score in own[:2]]
    good, *_, lost = sentences(runs)
    assert "ahead on 1 and behind on 0 of 1" in good
    assert "it is behind linear 2e-5 on no task" in lost


def test_a_lead_is_counted_where_both_ran():
    runs = pair_of_rows([0.9], [0.7])
    runs += [a_run("sst2", scheduler="wsd", scores=[0.6], seed=k) for k in range(3)]
    good, _, untuned, *_ = sentences(runs)
    assert "ahead on 2 and behind on 0 of 2 tasks" in good
    assert "behind on 0 of 1 tasks and models where both ran" in untuned  # not on cola


def test_scope_is_that_of_the_subjects_runs():
    runs = [a_run("sst2", scheduler="metalr", scores=[0.8])]
    runs += [
        a_run(task, seed=n, scores=[0.7]) for task in ("sst2", "cola") for n in (0, 1)
    ]
    good, *_ = sentences(runs)
    assert good.startswith("Over 1 task, 1 model and 1 seed, metalr ends at")
