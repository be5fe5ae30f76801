"""Problems of characters: the next one, and fine-tunes of what has learned it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalr.meta.zoo import nets
from metalr.meta.zoo.problem import (
    ROWS,
    Problem,
    choose,
    cross_entropy,
    draw_key,
    split,
)
from metalr.meta.zoo.rows import texts

PRETRAINING = 400  # steps of Adam


def language(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a language model of characters: a transformer or a recurrent net."""
    recurrent, width = bool(shape.random() < 0.3), int(choose(shape, 32, 64))
    layers, length = int(choose(shape, 1, 2, 4)), 24
    body, last = draw_key(rng), draw_key(rng)
    params = {"last": nets.dense(last, width, 96)}
    if recurrent:
        params["body"] = nets.recurrent(body, 96, width)
    else:
        params["body"] = nets.transformer(body, 96, width, layers, length)

    def loss(params, batch, key):
        ids = batch["ids"][:, :-1]
        if recurrent:
            states = nets.run_recurrent(params["body"], ids)
        else:
            states = nets.run_transformer(params["body"], ids, causal=True)
        return cross_entropy(nets.apply(params["last"], states), batch["ids"][:, 1:])

    name = ("language", recurrent, width, 0 if recurrent else layers)
    return Problem(name, loss, params, *split(texts(rng, length)))


def tuned(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a fine-tune of a pre-trained transformer of characters to two classes.

    All of it is trained, or its head alone, or adapters of low rank.
    """
    width, layers, length = 64, int(choose(shape, 2, 4)), 24
    how = choose(shape, "whole", "whole", "head", "adapters")
    body = _pretrained(width, layers, length)
    rows = texts(rng, length)
    # Of two kinds of window: those of these texts, and the same with places swapped.
    y = rng.integers(2, size=ROWS)
    ids = rows["ids"][:, :length]
    swapped = ids[:, np.random.default_rng(0).permutation(length)]
    mixed = np.where((y[:, None] == 1) & (np.arange(length)[None] < 16), swapped, ids)
    head = nets.dense(draw_key(rng), width, 2, 0.1)
    trained: dict[str, Any] = {"head": head}
    if how == "whole":
        trained["body"] = body
    if how == "adapters":
        keys = jax.random.split(draw_key(rng), layers)
        trained["lora"] = [
            {
                "a": jax.random.normal(k, (width, 4)) / 8,
                "b": jnp.zeros((4, 3 * width)),
            }
            for k in keys
        ]

    def loss(params, batch, key):
        own = params["body"] if how == "whole" else body
        states = nets.run_transformer(
            own, batch["ids"], causal=True, lora=params.get("lora")
        )
        return cross_entropy(nets.apply(params["head"], states.mean(1)), batch["y"])

    rows = {"ids": mixed.astype(np.int32), "y": y.astype(np.int32)}
    return Problem(("tuned", how, layers), loss, trained, *split(rows, 128))


@functools.cache
def _pretrained(width: int, layers: int, length: int) -> Any:
    """Pre-train a body on the next character."""
    import optax

    rng = np.random.default_rng(7)
    rows = jnp.asarray(texts(rng, length)["ids"])
    params = {
        "body": nets.transformer(draw_key(rng), 96, width, layers, length),
        "last": nets.dense(draw_key(rng), width, 96),
    }
    tx = optax.adam(3e-3)

    def loss(params, ids):
        states = nets.run_transformer(params["body"], ids[:, :-1], causal=True)
        return cross_entropy(nets.apply(params["last"], states), ids[:, 1:])

    @jax.jit
    def fit(params):
        def step(carry, index):
            params, state = carry
            ids = jax.lax.dynamic_slice_in_dim(rows, (index * 32) % (ROWS - 32), 32)
            updates, state = tx.update(jax.grad(loss)(params, ids), state, params)
            return (optax.apply_updates(params, updates), state), None

        start = params, tx.init(params)
        return jax.lax.scan(step, start, jnp.arange(PRETRAINING))[0][0]

    return fit(params)["body"]
