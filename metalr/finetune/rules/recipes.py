"""What two libraries do when nobody tunes: an optimizer, its rate and its schedule."""

from typing import Any

import jax
import optax

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
    make = lambda learning_rate: optax.chain(adamw(learning_rate), by_layer())  # noqa: E731
    tenth = plan._replace(warmup_steps=plan.total_steps // 10)
    return shapes.scheduled(shapes.cosine)(make, tenth)


def kerashub(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
    """Build KerasHub's recipe: Adam at a constant rate, no decay, no clipping."""
    del inner
    return shapes.scheduled(shapes.static)(optax.adam, plan)


def by_layer(decay: float = LAYER_DECAY) -> optax.GradientTransformation:
    """Scale updates by `decay` to the number of layers that lie above.

    The head has none above it, the embeddings have all. Leaves are placed by their
    names: `.../layers/I/...` and `.../embeddings/...`; any other is part of the head.
    """

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        layers = 1 + max(map(_layer, _paths(updates)), default=-1)

        def scale(path: Any, leaf: jax.Array) -> jax.Array:
            names = _names(path)
            if "embeddings" in names:
                return leaf * decay ** (layers + 1)
            layer = _layer(names)
            return leaf if layer < 0 else leaf * decay ** (layers - layer)

        return jax.tree_util.tree_map_with_path(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _paths(tree: Any) -> list[list[str]]:
    return [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _names(path: Any) -> list[str]:
    return jax.tree_util.keystr(path, simple=True, separator="/").split("/")


def _layer(names: list[str]) -> int:
    """Return the number of the layer that a leaf belongs to; -1 if to none."""
    after = [b for a, b in zip(names, names[1:], strict=False) if a == "layers"]
    return int(after[0]) if after and after[0].isdecimal() else -1
