"""Runs are grouped by method, and a tuned method shows its price."""

import pytest

from metalr.compare import criteria, methods
from metalr.errors import MetalrError
from tests.compare.synthetic_store import a_run

pytestmark = pytest.mark.fast


def test_tuned_method_has_the_rate_with_the_best_mean_of_each_workload():
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
    table = methods.group(runs)
    assert list(table) == ["linear 2e-5", "linear tuned"]
    chosen = {(r["task"], criteria.base_rate(r)) for r in table["linear tuned"].runs}
    assert chosen == {("sst2", 1e-4), ("cola", 2e-5)}
    sst2, cola = ("sst2", "minilm:2"), ("cola", "minilm:2")
    assert table["linear tuned"].steps_paid(sst2, 40) == 160
    assert table["linear tuned"].steps_paid(cola, 40) == 80
    assert table["linear 2e-5"].steps_paid(sst2, 40) == 40
    assert {criteria.base_rate(r) for r in table["linear 2e-5"].runs} == {2e-5}


def test_methods_are_named_by_scheduler_and_rate():
    ways = [("prodigy", 1.0), ("metalr", 2e-5), ("metalr", 3.2e-4), ("static", 2e-5)]
    ways += [("cosine", 1e-4), ("cosine", 1e-4), ("cosine", 5e-4)]
    runs = [a_run(scheduler=s, rate=r, seed=i) for i, (s, r) in enumerate(ways)]
    table = methods.group(runs)
    expected = ["prodigy", "metalr", "static 2e-5", "cosine 1e-4", "cosine tuned"]
    assert list(table) == expected
    assert [criteria.base_rate(run) for run in table["metalr"].runs] == [2e-5]


def test_unknown_baseline_is_answered_with_the_nearest_names():
    found = methods.group([a_run()])
    with pytest.raises(MetalrError, match="unknown baseline 'linear'.*'linear 2e-5'"):
        methods.choose_baseline(found, "linear")
