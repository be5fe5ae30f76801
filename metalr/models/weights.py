"""The weights of Hugging Face files and ours: one table, read in both directions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from metalr.errors import MetalrError
from metalr.models import modern
from metalr.models.config import EncoderConfig
from metalr.models.encoder import Params, initial
from metalr.runtime import files

# Leaf there, leaf here, whether the two are each other's transpose.
LEAVES = {
    "table": (("weight", "embedding", False),),
    "norm": (("weight", "scale", False), ("bias", "bias", False)),
    "linear": (("weight", "kernel", True), ("bias", "bias", False)),
    "scale": (("weight", "scale", False),),
    "kernel": (("weight", "kernel", True),),
    "bias": (("bias", "bias", False),),
}


def modules(config: EncoderConfig, kind: str) -> list[tuple[str, str, str]]:
    """Return name there, name here and sort of every module with weights.

    Args:
      config: The encoder.
      kind: A row of `heads.KINDS`.
    """
    family = config.differences
    below = lambda name: f"{family.prefix}.{name}"  # noqa: E731
    found = [
        (below(there), f"encoder.{here}", sort)
        for there, here, sort in family.embeddings
    ]
    for i in range(config.stored_layers):
        within = family.layers.format(i)
        found += [
            (below(f"{within}.{there}"), f"encoder.layers.{i}.{here}", sort)
            for there, here, sort in family.layer
        ]
    head = {
        "qa": family.span_head,
        "mlm": family.masked_head,
        "tokens": family.token_head,
        "choice": family.choice_head,
    }
    found += head.get(kind, family.sequence_head)
    lacking = _lacking(config)
    return [module for module in found if module[1] not in lacking]


def weight_map(
    config: EncoderConfig, kind: str
) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Yield name there, path here and whether to transpose, for every weight.

    Args:
      config: The encoder.
      kind: A row of `heads.KINDS`.
    """
    for there, here, sort in modules(config, kind):
        for leaf_there, leaf_here, transposed in LEAVES[sort]:
            yield f"{there}.{leaf_there}", (*here.split("."), leaf_here), transposed


def _lacking(config: EncoderConfig) -> list[str]:
    """Return modules of a family that an encoder of these sizes does without."""
    return [
        name
        for name, there in (
            ("encoder.embeddings.types", config.type_vocab_size),
            ("encoder.project", config.projects_embeddings),
            ("encoder.layers.0.attention_norm", not modern.used(config)),
        )
        if not there
    ]


def leaf(tree: Params, path: tuple[str, ...]) -> Any:
    """Return the leaf of a nested dict at the end of a path."""
    for key in path:
        tree = tree[key]
    return tree


def with_leaf(tree: Params, path: tuple[str, ...], value: Any) -> Params:
    """Return a nested dict with another leaf; it shares all beside the path."""
    key, rest = path[0], path[1:]
    below = with_leaf(tree.get(key, {}), rest, value) if rest else value
    return {**tree, key: below}


def files_of(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder: one, or those that its index names.

    Raises:
      MetalrError: There are none.
    """
    whole = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise MetalrError(f"{index} must name files in weight_map; it doesn't")
        names = sorted({*map(str, shards.values())})
        if away := [
            n for n in names if Path(n).suffix != ".safetensors" or Path(n).name != n
        ]:
            raise MetalrError(f"{index} must name files beside it, got {away[0]!r}")
        return [folder / name for name in names]
    if any(folder.glob("*.bin")):
        raise MetalrError(
            f"{folder} holds pickled weights only, which can run code when they are "
            "read. Convert them to safetensors where PyTorch is installed: "
            "AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    raise MetalrError(f"{folder} holds no {whole.name}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
      MetalrError: It does not.
    """
    if not path.is_file():
        raise MetalrError(f"{path.parent} holds no {path.name}")
    return files.read_json(path)


def _plain(name: str, prefix: str) -> str:
    """Return a weight's name without prefix, LayerNorm's leaves in today's words."""
    name = name.removeprefix(f"{prefix}.")
    for old, new in (("gamma", "weight"), ("beta", "bias")):
        name = name.replace(f"LayerNorm.{old}", f"LayerNorm.{new}")
    return name


def read(files: list[Path], config: EncoderConfig, kind: str) -> dict[str, np.ndarray]:
    """Return those of the wanted weights that the files have, by plain name.

    Raises:
      MetalrError: A file is missing, truncated or of another format.
    """
    from safetensors import SafetensorError, safe_open

    prefix = config.differences.prefix
    wanted = {_plain(there, prefix) for there, _, _ in weight_map(config, kind)}
    found: dict[str, np.ndarray] = {}
    for path in files:
        try:
            with safe_open(path, framework="np") as file:
                for name in file.keys():
                    if (plain := _plain(name, prefix)) in wanted:
                        found[plain] = file.get_tensor(name)
        # TypeError and AttributeError: of a dtype that NumPy has not.
        except (SafetensorError, OSError, TypeError, AttributeError) as fault:
            reason = " ".join(str(fault).split())[:200]
            raise MetalrError(
                f"{path} is not a complete safetensors file ({reason}); fetch it again"
            ) from fault
    return found


def check_depth(tensors: dict[str, np.ndarray], config: EncoderConfig) -> None:
    """Check that files have the last layer, before one of them all is laid out.

    Args:
      tensors: From `read`.
      config: The encoder.

    Raises:
      MetalrError: They don't.
    """
    family, last = config.differences, config.stored_layers - 1
    within = f"{family.layers.format(last)}."
    if not any(name.startswith(within) for name in tensors):
        raise MetalrError(
            f"the weights don't fit config.json: num_hidden_layers is {last + 1}, but "
            f"they have no {family.prefix}.{within}*"
        )


def assemble(
    tensors: dict[str, np.ndarray],
    shapes: Params,
    config: EncoderConfig,
    kind: str,
    seed: int,
) -> tuple[Params, list[str]]:
    """Put weights in their places and draw what a head lacks.

    Args:
      tensors: From `read`.
      shapes: From `heads.outline`.
      config: The encoder.
      kind: A row of `heads.KINDS`.
      seed: Of the weights that are drawn.

    Returns:
      The parameters, and the names there of the modules that were drawn.

    Raises:
      MetalrError: Weights of the encoder are missing or misshapen; names them.
    """
    params: Params = {}
    drawn: list[str] = []
    missing: list[str] = []
    misshapen: list[str] = []
    for there, path, transposed in weight_map(config, kind):
        shape = leaf(shapes, path).shape
        value = tensors.get(_plain(there, config.differences.prefix))
        if value is not None and transposed:
            value = value.T
        if value is not None and value.shape == shape:
            # A copy: an array that shares the file's memory can't be donated.
            params = with_leaf(params, path, jnp.array(value, jnp.float32))
        elif path[0] != "encoder":
            fresh = initial(".".join(path), shape, seed)
            params = with_leaf(params, path, fresh)
            drawn.append(there.rpartition(".")[0])
        elif value is None:
            missing.append(there)
        else:
            misshapen.append(f"{there} {value.shape} instead of {shape}")
    faults = (("missing", missing), ("misshapen", misshapen))
    faults = [f"{len(n)} {what}: {_some(n)}" for what, n in faults if n]
    if faults:
        raise MetalrError(f"the weights don't fit config.json; {'; '.join(faults)}")
    return params, list(dict.fromkeys(drawn))


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def to_files(params: Params, config: EncoderConfig, kind: str) -> dict[str, np.ndarray]:
    """Return all weights under the names that transformers gives them.

    Args:
      params: Of a model.
      config: Its encoder.
      kind: A row of `heads.KINDS`.
    """
    tensors = {}
    for there, path, transposed in weight_map(config, kind):
        value = np.asarray(leaf(params, path), np.float32)
        # safetensors writes the memory of a view, not what it shows.
        tensors[there] = np.ascontiguousarray(value.T if transposed else value)
    return tensors
