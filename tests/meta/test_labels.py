"""Labels say what hindsight says."""

import numpy as np
import pytest

from metalr.errors import MetalrError
from metalr.meta import labels
from metalr.observe import Observation
from tests.meta.made_sweeps import LEARNED, NAMES, STEPS, run, sweep


def log2_best(of):
    """Return the best rate of a sweep at constant rates, the same at every step."""
    found = labels.best_rate(of).log2_rate
    np.testing.assert_allclose(found, found[0], rtol=1e-6)
    return found[0]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.5], np.log(0.5)),
        ([2.0, 1.0, 0.5], (np.log(0.5) + 3 * np.log(0.25)) / 4),
        ([-1.0, -3.0], -2.0),  # no logarithm: the difference over the first
        ([1.0, 0.5, -1.0], (-0.5 - 3 * 2) / 4),
        ([0.0, 0.1], 100.0),
        ([1.0, 2.0, None], np.inf),
        ([None, 1.0], np.inf),
        ([1.0], np.inf),
    ],
)
def test_outcome_is_half_the_mean_half_the_last_over_the_first(losses, expected):
    found = labels.outcome([{"eval_loss": loss} for loss in losses])
    assert found == pytest.approx(expected)


def test_share_of_a_run_falls_with_a_tenth_of_the_spread():
    # J spans 1, so the temperature is 0.1: shares of e^0, e^-0.5 and e^-10.
    found = labels.of_the_best(np.array([0.0, 1.0, 5.0]), np.array([-1.0, -0.95, 0.0]))
    assert found == pytest.approx(0.3776, abs=1e-3)


@pytest.mark.parametrize("best", [-12.75, -11.0, -9.25])
def test_best_peak_of_a_parabola_is_found(best):
    peaks = np.linspace(-14.5, -7.5, 5)
    of = [run(2.0**x, 0.4 + 0.03 * (x - best) ** 2) for x in peaks]
    assert log2_best(of) == pytest.approx(best, abs=0.3)


def test_runs_at_peaks_are_those_of_one_shape():
    runs = [
        run(rate, 0.4, shape=shape)
        for shape in ("linear", "wsd")
        for rate in (2e-4, 1e-4)
    ]
    runs.append(run(1e-3, 0.4, kind="walk", shape="linear"))
    read = lambda found: [(r.about["peak"], labels.shape(r)) for r in found]  # noqa: E731
    assert read(labels.at_peaks(runs)) == [(1e-4, "linear"), (2e-4, "linear")]
    assert read(labels.at_peaks(runs, "wsd")) == [(1e-4, "wsd"), (2e-4, "wsd")]


def test_peaks_that_are_as_good_share_the_label():
    of = [run(2.0**-12, 0.5), run(2.0**-10, 0.5), run(2.0**-8, 1.0)]
    assert log2_best(of) == pytest.approx(-11, abs=0.01)


def test_run_that_diverged_neither_wins_nor_hides_the_others():
    of = sweep()
    of[-1].evaluations[-1]["eval_loss"] = None
    found = labels.best_rate(of)
    assert found.log2_rate[0] == pytest.approx(-11, abs=0.3) and np.isfinite(
        found.signal
    )


def test_run_that_broke_off_goes_on_at_its_last_rate():
    whole, short = run(2.0**-9, 0.9), run(2.0**-12, 0.2)
    falling = np.geomspace(2.0**-12, 2.0**-14, 10).astype(np.float32)
    cut = {name: getattr(short, name)[:10] for name in ("features", "multiplier")}
    short = short._replace(rate=falling, loss=short.loss[:10], **cut)
    found = labels.best_rate([whole, short]).log2_rate
    assert len(found) == whole.steps
    np.testing.assert_allclose(found[0], -12, atol=0.01)
    np.testing.assert_allclose(found[10:], -14, atol=0.01)


def test_signal_is_of_what_is_won_and_not_of_what_is_lost():
    learns = labels.best_rate(sweep()).signal
    flat = labels.best_rate([run(2.0**x, 1.0) for x in (-12, -10, -8)]).signal
    only_harm = labels.best_rate(
        [run(2.0**-12, 0.999), run(2.0**-10, 1.0), run(2.0**-8, 3.0)]
    ).signal
    assert learns > 0.9 and flat < 0.01 and only_harm < 0.01


def test_target_is_how_far_the_step_before_was_off():
    of = sweep()
    found = labels.examples(of, unknown_horizon=0)
    target = found.target.reshape(5, LEARNED)
    for row, made in zip(target, of, strict=True):
        off = log2_best(of) - np.log2(made.peak)
        np.testing.assert_allclose(row, np.clip(off, -8, 8), atol=1e-5)


@pytest.mark.parametrize("far", [8.5, -12])
def test_target_is_clipped_to_eight_octaves(far):
    of = [*sweep(), run(2.0 ** (-11 - far), 0.9, kind="policy")]
    found = labels.examples(of, unknown_horizon=0)
    np.testing.assert_array_equal(found.target[-LEARNED:], np.sign(far) * 8)


def test_best_rate_of_a_step_is_that_of_the_shape_that_won():
    # One peak, two shapes: that which decays ends lower, and says when to decay.
    decay = np.linspace(1, 0.1, STEPS).astype(np.float32)
    shaped = []
    for level, outcome in ((decay, 0.2), (np.ones(STEPS, np.float32), 0.9)):
        made = run(2.0**-10, outcome)
        made.features[:, NAMES.index("level")] = np.log(level)
        shaped.append(made._replace(rate=made.rate * level))
    best = labels.best_rate(shaped).log2_rate
    np.testing.assert_allclose(best, -10 + np.log2(decay), atol=1e-3)
    found = labels.examples(shaped, unknown_horizon=0).target.reshape(2, LEARNED)
    # The one is right as it is; the other should have come down.
    np.testing.assert_allclose(found[0], 0, atol=1e-3)
    np.testing.assert_allclose(found[1], np.log2(decay)[1:], atol=1e-3)


def on_shapes(**best_of):
    """Return a sweep with five peaks a shape, whose best one is as given."""
    return [
        run(2.0**x, 0.4 + 0.05 * abs(x - best), shape=shape)
        for shape, best in best_of.items()
        for x in np.linspace(-14, -8, 5)
    ]


def test_each_shape_has_the_best_rate_of_its_own_peaks():
    of = on_shapes(linear=-9.5, wsd=-12.5)
    of.append(run(2.0**-10, 0.9, kind="policy", shape="wsd"))
    found = labels.examples(of, unknown_horizon=0)
    rates = {name: best.log2_rate[0] for name, best in labels.best_rates(of).items()}
    assert rates["linear"] == pytest.approx(-9.5, abs=0.1)
    assert rates["wsd"] == pytest.approx(-12.5, abs=0.1)
    assert found.target[-1] == pytest.approx(rates["wsd"] + 10, abs=1e-4)
    weight = [found.weight[found.shape == name].sum() for name in ("linear", "wsd")]
    assert weight[0] == pytest.approx(weight[1], rel=0.05)


def test_a_shape_with_two_peaks_has_the_best_rate_over_all_shapes():
    of = on_shapes(linear=-9.5, cosine=-12.5, wsd=-12.5)[:-3]
    found = labels.best_rates(of)
    assert found["linear"].log2_rate[0] == pytest.approx(-9.5, abs=0.1)
    assert found["wsd"].log2_rate[0] == labels.best_rate(of).log2_rate[0]


@pytest.mark.parametrize("steps", [5, 30, 400])
def test_the_first_steps_and_some_of_the_others_are_learned_from(steps):
    made = run(2.0**-10, 0.5)
    rows = np.resize(np.arange(STEPS), steps)
    long = [
        made._replace(
            features=made.features[rows],
            about=made.about | {"peak": peak},
            evaluations=[{"eval_loss": 1.0}, {"eval_loss": outcome}],
            **{k: getattr(made, k)[rows] for k in ("rate", "multiplier", "loss")},
        )
        for peak, outcome in ((2.0**-10, 0.2), (2.0**-9, 0.9))
    ]
    found = labels.examples(long).step.reshape(2, -1)[0]
    assert len(found) == min(steps - 1, 11 + 36)
    np.testing.assert_array_equal(found[:11], np.arange(1, steps)[:11])
    assert found[-1] == steps - 1


def test_a_step_before_which_nothing_moved_is_not_learned_from():
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(STEPS, len(Observation._fields))).astype(np.float32)
    raw[:, Observation._fields.index("update_norm")] = np.arange(STEPS) % 3 == 1
    of = [made._replace(observations=raw) for made in sweep()]
    found = labels.examples(of).step.reshape(5, -1)
    np.testing.assert_array_equal(found[0], np.arange(1, STEPS, 3))


def test_walk_and_policy_are_judged_by_the_peaks_of_their_sweep():
    of = [*sweep(), run(2.0**-9, 0.1, kind="policy")]
    found = labels.examples(of, unknown_horizon=0)
    best = log2_best(sweep())
    np.testing.assert_allclose(found.target[-LEARNED:], best + 9, atol=1e-5)


def test_sweeps_count_by_signal_and_not_by_their_steps():
    weak = [run(2.0**x, 1.0, sweep_id=1) for x in (-12, -10)]
    found = labels.examples([*sweep(), *weak, *sweep(2), *sweep(2)], unknown_horizon=0)
    weight = [found.weight[: 5 * LEARNED], found.weight[5 * LEARNED : 7 * LEARNED]]
    twice = found.weight[7 * LEARNED :]
    assert weight[1].sum() < 0.01 * weight[0].sum()
    assert twice.sum() == pytest.approx(weight[0].sum(), rel=0.01)


def test_encoders_and_zoo_have_the_same_weight_however_many_sweeps_each_has():
    zoo = [r for n in (1, 2, 3) for r in sweep(n, problem="linear", task="linear")]
    found = labels.examples([*sweep(0), *zoo], unknown_horizon=0)
    own = found.kind == labels.ENCODER
    assert own.sum() * 3 == (~own).sum()
    assert found.weight[own].sum() == pytest.approx(found.weight[~own].sum())
    assert found.weight.mean() == pytest.approx(1)


def test_traces_without_a_whole_sweep_are_a_fault():
    with pytest.raises(MetalrError, match="no sweep with two peaks"):
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
        labels.examples([*sweep(), bad])


def test_one_number_of_two_seeds_is_refused():
    runs = [*sweep(0), *[run(2.0**-9, 0.5, seed=1, sweep_id=0)]]
    with pytest.raises(MetalrError, match="seeds 0 and 1, which are different sweeps"):
        labels.by_sweep(runs)
