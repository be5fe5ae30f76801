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
    good, fast, lost = sentences(pair_of_rows([0.9, 0.9, 0.9, 0.9], [0.5, 0.6, 0.7]))
    assert "2 tasks, 1 model and 3 seeds" in good
    assert "metalr ends at 1.000" in good
    assert "linear 2e-5 at 0.639: better by +0.361" in good
    assert "6 pairs" in good
    assert fast.startswith("In most pairs it reaches 95 % of the best score and lin")
    assert fast.endswith("it misses it in 0 of 6 runs, linear 2e-5 in 6 of 6.")
    assert "no method is better beyond the interval" in lost
    assert "it is behind linear 2e-5 on no task" in lost


def test_answer_of_a_loss_names_it():
    runs = pair_of_rows([0.5, 0.6, 0.7], [0.9, 0.9, 0.9])
    good, fast, lost = sentences(runs)
    assert "worse by -0.361" in good
    assert fast.startswith("In half of the pairs or more it never reaches 95 % of")
    assert "it loses to linear 2e-5 (-0.361)" in lost
    assert "to linear 2e-5 (1.00 against 0.00)" in lost
    assert "sst2 with minilm:2 (-0.500) and cola with minilm:2 (-0.222)" in lost


def test_answer_of_a_tie_claims_nothing():
    runs = pair_of_rows([0.6, 0.8], [0.6, 0.8], tasks=("sst2",))
    runs[0] = a_run(scheduler="metalr", seed=0, scores=[0.6], failed="not finite")
    good, fast, lost = sentences(runs)
    assert "not distinguishable with these runs, different by -0.333" in good
    assert "1.00 times the steps of linear 2e-5" in fast
    assert lost.endswith("and 1 of its 3 runs failed.")


def test_answer_about_the_baseline_itself_compares_it_with_nothing():
    good, fast, _ = sentences([a_run(scheduler="metalr")], baseline="metalr")
    assert good.endswith("it is the baseline.")
    assert fast == "It reaches 95 % of the best score, or misses it in 0 of 1 run."
