"""The loop trains as optax alone would, and a run that was cut goes on bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr.finetune import journal, loop
from metalr.finetune.checkpoint import Checkpoints
from tests.finetune.regression_runs import (
    DIM,
    PACE,
    STEPS,
    Rows,
    Screen,
    loss_fn,
    problem,
    score,
    smooth_loss_fn,
    train,
    transformation,
)


def test_parameters_are_those_of_a_plain_optax_loop():
    tx = transformation()
    params = {"w": jnp.zeros(DIM)}
    state = tx.init(params)

    @jax.jit
    def step(params, state, batch, key):
        grads = jax.grad(loss_fn)(params, batch, key)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for index in range(STEPS):
        key = jax.random.fold_in(jax.random.key(PACE.seed), index)
        params, state = step(params, state, Rows().batch(index), key)
    np.testing.assert_array_equal(train().params["w"], params["w"])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_rules_can_ask_for_loss_and_gradient_of_the_same_batch_elsewhere(accumulate):
    def update(updates, state, params, *, value, value_fn, grad_fn):
        here = value_fn(params) - value, optax.tree.sub(grad_fn(params), updates)
        doubled = optax.tree.scale(2.0, params)
        moved = value_fn(doubled) - value
        rate = {"learning_rate": jnp.float32(0.05)}
        return optax.tree.scale(-0.05, updates), (here, moved, rate)

    def init(params):
        zero = jnp.zeros(())
        return (zero, params), zero, {"learning_rate": zero}

    tx = optax.GradientTransformationExtraArgs(init, update)
    step = loop.make_step(loss_fn, tx, accumulate=accumulate)
    params = {"w": jnp.ones(DIM)}
    state, _ = step(loop.start(params, tx.init(params), 0), Rows().batch(0))
    (value, grads), moved, _ = state.opt_state
    assert float(value) == 0 and not np.any(np.asarray(grads["w"]))
    assert abs(float(moved)) > 0.01


def kept(scores, metric="r", patience=0):
    """Return the best step of a run with these (r, eval_loss), and where it ended."""
    rows = iter([{"r": r, "eval_loss": loss} for r, loss in scores])
    of = problem(evaluate=lambda params: next(rows))._replace(metric=metric)
    pace = PACE._replace(eval_every=4, early_stopping=patience)
    outcome = train(pace, problem=of)
    return outcome.best["step"], outcome.steps


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.96, x) for x in (0.5, 0.3, 0.2, 0.1, 0.15, 0.2)], 16),
        ([(0.96, 0.1)] * 6, 4),  # nothing tells them apart
        ([(0.5, 0.1), (0.6, 0.9), (0.5, 0.05), (0.6, 0.8), (0.6, 1.0), (0.1, 0)], 16),
        ([(0.9, np.nan), (0.9, 0.5), (0.9, np.nan), (0.1, 0), (0, 0), (0, 0)], 8),
    ],
)
def test_of_equal_scores_the_one_with_the_lower_loss_is_the_best(scores, best):
    assert kept(scores) == (best, STEPS)


def test_equal_score_with_a_lower_loss_is_progress_and_not_a_reason_to_stop():
    falling = [(0.96, 1 / n) for n in range(1, 7)]
    assert kept(falling, patience=2) == (24, 24)
    assert kept([(0.96, 0.5)] * 6, patience=2) == (4, 12)


def test_loss_may_pick_the_best_step():
    scores = [(0.9, 0.4), (0.8, 0.2), (0.7, 0.3), (0.95, np.nan), (0.99, 0.5), (1, 1)]
    assert kept(scores, "eval_loss") == (8, 24)


def test_history_has_every_interval_and_evaluation_once():
    outcome = train()
    logged = [row["step"] for row in outcome.history if "loss" in row]
    scored = [row["step"] for row in outcome.history if "r" in row]
    assert logged == [3, 6, 8, 9, 12, 15, 16, 18, 21, 24]
    assert scored == [8, 16, 24]
    rates = [row["learning_rate"] for row in outcome.history if "loss" in row]
    assert rates[-1] == pytest.approx(0.05 / 22)
    assert outcome.history[-1]["epoch"] == 4.0


@pytest.mark.parametrize("stop_at", [None, 7, 9])
def test_seconds_are_those_of_steps_and_neither_of_evaluation_nor_of_saving(
    stop_at, tmp_path, monkeypatch
):
    now = [0.0]

    def takes(seconds, value=None):
        now[0] += seconds
        return value

    class Paced(Screen):
        def logged(self, row, steps_per_second):
            assert steps_per_second == 1

    class Slow(Checkpoints):
        def save(self, *args):
            takes(100, super().save(*args))

    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    pace = PACE._replace(save_every=5, log_every=3, eval_every=8)
    of = problem(evaluate=lambda params: takes(1000, score(params)))
    asked = iter(range(1, STEPS + 1))
    for stop in (lambda: next(asked) == stop_at, lambda: False):
        keep = Slow(tmp_path)
        outcome = train(
            pace,
            problem=of,
            display=Paced(),
            checkpoints=keep,
            stop=stop,
            on_step=lambda done, logged: takes(1),
        )
        keep.close()
        assert outcome.seconds == outcome.steps
        assert outcome.step_seconds == 1
    assert outcome.steps == STEPS


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradient_is_that_of_the_whole_batch(parts):
    whole = train(problem=problem(smooth_loss_fn))
    in_parts = train(PACE._replace(accumulate=parts), problem=problem(smooth_loss_fn))
    np.testing.assert_allclose(in_parts.params["w"], whole.params["w"], rtol=1e-4)
    np.testing.assert_allclose(
        [r["loss"] for r in in_parts.history if "loss" in r],
        [r["loss"] for r in whole.history if "loss" in r],
        rtol=1e-4,
    )


@pytest.mark.parametrize("cut", [1, 5, 7, 8, 16, 23])
def test_run_that_was_stopped_goes_on_to_equal_bits(cut, tmp_path):
    expected = train()
    steps = iter(range(1, STEPS + 1))
    first = Checkpoints(tmp_path)
    stopped = train(checkpoints=first, stop=lambda: next(steps) == cut)
    first.close()
    assert (stopped.stopped, stopped.steps) == ("asked", cut)
    again = Checkpoints(tmp_path)
    resumed = train(checkpoints=again)
    again.close()
    assert resumed.history == expected.history
    assert resumed.best == expected.best
    np.testing.assert_array_equal(resumed.params["w"], expected.params["w"])


def test_torn_newest_checkpoint_leaves_the_one_before(tmp_path):
    expected = train()
    steps = iter(range(1, STEPS + 1))
    first = Checkpoints(tmp_path)
    train(checkpoints=first, stop=lambda: next(steps) == 17)
    first.close()
    torn = tmp_path / "last" / "17" / "state"
    for file in [f for f in torn.rglob("*") if f.is_file()]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = Checkpoints(tmp_path)
    resumed = train(checkpoints=again)
    again.close()
    assert resumed.history == expected.history


def test_best_parameters_are_kept_when_the_score_falls_later(tmp_path):
    scores = iter([0.2, 0.9, 0.1])
    seen = []

    def evaluate(params):
        seen.append(np.array(params["w"]))
        return {"r": next(scores)}

    keep = Checkpoints(tmp_path)
    outcome = train(problem=problem(evaluate=evaluate), checkpoints=keep)
    best = keep.best(jax.eval_shape(lambda: outcome.params), outcome.best["step"])
    keep.close()
    assert outcome.best["step"] == 16
    np.testing.assert_array_equal(best["w"], seen[1])


def test_early_stopping_ends_after_so_many_evaluations_without_a_best():
    scores = iter([0.5, 0.4, 0.3, 0.2])
    pace = PACE._replace(eval_every=4, early_stopping=2)
    outcome = train(pace, problem=problem(evaluate=lambda p: {"r": next(scores)}))
    assert (outcome.stopped, outcome.steps, outcome.best["step"]) == ("early", 12, 4)


def test_loss_that_is_not_finite_stops_a_plain_scheduler_and_keeps_checkpoints(
    tmp_path,
):
    def explode(params, batch, key):
        return loss_fn(params, batch, key) / jnp.where(batch["x"][0, 0] > 9, 0.0, 1.0)

    class Poisoned(Rows):
        def batch(self, step):
            found = super().batch(step)
            if step == 13:
                found["x"][0, 0] = np.inf
            return found

    keep = Checkpoints(tmp_path)
    with pytest.raises(journal.Diverged, match=r"step 15.*smaller --learning-rate"):
        train(problem=problem(explode)._replace(batches=Poisoned()), checkpoints=keep)
    saved = keep.latest(
        jax.eval_shape(
            lambda: loop.start(
                {"w": jnp.zeros(DIM)},
                transformation().init({"w": jnp.zeros(DIM)}),
                seed=0,
            )
        )
    )
    keep.close()
    assert saved is not None and saved.step == 10
    assert np.isfinite(saved.state.params["w"]).all()


def test_value_reaches_a_transformation_that_asks_for_it():
    def update(updates, state, params=None, *, value, **extra_args):
        del params, extra_args
        return jax.tree.map(lambda u: -0.01 * u, updates), {"learning_rate": value}

    tx = optax.GradientTransformationExtraArgs(
        lambda params: {"learning_rate": jnp.float32(0)}, update
    )
    rows = [r for r in train(PACE._replace(log_every=1), tx=tx).history if "loss" in r]
    assert all(row["loss"] == row["learning_rate"] for row in rows)
