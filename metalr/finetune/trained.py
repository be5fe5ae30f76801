"""What of a model a run trains: all, some layers, or LoRA's pairs and the head."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from metalr.errors import MetalrError
from metalr.finetune import groups
from metalr.finetune.config import RunConfig
from metalr.finetune.rules.plan import Inner
from metalr.finetune.schedulers import Scheduler
from metalr.models import huggingface, lora


class Trained(NamedTuple):
    """The parameters of a run, and which of them are trained."""

    params: Any  # of the model, with LoRA's pairs where there are any
    layers: int  # of the encoder, with weights of their own
    mask: Any = None  # True on a leaf that is trained; None: all are
    pairs: lora.Lora | None = None
    notes: tuple[str, ...] = ()

    @property
    def seen(self) -> Any:
        """The parameters as the optimizer sees them: what is trained."""
        has = self.mask is not None
        return groups.part(self.params, self.mask) if has else self.params

    @property
    def size(self) -> int:
        """How many numbers are trained."""
        return sum(x.size for x in jax.tree.leaves(self.seen))

    def model(self, params: Any) -> Any:
        """Return the parameters of the model alone."""
        return params if self.pairs is None else lora.merged(params, self.pairs)

    def loss(self, loss_fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return the loss of the parameters, with a gradient where they are trained.

        Args:
          loss_fn: Of the model's parameters, and whatever else.
        """
        whole = lambda params, *rest: loss_fn(self.model(params), *rest)  # noqa: E731
        return whole if self.mask is None else groups.selected(whole, self.mask)


def choose(config: RunConfig, model: huggingface.Pretrained) -> Trained:
    """Return the parameters to train, as the settings say.

    Raises:
      MetalrError: A layer or a module that they name is not there.
    """
    params, layers = model.params, model.config.stored_layers
    notes: list[str] = []
    if config.reinit_layers:
        params = groups.reinitialised(params, layers, config.reinit_layers, config.seed)
        notes.append(f"the top {config.reinit_layers} layers are drawn at random")
    pairs = None
    if config.lora:
        pairs = lora.choose(
            model.config, config.lora, config.lora_alpha, config.lora_targets
        )
        params = lora.add(params, pairs, config.seed)
    still = groups.frozen(config.freeze, layers) if config.freeze else set()
    if not still and pairs is None:
        return Trained(params, layers, notes=tuple(notes))
    mask = groups.trained(params, layers, still)
    found = Trained(params, layers, mask, pairs)
    size = sum(x.size for x in jax.tree.leaves(params))
    notes.append(f"{found.size:,} of {size:,} parameters are trained")
    return found._replace(notes=tuple(notes))


def inner(config: RunConfig, optimizer: Inner, layers: int) -> Inner:
    """Return the optimizer with the rates of the depths that the settings ask for."""
    if config.layer_decay == 1 and config.head_rate == 1:
        return optimizer
    return groups.scaled(optimizer, layers, config.layer_decay, config.head_rate)


def wrapped(
    config: RunConfig, tx: optax.GradientTransformationExtraArgs, of: Trained
) -> optax.GradientTransformationExtraArgs:
    """Return a row's transformation, of what is trained, with an average beside it.

    Raises:
      MetalrError: Rates by depth are asked of a row that brings its own optimizer.
    """
    by_depth = config.layer_decay != 1 or config.head_rate != 1
    if by_depth and not groups.is_scaled(jax.eval_shape(tx.init, of.seen)):
        raise MetalrError(
            f"--layer-decay and --head-rate need AdamW, but --scheduler "
            f"{config.scheduler} brings an optimizer of its own; leave them out"
        )
    if of.mask is not None:
        tx = groups.only(tx, of.mask)
    return groups.averaged(tx, config.ema) if config.ema else tx


def served(config: RunConfig, row: Scheduler, of: Trained) -> Callable[[Any, Any], Any]:
    """Return (optimizer state, parameters) -> the parameters to score and to keep.

    Raises:
      MetalrError: An average is asked of a row that has one.
    """
    if config.ema:
        if row.averages:
            raise MetalrError(
                f"--scheduler {config.scheduler} scores an average of its own; leave "
                "--ema out"
            )
        return lambda state, params: state.averaged_params
    if of.mask is None:
        return row.served
    return lambda state, params: groups.whole(
        row.served(state, groups.part(params, of.mask)), params
    )
