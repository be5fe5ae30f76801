"""Runs are grouped by method, and a tuned method shows its price."""

import numpy as np
import pytest

from metalr.compare import criteria, methods
from metalr.errors import MetalrError
from tests.compare.synthetic_store import a_run

pytestmark = pytest.mark.fast


def test_tuned_method_has_the_rate_that_the_other_seeds_choose():
    finals = {  # (task, rate): the seeds' final scores
        ("sst2", 2e-5): (0.6, 0.6),
        ("sst2", 1e-4): (0.9, 0.5),
        ("sst2", 1e-3): (0.69, 0.69),
        ("sst2", 5e-4): (0.95,),  # one lucky seed has no other to be chosen by
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
    chosen = {
        (r["task"], r["seed"]): criteria.base_rate(r)
        for r in table["linear tuned"].runs
    }
    # Seed 1 has its best score at 1e-3, seed 0 at 1e-4: each is the other's choice.
    assert chosen == {
        ("sst2", 0): 1e-3,
        ("sst2", 1): 1e-4,
        ("cola", 0): 2e-5,
        ("cola", 1): 2e-5,
    }
    sst2, cola = ("sst2", "minilm:2"), ("cola", "minilm:2")
    assert table["linear tuned"].steps_paid(sst2, 40) == 160
    assert table["linear tuned"].steps_paid(cola, 40) == 80
    assert table["linear 2e-5"].steps_paid(sst2, 40) == 40
    assert {criteria.base_rate(r) for r in table["linear 2e-5"].runs} == {2e-5}


def test_one_seed_alone_is_chosen_by_its_own_score():
    runs = [a_run(rate=rate, scores=[x]) for rate, x in ((2e-5, 0.6), (1e-3, 0.7))]
    (run,) = methods.group(runs)["linear tuned"].runs
    assert criteria.base_rate(run) == 1e-3


def test_choice_does_not_follow_the_noise_of_the_seed_that_it_is_shown_by():
    """Without any difference between the rates a choice gains nothing."""
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(100):
        runs = [
            a_run(rate=rate, seed=seed, scores=[float(rng.normal(0.7, 0.05))])
            for rate in (1e-5, 2e-5, 1e-4, 1e-3)
            for seed in range(5)
        ]
        tuned = methods.group(runs)["linear tuned"].runs
        gains.append(np.mean([*map(criteria.final_score, tuned)]) - 0.7)
    assert abs(np.mean(gains)) < 0.01  # the best of four would gain 0.02


def test_best_shape_is_chosen_among_all_that_were_tuned():
    finals = {
        ("linear", 2e-5): 0.6,
        ("linear", 3.2e-4): 0.7,
        ("wsd", 2e-5): 0.6,
        ("wsd", 1.6e-4): 0.7,
        ("wsd", 3.2e-4): 0.8,
        ("static", 2e-5): 0.9,  # at one rate: nobody tuned it
    }
    runs = [
        a_run(scheduler=scheduler, rate=rate, seed=seed, scores=[score])
        for (scheduler, rate), score in finals.items()
        for seed in range(2)
    ]
    table = methods.group(runs)
    assert list(table) == [
        "linear 2e-5",
        "linear 3.2e-4",
        "linear tuned",
        "wsd 2e-5",
        "wsd 1.6e-4",
        "wsd 3.2e-4",
        "wsd tuned",
        "static 2e-5",
        "best shape tuned",
    ]
    best = table["best shape tuned"]
    assert {(r["scheduler"], criteria.base_rate(r)) for r in best.runs} == {
        ("wsd", 3.2e-4)
    }
    assert best.steps_paid(("sst2", "minilm:2"), 1) == 5
    untuned = [name for name, method in table.items() if method.untuned]
    assert untuned == [
        "linear 2e-5",
        "linear 3.2e-4",
        "wsd 2e-5",
        "wsd 1.6e-4",
        "wsd 3.2e-4",
        "static 2e-5",
    ]


def test_a_recipe_is_shown_at_its_own_rate_and_learned_rows_are_no_rivals():
    runs = [
        a_run(scheduler="autogluon", rate=rate, seed=seed)
        for rate in (2e-5, 1e-4)
        for seed in range(3 if rate == 2e-5 else 2)
    ]
    runs += [a_run(scheduler=s) for s in ("metalr", "metalr_fixed", "prodigy")]
    table = methods.group(runs)
    assert {criteria.base_rate(r) for r in table["autogluon"].runs} == {1e-4}
    untuned = [name for name, method in table.items() if method.untuned]
    assert untuned == ["autogluon", "prodigy"]


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
