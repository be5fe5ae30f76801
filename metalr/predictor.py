"""The learned half of metalr: features in, a correction of the learning rate out.

The predictor is a small Flax MLP that regresses log2(best rate / current rate), in
octaves, and says how sure it is. Its last layer starts at zero, so that an untrained
predictor changes nothing. What it needs to be applied travels with the weights: the
scale of its inputs, the range seen in training, and how fast it may move the rate.

>>> predictor = init_predictor(seed=0)
>>> correction, confidence = apply(predictor, jnp.zeros(len(FEATURES)))
>>> print(correction, confidence)
0.0 0.5
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalr.errors import MetalrError
from metalr.features import CLOCK, FEATURE_VERSION, FEATURES, NAMES
from metalr.runtime import files

WIDTH = 32
# On either side of a feature's trained range, in widths of it. The MLP is asked no
# further than a little outside; but only what is far outside says that the run is of
# another kind, since tasks differ in how far their loss can fall.
_CLIPPED, _STRANGE = 0.25, 1.0
_SHIPPED = "checkpoints/predictor"
_WAY_OUT = "Use the predictor of this metalr (no path), or train one: train_meta.py."


class MLP(nnx.Module):
    """Two hidden layers of tanh, and a last layer that starts at zero."""

    def __init__(self, *, rngs: nnx.Rngs):
        """Draws the weights."""
        zeros = nnx.initializers.zeros_init()
        self.hidden = nnx.Linear(len(FEATURES), WIDTH, rngs=rngs)
        self.deep = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.last = nnx.Linear(WIDTH, 2, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps standardised features [..., F] to correction and confidence logit."""
        # tanh saturates: an input far outside training gives no large answer.
        return self.last(jnp.tanh(self.deep(jnp.tanh(self.hidden(x)))))


class Predictor(NamedTuple):
    """A pytree of arrays: close over it, pass it to jit, or map over a stack."""

    weights: dict[str, Any]  # the MLP's parameters as plain nested dicts
    mean: Any  # [F] of the features in training
    std: Any  # [F]; inf hides a feature from the MLP
    low: Any  # [F] range seen in training
    high: Any  # [F]
    gain: Any  # [] change of the log multiplier per octave of correction and step
    limit: Any  # [] largest change of the log multiplier in a step


def init_predictor(seed: int = 0) -> Predictor:
    """Makes an untrained predictor: it corrects nothing and finds every input usual."""
    with jax.ensure_compile_time_eval():  # arrays even where a caller is traced
        state = nnx.state(MLP(rngs=nnx.Rngs(seed)), nnx.Param)
        weights = jax.tree.map(np.asarray, nnx.to_pure_dict(state))
    return _with(weights)


def _with(weights: dict[str, Any]) -> Predictor:
    """Puts what an untrained predictor has besides to its weights."""
    size = len(FEATURES)
    return Predictor(
        weights=weights,
        mean=np.zeros(size, np.float32),
        std=np.ones(size, np.float32),
        low=np.array([row.low for row in FEATURES], np.float32),
        high=np.array([row.high for row in FEATURES], np.float32),
        gain=np.float32(0.12),
        limit=np.float32(0.4),
    )


def apply(predictor: Predictor, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Predicts how far the learning rate is from the best one.

    Args:
      predictor: The predictor.
      features: Features in the order of FEATURES: [..., F]. They are clipped to the
        trained range, with a margin of a quarter of its width.

    Returns:
      The correction log2(best / current) in octaves and the confidence in (0, 1), the
      logistic function of the second output: both [...].
    """
    low, high = _range(predictor, _CLIPPED)
    shape = (1,) * (features.ndim - 1) + (-1,)
    low, high, mean, std = (
        jnp.reshape(x, shape) for x in (low, high, predictor.mean, predictor.std)
    )
    inputs = (jnp.clip(features, low, high) - mean) / std
    output = nnx.merge(_graph(), predictor.weights)(inputs)
    return output[..., 0], jax.nn.sigmoid(output[..., 1])


def unusual(predictor: Predictor, features: jax.Array) -> jax.Array:
    """Tells whether a feature leaves the trained range by over its width.

    The features of CLOCK do not count: a longer run than any in training is only
    clipped to the longest.

    Args:
      predictor: The predictor.
      features: Features in the order of FEATURES: [F].
    """
    low, high = _range(predictor, _STRANGE)
    counts = ~np.isin(NAMES, CLOCK)
    return jnp.any(counts & ((features < low) | (features > high)))


def save_predictor(
    path: str | Path, predictor: Predictor, provenance: Mapping[str, Any]
) -> None:
    """Writes a predictor: the arrays by orbax, and what a reader asks as JSON.

    Args:
      path: Folder to make or to overwrite.
      predictor: The predictor.
      provenance: Where it comes from, as JSON: traces, tasks, models, seeds, results.
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    arrays = jax.tree.map(np.asarray, predictor._asdict())
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path / "arrays", arrays, force=True)
    low, high = arrays["low"].tolist(), arrays["high"].tolist()
    metadata = {
        "feature_version": FEATURE_VERSION,
        "features": list(NAMES),
        "ranges": dict(zip(NAMES, zip(low, high, strict=True), strict=True)),
        "gain": float(predictor.gain),
        "limit": float(predictor.limit),
        "sha256": _digest(arrays),
        "provenance": dict(provenance),
    }
    text = json.dumps(metadata, indent=2) + "\n"
    files.replace(path / "metadata.json", lambda draft: draft.write_text(text))


def load_predictor(path: str | Path | None = None) -> Predictor:
    """Reads a predictor, the one that comes with metalr if no path is given.

    Args:
      path: Folder that `save_predictor` has written.

    Raises:
      MetalrError: If there is none, if it was made for another list of features, or if
        its arrays are not those that were saved.
    """
    import orbax.checkpoint as ocp

    folder = _shipped() if path is None else Path(path).absolute()
    metadata = read_metadata(folder)
    shapes = nnx.eval_shape(lambda: nnx.state(MLP(rngs=nnx.Rngs(0)), nnx.Param))
    blank = _with(nnx.to_pure_dict(shapes))._asdict()
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), blank)
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            _check_shapes(checkpointer.metadata(folder / "arrays"), blank)
            arrays = checkpointer.restore(
                folder / "arrays", item=blank, restore_args=as_numpy
            )
    except jax.errors.JaxRuntimeError:  # another process of this run has gone
        raise
    except Exception as error:  # orbax and TensorStore raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise MetalrError(
            f"the arrays of the predictor in {folder} cannot be read: {reason}. "
            "Copy the whole folder again."
        ) from error
    if _digest(arrays) != metadata["sha256"]:
        raise MetalrError(
            f"the arrays of the predictor in {folder} are not those that its "
            "metadata.json was written for (sha256). Copy the whole folder again."
        )
    return Predictor(**arrays)


def read_metadata(path: str | Path | None = None) -> dict[str, Any]:
    """Reads what was written beside a predictor's arrays, and checks the features.

    Args:
      path: As in `load_predictor`.

    Raises:
      MetalrError: If there is none, or if it was made for another list of features.
    """
    folder = _shipped() if path is None else Path(path).absolute()
    try:
        metadata = files.read_json(folder / "metadata.json")
        version, names = metadata["feature_version"], metadata["features"]
        metadata["sha256"]
    except (MetalrError, KeyError) as error:
        raise MetalrError(
            f"a predictor is a folder with metadata.json and arrays/; {folder} is not "
            f"one ({error!r}). {_WAY_OUT}"
        ) from error
    ours = list(NAMES)
    if version != FEATURE_VERSION or names != ours:
        named = map(str, names) if isinstance(names, list) else [repr(names)[:60]]
        other = sorted(set(named) ^ set(ours)) or ["the order or a formula"]
        raise MetalrError(
            f"a predictor must be made for the features of this metalr, version "
            f"{FEATURE_VERSION}; the one in {folder} has version {version} and differs "
            f"in {', '.join(other)}. {_WAY_OUT}"
        )
    return metadata


def _check_shapes(stored: Any, blank: dict[str, Any]) -> None:
    """Raises a ValueError if stored arrays are not of the shapes of a predictor's.

    Before they are read: a few bytes may describe an array that fills any memory.
    """
    shape = lambda leaf: tuple(leaf.shape)  # noqa: E731
    found = jax.tree.map(shape, stored.item_metadata.tree)
    if found != jax.tree.map(shape, blank):
        raise ValueError("they have other names or shapes than those of a predictor")


def _range(predictor: Predictor, widths: float) -> tuple[jax.Array, jax.Array]:
    low, high = jnp.asarray(predictor.low), jnp.asarray(predictor.high)
    margin = widths * (high - low)
    return low - margin, high + margin


def _shipped() -> Path:
    """Finds the predictor inside the package, or beside it in a source checkout."""
    package = Path(__file__).parent
    for root in (package, package.parent):
        if (root / _SHIPPED / "metadata.json").exists():
            return root / _SHIPPED
    raise MetalrError(
        f"metalr comes with a predictor in {package / _SHIPPED}, but this copy has "
        "none. Install metalr again, name one by its path, or train one: train_meta.py."
    )


def _digest(arrays: dict[str, Any]) -> str:
    """Hashes names, types, shapes and bytes, whatever the files look like."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(arrays):
        leaf = np.ascontiguousarray(leaf)
        digest.update(
            f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode()
        )
        digest.update(leaf.tobytes())
    return digest.hexdigest()


@functools.cache
def _graph() -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: MLP(rngs=nnx.Rngs(0))))[0]
