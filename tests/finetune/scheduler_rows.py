"""Rows of schedulers built and run on a parabola."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.finetune import schedulers

PLAN = schedulers.RunPlan(learning_rate=0.1, total_steps=100, warmup_steps=9)
ROWS = schedulers.SCHEDULERS

OWN_OPTIMIZER = [  # which leave the given one aside
    name for name, row in ROWS.items() if row.learning_rate != 2e-5
]

SETTING = [name for name in ROWS if name not in OWN_OPTIMIZER]

# Recipes have an ordinary base rate; 0.1 fits the parabola as it fits any.
OWN_RATE = [name for name in OWN_OPTIMIZER if name not in ("autogluon", "kerashub")]
USUAL = ("linear", "metalr", "prodigy")  # rows that are tested whole each time

# They bring programs of their own, whose compilation is most of a test.
INNERS_OF = dict.fromkeys(
    ("adalrs", "gala", "gen", "lr_find_valley", "lr_find_steep"),
    ("adamw", "adafactor"),
) | dict.fromkeys(("find_linear", "find_metalr"), ("adamw",))


def build(name, inner="adamw", plan=PLAN):
    row = ROWS[name]
    if name in OWN_RATE:
        plan = plan._replace(learning_rate=row.learning_rate)
    return row.build(INNERS[inner], plan)


INNERS = {
    "adamw": lambda learning_rate: optax.adamw(learning_rate, weight_decay=0.01),
    "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
    "lion": optax.lion,
    "adafactor": lambda learning_rate: optax.adafactor(
        learning_rate, multiply_by_parameter_scale=False
    ),
}


def quadratic(params):
    return 0.5 * sum(jnp.sum(p.astype(jnp.float32) ** 2) for p in params.values())


def is_array(path, value):
    del path
    return isinstance(value, jax.Array)


def start_params(dtype=jnp.float32):
    return {"w": jnp.linspace(-1, 1, 12, dtype=dtype).reshape(3, 4), "b": jnp.ones(3)}


def run(tx, params, steps, losses=None):
    """Take steps on the parabola; return parameters, state and the rates used."""
    state, traced = tx.init(params), []

    @jax.jit
    def step(params, state, value):
        traced.append(value)
        grads = jax.grad(quadratic)(params)
        updates, state = tx.update(
            grads,
            state,
            params,
            value=value,
            value_fn=quadratic,
            grad_fn=jax.grad(quadratic),
            unknown=1,
        )
        rate = optax.tree.get(state, "learning_rate", filtering=is_array)
        return optax.apply_updates(params, updates), state, rate

    rates = []
    for index in range(steps):
        value = quadratic(params) if losses is None else jnp.float32(losses[index])
        params, state, rate = step(params, state, value)
        rates.append(float(rate))
    assert len(traced) == 1, "retraced"
    return params, state, np.array(rates)
