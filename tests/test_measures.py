"""Measures of a comparison give what is worked out by hand."""

import math

import numpy as np
import pytest

from metalr import measures
from metalr.errors import MetalrError
from tests.synthetic_store import a_run, store

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


def test_spread_of_numbers_agrees_with_numpy_and_of_one_seed_is_none():
    found = measures.spread([1.0, 2.0, 4.0, 9.0])
    assert found == pytest.approx((4.0, 3.0, 3.5, math.sqrt(38 / 3), 4))
    assert measures.spread([7.0]) == (7.0, 7.0, 0.0, 0.0, 1)


@pytest.mark.parametrize(
    ("values", "median", "iqr"),
    [
        ([10, 20, math.inf], 20, NAN),
        ([10, math.inf, math.inf], math.inf, NAN),
        ([10, 20, 30, 40, math.inf], 30, 20),
        ([math.inf] * 3, math.inf, NAN),
    ],
)
def test_a_miss_keeps_the_median_and_makes_the_mean_infinite(values, median, iqr):
    found = measures.spread(values)
    assert found.mean == math.inf
    assert found.median == median
    np.testing.assert_equal(found.iqr, iqr)


def test_tuned_row_takes_the_rate_with_the_best_mean_of_each_problem():
    finals = {  # (task, rate): the seeds' final scores
        ("sst2", 2e-5): (0.6, 0.6),
        ("sst2", 1e-4): (0.9, 0.5),  # mean 0.7
        ("sst2", 1e-3): (0.69, 0.69),
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
    assert measures.cost(table["linear tuned"], sst2, 40) == 120
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


def test_ranks_share_ties_and_put_failures_last():
    runs = [
        a_run(scheduler="metalr", scores=[0.8]),
        a_run(scheduler="prodigy", scores=[0.8]),
        a_run(scheduler="dowg", scores=[0.9], failed="not finite"),
        a_run(scheduler="plateau", scores=[0.4]),  # below chance, but it ended
        a_run(scheduler="metalr", seed=1, scores=[0.9]),  # a block that is not full
    ]
    ranks = measures.mean_ranks(measures.rows(runs))
    assert ranks == {"metalr": 1.5, "prodigy": 1.5, "plateau": 3, "dowg": 4}


def test_rank_is_unknown_without_a_block_that_all_rows_share():
    runs = [a_run(), a_run(scheduler="metalr", seed=1)]
    assert all(map(math.isnan, measures.mean_ranks(measures.rows(runs)).values()))


def test_profile_of_three_rows_on_two_problems():
    curves = {  # steps to 95 % of the best: 10 a place in the list
        ("metalr", "sst2"): [0.9, 0.9, 0.9, 0.9],  # 10, the fastest
        ("metalr", "cola"): [0.1, 0.1, 0.9, 0.9],  # 30
        ("prodigy", "sst2"): [0.5, 0.5, 0.9, 0.9],  # 30
        ("prodigy", "cola"): [0.1, 0.9, 0.9, 0.9],  # 20, the fastest
        ("dowg", "sst2"): [0.5, 0.5, 0.5, 0.5],  # misses; and has no run on cola
    }
    runs = [a_run(task, scheduler=s, scores=c) for (s, task), c in curves.items()]
    found = measures.factors(measures.rows(runs), 0.95)
    np.testing.assert_allclose(found["metalr"], [1, 1.5])
    np.testing.assert_allclose(found["prodigy"], [3, 1])
    assert np.isinf(found["dowg"]).all()
    taus = np.array([1, 1.49, 1.5, 3, 4])
    shares = [measures.profile(found[s], taus).tolist() for s in found]
    assert shares == [[0.5, 0.5, 1, 1, 1], [0.5, 0.5, 0.5, 1, 1], [0] * 5]
    scores = [measures.profile_score(found[s]) for s in found]
    np.testing.assert_allclose(scores, [(3 + 2.5) / 6, (1 + 3) / 6, 0])


def test_profile_score_is_the_integral_of_the_profile():
    factors = np.array([1.0, 1.3, 2.7, 3.9, 8.0, math.inf])
    taus = np.linspace(1, 4, 30001)
    integral = np.trapezoid(measures.profile(factors, taus), taus) / 3
    assert measures.profile_score(factors) == pytest.approx(integral, abs=1e-4)


def test_pairs_are_of_the_same_problem_and_seed():
    runs = [a_run(scheduler="metalr", seed=s, scores=[0.8 + s / 100]) for s in range(4)]
    runs += [a_run(seed=s, scores=[0.7 - s / 100]) for s in (3, 1, 9)]
    table = measures.rows(runs)
    own, other = measures.paired(
        table["metalr"], table["linear 2e-5"], measures.final_score
    )
    np.testing.assert_allclose(own, [0.81, 0.83])
    np.testing.assert_allclose(other, [0.69, 0.67])


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        found = measures.bootstrap(rng.normal(3.0, 1.0, 40), draws=300)
        held += found.low <= 3.0 <= found.high
    assert 0.88 <= held / 200 <= 0.99  # the percentile interval is a little short


def test_bootstrap_is_seeded_and_needs_pairs():
    numbers = np.random.default_rng(0).normal(size=30)
    assert measures.bootstrap(numbers) == measures.bootstrap(numbers)
    assert measures.bootstrap(numbers) != measures.bootstrap(numbers, seed=1)
    assert measures.bootstrap(np.array([2.0])) == (2.0, 2.0, 2.0, 1)
    assert measures.bootstrap(np.array([])).pairs == 0


def test_ratios_survive_misses_on_either_side():
    own, other = (
        np.array([20.0, math.inf, 20, math.inf]),
        np.array([40.0, 40, math.inf]),
    )
    found = measures.ratio(own, np.append(other, math.inf))
    np.testing.assert_equal(found, [0.5, math.inf, 0.0, 1.0])
    interval = measures.bootstrap(found, np.median)
    assert interval.middle == 0.75
    assert (interval.low, interval.high) == (0.0, math.inf)


def test_sensitivity_groups_final_scores_by_rate():
    runs = [
        a_run(rate=1e-3, seed=0, scores=[0.9]),
        a_run(rate=2e-5, seed=0, scores=[0.6]),
        a_run(rate=1e-3, seed=1, failed="not finite"),
    ]
    found = measures.sensitivity(runs)["linear"]
    assert list(found) == [2e-5, 1e-3]
    np.testing.assert_array_equal(found[1e-3], [0.9, 0.5])


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
