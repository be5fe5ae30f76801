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


def test_some_sweeps_run_their_peaks_on_a_hold_too_and_are_else_as_without_it():
    sources = sweeps.Sources(("sst2", "rte"), ("minilm:1",), "toy")
    drawn = [sweeps.draw(index, sources, 0) for index in range(200)]
    paired = [sweep for sweep in drawn if sweep.also == ("wsd",)]
    assert 30 <= len(paired) <= 70 and {s.also for s in drawn} == {(), ("wsd",)}
    assert paired[0].runs == 2 * 7 + 2
    without = [sweeps.draw(k, sources._replace(paired=0), 0) for k in range(200)]
    assert [sweep._replace(also=()) for sweep in drawn] == without


@pytest.mark.parametrize("wanted", [0, 1, 9, 100])
def test_as_many_sweeps_are_drawn_as_have_the_runs(wanted):
    sources = sweeps.Sources(("sst2", "rte"), ("minilm:1",), "toy")
    drawn = sweeps.draw_runs(wanted, sources, 0)
    assert drawn == [sweeps.draw(index, sources, 0) for index in range(len(drawn))]
    count = sum(sweep.runs for sweep in drawn)
    assert count >= wanted and (not drawn or count - drawn[-1].runs < wanted)


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


@pytest.mark.parametrize(
    ("shape", "of_a_run"),
    [("cosine", shapes.cosine), ("wsd", shapes.hold_then_decay)],
)
def test_shape_of_a_sweep_is_that_of_the_scheduler_table(shape, of_a_run):
    plan = schedulers.RunPlan(1.0, total_steps=100, warmup_steps=30)
    sweep = draw(decay="linear", horizon=100, warmup=30)
    expected = jax.vmap(of_a_run(plan))(jnp.arange(100))
    np.testing.assert_allclose(sweeps.level(sweep, shape), expected, atol=1e-6)


def test_run_at_a_peak_has_that_peak_from_any_base_rate():
    sweep = draw()
    plans = sweeps.planned_runs(sweeps.Job(sweep))
    kinds = [plan.about["kind"] for plan in plans]
    assert kinds == ["peak"] * 14 + ["walk"] * 2 and len(kinds) == sweep.runs
    for plan, peak in zip(plans, sweep.peaks * 2, strict=False):
        level = sweeps.level(sweep, plan.about["shape"])
        np.testing.assert_allclose(
            plan.rate * np.exp(plan.explore), peak * level, rtol=1e-4
        )
        assert abs(np.log2(plan.about["base_rate"] / peak)) <= 7
    assert len({plan.about["base_rate"] for plan in plans}) == 16


def test_every_peak_is_run_on_both_shapes_and_walks_on_the_own_one():
    plans = sweeps.planned_runs(sweeps.Job(draw(decay="cosine")))
    shapes_of = [plan.about["shape"] for plan in plans]
    assert shapes_of == ["cosine"] * 7 + ["wsd"] * 7 + ["cosine"] * 2


@pytest.mark.parametrize("seed", range(5))
def test_walk_stays_between_the_peaks_and_within_the_bounds_of_the_multiplier(seed):
    sweep = draw(seed=seed, decay="constant", warmup=0)
    for plan in sweeps.planned_runs(sweeps.Job(sweep))[14:]:
        rate = plan.rate * np.exp(plan.explore)
        assert sweep.peaks[0] * 0.99 < rate.min() < rate.max() < sweep.peaks[-1] * 1.01
        assert np.abs(plan.explore).max() < np.log(MAX_MULTIPLIER)


def test_policy_starts_from_rates_over_three_decades_and_explores_every_other_time():
    plans = sweeps.planned_runs(sweeps.Job(draw(), 1, init_predictor(), 200))
    bases = np.log10([plan.about["base_rate"] for plan in plans])
    assert -6 <= bases.min() < -5.8 and -2.9 < bases.max() <= -2.7
    explored = [bool(np.any(plan.explore)) for plan in plans]
    assert explored == [False, True] * 100
