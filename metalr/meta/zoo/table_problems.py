"""Problems of tables: classes, numbers, and cells of a matrix."""

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
from metalr.meta.zoo.rows import table


def perceptron(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a classifier of one to three hidden layers."""
    rows, classes = table(shape, rng)
    width, depth = int(choose(shape, 16, 64, 128)), int(choose(shape, 1, 2, 3))
    activation = choose(shape, *nets.ACTIVATIONS)
    sizes = [rows["x"].shape[1], *[width] * depth, classes]

    def loss(params, batch, key):
        return cross_entropy(nets.run_mlp(params, batch["x"], activation), batch["y"])

    scale = float(rng.choice([0.5, 1.0, 1.4, 2.0]))
    return Problem(
        ("perceptron", *sizes, activation),
        loss,
        nets.mlp(draw_key(rng), sizes, scale),
        *split(rows),
    )


def deep(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a residual classifier of four to twelve blocks."""
    rows, classes = table(shape, rng)
    width, blocks = int(choose(shape, 32, 64)), int(choose(shape, 4, 8, 12))
    first, middle, last = (draw_key(rng) for _ in range(3))
    params = {
        "first": nets.dense(first, rows["x"].shape[1], width),
        "blocks": nets.residual(middle, width, blocks),
        "last": nets.dense(last, width, classes),
    }

    def loss(params, batch, key):
        x = nets.apply(params["first"], batch["x"])
        x = nets.run_residual(params["blocks"], x, "gelu")
        return cross_entropy(nets.apply(params["last"], x), batch["y"])

    name = ("deep", rows["x"].shape[1], width, blocks, classes)
    return Problem(name, loss, params, *split(rows))


def linear(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a linear classifier, which begins at zero."""
    rows, classes = table(shape, rng)
    columns = rows["x"].shape[1]
    params = {"w": jnp.zeros((columns, classes)), "b": jnp.zeros(classes)}

    def loss(params, batch, key):
        return cross_entropy(nets.apply(params, batch["x"]), batch["y"])

    return Problem(("linear", columns, classes), loss, params, *split(rows))


def teacher(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a regression on a drawn network, with noise or without."""
    columns, width = int(choose(shape, 4, 16)), int(choose(shape, 32, 128))
    activation, gaussian = choose(shape, "tanh", "relu"), bool(shape.random() < 0.4)
    x = rng.normal(size=(ROWS, columns)).astype(np.float32)
    teacher = nets.mlp(draw_key(rng), [columns, 16, 1], 2.0)
    y = np.asarray(nets.run_mlp(teacher, jnp.asarray(x), "tanh"))[:, 0]
    y = (y - y.mean()) / (y.std() + 1e-6)
    y = y + float(rng.choice([0.0, 0.0, 0.1, 0.5])) * rng.normal(size=ROWS)
    sizes = [columns, width, width, 2 if gaussian else 1]

    def loss(params, batch, key):
        out = nets.run_mlp(params, batch["x"], activation)
        error = jnp.square(out[:, 0] - batch["y"])
        if not gaussian:
            return jnp.mean(error)
        log_variance = jnp.clip(out[:, 1], -10, 10)  # a negative log likelihood
        return jnp.mean(error * jnp.exp(-log_variance) + log_variance) / 2

    return Problem(
        ("teacher", *sizes, activation, gaussian),
        loss,
        nets.mlp(draw_key(rng), sizes, float(rng.choice([1.0, 1.4]))),
        *split({"x": x, "y": y.astype(np.float32)}),
    )


def factors(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a factorisation of a partly observed matrix: two tables of embeddings."""
    size, rank = int(choose(shape, 64, 200)), int(choose(shape, 4, 8))
    left, right = rng.normal(size=(2, size, rank))
    cells = rng.integers(size, size=(ROWS, 2)).astype(np.int32)
    y = np.sum(left[cells[:, 0]] * right[cells[:, 1]], -1) / np.sqrt(rank)
    y = y + float(rng.choice([0.0, 0.3])) * rng.normal(size=ROWS)
    params = {
        "left": 0.1 * jax.random.normal(draw_key(rng), (size, rank)),
        "right": 0.1 * jax.random.normal(draw_key(rng), (size, rank)),
    }

    def loss(params, batch, key):
        a = params["left"][batch["x"][:, 0]]
        b = params["right"][batch["x"][:, 1]]
        return jnp.mean((jnp.sum(a * b, -1) - batch["y"]) ** 2)

    rows = {"x": cells, "y": y.astype(np.float32)}
    return Problem(("factors", size, rank), loss, params, *split(rows))


def quadratic(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a noisy parabola with a spectrum that falls as a power."""
    size = int(choose(shape, 20, 100))
    power = float(rng.uniform(0, 2))
    x = rng.normal(size=(ROWS, size)) * np.arange(1, size + 1) ** -power
    truth = rng.normal(size=size)
    y = x @ truth + float(rng.choice([0.0, 0.1, 1.0])) * rng.normal(size=ROWS)
    params = {"w": jnp.asarray(truth + 2 * rng.normal(size=size), jnp.float32)}

    def loss(params, batch, key):
        return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)

    rows = {"x": x.astype(np.float32), "y": y.astype(np.float32)}
    return Problem(("quadratic", size), loss, params, *split(rows))
