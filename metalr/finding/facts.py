"""What is known of a run before it moves: the facts, read off one gradient."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import coordinates, features, observe
from metalr.coordinates import is_trainable
from metalr.errors import MetalrError
from metalr.features import OF_STATIC
from metalr.finding.probed_run import ProbedRun, value_and_grad
from metalr.predictor import Predictor, distance, prior
from metalr.read_schedule import log_area

_SMALL = 2.0**-10  # of the weights: an update that is only looked at
_PATIENCE = 1024  # updates in which an optimizer that adds up gradients has moved
_USUAL = 0.1  # root mean square of weights, where they all are zero


class Facts(NamedTuple):
    """What is known of a run before it moves."""

    log2_best: float  # of the factor on the user's rate that is best
    variance: float  # octaves^2
    distance: float  # of the facts from training; out of range above 1; inf: no weights
    relative_rate: float  # log2 of an update beside the weights, at the user's peak
    value: float  # the first loss


def read_facts(run: ProbedRun, predictor: Predictor) -> Facts:
    """Read the facts of a run off one gradient; nothing moves.

    Raises:
      MetalrError: The first loss or gradient is not finite, the gradient is 0, or the
        optimizer moves nothing.
    """
    start = int(np.flatnonzero(run.levels > 0)[0])
    level, area = float(np.log(run.levels[start])), log_area(run.levels)
    grad = value_and_grad(run)

    def look(params: Any, batch: Any) -> tuple[jax.Array, ...]:
        value, grads = grad(params, batch, jnp.int32(0))
        updates = _first_update(run.optimizer, grads, params, value, start)
        theta, u, g = (_wide(tree) for tree in (params, updates, grads))
        where = coordinates.layout(theta)
        sizes = (
            jnp.sqrt(jnp.sum(coordinates.squared_norms(tree, where))) for tree in (u, g)
        )
        moved, slope = sizes
        weight = jnp.sqrt(jnp.sum(coordinates.squared_norms(theta, where)))
        # Beside weights of zero every update is as large.
        blank = weight == 0
        weight = jnp.where(blank, _USUAL * math.sqrt(_coordinates(theta)), weight)
        ratio = jnp.where(moved > 0, _SMALL * weight / moved, 1.0)
        share = jnp.exp2(jnp.round(jnp.log2(ratio)))
        first, observer = observe.observe(
            g, observe.init(theta, where), theta, where, value=value, log_level=level
        )
        clock = {"total_steps": run.steps, "log_area": area}
        _, summary = features.update(first, features.init(), step=0, **clock)
        seen, _ = observe.observe(
            g,
            observer,
            jax.tree.map(lambda x, y: x + share * y, theta, u),
            where,
            value=value,
            log_level=level,
            log_multiplier=jnp.log(share),
        )
        vector, _ = features.update(seen, summary, step=1, **clock)
        said, variance = prior(predictor, vector)
        apart = distance(predictor.prior_seen, vector[OF_STATIC])
        apart = jnp.where(blank, jnp.inf, apart)
        relative = jnp.log2(moved / weight) - level / math.log(2)
        best = jnp.where(blank, -relative + math.log2(_SMALL), jnp.log2(share) + said)
        return best, variance, apart, relative, value, slope, moved

    found = jax.jit(look)(run.params, run.batch(0))
    *known, slope, moved = (float(x) for x in jax.device_get(found))
    _check(known[-1], slope, moved, start)
    return Facts(*known)


def _check(value: float, slope: float, moved: float, start: int) -> None:
    """Refuse a start that tells nothing: of the loss, and of two norms."""
    if not (math.isfinite(value) and math.isfinite(slope)):
        raise MetalrError(
            f"a probe needs a finite loss and gradient at the start, got "
            f"{value:g} and a gradient of norm {slope:g}; look at the first batch"
        )
    if slope == 0:
        raise MetalrError(
            "a probe needs a gradient other than 0 at the start; look at the loss, at "
            "what of the parameters it reads, and at the first batch"
        )
    if moved == 0:
        raise MetalrError(
            f"a probe needs an optimizer that moves the parameters, got one that left "
            f"them where they were in {start + _PATIENCE} updates; look at its rate, "
            "its mask and how many gradients it adds up"
        )


def _first_update(
    optimizer: optax.GradientTransformationExtraArgs,
    grads: Any,
    params: Any,
    value: jax.Array,
    start: int,
) -> Any:
    """Return the first update that moves, once the schedule has left zero."""

    def update(state: Any) -> tuple[Any, Any]:
        return optimizer.update(grads, state, params, value=value)

    def pending(carry: tuple[jax.Array, Any, Any]) -> jax.Array:
        done, updates, _ = carry
        still = jnp.stack([jnp.all(x == 0) for x in jax.tree.leaves(updates)]).all()
        return (done <= start) | (still & (done < start + _PATIENCE))

    def step(carry: tuple[jax.Array, Any, Any]) -> tuple[jax.Array, Any, Any]:
        done, _, state = carry
        return done + 1, *update(state)

    first = (jnp.int32(1), *update(optimizer.init(params)))
    return jax.lax.while_loop(pending, step, first)[1]


def _wide(tree: Any) -> Any:
    """Return a tree in float32, so that a small step is not rounded away."""

    def widen(leaf: Any) -> Any:
        if not is_trainable(leaf):
            return jnp.zeros(())
        leaf = jnp.asarray(leaf)
        return leaf if jnp.iscomplexobj(leaf) else leaf.astype(jnp.float32)

    return jax.tree.map(widen, tree)


def _coordinates(tree: Any) -> int:
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))
