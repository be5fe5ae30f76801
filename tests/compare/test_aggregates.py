"""Aggregates give what is worked out by hand, or what NumPy and SciPy give."""

import math

import numpy as np
import pytest
import scipy.stats

from metalr.compare import aggregates, criteria, methods
from tests.compare.synthetic_store import a_run

pytestmark = pytest.mark.fast

NAN = math.nan


def test_spread_of_numbers_agrees_with_numpy_and_of_one_seed_is_none():
    found = aggregates.spread([1.0, 2.0, 4.0, 9.0])
    assert found == pytest.approx((4.0, 3.0, 3.5, math.sqrt(38 / 3), 4))
    assert aggregates.spread([7.0]) == (7.0, 7.0, 0.0, 0.0, 1)


@pytest.mark.parametrize(
    ("values", "median", "iqr"),
    [
        ([10, 20, math.inf], 20, NAN),
        ([10, math.inf, math.inf], math.inf, NAN),
        ([10, 20, 30, 40, math.inf], 30, 20),
        ([10, 10, math.inf, math.inf], math.inf, NAN),  # half of them miss
        ([10, 20, 30, math.inf], 25, 20),
        ([math.inf] * 3, math.inf, NAN),
    ],
)
def test_a_miss_keeps_the_median_and_makes_the_mean_infinite(values, median, iqr):
    found = aggregates.spread(values)
    assert found.mean == math.inf
    assert found.median == median
    np.testing.assert_equal(found.iqr, iqr)


def test_ranks_share_ties_and_put_failures_last():
    runs = [
        a_run(scheduler="metalr", scores=[0.8]),
        a_run(scheduler="prodigy", scores=[0.8]),
        a_run(scheduler="dowg", scores=[0.9], failed="not finite"),
        a_run(scheduler="plateau", scores=[0.4]),  # below chance, but it ended
        a_run(scheduler="metalr", seed=1, scores=[0.9]),  # a block that is not full
    ]
    ranks = aggregates.mean_ranks(methods.group(runs))
    assert ranks == {"metalr": 1.5, "prodigy": 1.5, "plateau": 3, "dowg": 4}


def test_rank_is_unknown_without_a_block_that_all_methods_share():
    runs = [a_run(), a_run(scheduler="metalr", seed=1)]
    assert all(map(math.isnan, aggregates.mean_ranks(methods.group(runs)).values()))


def test_profile_of_three_methods_on_two_workloads():
    curves = {  # steps to 95 % of the best: 10 a place in the list
        ("metalr", "sst2"): [0.9, 0.9, 0.9, 0.9],  # 10, the fastest
        ("metalr", "cola"): [0.1, 0.1, 0.9, 0.9],  # 30
        ("prodigy", "sst2"): [0.5, 0.5, 0.9, 0.9],  # 30
        ("prodigy", "cola"): [0.1, 0.9, 0.9, 0.9],  # 20, the fastest
        ("dowg", "sst2"): [0.5, 0.5, 0.5, 0.5],  # misses; and has no run on cola
    }
    runs = [a_run(task, scheduler=s, scores=c) for (s, task), c in curves.items()]
    found = aggregates.slowdowns(methods.group(runs), 0.95, criteria.references(runs))
    np.testing.assert_allclose(found["metalr"], [1, 1.5])
    np.testing.assert_allclose(found["prodigy"], [3, 1])
    assert np.isinf(found["dowg"]).all()
    taus = np.array([1, 1.49, 1.5, 3, 4])
    shares = [aggregates.profile(found[s], taus).tolist() for s in found]
    assert shares == [[0.5, 0.5, 1, 1, 1], [0.5, 0.5, 0.5, 1, 1], [0] * 5]
    scores = [aggregates.profile_score(found[s]) for s in found]
    np.testing.assert_allclose(scores, [(3 + 2.5) / 6, (1 + 3) / 6, 0])


def test_slowdown_is_of_the_median_seed():
    late = [0.5, 0.5, 0.5, 0.9]  # at 40 steps
    runs = [
        a_run(scheduler="metalr", seed=n, scores=s)
        for n, s in enumerate(([0.9] * 4, [0.9] * 4, late))
    ]
    runs += [a_run(seed=n, scores=[0.5, 0.9, 0.9, 0.9]) for n in range(3)]
    found = aggregates.slowdowns(methods.group(runs), 0.95, criteria.references(runs))
    assert found["metalr"].tolist() == [1.0]
    assert found["linear 2e-5"].tolist() == [2.0]


def test_profile_score_is_the_integral_of_the_profile():
    slowdowns = np.array([1.0, 1.3, 2.7, 3.9, 8.0, math.inf])
    taus = np.linspace(1, 4, 30001)
    integral = np.trapezoid(aggregates.profile(slowdowns, taus), taus) / 3
    assert aggregates.profile_score(slowdowns) == pytest.approx(integral, abs=1e-4)


def test_pairs_are_of_the_same_workload_and_seed():
    runs = [a_run(scheduler="metalr", seed=s, scores=[0.8 + s / 100]) for s in range(4)]
    runs += [a_run(seed=s, scores=[0.7 - s / 100]) for s in (3, 1, 9)]
    table = methods.group(runs)
    found = aggregates.pair(table["metalr"], table["linear 2e-5"])
    (pairs,) = found.values()
    scores = [[*map(criteria.final_score, both)] for both in pairs]
    np.testing.assert_allclose(scores, [[0.81, 0.69], [0.83, 0.67]])


def test_interval_covers_the_mean_over_workloads_as_often_as_it_says():
    """Each task has a difference of its own, which seeds alone would not show."""
    rng = np.random.default_rng(1)
    held = by_seeds_alone = 0
    for _ in range(100):
        centres = rng.normal(3.0, 1.0, 12)
        groups = [rng.normal(centre, 0.2, 5) for centre in centres]
        found = aggregates.hierarchical_bootstrap(groups, draws=300)
        held += found.low <= 3.0 <= found.high
        error = 1.96 * 0.2 / math.sqrt(60)
        by_seeds_alone += abs(found.estimate - 3.0) < error
    assert held >= 85  # the percentile interval is a little short
    assert by_seeds_alone < 40


def test_interval_of_one_workload_is_that_of_scipy():
    numbers = np.random.default_rng(3).gamma(2.0, size=60)
    for statistic, theirs in (
        (aggregates.mean_of_means, np.mean),
        (aggregates.median_of_all, np.median),
    ):
        own = aggregates.hierarchical_bootstrap([numbers], statistic, draws=20_000)
        expected = scipy.stats.bootstrap(
            (numbers,), theirs, n_resamples=20_000, method="percentile", rng=1
        ).confidence_interval
        np.testing.assert_allclose((own.low, own.high), expected, rtol=0.02)


def test_interval_is_that_of_drawing_workloads_and_then_seeds_one_by_one():
    rng = np.random.default_rng(4)
    groups = [rng.normal(centre, 1, size) for centre, size in ((0, 2), (2, 5), (5, 3))]
    means = []
    for _ in range(4000):
        drawn = [groups[i] for i in rng.integers(3, size=3)]
        means.append(np.mean([rng.choice(g, len(g)).mean() for g in drawn]))
    own = aggregates.hierarchical_bootstrap(groups)
    assert own.estimate == pytest.approx(np.mean([g.mean() for g in groups]))
    assert own.pairs == 10
    low, high = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose((own.low, own.high), (low, high), atol=0.15)


def test_bootstrap_is_seeded_and_needs_pairs():
    groups = np.random.default_rng(0).normal(size=(3, 10))
    draw = aggregates.hierarchical_bootstrap
    assert draw(groups) == draw(groups)
    assert draw(groups) != draw(groups, seed=1)
    assert draw([[2.0]]) == (2.0, 2.0, 2.0, 1)
    assert draw([]).pairs == draw([[]]).pairs == 0


def test_what_nothing_is_known_of_has_no_spread():
    assert all(map(math.isnan, aggregates.spread([1.0, NAN])[:4]))


def test_profile_by_seconds_is_unknown_where_a_run_does_not_tell_them():
    runs = [
        a_run(scheduler="metalr", step_seconds=0.5),
        a_run(scheduler="prodigy", step_seconds=0.25),
        a_run(scheduler="dowg"),
    ]
    references = criteria.references(runs)
    found = aggregates.slowdowns(
        methods.group(runs), 0.95, references, criteria.seconds_to_target
    )
    assert found["metalr"].tolist() == [2.0] and found["prodigy"].tolist() == [1.0]
    assert np.isnan(found["dowg"]).all()


def test_ratios_survive_misses_on_either_side():
    own, other = (
        np.array([20.0, math.inf, 20, math.inf]),
        np.array([40.0, 40, math.inf]),
    )
    found = aggregates.step_ratios(own, np.append(other, math.inf))
    np.testing.assert_equal(found, [0.5, math.inf, 0.0, 1.0])
    interval = aggregates.hierarchical_bootstrap([found], aggregates.median_of_all)
    assert interval.estimate == 0.75
    assert (interval.low, interval.high) == (0.0, math.inf)


def test_final_scores_are_grouped_by_rate():
    runs = [
        a_run(rate=1e-3, seed=0, scores=[0.9]),
        a_run(rate=2e-5, seed=0, scores=[0.6]),
        a_run(rate=1e-3, seed=1, failed="not finite"),
    ]
    found = aggregates.final_scores_by_rate(runs)["linear"]
    assert list(found) == [2e-5, 1e-3]
    np.testing.assert_array_equal(found[1e-3], [0.9, 0.5])
