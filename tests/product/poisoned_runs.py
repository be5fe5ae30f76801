"""Runs of the loop whose losses and gradients go bad at some steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import optax_schedule
from metalr.predictor import init_predictor
from tests.finetune import regression_runs


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

    def update(updates, state, params=None, **extra_args):
        step, fault, inner_state = state
        bad = jnp.any(step == fault["at"])

        def hurt(leaf):
            first = jnp.arange(leaf.size) < jnp.maximum(1, fault["share"] * leaf.size)
            hit = bad & ~fault["loss"] & first.reshape(leaf.shape)
            return jnp.where(hit, fault["value"], leaf)

        extra_args["value"] = jnp.where(
            bad & fault["loss"], fault["value"], extra_args["value"]
        )
        grads = jax.tree.map(hurt, updates)
        updates, inner_state = inner.update(grads, inner_state, params, **extra_args)
        return updates, (step + 1, fault, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def metalr(rate=0.05):
    silent = init_predictor()._replace(correlation=np.float32(np.inf))
    return optax_schedule.inject(
        optax.adam, rate, silent, total_steps=regression_runs.STEPS
    )


def is_finite(outcome):
    rows = [v for row in outcome.history for v in row.values() if v is not None]
    return np.isfinite(rows).all() and np.isfinite(outcome.params["w"]).all()
