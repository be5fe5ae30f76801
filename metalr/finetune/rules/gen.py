"""GeN (arXiv 2407.02772): the rate at the lowest point of a parabola along the step.

Every eighth step the loss is computed at w + u and w - u as well, with u the update at
the present rate. Where the parabola through the three losses has its minimum ahead, at
x u, the rate goes a tenth of the way to x times itself, of which x is held between 1/2
and 2. After PyPI's gen-optim, at its defaults, without warm-up or decay, but for three
things. Its losses are those of the next batch, here they are of the step's. It asks the
optimizer twice in such a step, so that Adam's moments move twice; here the one update
is scaled. And it halves the rate where no parabola can be fitted, as to losses that are
not finite; here the rate stays.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalr.finetune.rules.plan import Inner, RunPlan, at, injected

EVERY, SMOOTHING, MOST = 8, 0.9, 2.0


class GenState(NamedTuple):
    """State of `gen`."""

    step: jax.Array  # [] int32
    rate: jax.Array  # [] float32
    inner_state: Any


def gen(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
    """Build the row; `update` needs `value=` and `value_fn=`, the step's loss."""
    tx = injected(inner, plan.learning_rate)

    def init(params: Any) -> GenState:
        rate = jnp.asarray(plan.learning_rate, jnp.float32)
        return GenState(jnp.zeros((), jnp.int32), rate, tx.init(params))

    def update(
        grads: Any, state: Any, params: Any, *, value: Any, value_fn: Any, **extra: Any
    ) -> Any:
        old = jnp.where(state.step == 0, plan.learning_rate, state.rate)
        old = old.astype(jnp.float32)
        updates, inner_state = tx.update(
            grads, at(state.inner_state, old), params, value=value, **extra
        )

        def look() -> jax.Array:
            ahead = value_fn(optax.apply_updates(params, updates))
            behind = value_fn(optax.tree.sub(params, updates))
            curvature, slope = ahead + behind - 2 * value, (behind - ahead) / 2
            best = jnp.clip(slope / curvature, 1 / MOST, MOST)
            fits = (curvature > 0) & (slope > 0)
            new = old * (SMOOTHING + (1 - SMOOTHING) * best)
            return jnp.where(fits, new, old).astype(jnp.float32)

        due = (state.step + 1) % EVERY == 0
        rate = jax.lax.cond(due, look, lambda: old)
        scale = lambda leaf: (leaf * (rate / old)).astype(leaf.dtype)  # noqa: E731
        step: Any = optax.safe_increment(state.step)
        after = GenState(step, rate, at(inner_state, rate))
        return jax.tree.map(scale, updates), after

    as_optax: Any = update  # optax's protocol has no place for what is required
    return optax.GradientTransformationExtraArgs(init, as_optax)
