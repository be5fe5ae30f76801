"""Sweeps are drawn again alike, and their rates give nothing away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalr import optax_schedule
from metalr.controller import MAX_MULTIPLIER
from metalr.finetune import schedulers
from metalr.finetune.rules import shapes
from metalr.meta import sweeps
from metalr.predictor import init_predictor
from tests.meta.drawn_sweeps import SOURCES, draw


def test_same_index_draws_the_same_sweep_and_another_index_another():
    drawn = [sweeps.draw(index, SOURCES, 3) for index in range(20)]
    assert drawn == [sweeps.draw(index, SOURCES, 3) for index in range(20)]
    assert len({sweep.seed for sweep in drawn}) == 20
    assert drawn[0] != sweeps.draw(0, SOURCES, 4)


def test_draws_reach_every_choice_and_tasks_take_turns():
    drawn = [sweeps.draw(index, SOURCES, 0) for index in range(200)]
    assert [sweep.task for sweep in drawn[:4]] == ["sst2", "rte", "sst2", "rte"]
    for name, choices in {
        "model": SOURCES.models,
        "horizon": SOURCES.horizons,
        "decay": sweeps.DECAYS,
        "frozen": (False, True),
        "shuffled": (False, True),
    }.items():
        assert {getattr(sweep, name) for sweep in drawn} == set(choices)
    shares = np.mean([[b.frozen, b.shuffled, b.rescaled > 0] for b in drawn], axis=0)
    np.testing.assert_allclose(shares, [0.15, 0.1, 0.3], atol=0.1)


def test_peaks_span_seven_octaves_evenly():
    octaves = np.diff(np.log2(draw().peaks))
    np.testing.assert_allclose(octaves, 7 / 6, atol=0.01)


@pytest.mark.parametrize("horizon", [1, 9, 100])
def test_linear_decay_is_the_schedule_that_metalr_multiplies(horizon):
    sweep = draw(decay="linear", horizon=horizon, warmup=horizon // 10)
    schedule = optax_schedule.default_schedule(1.0, total_steps=horizon)
    np.testing.assert_allclose(
        sweeps.level(sweep), jax.vmap(schedule)(jnp.arange(horizon)), rtol=1e-6
    )


def test_cosine_decay_is_that_of_the_scheduler_table():
    plan = schedulers.RunPlan(1.0, total_steps=100, warmup_steps=30)
    sweep = draw(decay="cosine", horizon=100, warmup=30)
    expected = jax.vmap(shapes.cosine(plan))(jnp.arange(100))
    np.testing.assert_allclose(sweeps.level(sweep), expected, atol=1e-6)


def test_run_at_a_peak_has_that_peak_from_any_base_rate():
    sweep = draw()
    plans = sweeps.planned_runs(sweeps.Job(sweep))
    assert [plan.about["kind"] for plan in plans] == ["peak"] * 7 + ["walk"] * 2
    for plan, peak in zip(plans, sweep.peaks, strict=False):
        np.testing.assert_allclose(
            plan.rate * np.exp(plan.explore), peak * sweeps.level(sweep), rtol=1e-4
        )
        assert abs(np.log2(plan.about["base_rate"] / peak)) <= 7
    assert len({plan.about["base_rate"] for plan in plans}) == 9


@pytest.mark.parametrize("seed", range(5))
def test_walk_stays_between_the_peaks_and_within_the_bounds_of_the_multiplier(seed):
    sweep = draw(seed=seed, decay="constant", warmup=0)
    for plan in sweeps.planned_runs(sweeps.Job(sweep))[7:]:
        rate = plan.rate * np.exp(plan.explore)
        assert sweep.peaks[0] * 0.99 < rate.min() < rate.max() < sweep.peaks[-1] * 1.01
        assert np.abs(plan.explore).max() < np.log(MAX_MULTIPLIER)


def test_policy_starts_from_rates_over_three_decades_and_explores_every_other_time():
    plans = sweeps.planned_runs(sweeps.Job(draw(), 1, init_predictor(), 200))
    bases = np.log10([plan.about["base_rate"] for plan in plans])
    assert -6 <= bases.min() < -5.8 and -2.9 < bases.max() <= -2.7
    explored = [bool(np.any(plan.explore)) for plan in plans]
    assert explored == [False, True] * 100
