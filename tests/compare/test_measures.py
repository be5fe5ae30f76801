"""Measures of a run give what is worked out by hand."""

import math

import numpy as np
import pytest

from metalr.compare import measures
from metalr.errors import MetalrError
from tests.compare.synthetic_store import a_run, store

pytestmark = pytest.mark.fast

BAR = measures.Bar(chance=0.5, best=0.9, horizon=40)  # 95 % of best: 0.88
NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "steps", "epochs"),
    [
        ([0.6, 0.7, 0.8, 0.87], math.inf, math.inf),  # never
        ([0.6, 0.88, 0.9, 0.9], 20, 1.0),  # equality counts
        ([0.6, 0.89, 0.7, 0.89], 20, 1.0),  # twice: the first time
        ([0.6, NAN, None, 0.89], 40, 2.0),  # no number is no score
        ([0.9, 0.9, 0.9, NAN], math.inf, math.inf),  # ended without a number
        ([], math.inf, math.inf),
    ],
)
def test_first_evaluation_at_the_target_counts(scores, steps, epochs):
    found = measures.to_target(a_run(scores=scores), BAR.target(0.95))
    assert found == (steps, epochs)


def test_a_failed_run_scores_chance_and_reaches_nothing():
    run = a_run(scores=[0.9, 0.9], failed="the loss was not finite at step 25")
    assert measures.final_score(run) == measures.best_score(run) == 0.5
    assert measures.to_target(run, 0.8) == (math.inf, math.inf)
    assert measures.area(run, BAR) == 0
    assert measures.bars([run])["sst2", "minilm:2"].target(0.95) == math.inf


@pytest.mark.parametrize(("scores", "last", "best"), [([0.7, NAN, 0.6], 0.6, 0.7)])
def test_last_score_and_best_score(scores, last, best):
    run = a_run(scores=scores)
    assert (measures.final_score(run), measures.best_score(run)) == (last, best)


def test_bar_is_the_best_final_score_of_each_problem():
    runs = [
        a_run(scores=[0.95, 0.8]),  # its best, 0.95, is not final
        a_run(scores=[0.6, 0.9, 0.85], seed=1),
        a_run("cola", scores=[0.1]),
    ]
    found = measures.bars(runs)
    assert found["sst2", "minilm:2"] == (0.5, 0.85, 30)
    assert found["cola", "minilm:2"] == (0.0, 0.1, 10)
    assert found["sst2", "minilm:2"].target(0.95) == pytest.approx(0.8325)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.9, 0.9, 0.9, 0.9], 3.5 / 4),  # the first tenth rises from chance
        ([0.5, 0.5, 0.5, 0.5], 0.0),
        ([0.7, 0.7], (0.25 + 0.5 + 0.5 + 0.5) / 4),  # stopped at 20, holds to 40
        ([0.7, NAN, 0.7, 0.7], (0.25 + 0.5 + 0.5 + 0.5) / 4),  # bridged
        ([0.3, 0.3, 0.3, 0.3], -3.5 / 8),  # below chance
    ],
)
def test_area_is_the_sum_of_trapezoids(scores, expected):
    assert measures.area(a_run(scores=scores), BAR) == pytest.approx(expected)


def test_area_starts_at_an_evaluation_before_the_first_step():
    rows = [{"step": s, "epoch": s, "accuracy": 0.9} for s in (0, 40)]
    assert measures.area(a_run(history=rows), BAR) == pytest.approx(1.0)


def test_tuned_row_takes_the_rate_with_the_best_mean_of_each_problem():
    finals = {  # (task, rate): the seeds' final scores
        ("sst2", 2e-5): (0.6, 0.6),
        ("sst2", 1e-4): (0.9, 0.5),  # mean 0.7
        ("sst2", 1e-3): (0.69, 0.69),
        ("sst2", 5e-4): (0.95,),  # one lucky seed is no mean of two
        ("cola", 2e-5): (0.3, 0.3),
        ("cola", 1e-4): (0.3, 0.3),  # a tie: the lower rate
    }
    runs = [
        a_run(task, rate=rate, seed=seed, scores=[score])
        for (task, rate), scores in finals.items()
        for seed, score in enumerate(scores)
    ]
    table = measures.rows(runs)
    assert list(table) == ["linear 2e-5", "linear tuned"]
    chosen = {(r["task"], measures.rate(r)) for r in table["linear tuned"].runs}
    assert chosen == {("sst2", 1e-4), ("cola", 2e-5)}
    sst2, cola = ("sst2", "minilm:2"), ("cola", "minilm:2")
    assert measures.cost(table["linear tuned"], sst2, 40) == 160
    assert measures.cost(table["linear tuned"], cola, 40) == 80
    assert measures.cost(table["linear 2e-5"], sst2, 40) == 40
    assert {measures.rate(r) for r in table["linear 2e-5"].runs} == {2e-5}


def test_rows_are_named_by_scheduler_and_rate():
    ways = [("prodigy", 1.0), ("metalr", 2e-5), ("metalr", 3.2e-4), ("static", 2e-5)]
    ways += [("cosine", 1e-4), ("cosine", 1e-4), ("cosine", 5e-4)]
    runs = [a_run(scheduler=s, rate=r, seed=i) for i, (s, r) in enumerate(ways)]
    table = measures.rows(runs)
    expected = ["prodigy", "metalr", "static 2e-5", "cosine 1e-4", "cosine tuned"]
    assert list(table) == expected
    assert [measures.rate(run) for run in table["metalr"].runs] == [2e-5]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: measures.measure("final"), "unknown measure 'final'.*'final score'"),
        (
            lambda: measures.row(measures.rows([a_run()]), "linear"),
            "unknown baseline 'linear'.*'linear 2e-5'",
        ),
    ],
)
def test_unknown_names_are_answered_with_the_near_ones(ask, message):
    with pytest.raises(MetalrError, match=message):
        ask()


def test_every_measure_is_a_number_on_every_run_of_a_store():
    runs = [run for run in store(seeds=2) if run["kind"] == "run"]
    bars = measures.bars(runs)
    for name in measures.MEASURES:
        values = [measures.measure(name)(r, bars[measures.problem(r)]) for r in runs]
        assert not np.isnan(values).any(), name
