"""A sweep of the zoo is drawn and run again alike, and its traces tell of it."""

import signal

import jax
import numpy as np
import optax
import pytest

from metalr import coordinates, observe
from metalr.features import NAMES
from metalr.meta import labels, trace_files, traces
from metalr.meta.zoo import collect, problems, sweeps, text_problems
from metalr.meta.zoo.problem import Problem
from metalr.observe import Observation
from metalr.runtime.program import Stop
from tests.meta.tiny_sweeps import STEPS, tiny


def taken(sweep):
    problem = sweeps.build(sweep)
    return problem, sweeps.run(sweep, problem, sweeps.make_program(sweep, problem))


@pytest.fixture(scope="module", autouse=True)
def ranks_may_differ():
    """Let the zoo's small networks add a bias to a batch, as they read best."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def found(ranks_may_differ):
    return taken(tiny())


def test_same_index_draws_the_same_sweep_and_kinds_take_turns():
    drawn = [sweeps.draw(index, 3) for index in range(60)]
    assert drawn == [sweeps.draw(index, 3) for index in range(60)]
    assert [sweep.kind for sweep in drawn[::3]] == 2 * list(problems.KINDS)
    assert len({sweep.optimizer for sweep in drawn}) > 4
    shared = ("program", "kind", "optimizer", "batch", "horizon", "clip")
    for name in shared:  # or they would not share a compilation
        assert len({getattr(sweep, name) for sweep in drawn[:3]}) == 1


def test_a_sweep_is_the_same_again(found):
    problem, runs = found
    again = sweeps.run(tiny(), problem, sweeps.make_program(tiny(), problem))
    for one, other in zip(runs, again, strict=True):
        assert one.about == other.about and one.evaluations == other.evaluations
        np.testing.assert_array_equal(one.observations, other.observations)


def test_traces_are_read_back_with_equal_features(found, tmp_path):
    _, runs = found
    trace_files.write(tmp_path / "zoo.parquet", runs)
    back = trace_files.read(tmp_path / "zoo.parquet")
    for one, other in zip(runs, back, strict=True):
        assert one.about == other.about and one.evaluations == other.evaluations
        np.testing.assert_allclose(
            one.observations, other.observations, rtol=2**-11, atol=1e-30
        )
        # Small differences of large numbers lose to the twelve bits that are kept.
        apart = np.abs(one.features - other.features)
        assert np.median(apart) < 1e-3 and np.mean(apart > 0.1) < 0.02
    assert labels.examples(back).kind.tolist().count("linear") > 0


@pytest.mark.parametrize("number", [0, 5, -1])
def test_a_run_is_optax_s_own_loop_at_its_rates(found, number):
    problem, runs = found
    run, sweep = runs[number], tiny()
    # The rows of a step are those of the sweep's own draw.
    rows = len(problem.train["y"])
    rng = np.random.default_rng([sweep.seed, 6, sweep.number])
    needed = STEPS * sweep.batch
    passes = [rng.permutation(rows) for _ in range(-(-needed // rows))]
    order = np.concatenate(passes)[:needed].reshape(STEPS, sweep.batch)
    key = jax.random.key(int(rng.integers(2**31)))
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            lambda step: np.float32(1) * jax.numpy.asarray(run.rate)[step],
            weight_decay=sweep.weight_decay,
        ),
    )
    params, losses = problem.params, []
    state, where = tx.init(params), coordinates.layout(params)
    seen, norms = observe.init(params, where), []
    look = jax.jit(
        lambda grads, seen, params, value: observe.observe(
            grads, seen, params, where, value=value
        )
    )
    value_and_grad, update = (
        jax.jit(jax.value_and_grad(problem.loss)),
        jax.jit(tx.update),
    )
    for step in range(STEPS):
        batch = {k: v[order[step]] for k, v in problem.train.items()}
        value, grads = value_and_grad(params, batch, jax.random.fold_in(key, step))
        observed, seen = look(grads, seen, params, value)
        norms.append(observed.update_norm)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(value)
    np.testing.assert_allclose(run.loss, losses, rtol=2e-3)
    column = Observation._fields.index("update_norm")
    np.testing.assert_allclose(run.observations[:, column], norms, rtol=5e-3, atol=1e-6)
    final = problem.loss(params, problem.validation, key)
    assert run.evaluations[-1]["eval_loss"] == pytest.approx(float(final), rel=5e-3)


def test_a_walk_s_multiplier_is_its_rate_over_its_schedule(found):
    _, runs = found
    for run in runs:
        level = np.exp(run.observations[:, Observation._fields.index("log_level")])
        np.testing.assert_allclose(
            run.rate, run.about["base_rate"] * level * run.multiplier, rtol=1e-3
        )
    kinds = [run.about["kind"] for run in runs]
    assert kinds.count("walk") == 4
    walks = [run.multiplier for run in runs if run.about["kind"] == "walk"]
    assert all(np.ptp(np.log2(walk)) > 0.1 for walk in walks)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.thorough if kind == "tuned" else ())
        for kind in problems.KINDS
    ],
)
def test_every_kind_has_a_finite_loss_and_a_gradient(kind, monkeypatch):
    monkeypatch.setattr(text_problems, "PRETRAINING", 1)  # the whole takes minutes
    text_problems._pretrained.cache_clear()
    problem = sweeps.build(tiny(kind))
    batch = {k: v[:4] for k, v in problem.train.items()}
    loss, grads = jax.value_and_grad(problem.loss)(
        problem.params, batch, jax.random.key(0)
    )
    text_problems._pretrained.cache_clear()
    assert np.isfinite(loss)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_what_is_done_is_not_done_twice(tmp_path, monkeypatch):
    asked = []

    def one(sweep, problem, program):
        asked.append(sweep.number)
        handlers.append(signal.getsignal(signal.SIGINT))
        return taken_once

    handlers = []

    taken_once = [
        traces.Run(
            {"sweep_id": 1},
            [],
            np.zeros((2, len(NAMES)), np.float32),
            *np.ones((3, 2), np.float32),
            np.zeros((2, len(Observation._fields)), np.float32),
        )
    ]
    monkeypatch.setattr(sweeps, "build", lambda sweep: Problem((), *[None] * 4))
    monkeypatch.setattr(sweeps, "make_program", lambda sweep, problem: None)
    monkeypatch.setattr(sweeps, "run", one)
    assert not collect.collect(range(3), tmp_path, stop=lambda: len(asked) == 2)
    assert collect.collect(range(4), tmp_path)
    assert asked == [0, 1, 2, 3]
    handlers.clear()
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert collect.collect(range(4, 6), tmp_path, stop=Stop())
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    # Nothing asks while a sweep runs: a signal then ends the program.
    assert handlers == [signal.SIG_DFL] * 2
