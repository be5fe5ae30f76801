"""Which parameters a run trains, at what share of the rate, and their average.

Parameters have a depth: 0 for the embeddings, i + 1 for layer i, one more than the
layers for what lies above them, the head. What is frozen stays in the tree; the
optimizer, and metalr around it, see the other leaves alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from metalr.errors import MetalrError
from metalr.finetune.rules.plan import Inner
from metalr.finetune.sharding import names_of
from metalr.models import lora
from metalr.models.encoder import Params, initial

Tree = Any
_MASKED = optax.MaskedNode


def depths(params: Tree, layers: int) -> Tree:
    """Return the depth of each leaf; a pair of LoRA has that of its module.

    Args:
      params: Of a model; leaves may be masked.
      layers: With weights of their own, of the encoder.
    """

    def depth(path: Any, leaf: Any) -> int:
        del leaf
        names = names_of(path)
        names = names[1:] if names[0] == lora.KEY else names
        if names[0] != "encoder":
            return layers + 1
        if names[1] == "layers":
            return int(names[2]) + 1
        return layers if names[1] == "final_norm" else 0

    return jax.tree_util.tree_map_with_path(depth, params)


def frozen(text: str, layers: int) -> set[int]:
    """Return the depths that `--freeze` names.

    >>> sorted(frozen("embeddings,0-2,5", 6))
    [0, 1, 2, 3, 6]

    Raises:
      MetalrError: A part is none of embeddings, encoder, N and N-M, or there is no such
        layer.
    """
    found: set[int] = set()
    for part in (part.strip() for part in text.split(",")):
        first, _, last = part.partition("-")
        if part == "embeddings":
            found.add(0)
        elif part == "encoder":
            found |= {*range(layers + 1)}
        elif first.isdecimal() and (last or first).isdecimal():
            low, high = int(first), int(last or first)
            if not low <= high < layers:
                raise MetalrError(
                    f"--freeze {part}: the model has layers 0 to {layers - 1}"
                )
            found |= {*range(low + 1, high + 2)}
        else:
            raise MetalrError(
                "--freeze takes embeddings, encoder, layers such as 3 and 0-5, and "
                f"several with commas between; got {part!r:.60}"
            )
    return found


def trained(params: Tree, layers: int, depths_frozen: set[int]) -> Tree:
    """Return True for each leaf that is trained.

    With LoRA these are the pairs and the head.
    """
    has_pairs = lora.KEY in params

    def is_trained(path: Any, depth: int) -> bool:
        base = has_pairs and names_of(path)[0] == "encoder"
        return not base and depth not in depths_frozen

    return jax.tree_util.tree_map_with_path(is_trained, depths(params, layers))


def scaled(inner: Inner, layers: int, layer_decay: float, head_rate: float) -> Inner:
    """Return an optimizer whose updates are shares of `inner`'s, by depth.

    The head has `head_rate` times the rate, the top layer `layer_decay` times, and each
    layer below it `layer_decay` times that of the one above; the embeddings come last.
    Decoupled weight decay goes with the rate.

    Args:
      inner: Learning rate -> optimizer.
      layers: Of the encoder, with weights of their own.
      layer_decay: In (0, 1].
      head_rate: Above 0.
    """
    shares = {d: layer_decay ** (layers + 1 - d) for d in range(layers + 1)}
    shares[layers + 1] = head_rate
    scales = {depth: optax.scale(share) for depth, share in shares.items()}

    # optax.inject_hyperparams goes by the name of the argument.
    def build(learning_rate: Any) -> optax.GradientTransformationExtraArgs:
        parts: Any = scales  # a mapping of hashables, which is invariant
        by_depth = optax.partition(parts, lambda params: depths(params, layers))
        return optax.chain(inner(learning_rate), by_depth)

    return build


def is_scaled(state: Any) -> bool:
    """Return whether the state of an optimizer holds that of `scaled`."""
    here = lambda x: isinstance(x, optax.PartitionState)  # noqa: E731
    return any(map(here, jax.tree.leaves(state, is_leaf=here)))


def part(tree: Tree, mask: Tree) -> Tree:
    """Return a tree whose leaves are masked where the mask is False."""
    return jax.tree.map(lambda x, kept: x if kept else _MASKED(), tree, mask)


def whole(some: Tree, tree: Tree) -> Tree:
    """Return `some` with its masked leaves from `tree`."""
    masked = lambda x: isinstance(x, _MASKED)  # noqa: E731
    fill = lambda x, other: other if masked(x) else x  # noqa: E731
    return jax.tree.map(fill, some, tree, is_leaf=masked)


def only(
    tx: optax.GradientTransformation, mask: Tree
) -> optax.GradientTransformationExtraArgs:
    """Return a transformation that does not update leaves where the mask is False.

    `tx` sees the others alone, in the functions of the parameters that it is given too.
    """
    label = lambda kept: "trained" if kept else "frozen"  # noqa: E731
    parts = optax.partition(
        {"trained": tx, "frozen": optax.set_to_zero()}, jax.tree.map(label, mask)
    )

    def update(grads: Tree, state: Any, params: Tree, **extra: Any):
        if value_fn := extra.get("value_fn"):
            extra["value_fn"] = lambda some: value_fn(whole(some, params))
        if grad_fn := extra.get("grad_fn"):
            extra["grad_fn"] = lambda some: part(grad_fn(whole(some, params)), mask)
        return parts.update(grads, state, params, **extra)

    as_optax: Any = update  # optax's protocol lets parameters be left out
    return optax.GradientTransformationExtraArgs(parts.init, as_optax)


class AveragedState(NamedTuple):
    """State of `averaged`."""

    averaged_steps: jax.Array  # [] int32
    averaged_params: Any
    averaged_inner: Any


def averaged(
    tx: optax.GradientTransformation, decay: float
) -> optax.GradientTransformationExtraArgs:
    """Return `tx` with an exponential average of the parameters beside it.

    The average starts fast: step t counts by max(1 - decay, 9 / (t + 9)). It begins
    anew where a finder of the rate does, whose probe says nothing of the run after it.

    Args:
      tx: The optimizer.
      decay: Of the average, a step; in (0, 1).
    """
    tx = optax.with_extra_args_support(tx)

    def init(params: Tree) -> AveragedState:
        start = jax.tree.map(jnp.copy, params)
        return AveragedState(jnp.zeros((), jnp.int32), start, tx.init(params))

    def update(grads: Tree, state: AveragedState, params: Tree, **extra: Any):
        updates, inner = tx.update(grads, state.averaged_inner, params, **extra)
        steps = state.averaged_steps + 1
        share = jnp.maximum(1 - decay, 9 / (steps + 9)).astype(jnp.float32)
        new = optax.apply_updates(params, updates)
        # So a leaf that does not move keeps all its bits.
        move = lambda old, x: old + share * (x - old)  # noqa: E731
        average = jax.tree.map(move, state.averaged_params, new)
        rate = _found_rate(inner)
        if rate is not None:
            anew = (rate > 0) & (_found_rate(state.averaged_inner) == 0)
            steps = jnp.where(anew, 0, steps)
            average = optax.tree.where(anew, new, average)
        return updates, AveragedState(steps, average, inner)

    as_optax: Any = update
    return optax.GradientTransformationExtraArgs(init, as_optax)


def _found_rate(state: Any) -> Any:
    """Return the rate that a finder has found, 0 in its probe; None: there is none."""
    return optax.tree.get(state, "found_rate")


def reinitialised(params: Params, layers: int, count: int, seed: int) -> Params:
    """Return parameters whose `count` top layers are drawn at random.

    Args:
      params: Of a model.
      layers: Of its encoder, with weights of their own.
      count: How many, from above.
      seed: Of the run.

    Raises:
      MetalrError: There are not so many.
    """
    if count > layers:
        raise MetalrError(f"--reinit-layers must be at most {layers}, got {count}")

    def draw(path: Any, leaf: Any) -> Any:
        names = names_of(path)
        top = names[:2] == ["encoder", "layers"] and int(names[2]) >= layers - count
        return initial(".".join(names), leaf.shape, seed) if top else leaf

    return jax.tree_util.tree_map_with_path(draw, params)


def selected(loss_fn: Callable[..., Any], mask: Tree) -> Callable[..., Any]:
    """Return a loss without a gradient where the mask is False."""

    def loss(params: Tree, *rest: Any) -> Any:
        hold = jax.lax.stop_gradient
        return loss_fn(
            jax.tree.map(lambda x, kept: x if kept else hold(x), params, mask), *rest
        )

    return loss
