"""A bowl that rules of others are run on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.finetune.rules.plan import RunPlan

PLAN = RunPlan(learning_rate=0.1, total_steps=200, warmup_steps=0)
CURVATURES = np.array([1.0, 4.0], np.float32)

TRUE, FALSE = jnp.asarray(True), jnp.asarray(False)


def bowl(params):
    return 0.5 * jnp.sum(CURVATURES * params["w"] ** 2)


def take(tx, params, steps, values=None):
    """Take steps on the bowl; return parameters, state and rates by step."""

    @jax.jit
    def step(params, state, value):
        updates, state = tx.update(
            jax.grad(bowl)(params),
            state,
            params,
            value=value,
            value_fn=bowl,
            grad_fn=jax.grad(bowl),
        )
        return optax.apply_updates(params, updates), state

    state, seen, rates = tx.init(params), [], []
    for index in range(steps):
        value = bowl(params) if values is None else jnp.float32(values[index])
        params, state = step(params, state, value)
        seen.append(np.asarray(params["w"]))
        hyperparams = optax.tree.get(state, "hyperparams")
        rates.append(float(hyperparams["learning_rate"]))
    return np.array(seen), state, np.array(rates)


def is_adams(path, value):
    del value
    return "Adam" in str(path[-1])
