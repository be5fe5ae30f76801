"""Short runs of the loop on a linear regression."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.finetune import loop, schedulers

DIM, BATCH, STEPS = 5, 8, 24


TARGET = np.arange(1.0, DIM + 1, dtype=np.float32)


class Rows:
    """Batches of a linear regression, as a pure function of the step."""

    steps_per_epoch = 6

    def batch(self, step):
        rng = np.random.default_rng(step % self.steps_per_epoch)
        x = rng.normal(size=(BATCH, DIM)).astype(np.float32)
        weights = np.ones(BATCH, np.float32)
        weights[-3:] = step % 2  # rows that only fill the batch, now and then
        return {"x": x, "labels": x @ TARGET, "weights": weights}


def loss_fn(params, batch, key):
    keep = jax.random.bernoulli(key, 0.9, (DIM,))  # stands for dropout
    error = (batch["x"] * keep[None]) @ params["w"] - batch["labels"]
    weights = batch["weights"]
    return jnp.sum(weights * error**2) / jnp.sum(weights)


def smooth_loss_fn(params, batch, key):
    del key
    return loss_fn(params, batch, jax.random.key(0))


def score(params):
    return {"r": -float(jnp.sum((params["w"] - TARGET) ** 2)), "eval_loss": 0.0}


def problem(loss=loss_fn, evaluate=score):
    return loop.TrainingProblem({"w": jnp.zeros(DIM)}, loss, Rows(), evaluate, "r")


def transformation(rate=0.05):
    plan = schedulers.RunPlan(rate, STEPS, 2)
    return schedulers.SCHEDULERS["linear"].build(optax.adam, plan)


PACE = loop.Pace(total_steps=STEPS, eval_every=8, log_every=3, save_every=5, seed=3)


class Screen:
    def __init__(self):
        self.lines = []

    def logged(self, row, steps_per_second):
        assert steps_per_second > 0
        self.lines.append(row)

    def evaluated(self, row):
        self.lines.append(row)

    def note(self, line):
        self.lines.append(line)


def train(pace=PACE, **kwargs):
    kwargs.setdefault("display", Screen())
    of = kwargs.pop("problem", None) or problem()
    tx = kwargs.pop("tx", None) or transformation()
    return loop.train(of, tx, pace, **kwargs)
