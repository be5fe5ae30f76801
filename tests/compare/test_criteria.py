"""Criteria of a run give what is worked out by hand."""

import math

import numpy as np
import pytest

from metalr.compare import criteria
from metalr.errors import MetalrError
from tests.compare.synthetic_store import a_run, store

pytestmark = pytest.mark.fast

REFERENCE = criteria.Reference(chance=0.5, best=0.9, horizon=40)  # 95 % of best: 0.88
NAN = math.nan


def value(name, run):
    return criteria.criterion(name)(run, REFERENCE)


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
    found = criteria.to_target(a_run(scores=scores), REFERENCE.target(0.95))
    assert found == (steps, epochs)


def test_a_failed_run_scores_chance_and_reaches_nothing():
    run = a_run(scores=[0.9, 0.9], failed="the loss was not finite at step 25")
    assert criteria.final_score(run) == criteria.best_score(run) == 0.5
    assert criteria.to_target(run, 0.8) == (math.inf, math.inf)
    assert criteria.area(run, REFERENCE) == 0
    assert criteria.references([run])["sst2", "minilm:2"].target(0.95) == math.inf


@pytest.mark.parametrize(("scores", "last", "best"), [([0.7, NAN, 0.6], 0.6, 0.7)])
def test_last_score_and_best_score(scores, last, best):
    run = a_run(scores=scores)
    assert (criteria.final_score(run), criteria.best_score(run)) == (last, best)


def test_loss_is_that_of_the_last_evaluation_or_of_the_best_score():
    shown = [(0.6, 0.9), (0.8, 0.5), (0.8, 0.4), (0.7, 0.3)]  # score, loss
    rows = [
        {"step": n, "epoch": n, "accuracy": score, "eval_loss": loss}
        for n, (score, loss) in enumerate(shown, 1)
    ]
    run = a_run(history=rows)
    assert criteria.loss_at(run, best=False) == 0.3
    assert criteria.loss_at(run, best=True) == 0.5  # the first of equals
    for best in (False, True):
        assert criteria.loss_at(a_run(history=rows, failed="x"), best=best) == math.inf
    assert value("final loss", run) == 0.3
    assert value("loss at the best", run) == 0.5


def test_shares_at_the_end_and_at_the_best_evaluation_are_two():
    run = a_run(scores=[0.9, 0.7])  # from 0.5 to 0.9
    assert value("share of the best", run) == pytest.approx(0.5)
    assert value("share of the best, best evaluation", run) == pytest.approx(1.0)


def test_reference_is_the_best_final_score_of_each_workload():
    runs = [
        a_run(scores=[0.95, 0.8]),  # its best, 0.95, is not final
        a_run(scores=[0.6, 0.9, 0.85], seed=1),
        a_run("cola", scores=[0.1]),
    ]
    found = criteria.references(runs)
    assert found["sst2", "minilm:2"][:3] == (0.5, 0.85, 30)
    assert found["cola", "minilm:2"][:3] == (0.0, 0.1, 10)
    assert found["sst2", "minilm:2"].target(0.95) == pytest.approx(0.8325)


def test_targets_of_95_and_99_percent_are_two():
    # 95 % of the way from 0.5 to 0.9 is 0.88, 99 % is 0.896.
    run = a_run(scores=[0.6, 0.89, 0.895, 0.9], step_seconds=0.5)
    for clock, soon, late in (
        ("steps", 20, 40),
        ("epochs", 1.0, 2.0),
        ("seconds", 10.0, 20.0),
    ):
        assert value(f"{clock} to 95 %", run) == soon
        assert value(f"{clock} to 99 %", run) == late


def test_missed_target_is_infinite_even_where_seconds_are_unknown():
    run = a_run(scores=[0.6])  # without step_seconds
    assert criteria.seconds_to_target(run, 0.9) == math.inf
    assert math.isnan(criteria.seconds_to_target(run, 0.5))


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
    assert criteria.area(a_run(scores=scores), REFERENCE) == pytest.approx(expected)


def test_area_starts_at_an_evaluation_before_the_first_step():
    rows = [{"step": s, "epoch": s, "accuracy": 0.9} for s in (0, 40)]
    assert criteria.area(a_run(history=rows), REFERENCE) == pytest.approx(1.0)


def test_unknown_criterion_is_answered_with_the_nearest_names():
    message = "unknown criterion 'final'.*'final score'"
    with pytest.raises(MetalrError, match=message):
        criteria.criterion("final")


def test_every_criterion_is_a_number_on_every_run_of_a_store():
    runs = [run for run in store(seeds=2) if run["kind"] == "run"]
    references = criteria.references(runs)
    for name in criteria.CRITERIA:
        values = [
            criteria.criterion(name)(r, references[criteria.workload(r)]) for r in runs
        ]
        # Runs of an older metalr do not tell what a step takes.
        known = np.isinf(values).all() or not np.isnan(values).any()
        assert known or name.startswith("seconds"), name
