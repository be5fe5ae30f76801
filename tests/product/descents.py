"""Noisy gradient descent in float64, and the features that metalr makes of a run."""

import jax
import jax.numpy as jnp
import numpy as np

from metalr import coordinates, features, observe
from metalr.features import FEATURES, NAMES

BOUNDS = np.array([(row.low, row.high) for row in FEATURES], np.float32)


of_trace = jax.jit(features.of_trace)


def quadratic(size=6, seed=0):
    """Return a Hessian with eigenvalues 0.1 to 2, a start, and gradient noise."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    hessian = basis @ np.diag(np.geomspace(0.1, 2, size)) @ basis.T
    return hessian, rng.normal(size=size), 0.3 * rng.normal(size=(60, size))


def descent(hessian, theta, noise, rate=0.4, scale=1.0):
    """Noisy gradient descent in float64: lists of thetas, gradients and losses."""
    path, grads, losses = [], [], []
    for kick in noise:
        path.append(theta)
        grads.append(scale * (hessian @ theta + kick))
        losses.append(scale * (theta @ hessian @ theta / 2 + 1 + kick[0]))
        theta = theta - rate / scale * grads[-1]
    return path, grads, losses


def observed(path, grads, losses, split=lambda x: x, **settings):
    """Return the observations of a run, [T] each, as the transformation makes them."""
    tree = lambda x: jax.tree.map(lambda y: jnp.asarray(y, jnp.float32), split(x))  # noqa: E731
    where = coordinates.layout(tree(path[0]))
    look = jax.jit(
        lambda grads, state, params, value: observe.observe(
            grads, state, params, where, value=value, **settings
        )
    )
    state, rows = observe.init(tree(path[0]), where), []
    for theta, grad, loss in zip(path, grads, losses, strict=True):
        seen, state = look(tree(grad), state, tree(theta), loss)
        rows.append(seen)
    return jax.tree.map(lambda *x: np.array(x), *rows)


def run_features(path, grads, losses, total_steps=None, area=0.0, **settings):
    """All features of a run: {name: [steps]}."""
    vectors = of_trace(observed(path, grads, losses, **settings), total_steps, area)
    return dict(zip(NAMES, np.asarray(vectors).T, strict=True))


def window_mean(series, width):
    """Return the mean with weights 1/n until the window is full, exponential after."""
    weights = np.zeros(len(series))
    widths = np.broadcast_to(width, len(series))  # of each step, or of all
    for step in range(len(series)):
        share = 1 / min(step + 1, widths[step])
        weights *= 1 - share
        weights[step] = share
    return weights @ np.asarray(series, np.float64)
