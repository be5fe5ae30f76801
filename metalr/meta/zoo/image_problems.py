"""Problems of images: classes, and codes."""

import jax
import jax.numpy as jnp
import numpy as np

from metalr.meta.zoo import nets
from metalr.meta.zoo.problem import Problem, choose, cross_entropy, draw_key, split
from metalr.meta.zoo.rows import images


def convolution(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make a convolutional classifier of patterns."""
    classes, layers = int(choose(shape, 4, 10)), int(choose(shape, 2, 3))
    channels = [1, *[int(choose(shape, 8, 16))] * layers]
    first, last = draw_key(rng), draw_key(rng)
    params = {
        "layers": nets.convolutions(first, channels),
        "last": nets.dense(last, channels[-1], classes),
    }

    def loss(params, batch, key):
        x = nets.run_convolutions(params["layers"], batch["x"])
        return cross_entropy(nets.apply(params["last"], x), batch["y"])

    name = ("convolution", *channels, classes)
    return Problem(name, loss, params, *split(images(rng, classes)))


def autoencoder(shape: np.random.Generator, rng: np.random.Generator) -> Problem:
    """Make an autoencoder of images, or a variational one (loss may be below 0)."""
    variational, width = bool(shape.random() < 0.5), int(choose(shape, 64, 128))
    code, up, down = 8, draw_key(rng), draw_key(rng)
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
    return Problem(name, loss, params, *split(images(rng, 10)))
