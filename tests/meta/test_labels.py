"""Labels say what hindsight says."""

import numpy as np
import pytest

from metalr.errors import MetalrError
from metalr.meta import labels
from tests.meta.made_banks import STEPS, bank, run


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.5], 0.5),
        ([2.0, 1.0, 0.5], 0.3125),
        ([1.0, 2.0, None], np.inf),
        ([None, 1.0], np.inf),
        ([1.0], np.inf),
        ([0.0, 0.1], np.inf),
    ],
)
def test_outcome_is_half_the_mean_half_the_last_over_the_first(losses, expected):
    assert labels.outcome([{"eval_loss": loss} for loss in losses]) == expected


@pytest.mark.parametrize("best", [-12.75, -11.0, -9.25])
def test_best_peak_of_a_parabola_is_found(best):
    peaks = np.linspace(-14.5, -7.5, 5)
    of = [run(2.0**x, 0.4 + 0.03 * (x - best) ** 2) for x in peaks]
    assert labels.judge(of).log2_best == pytest.approx(best, abs=0.3)


def test_peaks_that_are_as_good_share_the_label():
    of = [run(2.0**-12, 0.5), run(2.0**-10, 0.5), run(2.0**-8, 1.0)]
    assert labels.judge(of).log2_best == pytest.approx(-11, abs=0.01)


def test_run_that_diverged_neither_wins_nor_hides_the_others():
    of = bank()
    of[-1].evaluations[-1]["eval_loss"] = None
    found = labels.judge(of)
    assert found.log2_best == pytest.approx(-11, abs=0.3) and np.isfinite(found.signal)


def test_signal_is_of_what_is_won_and_not_of_what_is_lost():
    learns = labels.judge(bank()).signal
    flat = labels.judge([run(2.0**x, 1.0) for x in (-12, -10, -8)]).signal
    only_harm = labels.judge(
        [run(2.0**-12, 0.999), run(2.0**-10, 1.0), run(2.0**-8, 3.0)]
    ).signal
    assert learns > 0.9 and flat < 0.01 and only_harm < 0.01


def test_target_is_how_far_the_step_before_was_off():
    of = bank()
    found = labels.examples(of, unknown_horizon=0)
    target = found.target.reshape(5, STEPS)
    best = labels.judge(of).log2_best
    for row, made in zip(target, of, strict=True):
        # At the first step, the multiplier is still 1.
        assert row[0] == pytest.approx(
            np.clip(best - np.log2(made.about["base_rate"]), -6, 6)
        )
        off = best - np.log2(made.about["peak"])
        np.testing.assert_allclose(row[1:], np.clip(off, -6, 6), atol=1e-5)


def test_walk_and_policy_are_judged_by_the_peaks_of_their_bank():
    of = [*bank(), run(2.0**-9, 0.1, kind="policy")]
    found = labels.examples(of, unknown_horizon=0)
    best = labels.judge(bank()).log2_best
    np.testing.assert_allclose(found.target[-STEPS:], best + 9, atol=1e-5)


def test_banks_count_by_signal_and_not_by_their_steps():
    weak = [run(2.0**x, 1.0, bank_id=1) for x in (-12, -10)]
    found = labels.examples([*bank(), *weak, *bank(2), *bank(2)], unknown_horizon=0)
    weight = [found.weight[: 5 * STEPS], found.weight[5 * STEPS : 7 * STEPS]]
    twice = found.weight[7 * STEPS :]
    assert weight[1].sum() < 0.01 * weight[0].sum()
    assert twice.sum() == pytest.approx(weight[0].sum(), rel=0.01)


def test_traces_without_a_whole_bank_are_a_fault():
    with pytest.raises(MetalrError, match="no whole bank"):
        labels.examples([run(1e-4, 0.5, kind="policy")])


@pytest.mark.parametrize(
    ("rows", "about"),
    [
        ([{"step": 0}, {"step": 6, "eval_loss": 0.1}], {}),
        ([{"eval_loss": 10**400}, {"eval_loss": 0.1}], {}),
        ([{"eval_loss": True}, {"eval_loss": "x"}], {}),
        ([{"eval_loss": 1.0}, {"eval_loss": 0.1}], {"peak": 10**400}),
    ],
)
def test_run_without_what_labels_are_made_of_is_one_clear_line(rows, about):
    bad = run(1e-4, 0.5)
    bad = bad._replace(evaluations=rows, about=bad.about | about)
    with pytest.raises(MetalrError, match="lacks a usable"):
        labels.examples([*bank(), bad])
