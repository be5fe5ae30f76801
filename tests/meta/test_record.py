"""A recorded run is the run of metalr's own loop, and holds what was planned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr.finetune import loop, preparation, schedulers
from metalr.finetune.config import RunConfig
from metalr.meta import record, sweeps, traces
from metalr.observe import Observation
from tests.meta.drawn_sweeps import PLAIN, draw, tiny
from tests.product.steering import constant


def plans(sweep):
    return sweeps.planned_runs(sweeps.Job(sweep))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def loaded(sweep):
    return record.load_sweep(sweep)


@pytest.fixture(scope="module")
def runs(sweep, loaded):
    return [run for plan in plans(sweep) for run in record.record_runs(loaded, [plan])]


def test_all_runs_of_a_sweep_share_one_compilation(sweep, loaded, runs):
    moving = constant(1.0)
    policy = sweeps.planned_runs(sweeps.Job(sweep, 1, moving, 2))
    assert all(record.record_runs(loaded, [plan]) for plan in policy)
    assert len(runs) == sweep.runs == 16
    assert loaded.step._cache_size() == 1


def test_a_sweep_is_loaded_where_no_predictor_has_been_made_yet(sweep, monkeypatch):
    """Or the features could not be changed: the first traces come before the fit."""

    def none(path=None):
        raise AssertionError("nothing asks for a predictor")

    monkeypatch.setattr("metalr.finetune.preparation.load_predictor", none)
    assert record.load_sweep(sweep).first["step"] == 0


def test_losses_are_those_of_adamw_at_the_same_rates(sweep, runs):
    prepared = preparation.prepare(
        RunConfig(
            task=sweep.task,
            model=sweep.model,
            data=sweep.data,
            batch_size=sweep.batch,
            max_steps=sweep.horizon,
            epochs=9.0,
            max_length=sweep.length,
            dropout=0.0,
            seed=sweep.seed,
        ),
        data=record._rows(sweep),
        max_shapes=1,
    )
    tx = optax.inject_hyperparams(schedulers.adamw(0.01, 1.0))(
        learning_rate=lambda count: jnp.asarray(runs[3].rate)[count]
    )
    step = loop.make_step(prepared.problem.loss_fn, tx, accumulate=1)
    params = prepared.problem.params
    state = loop.start(params, tx.init(params), sweep.seed)
    losses = []
    for index in range(sweep.horizon):
        state, logged = step(state, prepared.problem.batches.batch(index))
        losses.append(float(logged["loss"]))
    np.testing.assert_allclose(runs[3].loss, losses, rtol=1e-5)


def test_what_is_recorded_is_the_plan(sweep, runs):
    for run, plan in zip(runs, plans(sweep), strict=True):
        np.testing.assert_allclose(run.multiplier, np.exp(plan.explore), rtol=1e-5)
        np.testing.assert_allclose(run.rate, plan.rate * run.multiplier, rtol=1e-5)
        assert [row["step"] for row in run.evaluations] == [0, 3, 6, 9]
        assert run.about["base_rate"] == plan.about["base_rate"]
        assert (run.about["depth"], run.about["width"]) == (1, 16)


def test_observations_hold_the_multiplier_of_the_step_before(runs):
    column = Observation._fields.index("log_multiplier")
    for run in runs:
        before = np.concatenate([[1.0], run.multiplier[:-1]])
        found = run.observations[:, column]
        np.testing.assert_allclose(found, np.log(before), atol=1e-5)


def test_features_are_those_of_the_observations(runs):
    for run in runs[::4]:
        found = traces.features_of(run.observations)
        np.testing.assert_allclose(found, run.features, rtol=2e-3, atol=2e-3)


def test_runs_of_a_sweep_start_alike(runs):
    assert len({run.loss[0] for run in runs}) == 1
    assert len({run.evaluations[0]["eval_loss"] for run in runs}) == 1


def test_stop_leaves_a_run_at_the_next_step(sweep, loaded):
    assert record.record_runs(loaded, plans(sweep)[:1], lambda: True) is None


@pytest.mark.thorough
def test_runs_side_by_side_are_those_in_turn(sweep, loaded, runs):
    moving = constant(1.0)
    policy = sweeps.planned_runs(sweeps.Job(sweep, 1, moving, 2))
    in_turn = [*runs[:2], *(r for p in policy for r in record.record_runs(loaded, [p]))]
    together = record.record_runs(loaded, [*plans(sweep)[:2], *policy])
    for one, other in zip(together, in_turn, strict=True):
        for name in ("loss", "rate", "multiplier", "features"):
            a, b = getattr(one, name), getattr(other, name)
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)
        assert one.about["kind"] == other.about["kind"]
        losses = [[row["eval_loss"] for row in run.evaluations] for run in (one, other)]
        np.testing.assert_allclose(*losses, rtol=1e-5)


PARAMS = {
    "encoder": {"embeddings": {"words": jnp.arange(6.0).reshape(3, 2)}},
    "out": {"kernel": jnp.arange(4.0).reshape(2, 2)},
}


def parabola(params, batch, key):
    return sum(jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(params))


def test_rescaled_parameters_have_the_same_loss_and_gradients_by_their_scales():
    sweep = draw(**PLAIN | {"rescaled": 0.6})
    params, loss_fn, plain = record._reparametrised(sweep, PARAMS, parabola)
    jax.tree.map(np.testing.assert_allclose, plain(params), PARAMS)
    (loss, grads) = jax.value_and_grad(loss_fn)(params, {}, None)
    assert float(loss) == pytest.approx(float(parabola(PARAMS, {}, None)))
    scale = PARAMS["out"]["kernel"][0, 1] / params["out"]["kernel"][0, 1]
    expected = scale * jax.grad(parabola)(PARAMS, {}, None)["out"]["kernel"]
    np.testing.assert_allclose(grads["out"]["kernel"], expected, rtol=1e-5)


def test_frozen_embeddings_get_no_gradient_and_the_rest_all():
    sweep = draw(**PLAIN | {"frozen": True})
    params, loss_fn, _ = record._reparametrised(sweep, PARAMS, parabola)
    grads = jax.grad(loss_fn)(params, {}, None)
    assert not np.any(grads["encoder"]["embeddings"]["words"])
    expected = jax.grad(parabola)(PARAMS, {}, None)["out"]["kernel"]
    np.testing.assert_allclose(grads["out"]["kernel"], expected)


def test_shuffled_weights_keep_their_values_within_a_leaf():
    params, _, _ = record._reparametrised(
        draw(**PLAIN | {"shuffled": True}), PARAMS, parabola
    )
    words = params["encoder"]["embeddings"]["words"]
    assert not np.array_equal(words, PARAMS["encoder"]["embeddings"]["words"])
    np.testing.assert_array_equal(np.sort(np.ravel(words)), np.arange(6))
