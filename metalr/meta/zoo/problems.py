"""The kinds of problem in the zoo.

A kind is a function of a random generator that returns a `Problem`. Problems that share
an architecture share a compiled program: what a generator draws goes into arrays.

Left out on purpose, so that tests may hold a predictor against them: scikit-learn's
digits, and Python's own sources as text.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalr.meta.zoo import nets

Rows = dict[str, np.ndarray]  # [N, ...] each
ROWS, HELD_OUT = 2048, 512


class Problem(NamedTuple):
    """What is trained: the first two fields make the program, the others are data."""

    architecture: tuple  # hashable; the same: one compiled program
    loss: Callable[[Any, Any, jax.Array], jax.Array]  # (params, batch, key) -> []
    params: Any
    train: Rows
    validation: Rows


Maker = Callable[[np.random.Generator, np.random.Generator], Problem]


def _of(rng: np.random.Generator, *values: Any) -> Any:
    return values[rng.integers(len(values))]


def _split(rows: Rows, most: int = HELD_OUT) -> tuple[Rows, Rows]:
    size = len(next(iter(rows.values())))
    held = min(most, size // 4)
    return (
        {k: v[held:] for k, v in rows.items()},
        {k: v[:held] for k, v in rows.items()},
    )


def _key(rng: np.random.Generator) -> jax.Array:
    return jax.random.key(int(rng.integers(2**31)))


def _entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    logs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(logs, labels[..., None], -1))


# --- Rows ---------------------------------------------------------------------------


def _table(shape: np.random.Generator, rng: np.random.Generator) -> tuple[Rows, int]:
    """Return a table with classes: of scikit-learn's sets, or generated."""
    from sklearn import datasets

    x: Any
    y: Any
    name = _of(shape, "wine", "breast_cancer", "iris", "made", "made", "made", "moons")
    if name == "made":
        classes = int(_of(shape, 2, 5, 10))
        x, y = datasets.make_classification(
            ROWS,
            n_features=32,
            n_informative=16,
            n_classes=classes,
            n_clusters_per_class=2,
            class_sep=float(rng.uniform(0.5, 2)),
            flip_y=float(rng.choice([0.0, 0.05, 0.2])),
            random_state=int(rng.integers(2**31)),
        )
    elif name == "moons":
        classes = 2
        x, y = datasets.make_moons(
            ROWS,
            noise=float(rng.uniform(0.05, 0.4)),
            random_state=int(rng.integers(2**31)),
        )
    else:
        found = getattr(datasets, f"load_{name}")()
        x, y, classes = found.data, found.target, len(found.target_names)
        order = rng.permutation(len(x))
        x, y = x[order], y[order]
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    return {"x": x.astype(np.float32), "y": y.astype(np.int32)}, classes


def _images(rng: np.random.Generator, classes: int, side: int = 12) -> Rows:
    """Draw gratings and blobs: the class is the pattern's angle or place."""
    y = rng.integers(classes, size=ROWS)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) / side - 0.5
    angle = np.pi * (y + 0.3 * rng.normal(size=ROWS)) / classes
    wave = 2 * np.pi * rng.uniform(1, 3, ROWS)
    along = (
        grid[..., 0][None] * np.cos(angle)[:, None, None]
        + grid[..., 1][None] * np.sin(angle)[:, None, None]
    )
    x = np.sin(wave[:, None, None] * along + rng.uniform(0, 6, ROWS)[:, None, None])
    x = x + float(rng.choice([0.2, 0.5, 1.0])) * rng.normal(size=x.shape)
    return {"x": x[..., None].astype(np.float32), "y": y.astype(np.int32)}


def _texts(rng: np.random.Generator, length: int) -> Rows:
    """Cut generated sentences into windows of characters."""
    from metalr.data import toy

    seed, task = int(rng.integers(2**31)), _of(rng, "sst2", "qnli", "ag_news", "cola")
    drawn = toy.generate(task, "train", 800, seed)
    texts = [value for row in drawn for value in row.values() if isinstance(value, str)]
    text = "\n".join(texts).lower()
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    ids = np.where((codes >= 32) & (codes < 128), codes - 32, 0).astype(np.int32)
    starts = rng.integers(0, len(ids) - length - 1, ROWS)
    return {"ids": ids[starts[:, None] + np.arange(length + 1)[None]]}


# --- Kinds --------------------------------------------------------------------------


def _perceptron(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    rows, classes = _table(shape, rng)
    width, depth = int(_of(shape, 16, 64, 128)), int(_of(shape, 1, 2, 3))
    activation = _of(shape, *nets.ACTIVATIONS)
    sizes = [rows["x"].shape[1], *[width] * depth, classes]

    def loss(params, batch, key):
        return _entropy(nets.run_mlp(params, batch["x"], activation), batch["y"])

    scale = float(rng.choice([0.5, 1.0, 1.4, 2.0]))
    return Problem(
        ("perceptron", *sizes, activation),
        loss,
        nets.mlp(_key(rng), sizes, scale),
        *_split(rows),
    )


def _deep(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    rows, classes = _table(shape, rng)
    width, blocks = int(_of(shape, 32, 64)), int(_of(shape, 4, 8, 12))
    first, middle, last = (_key(rng) for _ in range(3))
    params = {
        "first": nets.dense(first, rows["x"].shape[1], width),
        "blocks": nets.residual(middle, width, blocks),
        "last": nets.dense(last, width, classes),
    }

    def loss(params, batch, key):
        x = nets.apply(params["first"], batch["x"])
        x = nets.run_residual(params["blocks"], x, "gelu")
        return _entropy(nets.apply(params["last"], x), batch["y"])

    name = ("deep", rows["x"].shape[1], width, blocks, classes)
    return Problem(name, loss, params, *_split(rows))


def _linear(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    rows, classes = _table(shape, rng)
    columns = rows["x"].shape[1]
    params = {"w": jnp.zeros((columns, classes)), "b": jnp.zeros(classes)}

    def loss(params, batch, key):
        return _entropy(nets.apply(params, batch["x"]), batch["y"])

    return Problem(("linear", columns, classes), loss, params, *_split(rows))


def _teacher(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a regression on a drawn network, with noise or without."""
    columns, width = int(_of(shape, 4, 16)), int(_of(shape, 32, 128))
    activation, gaussian = _of(shape, "tanh", "relu"), bool(shape.random() < 0.4)
    x = rng.normal(size=(ROWS, columns)).astype(np.float32)
    teacher = nets.mlp(_key(rng), [columns, 16, 1], 2.0)
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
        nets.mlp(_key(rng), sizes, float(rng.choice([1.0, 1.4]))),
        *_split({"x": x, "y": y.astype(np.float32)}),
    )


def _convolution(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    classes, layers = int(_of(shape, 4, 10)), int(_of(shape, 2, 3))
    channels = [1, *[int(_of(shape, 8, 16))] * layers]
    first, last = _key(rng), _key(rng)
    params = {
        "layers": nets.convolutions(first, channels),
        "last": nets.dense(last, channels[-1], classes),
    }

    def loss(params, batch, key):
        x = nets.run_convolutions(params["layers"], batch["x"])
        return _entropy(nets.apply(params["last"], x), batch["y"])

    name = ("convolution", *channels, classes)
    return Problem(name, loss, params, *_split(_images(rng, classes)))


def _autoencoder(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make an autoencoder of images, or a variational one (loss may be below 0)."""
    variational, width = bool(shape.random() < 0.5), int(_of(shape, 64, 128))
    code, up, down = 8, _key(rng), _key(rng)
    pixels = 144
    params = {
        "up": nets.mlp(up, [pixels, width, 2 * code if variational else code], 1.0),
        "down": nets.mlp(down, [code, width, pixels], 1.0),
    }

    def loss(params, batch, key):
        x = batch["x"].reshape(-1, pixels)
        z = nets.run_mlp(params["up"], x, "relu")
        extra = 0.0
        if variational:
            mean, log_std = jnp.split(z, 2, -1)
            log_std = jnp.clip(log_std, -6, 3)
            z = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
            terms = mean**2 + jnp.exp(2 * log_std) - 1 - 2 * log_std
            extra = jnp.sum(terms, -1).mean() / 2 / pixels
        error = jnp.mean((nets.run_mlp(params["down"], z, "relu") - x) ** 2)
        return (2 * error - 1.5 if variational else error) + extra

    name = ("autoencoder", variational, width)
    return Problem(name, loss, params, *_split(_images(rng, 10)))


def _language(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a language model of characters: a transformer or a recurrent net."""
    recurrent, width = bool(shape.random() < 0.3), int(_of(shape, 32, 64))
    layers, length = int(_of(shape, 1, 2, 4)), 24
    body, last = _key(rng), _key(rng)
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
        return _entropy(nets.apply(params["last"], states), batch["ids"][:, 1:])

    name = ("language", recurrent, width, 0 if recurrent else layers)
    return Problem(name, loss, params, *_split(_texts(rng, length)))


def _factors(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a factorisation of a partly observed matrix: two tables of embeddings."""
    size, rank = int(_of(shape, 64, 200)), int(_of(shape, 4, 8))
    left, right = rng.normal(size=(2, size, rank))
    cells = rng.integers(size, size=(ROWS, 2)).astype(np.int32)
    y = np.sum(left[cells[:, 0]] * right[cells[:, 1]], -1) / np.sqrt(rank)
    y = y + float(rng.choice([0.0, 0.3])) * rng.normal(size=ROWS)
    params = {
        "left": 0.1 * jax.random.normal(_key(rng), (size, rank)),
        "right": 0.1 * jax.random.normal(_key(rng), (size, rank)),
    }

    def loss(params, batch, key):
        a = params["left"][batch["x"][:, 0]]
        b = params["right"][batch["x"][:, 1]]
        return jnp.mean((jnp.sum(a * b, -1) - batch["y"]) ** 2)

    rows = {"x": cells, "y": y.astype(np.float32)}
    return Problem(("factors", size, rank), loss, params, *_split(rows))


def _quadratic(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a noisy parabola with a spectrum that falls as a power."""
    size = int(_of(shape, 20, 100))
    power = float(rng.uniform(0, 2))
    x = rng.normal(size=(ROWS, size)) * np.arange(1, size + 1) ** -power
    truth = rng.normal(size=size)
    y = x @ truth + float(rng.choice([0.0, 0.1, 1.0])) * rng.normal(size=ROWS)
    params = {"w": jnp.asarray(truth + 2 * rng.normal(size=size), jnp.float32)}

    def loss(params, batch, key):
        return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)

    rows = {"x": x.astype(np.float32), "y": y.astype(np.float32)}
    return Problem(("quadratic", size), loss, params, *_split(rows))


def _tuned(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a fine-tune of a pre-trained transformer of characters to two classes.

    All of it is trained, or its head alone, or adapters of low rank.
    """
    width, layers, length = 64, int(_of(shape, 2, 4)), 24
    how = _of(shape, "whole", "whole", "head", "adapters")
    body = _pretrained(width, layers, length)
    rows = _texts(rng, length)
    # Of two kinds of window: those of these texts, and the same with places swapped.
    y = rng.integers(2, size=ROWS)
    ids = rows["ids"][:, :length]
    swapped = ids[:, np.random.default_rng(0).permutation(length)]
    mixed = np.where((y[:, None] == 1) & (np.arange(length)[None] < 16), swapped, ids)
    head = nets.dense(_key(rng), width, 2, 0.1)
    trained: dict[str, Any] = {"head": head}
    if how == "whole":
        trained["body"] = body
    if how == "adapters":
        keys = jax.random.split(_key(rng), layers)
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
        return _entropy(nets.apply(params["head"], states.mean(1)), batch["y"])

    rows = {"ids": mixed.astype(np.int32), "y": y.astype(np.int32)}
    return Problem(("tuned", how, layers), loss, trained, *_split(rows, 128))


PRETRAINING = 400  # steps of Adam


@functools.cache
def _pretrained(width: int, layers: int, length: int) -> Any:
    """Pre-train a body on the next character."""
    import optax

    rng = np.random.default_rng(7)
    rows = jnp.asarray(_texts(rng, length)["ids"])
    params = {
        "body": nets.transformer(_key(rng), 96, width, layers, length),
        "last": nets.dense(_key(rng), width, 96),
    }
    tx = optax.adam(3e-3)

    def loss(params, ids):
        states = nets.run_transformer(params["body"], ids[:, :-1], causal=True)
        return _entropy(nets.apply(params["last"], states), ids[:, 1:])

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


KINDS: dict[str, Maker] = {
    "perceptron": _perceptron,
    "deep": _deep,
    "linear": _linear,
    "teacher": _teacher,
    "convolution": _convolution,
    "autoencoder": _autoencoder,
    "language": _language,
    "factors": _factors,
    "quadratic": _quadratic,
    "tuned": _tuned,
}
