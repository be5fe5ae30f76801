"""Numbers that are not finite are survived and counted, or stop the run in words."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import optax_schedule
from metalr.errors import MetalrError
from metalr.finetune import journal
from metalr.finetune.checkpoint import Checkpoints
from metalr.predictor import init_predictor
from tests.finetune import test_loop

PACE = test_loop.PACE


def poisoned(inner, at, value, *, loss=False, share=1.0):
    """Hand the inner transformation a bad loss or gradient at some steps.

    Args:
      inner: The transformation under test.
      at: The steps.
      value: What is put in.
      loss: Whether it is the loss that goes bad, and not the gradient.
      share: Of the gradient's coordinates.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        # All in the state: runs that differ in it alone share one compiled step.
        fault = {"at": jnp.asarray(at), "value": jnp.float32(value)}
        fault |= {"loss": jnp.asarray(loss), "share": jnp.float32(share)}
        return jnp.zeros((), jnp.int32), fault, inner.init(params)

    def update(grads, state, params=None, **extra_args):
        step, fault, inner_state = state
        bad = jnp.any(step == fault["at"])

        def hurt(leaf):
            first = jnp.arange(leaf.size) < jnp.maximum(1, fault["share"] * leaf.size)
            hit = bad & ~fault["loss"] & first.reshape(leaf.shape)
            return jnp.where(hit, fault["value"], leaf)

        extra_args["value"] = jnp.where(
            bad & fault["loss"], fault["value"], extra_args["value"]
        )
        grads = jax.tree.map(hurt, grads)
        updates, inner_state = inner.update(grads, inner_state, params, **extra_args)
        return updates, (step + 1, fault, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def metalr(rate=0.05):
    silent = init_predictor()._replace(correlation=np.float32(np.inf))
    return optax_schedule.inject(optax.adam, rate, silent, total_steps=test_loop.STEPS)


def is_finite(outcome):
    rows = [v for row in outcome.history for v in row.values() if v is not None]
    return np.isfinite(rows).all() and np.isfinite(outcome.params["w"]).all()


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("loss", np.nan),
        ("gradient", -np.inf),
        ("one coordinate", np.nan),
        ("one coordinate", 1e30),  # finite, and its square is not
    ],
)
def test_bad_step_is_skipped_counted_and_leaves_the_run_finite(where, value):
    share = 0.01 if where == "one coordinate" else 1.0
    tx = poisoned(metalr(), (4, 5, 17), value, loss=where == "loss", share=share)
    outcome = test_loop.train(PACE, tx=tx)
    assert is_finite(outcome)
    last = [row for row in outcome.history if "loss" in row][-1]
    assert last["skipped_steps"] == 3
    # Each halved the multiplier, and a predictor without evidence lets it stay there.
    assert last["lr_multiplier"] == pytest.approx(1 / 8)


def test_loss_that_is_finite_and_huge_is_taken_as_it_is():
    outcome = test_loop.train(PACE, tx=poisoned(metalr(), (4,), 1e30, loss=True))
    assert is_finite(outcome)


def test_run_whose_every_step_is_bad_ends_where_it_began():
    outcome = test_loop.train(PACE, tx=poisoned(metalr(), range(99), np.nan))
    assert is_finite(outcome) and not np.any(outcome.params["w"])


def test_plain_scheduler_stops_with_step_and_advice_and_keeps_what_it_saved(tmp_path):
    keep = Checkpoints(tmp_path)
    pace = PACE._replace(save_every=1, log_every=100, eval_every=100)
    tx = poisoned(test_loop.transformation(), (13,), np.nan)
    with pytest.raises(journal.Diverged, match="step 15.*smaller --learning-rate"):
        test_loop.train(pace, tx=tx, checkpoints=keep)
    keep.close()
    saved = sorted(int(path.name) for path in (tmp_path / "last").iterdir())
    assert saved == [13, 14]  # the step that went wrong, and the good one before it


@pytest.mark.parametrize("rate", [1.0, 1e-12])
def test_any_base_rate_ends_finite(rate):
    assert is_finite(test_loop.train(PACE, tx=metalr(rate)))


def test_base_rate_that_is_no_rate_is_refused():
    with pytest.raises(MetalrError, match="must be positive"):
        metalr(float("nan"))
