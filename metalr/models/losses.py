"""The loss of each kind of task, with weights of classes and smoothed labels."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from metalr.errors import unknown_name

KINDS = (
    *("classification", "regression", "qa", "mlm"),
    *("tokens", "multilabel", "choice"),
)
IGNORED = -1  # the label of a token that counts for nothing


def loss(
    kind: str,
    logits: jax.Array,
    batch: dict[str, Any],
    *,
    smoothing: float = 0.0,
    class_weights: Any = None,
) -> jax.Array:
    """Return the mean loss over the rows of a batch, as a float32 scalar.

    Cross-entropy for classification and for the choice among texts, squared error for
    regression, and for answers the mean of the cross-entropies of start and end over
    the tokens that are no padding; of masked words, the mean over those of a row. A row
    of tokens has the mean over its labelled ones, a row of several labels the mean
    binary cross-entropy of all labels. With row weights w it is sum(w * loss) / sum(w),
    and 0 if all w are 0.

    Args:
      kind: A row of `heads.KINDS`.
      logits: float32, from `heads.apply`.
      batch: labels ([B] int32, [B] float32, [B, 2] int32 start and end token, [B, P]
        int32 words, [B, L] int32 of tokens with -1 where there is none, or [B, C] 0
        and 1 for several labels), weights [B] float32, and attention_mask [B, L] for
        answers.
      smoothing: This share of a label is spread evenly over all classes; of several
        labels each goes half of it toward 1/2.
      class_weights: [C] of tokens, how much a token of each class counts; of several
        labels, how much a label counts where a row has it, against where it has not.
        (A class weighs a whole row of a classification: `weights`.)
    """
    labels, weights = jnp.asarray(batch["labels"]), jnp.asarray(batch["weights"])
    if kind in ("classification", "choice", "mlm"):
        rows = _entropy(logits, labels, smoothing)
        rows = rows.mean(axis=1) if kind == "mlm" else rows
    elif kind == "regression":
        rows = jnp.square(logits[:, 0] - labels)
    elif kind == "qa":
        # Unlike transformers', so that a row's loss does not depend on others'
        # lengths.
        mask = jnp.asarray(batch["attention_mask"])[:, :, None]
        logits = jnp.where(mask, logits, -1e30)
        rows = _entropy(jnp.swapaxes(logits, 1, 2), labels, 0.0).mean(axis=1)
    elif kind == "tokens":
        rows = _tokens(logits, labels, smoothing, class_weights)
    elif kind == "multilabel":
        rows = _several(logits, labels, smoothing, class_weights)
    else:
        raise unknown_name("kind of task", kind, KINDS)
    total = weights.sum()
    return jnp.sum(rows * weights) / jnp.where(total > 0, total, 1.0)


def _entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    exact = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not smoothing:
        return exact
    even = -jax.nn.log_softmax(logits).mean(axis=-1)
    return (1 - smoothing) * exact + smoothing * even


def _tokens(
    logits: jax.Array, labels: jax.Array, smoothing: float, class_weights: Any
) -> jax.Array:
    counts = labels != IGNORED
    known = jnp.where(counts, labels, 0)
    share = counts.astype(jnp.float32)
    if class_weights is not None:
        share *= jnp.asarray(class_weights, jnp.float32)[known]
    total = share.sum(axis=1)
    found = _entropy(logits, known, smoothing)
    return jnp.sum(found * share, axis=1) / jnp.where(total > 0, total, 1.0)


def _several(
    logits: jax.Array, labels: jax.Array, smoothing: float, class_weights: Any
) -> jax.Array:
    wanted = labels.astype(jnp.float32) * (1 - smoothing) + smoothing / 2
    there = -jax.nn.log_sigmoid(logits)
    if class_weights is not None:
        there *= jnp.asarray(class_weights, jnp.float32)[None]
    rest = -jax.nn.log_sigmoid(-logits)
    return jnp.mean(wanted * there + (1 - wanted) * rest, axis=1)
