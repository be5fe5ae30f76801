"""A predictor in a folder: arrays as .npz, and beside them JSON that says of what.

`metadata.json` names the features that the predictor reads, in order, their ranges in
training, a hash of the arrays and where they come from. A folder that was made for
another list of features, or whose arrays are not those of the hash, is refused.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from metalr.errors import MetalrError
from metalr.features import FEATURE_VERSION, NAMES
from metalr.predictor import MLP, Predictor, untrained
from metalr.runtime import files

_SHIPPED = "checkpoints/predictor"
_ARRAYS = "arrays.npz"
_MAX_BYTES = 64 * 2**20
_WAY_OUT = "Use the predictor of this metalr (no path), or train one: train_meta.py."


def save_predictor(
    path: str | Path, predictor: Predictor, provenance: Mapping[str, Any]
) -> None:
    """Write a predictor: its arrays as .npz, and what a reader asks as JSON.

    Args:
      path: Folder to make or to overwrite.
      predictor: The predictor.
      provenance: Where it comes from, as JSON: traces, tasks, models, seeds, results.
    """
    path = Path(path).absolute()
    path.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = _flat(predictor)

    def write_arrays(draft: Path) -> None:
        with open(draft, "wb") as file:
            np.savez(file, **arrays)

    files.replace(path / _ARRAYS, write_arrays)
    low, high = arrays["low"].tolist(), arrays["high"].tolist()
    metadata = {
        "feature_version": FEATURE_VERSION,
        "features": list(NAMES),
        "ranges": dict(zip(NAMES, zip(low, high, strict=True), strict=True)),
        "sha256": _digest(arrays),
        "provenance": dict(provenance),
    }
    text = json.dumps(metadata, indent=2) + "\n"
    files.replace(path / "metadata.json", lambda draft: draft.write_text(text))


def load_predictor(path: str | Path | None = None) -> Predictor:
    """Read a predictor, the one that comes with metalr if no path is given.

    Args:
      path: Folder that `save_predictor` has written.

    Raises:
      MetalrError: If there is none, if it was made for another list of features, or if
        its arrays are not those that were saved.
    """
    folder = folder_of(path)
    metadata = read_metadata(folder)
    try:
        arrays = _read_arrays(folder / _ARRAYS)
        predictor = _unflat(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
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
    return predictor


def read_metadata(path: str | Path | None = None) -> dict[str, Any]:
    """Read what was written beside a predictor's arrays, and check the features.

    Args:
      path: As in `load_predictor`.

    Raises:
      MetalrError: If there is none, or if it was made for another list of features.
    """
    folder = folder_of(path)
    try:
        metadata = files.read_json(folder / "metadata.json")
        version, names = metadata["feature_version"], metadata["features"]
        metadata["sha256"]
    except (MetalrError, KeyError) as error:
        lacks = (
            f"metadata.json has no {error}" if isinstance(error, KeyError) else error
        )
        raise MetalrError(
            f"a predictor is a folder with metadata.json and {_ARRAYS}; {folder} is "
            f"not one ({lacks}). {_WAY_OUT}"
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


def digest(predictor: Predictor) -> str:
    """Return the hash of a predictor's arrays that its `metadata.json` names."""
    return _digest(_flat(predictor))


def folder_of(path: str | Path | None = None) -> Path:
    """Return the folder of a predictor, as in `load_predictor`."""
    return _shipped() if path is None else Path(path).absolute()


def _flat(predictor: Predictor) -> dict[str, np.ndarray]:
    """Names the arrays of a predictor, as weights/hidden/kernel and so on."""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(predictor):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found[name] = np.asarray(leaf, np.float32)
    return found


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file; a few bytes may describe what fills any memory."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"the file is larger than {_MAX_BYTES} bytes")
    with zipfile.ZipFile(path) as packed:
        total = sum(entry.file_size for entry in packed.infolist())
    if total > _MAX_BYTES:
        raise ValueError(f"they unpack to more than {_MAX_BYTES} bytes")
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _unflat(arrays: dict[str, np.ndarray]) -> Predictor:
    """Put named arrays in their places.

    Raises:
      ValueError: They are not those of a predictor.
    """
    shapes = nnx.eval_shape(lambda: nnx.state(MLP(rngs=nnx.Rngs(0)), nnx.Param))
    groups = [len(np.atleast_1d(arrays[f"{n}/centre"])) for n in ("seen", "prior_seen")]
    blank = untrained(nnx.to_pure_dict(shapes), *groups, own="own/kind" in arrays)
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(blank)
    }
    same = named.keys() == arrays.keys() and all(
        tuple(named[n].shape) == arrays[n].shape and arrays[n].dtype == np.float32
        for n in named
    )
    if not same:
        raise ValueError("they have other names or shapes than those of a predictor")
    leaves = [arrays[name] for name in named]
    return jax.tree.unflatten(jax.tree.structure(blank), leaves)


def _shipped() -> Path:
    """Find the predictor inside the package, or beside it in a source checkout."""
    package = Path(__file__).parent
    for root in (package, package.parent):
        if (root / _SHIPPED / "metadata.json").exists():
            return root / _SHIPPED
    raise MetalrError(
        f"metalr comes with a predictor in {package / _SHIPPED}, but this copy has "
        "none. Install metalr again, name one by its path, or train one: train_meta.py."
    )


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash names, types, shapes and bytes, whatever the file looks like."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        leaf = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()
