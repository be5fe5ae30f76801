"""The curvature of the loss along a step, measured where `metalr.observe` estimates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from metalr.coordinates import is_trainable, leaves_of
from metalr.observe import bounded, float32, ratio


def line_curvature(
    grad_fn: Callable[[Any], Any], params: Any, grads: Any, updates: Any
) -> jax.Array:
    """Compute u'Hu / abs(g'u): 1 if u ends at its line's minimum, 2 at the edge.

    One forward-mode product of the gradient, on all coordinates and without the noise
    between two batches.

    Args:
      grad_fn: Gradient of the batch's loss as a function of the parameters, of complex
        ones conjugated, as optax takes it.
      params: Parameters.
      grads: Their gradient.
      updates: The update u.

    >>> hessian, theta = jnp.array([1.0, 4.0]), jnp.array([1.0, 1.0])
    >>> grad_fn = lambda params: hessian * params
    >>> to_minimum = jnp.array([0.0, -1.0])  # along the second axis
    >>> print(line_curvature(grad_fn, theta, grad_fn(theta), to_minimum))
    1.0
    """
    leaves, structure = jax.tree.flatten(params, is_leaf=lambda x: x is None)
    moved = leaves_of(updates)
    kept = [
        i
        for i, (theta, u) in enumerate(zip(leaves, moved, strict=True))
        if is_trainable(theta) and is_trainable(u)
    ]

    def of_kept(own: list[Any]) -> list[Any]:
        whole = list(leaves)
        for i, leaf in zip(kept, own, strict=True):
            whole[i] = leaf
        found = leaves_of(grad_fn(jax.tree.unflatten(structure, whole)))
        return [found[i] for i in kept]

    def dot(tree: list[Any]) -> jax.Array:
        pairs = zip(tree, [moved[i] for i in kept], strict=True)
        return float32(
            sum(jnp.sum(jnp.real(_wide(x).conj() * _wide(u))) for x, u in pairs)
        )

    own = [jnp.asarray(leaves[i]) for i in kept]
    tangents = [
        jnp.asarray(moved[i]).astype(x.dtype) for i, x in zip(kept, own, strict=True)
    ]
    _, product = jax.jvp(of_kept, (own,), (tangents,))
    before = [leaves_of(grads)[i] for i in kept]
    return bounded(ratio(dot(product), jnp.abs(dot(before))))


def _wide(x: Any) -> jax.Array:
    """Return an array of float32 or complex64."""
    return jnp.asarray(x, jnp.complex64 if jnp.iscomplexobj(x) else jnp.float32)
