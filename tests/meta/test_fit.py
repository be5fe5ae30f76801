"""The fit finds what is in the labels, the same every time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalr.errors import MetalrError
from metalr.meta import fit
from metalr.predictor import apply, unusual
from tests.meta.made_banks import NAMES, banks

QUICK = fit.Settings(steps=200, batch=256)


@pytest.fixture(scope="module")
def runs():
    return banks()


def test_fit_finds_the_direction(runs):
    data = fit.label(runs, QUICK)
    found = fit.score(fit.fit(data, QUICK), data)
    assert found["sign"] > 0.95
    assert found["rmse"] < 0.6 * found["still"]


def test_fit_gives_the_same_bits_again(runs):
    data = fit.label(runs, QUICK)
    first, second = (fit.fit(data, QUICK) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_examples_that_are_left_out_change_nothing(runs):
    data = fit.label(runs, QUICK)
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


def test_hidden_feature_changes_no_answer_and_is_never_unusual(runs):
    settings = QUICK._replace(hidden=("slope",))
    data = fit.label(runs, settings)
    predictor = fit.fit(data, settings)
    usual = jnp.array(predictor.mean)
    other = usual.at[NAMES.index("slope")].set(1.0)
    assert not unusual(predictor, usual) and not unusual(predictor, other)
    assert apply(predictor, usual) == apply(predictor, other)
    assert fit.score(predictor, data)["sign"] < 0.8  # slope was all there was


def test_run_of_unknown_length_is_not_unusual(runs):
    data = fit.label(runs, QUICK)
    clock = [NAMES.index(n) for n in ("progress", "horizon_known", "horizon")]
    hidden = ~np.any(data.features[:, clock], axis=1)
    assert 0.1 < hidden.mean() < 0.2
    predictor = fit.fit(data, QUICK)
    # What a hidden clock reads lies in the range, so that it is not clipped.
    assert np.all(predictor.low[clock] <= 0) and np.all(predictor.high[clock] >= 0)


def test_unknown_hidden_feature_is_a_fault(runs):
    data = fit.label(runs, QUICK)
    with pytest.raises(MetalrError, match="no such feature: phase_of_the_moon"):
        fit.fit(data, QUICK._replace(hidden=("phase_of_the_moon",)))


def test_table_has_a_row_for_each_task_left_out(runs):
    rows = fit.leave_one_out(fit.label(runs, QUICK), "task", QUICK)
    assert [row["out"] for row in rows] == ["qqp", "rte", "sst2"]
    assert all(row["sign"] > 0.9 for row in rows)  # the tasks are alike here
    assert not fit.leave_one_out(fit.label(runs), "size", QUICK)
