"""What a rule is given: the optimizer as a function of its rate, and the plan."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalr.predictor import Predictor
from metalr.stored_predictor import load_predictor

Inner = Callable[[Any], optax.GradientTransformation]  # learning rate -> optimizer


class RunPlan(NamedTuple):
    """What a scheduler may know of the run before it starts."""

    learning_rate: float  # base (peak) rate
    total_steps: int
    warmup_steps: int
    predictor: Callable[[], Predictor] = load_predictor  # asked by who needs one
    weight_decay: float = 0.01  # of methods that bring their own optimizer
    clip_norm: float = 1.0  # the same; 0: none
    layers: int = 0  # of the encoder, with weights of their own


Build = Callable[[Inner, RunPlan], optax.GradientTransformationExtraArgs]


def decay_mask(params: Any) -> Any:
    """Return True for the leaves that weight decay applies to.

    BERT's recipe decays weight matrices and embeddings, not biases and LayerNorm:
    exactly the leaves with two axes or more.
    """
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def adamw(weight_decay: float, clip_norm: float) -> Inner:
    """Return AdamW as a function of its rate, with BERT's decay mask and clipping.

    Args:
      weight_decay: Decoupled decay, not on biases and LayerNorm.
      clip_norm: Bound of the gradient's global norm; 0 switches clipping off.
    """

    def build(learning_rate: Any) -> optax.GradientTransformation:
        inner = optax.adamw(learning_rate, weight_decay=weight_decay, mask=decay_mask)
        return clipped(inner, clip_norm)

    return build


def clipped(
    inner: optax.GradientTransformation, clip_norm: float
) -> optax.GradientTransformation:
    """Clip the gradient's global norm before an optimizer sees it; 0: not at all."""
    if not clip_norm:
        return inner
    return optax.chain(optax.clip_by_global_norm(clip_norm), inner)


def injected(inner: Inner, first_rate: Any) -> optax.GradientTransformationExtraArgs:
    """Build an optimizer whose rate is a plain number of its state."""
    rate = jnp.asarray(first_rate, jnp.float32)
    return optax.inject_hyperparams(inner)(learning_rate=rate)


def at(state: Any, rate: jax.Array) -> Any:
    """Return a state of `injected` with this rate for the next step."""
    rate = jnp.asarray(rate, jnp.float32)
    return state._replace(hyperparams=state.hyperparams | {"learning_rate": rate})
