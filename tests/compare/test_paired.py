"""How far two methods are apart."""

import math

import pytest

from metalr.compare import comparison, paired
from metalr.errors import MetalrError
from tests.compare.synthetic_store import a_run


def metalr_and_linear(**of_metalr):
    return [
        a_run(scheduler=scheduler, seed=seed, **fields)
        for scheduler, fields in (("metalr", of_metalr), ("linear", {}))
        for seed in range(2)
    ]


def test_pairs_from_two_kinds_of_device_are_refused_unless_asked_for():
    cpu, gpu = ({"kind": kind, "threads": 2} for kind in ("cpu", "NVIDIA H200"))
    lines = metalr_and_linear(device=gpu)
    message = r"sst2 with minilm:2, seed 0, metalr at 2e-5 \(NVIDIA H200\) and linear"
    with pytest.raises(MetalrError, match=message):
        found = comparison.from_lines(lines, "linear 2e-5")
        paired.score_difference(found, "metalr")
    found = comparison.from_lines(lines, "linear 2e-5", mix_devices=True)
    assert paired.score_difference(found, "metalr").pairs == 2
    same = [line | {"device": cpu} for line in lines]
    found = comparison.from_lines(same, "linear 2e-5")
    assert paired.score_difference(found, "metalr").pairs == 2


def test_sensitivity_is_what_a_rate_16_times_off_costs():
    finals = {1.25e-6: 0.5, 2e-5: 0.9, 3.2e-4: 0.7, 1e-4: 1.0}
    lines = [a_run(rate=rate, scores=[score]) for rate, score in finals.items()]
    found = comparison.from_lines(lines, "linear 2e-5")
    # Shares of the best: 0, 0.8, 0.4.
    assert paired.sensitivity(found, "linear") == (pytest.approx(0.4), 1)
    # A seed that did not run at all three rates says nothing of them.
    more = [*lines, a_run(seed=1, scores=[0.6]), a_run(seed=1, rate=3.2e-4)]
    found = comparison.from_lines(more, "linear 2e-5")
    assert paired.sensitivity(found, "linear") == (pytest.approx(0.4), 1)
    found = comparison.from_lines(lines[:2], "linear 2e-5")
    assert math.isnan(paired.sensitivity(found, "linear")[0])


def test_sensitivity_is_the_mean_over_tasks_of_each_ones_own():
    finals = {"sst2": (0.5, 0.9, 0.7), "cola": (0.8, 0.8, 0.8)}
    lines = [
        a_run(task, rate=rate, scores=[score])
        for task, scores in finals.items()
        for rate, score in zip((1.25e-6, 2e-5, 3.2e-4), scores, strict=True)
    ]
    found = comparison.from_lines(lines, "linear 2e-5")
    # sst2: shares 0, 1 and 0.5 lose 1, 0 and 0.5; cola loses nothing.
    assert paired.sensitivity(found, "linear") == (pytest.approx(0.25), 2)


def test_best_untuned_is_the_best_rival_without_a_choice():
    lines = [
        a_run(scheduler=scheduler, rate=rate, scores=[score])
        for scheduler, rate, score in (
            ("metalr", 2e-5, 0.9),
            ("metalr_fixed", 2e-5, 0.85),
            ("linear", 2e-5, 0.6),
            ("linear", 3.2e-4, 0.8),
            ("wsd", 2e-5, 0.7),
            ("prodigy", 1.0, 0.75),
        )
    ]
    found = comparison.from_lines(lines)
    assert found.baseline == "linear tuned"
    assert paired.best_untuned(found) == "linear 3.2e-4"


def test_each_task_counts_alike_however_many_seeds_it_has():
    lines = [
        a_run(task=task, seed=seed, scheduler=name, scores=[score])
        for name, easy, hard in (("metalr", 0.9, 0.6), ("linear", 0.9, 0.9))
        for task, score, seeds in (("sst2", easy, 3), ("cola", hard, 1))
        for seed in range(seeds)
    ]
    found = comparison.from_lines(lines, "linear 2e-5")
    means = [found.mean(name, "share of the best") for name in found.methods]
    gap = paired.score_difference(found, "metalr")
    assert gap.estimate == pytest.approx(means[0] - means[1]) and gap.estimate < 0


def test_best_untuned_row_is_one_that_ran_everywhere():
    lines = [a_run(task=task, scores=[0.6]) for task in ("sst2", "cola")]
    lines += [a_run(task=t, scheduler="prodigy", rate=1.0) for t in ("sst2", "cola")]
    lines += [a_run(scheduler="dowg", rate=1.0, scores=[0.99])]
    assert paired.best_untuned(comparison.from_lines(lines, "linear 2e-5")) == (
        "prodigy"
    )
