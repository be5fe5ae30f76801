"""What two libraries do when nobody tunes: an optimizer, its rate and its schedule."""

from typing import Any

import jax
import optax

from metalr.finetune import groups
from metalr.finetune.rules import plan as plans
from metalr.finetune.rules import shapes
from metalr.finetune.rules.plan import Inner, RunPlan

AUTOGLUON_RATE, KERASHUB_RATE = 1e-4, 5e-5
LAYER_DECAY = 0.9


def autogluon(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
    """Build AutoGluon multimodal's recipe, without its soup of checkpoints.

    AdamW with weight decay 1e-3, the rate 0.9 times lower with each layer that lies
    deeper below the head, a tenth of the run as warm-up, half a cosine to 0, gradients
    clipped at norm 1.
    """
    del inner
    adamw = plans.adamw(weight_decay=1e-3, clip_norm=1.0)

    def make(learning_rate: Any) -> optax.GradientTransformation:
        return optax.chain(adamw(learning_rate), by_layer(plan.layers))

    tenth = plan._replace(warmup_steps=plan.total_steps // 10)
    return shapes.scheduled(shapes.cosine)(make, tenth)


def kerashub(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
    """Build KerasHub's recipe: Adam at a constant rate, no decay, no clipping."""
    del inner
    return shapes.scheduled(shapes.static)(optax.adam, plan)


def by_layer(layers: int, decay: float = LAYER_DECAY) -> optax.GradientTransformation:
    """Scale updates by `decay` to the number of layers that lie above.

    The head has none above it, the embeddings have all.

    Args:
      layers: Of the encoder, with weights of their own.
      decay: In (0, 1].
    """

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        shares = jax.tree.map(
            lambda depth: decay ** (layers + 1 - depth), groups.depths(updates, layers)
        )
        return jax.tree.map(lambda x, share: x * share, updates, shares), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
