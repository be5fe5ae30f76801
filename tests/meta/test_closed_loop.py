"""A predictor on a problem of the zoo: plain runs beside it, and traces of it."""

import jax
import numpy as np
import optax
import pytest

from metalr.meta import labels, trace_files
from metalr.meta.zoo import check, closed_loop, collect, sweeps
from metalr.predictor import init_predictor
from metalr.report import learned
from tests.meta.tiny_sweeps import STEPS, tiny


@pytest.fixture(scope="module", autouse=True)
def ranks_may_differ():
    """Let the zoo's small networks add a bias to a batch."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def made(ranks_may_differ):
    sweep = tiny(optimizer="sgd", clip=0.0, weight_decay=0.0)
    problem = sweeps.build(sweep)
    return sweep, problem, closed_loop.make_programs(sweep, problem)


def test_plain_run_is_that_of_a_loop_by_hand(made):
    sweep, problem, programs = made
    found = closed_loop.carry_out(sweep, problem, programs, np.array([0.1]), range(2))
    order = closed_loop.orders(sweep, len(problem.train["x"]), range(2))[1]
    params, key = problem.params, jax.random.key(sweep.number)
    for step, rows in enumerate(order):
        batch = {name: column[rows] for name, column in problem.train.items()}
        grads = jax.grad(problem.loss)(params, batch, jax.random.fold_in(key, step))
        rate = 0.1 * float(sweeps.level("linear", STEPS, sweep.warmup)[step])
        params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, grads)
    expected = problem.loss(params, problem.validation, key)
    np.testing.assert_allclose(found.losses[1, 0, -1], expected, rtol=1e-4)


def test_untrained_predictor_changes_no_run(made):
    sweep, problem, programs = made
    rates = np.array([0.02, 0.1])
    plain = closed_loop.carry_out(sweep, problem, programs, rates, range(2))
    same = closed_loop.carry_out(
        sweep, problem, programs, rates, range(2), init_predictor()
    )
    np.testing.assert_allclose(same.losses, plain.losses, rtol=1e-4)
    np.testing.assert_array_equal(same.multipliers, 1)


def test_tuned_rate_is_the_best_of_twice_as_many_peaks(made):
    sweep, problem, programs = made
    tuned = closed_loop.tuned_rate(sweep, problem, programs)
    half = sweep.octaves / 2
    peaks = 2 ** np.linspace(sweep.centre - half, sweep.centre + half, 5)
    losses = closed_loop.carry_out(sweep, problem, programs, peaks, range(1)).losses
    assert tuned == pytest.approx(peaks[np.argmin(losses[0, :, -1])])


@pytest.mark.thorough
def test_round_is_labelled_by_the_peaks_of_its_sweep(made, tmp_path):
    sweep, problem, programs = made
    runs = closed_loop.policy_runs(sweep, problem, programs, init_predictor(), 3)
    peaks = sweeps.run(sweep, problem, sweeps.make_program(sweep, problem))
    trace_files.write(tmp_path / "round-1-zoo.parquet", runs)
    data = labels.examples(peaks + trace_files.read(tmp_path / "round-1-zoo.parquet"))
    best = labels.best_rate(peaks)
    for number, run in enumerate(runs):
        assert run.about["kind"] == "policy"
        # Plain runs from one base each: off by the same at every step of linear decay.
        rows = data.run == f"{run.about['sweep_id']}/{len(peaks) + number}"
        level = np.log2(sweeps.level("linear", STEPS, sweep.warmup))
        expected = best.log2_rate - level - np.log2(run.about["base_rate"])
        expected = np.clip(expected, -labels.CLIP, labels.CLIP)[data.step[rows]]
        np.testing.assert_allclose(data.target[rows], expected, atol=1e-3)


def test_each_round_has_base_rates_and_an_order_of_its_own(made):
    sweep, problem, programs = made
    first, again, second = (
        closed_loop.policy_runs(sweep, problem, programs, init_predictor(), 2, **of)
        for of in ({}, {"number": 1}, {"number": 2})
    )
    bases = [
        [run.about["base_rate"] for run in runs] for runs in (first, again, second)
    ]
    assert bases[0] == bases[1] and not {*bases[0]} & {*bases[2]}
    starts = [runs[0].observations[0] for runs in (first, again, second)]
    np.testing.assert_array_equal(starts[0], starts[1])
    assert np.any(starts[0] != starts[2])  # of the same weights: the rows are others


@pytest.mark.thorough
def test_optimizer_of_the_closed_loop_is_that_of_the_sweep():
    sweep = tiny(optimizer="adamw", clip=0.5, weight_decay=0.3)
    problem = sweeps.build(sweep)
    programs = closed_loop.make_programs(sweep, problem)
    found = closed_loop.carry_out(sweep, problem, programs, np.array([0.02]), range(1))
    rate = 0.02 * sweeps.level("linear", STEPS, sweep.warmup)
    tx = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(lambda step: rate[step], weight_decay=0.3),
    )
    params, key = problem.params, jax.random.key(sweep.number)
    state = tx.init(params)
    order = closed_loop.orders(sweep, len(problem.train["x"]), range(1))[0]
    rate = jax.numpy.asarray(rate)
    for step, rows in enumerate(order):
        batch = {name: column[rows] for name, column in problem.train.items()}
        grads = jax.grad(problem.loss)(params, batch, jax.random.fold_in(key, step))
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    expected = problem.loss(params, problem.validation, key)
    np.testing.assert_allclose(found.losses[0, 0, -1], expected, rtol=1e-3)


def test_sweeps_of_a_program_with_other_warm_ups_are_not_run_by_one(
    tmp_path, monkeypatch
):
    made = []
    monkeypatch.setattr(closed_loop, "policy_runs", lambda sweep, *more, **how: 0)
    monkeypatch.setattr(trace_files, "write", lambda path, runs: None)
    monkeypatch.setattr(
        closed_loop,
        "make_programs",
        lambda sweep, problem, **how: made.append(sweep.warmup),
    )
    collect.collect(range(3), tmp_path, number=1, predictor=init_predictor())
    drawn = [sweeps.draw(index, 0).warmup for index in range(3)]
    assert len({*drawn}) > 1
    assert made == [*dict.fromkeys(drawn)]


@pytest.mark.thorough
def test_check_holds_plain_runs_against_predictors_from_the_same_rates(made, tmp_path):
    sweep = made[0]
    found = check.check(sweep, {"untrained": init_predictor()})
    middle = len(found.rates) // 2
    assert found.rates[middle] == pytest.approx(closed_loop.tuned_rate(*made))
    np.testing.assert_allclose(
        found.losses["untrained"], found.losses["plain"], rtol=1e-3
    )
    rows = check.table(found).splitlines()
    assert rows[-2].startswith("| plain |") and rows[-1].startswith("| untrained |")
    learned.draw_check(found, tmp_path / "check.png")
    assert (tmp_path / "check.png").read_bytes()[:4] == b"\x89PNG"


def test_problem_of_the_check_is_of_no_collection():
    sweep = check.left_out(0)
    assert sweep == check.left_out(0) and sweep.number >= 10_000
    assert sweep.horizon <= 150 and sweep.optimizer == "adamw"
