"""The fit finds what is in the labels, the same every time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalr.errors import MetalrError
from metalr.features import OF_STATIC, STATIC
from metalr.finding.experience import ENCODER
from metalr.meta import calibration, facts, fit, labels, scoring
from metalr.predictor import distance, evidence, init_predictor, prior
from tests.meta.made_sweeps import NAMES, STEPS, run, sweep, sweeps

QUICK = fit.Settings(steps=200, batch=256)


@pytest.fixture(scope="module")
def runs():
    return sweeps()


def test_fit_finds_the_direction(runs):
    data = labels.examples(runs)
    found = scoring.score(fit.fit(data, QUICK), data)
    assert found["sign"] > 0.95
    assert found["rmse"] < 0.6 * found["still"]


@pytest.mark.thorough
def test_fit_gives_the_same_bits_again(runs):
    data = labels.examples(runs)
    first, second = (fit.fit(data, QUICK) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.thorough
def test_examples_that_are_left_out_change_nothing(runs):
    data = labels.examples(runs)
    kept = data.task != "rte"
    spoilt = data._replace(
        target=np.where(kept, data.target, 99.0),
        features=np.where(kept[:, None], data.features, 7.0).astype(np.float32),
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        fit.fit(data, QUICK, kept=kept),
        fit.fit(spoilt, QUICK, kept=kept),
    )


def test_hidden_feature_changes_no_answer(runs):
    settings = QUICK._replace(hidden=("slope", "relative_rate"))
    data = labels.examples(runs)
    predictor = fit.fit(data, settings, calibrate=False)
    usual = jnp.array(predictor.mean)
    other = usual.at[NAMES.index("slope")].set(1.0)
    assert evidence(predictor, usual)[0] == evidence(predictor, other)[0]
    # Slope and size of the update were all there was.
    assert scoring.score(predictor, data)["sign"] < 0.8


def test_run_of_unknown_length_is_not_unusual(runs):
    data = labels.examples(runs)
    clock = [NAMES.index(n) for n in ("progress", "horizon_known", "horizon")]
    hidden = ~np.any(data.features[:, clock], axis=1)
    assert 0.1 < hidden.mean() < 0.2
    predictor = fit.fit(data, QUICK, calibrate=False)
    # What a hidden clock reads lies in the range, so that it is not clipped.
    assert np.all(predictor.low[clock] <= 0) and np.all(predictor.high[clock] >= 0)


def test_prior_finds_the_best_relative_rate(runs):
    data = labels.examples(runs)
    predictor = fit.fit(data, QUICK)
    row = jnp.array(predictor.mean).at[NAMES.index("relative_rate")].set(-5.0)
    said, variance = prior(predictor, row)
    assert said == pytest.approx(-3, abs=0.3)  # the best peak, 2**-11, was at -8
    assert 0 <= variance < 1


def shaped(sweep_id, shift):
    """Return a sweep whose runs are once held: the best peak is then lower."""
    area = NAMES.index("area")
    found = []
    for shape, level, lower in (("linear", -1.0, 0.0), ("hold", -0.2, shift)):
        for peak in 2.0 ** np.linspace(-15, -8, 8):
            outcome = 0.5 + 0.05 * abs(np.log2(peak) + 11 + lower)
            made = run(peak, outcome, shape=shape, sweep_id=sweep_id, seed=sweep_id)
            made.features[:, OF_STATIC] = sweep_id % 3
            made.features[:, NAMES.index("horizon_known")] = 1
            made.features[:, area] = level
            found.append(made)
    return found


@pytest.mark.parametrize("shift", [0.0, 0.9])
def test_prior_knows_by_how_much_a_shape_moves_the_best_peak(shift):
    runs = [made for number in range(9) for made in shaped(number, shift)]
    data = labels.examples(runs)
    found = facts.points(data)
    assert np.sum(found.sweep != "") == 9 * 2  # and as many where the clock is hidden
    area = STATIC.index("area")
    assert set(found.facts[:, area].round(3)) == {-1.0, -0.2, 0.0}
    predictor = facts.with_prior(init_predictor(), data)
    slope = predictor.prior_weights[0, area]
    assert 0.8 * slope == pytest.approx(-shift, abs=0.15)


def test_a_shape_that_is_rare_in_training_is_no_unknown_one():
    runs = [made for number in range(30) for made in shaped(number, 0.9)]
    rare = [r for r in runs if r.about["shape"] == "linear" or r.about["sweep_id"] < 1]
    data = labels.examples(rare, unknown_horizon=0)
    predictor = fit.fit(data, QUICK)
    held = data.features[data.shape == "hold"][:, OF_STATIC]
    assert np.all(distance(predictor.prior_seen, jnp.asarray(held)) < 1)


def test_variance_is_that_of_the_errors(runs):
    rng = np.random.default_rng(0)
    data = labels.examples(runs)
    noisy = data._replace(target=data.target + rng.normal(size=len(data.target)))
    predictor = fit.fit(noisy, QUICK, calibrate=False)
    _, variance = evidence(predictor, jnp.asarray(data.features))
    assert 0.5 < np.median(variance) < 2
    assert 0.55 < scoring.score(predictor, noisy)["within"] < 0.85  # 0.68 of a Gaussian


def test_rows_unlike_those_of_training_are_far(runs):
    data = labels.examples(runs)
    predictor = fit.fit(data, QUICK)
    own = distance(predictor.seen, jnp.asarray(data.features))
    assert np.mean(own > 1) < 0.03
    strange = jnp.asarray(data.features[:5]).at[:, NAMES.index("slope")].set(30.0)
    assert np.all(distance(predictor.seen, strange) > 1)
    _, usual = evidence(predictor, jnp.asarray(data.features[:5]))
    _, doubt = evidence(predictor, strange)
    assert np.all(doubt > usual)


@pytest.mark.parametrize("informative", [0, 1, 2])
@pytest.mark.thorough
def test_sweeps_that_say_nothing_stop_no_fit(informative):
    # In the others all rates do equally well.
    runs = [
        run._replace(evaluations=run.evaluations if number < informative else flat)
        for number in range(4)
        for run in sweep(number, task="sst2")
        for flat in [[{"step": 0, "eval_loss": 0.5}, {"step": STEPS, "eval_loss": 0.5}]]
    ]
    data = labels.examples(runs)
    predictor = fit.fit(data, QUICK)
    for leaf in jax.tree.leaves(evidence(predictor, jnp.asarray(data.features))):
        assert np.all(np.isfinite(leaf))
    assert np.all(np.isfinite(predictor.prior_variance))


def test_alike_errors_of_a_run_count_as_few_steps():
    # 50 runs of 40 steps, an error that all steps of a run share or none.
    rng = np.random.default_rng(0)
    shared = [(np.full(40, rng.normal()), np.ones(40), 1.0) for _ in range(50)]
    apart = [(rng.normal(size=40), np.ones(40), 1.0) for _ in range(50)]
    assert calibration.correlation(shared) == pytest.approx(40, rel=0.4)
    assert calibration.correlation(apart) == pytest.approx(1, rel=0.5)


def test_correlation_weighs_steps_by_precision_and_runs_by_weight():
    # Precisions 1 and 2: the mean is 7/3, and its square times their sum 49/3.
    first = np.array([1.0, 3.0]), np.array([1.0, 0.5]), 1.0
    # Mean 2, times the sum of the precisions: 8.
    second = np.array([2.0, 2.0]), np.array([1.0, 1.0]), 3.0
    found = calibration.correlation([first, second])
    assert found == pytest.approx((49 / 3 + 3 * 8) / 4)


def test_unknown_hidden_feature_is_a_fault(runs):
    data = labels.examples(runs)
    with pytest.raises(MetalrError, match="must name features, got phase_of_the_moon"):
        fit.fit(data, QUICK._replace(hidden=("phase_of_the_moon",)))


def test_encoders_are_read_by_what_encoders_have_shown(runs):
    # What the slope says of the encoders is the opposite of what it says elsewhere.
    data = labels.examples(runs)
    zoo = np.isin(data.sweep, [str(number) for number in range(8)])
    features = data.features.copy()
    features[zoo, NAMES.index("slope")] *= -1
    features[zoo, NAMES.index(STATIC[0])] += 9
    kind = np.where(zoo, "linear", ENCODER)
    # The zoo counts ten times as much.
    weight = np.where(zoo, 10, 1) * data.weight
    data = data._replace(features=features, kind=kind, weight=weight)
    predictor = fit.fit(data, QUICK, calibrate=False)
    assert predictor.own is not None and predictor.own.kind == 0  # of the two kinds
    for part in (zoo, ~zoo):
        found = scoring.score(predictor, labels.Examples(*(c[part] for c in data)))
        assert found["rmse"] < 0.6 * found["still"]
    alone = fit.fit(data, QUICK, kept=zoo, calibrate=False)
    assert alone.own is None


@pytest.mark.thorough
def test_table_has_a_row_for_each_task_left_out(runs):
    rows = scoring.leave_one_out(labels.examples(runs), "task", QUICK)
    assert [row["out"] for row in rows] == ["qqp", "rte", "sst2"]
    assert all(row["sign"] > 0.9 for row in rows)  # the tasks are alike here
    assert not scoring.leave_one_out(labels.examples(runs), "size", QUICK)
    # What is out of range is said by the limit of the predictor that ships.
    whole = fit.fit(labels.examples(runs), QUICK, calibrate=False)
    for limit, share in ((1e-6, 1.0), (1e6, 0.0)):
        ships = whole._replace(seen=whole.seen._replace(limit=np.float32(limit)))
        rows = scoring.leave_one_out(labels.examples(runs), "task", QUICK, ships)
        assert {row["far"] for row in rows} == {share}


def test_a_task_without_which_nothing_informs_is_not_left_out():
    flat = [{"step": 0, "eval_loss": 0.5}, {"step": 30, "eval_loss": 0.6}]
    dull = [r._replace(evaluations=flat) for r in sweep(1, task="cola")]
    data = labels.examples([*sweep(0, task="sst2"), *dull])
    assert scoring.leave_one_out(data, "task", QUICK) == []
    with pytest.raises(MetalrError, match="no sweep to fit to tells its best rate"):
        fit.fit(data, QUICK, kept=data.task == "cola")
