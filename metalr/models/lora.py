"""LoRA: low-rank changes of some kernels, and the folders that PEFT keeps them in.

A kernel W [in, out] becomes W + scale * a b, with a [in, rank] and b [rank, out]; b is
zero at first. Parameters hold the pairs as `lora`, each at the place of its module;
`merged` computes the kernels, so the models know nothing of them.
"""

import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalr.errors import MetalrError, unknown_name
from metalr.models import weights
from metalr.models.config import EncoderConfig
from metalr.models.encoder import Params
from metalr.runtime import files

TASKS = {"qa": "QUESTION_ANS", "tokens": "TOKEN_CLS", "choice": None}
KEY = "lora"


class Lora(NamedTuple):
    """What is changed, and how."""

    rank: int
    alpha: float
    names: tuple[str, ...]  # of the targets, as PEFT has them: the ends of modules
    modules: tuple[tuple[str, str], ...]  # in the files of transformers, and here

    @property
    def scale(self) -> float:
        """The factor of a b."""
        return self.alpha / self.rank


def choose(
    config: EncoderConfig, rank: int, alpha: float | None, targets: str | None
) -> Lora:
    """Choose the kernels that are changed.

    Args:
      config: Of the encoder.
      rank: Of the changes.
      alpha: Rank times the factor of a change; None: twice the rank.
      targets: Names of modules, as PEFT takes them, with commas between; None: those
        of queries and values.

    Raises:
      MetalrError: A name fits no linear layer of the encoder.
    """
    linear = [
        (there, here)
        for there, here, sort in weights.modules(config, "qa")
        if sort in ("linear", "kernel") and here.startswith("encoder.layers.")
    ]
    default = ("attention.query", "attention.value", "attention.qkv")
    ends = lambda name: name.rpartition(".")[2]  # noqa: E731
    asked = targets.split(",") if targets else []
    names = dict.fromkeys(name.strip() for name in asked)
    if not names:
        names = dict.fromkeys(ends(t) for t, h in linear if h.endswith(default))
    for name in names:
        if not any(_fits(there, name) for there, _ in linear):
            known = dict.fromkeys(ends(there) for there, _ in linear)
            raise unknown_name("--lora-targets", name, known)
    chosen = [m for m in linear if any(_fits(m[0], name) for name in names)]
    width = min(config.hidden_size, config.intermediate_size)
    if rank > width:
        raise MetalrError(f"--lora must be at most the width, {width}; got {rank}")
    return Lora(rank, alpha or 2 * rank, tuple(names), tuple(chosen))


def _fits(module: str, name: str) -> bool:
    """Return whether PEFT takes a module for one of that name."""
    return f".{module}".endswith(f".{name}")


def add(params: Params, lora: Lora, seed: int) -> Params:
    """Return parameters with the pairs: a drawn as PEFT does, b zero."""
    pairs: Params = {}
    for _, here in lora.modules:
        rows, columns = _kernel(params, here).shape
        draw = np.random.default_rng([seed, zlib.crc32(f"{KEY}.{here}".encode())])
        a = draw.uniform(-1, 1, (rows, lora.rank)) * rows**-0.5
        b = jnp.zeros((lora.rank, columns), jnp.float32)
        pair = {"a": jnp.array(a, jnp.float32), "b": b}
        pairs = weights.with_leaf(pairs, tuple(here.split(".")), pair)
    return {**params, KEY: pairs}


def merged(params: Params, lora: Lora) -> Params:
    """Return the parameters of the model alone, its kernels changed."""
    whole = {name: value for name, value in params.items() if name != KEY}
    for _, here in lora.modules:
        pair = weights.leaf(params[KEY], tuple(here.split(".")))
        change = jnp.matmul(pair["a"], pair["b"], precision=jax.lax.Precision.HIGHEST)
        path = (*here.split("."), "kernel")
        kernel = _kernel(params, here) + lora.scale * change
        whole = weights.with_leaf(whole, path, kernel)
    return whole


def _kernel(params: Params, here: str) -> Any:
    return weights.leaf(params, (*here.split("."), "kernel"))


def export(
    folder: Path, params: Params, lora: Lora, config: EncoderConfig, kind: str, of: str
) -> None:
    """Write adapter_config.json and adapter_model.safetensors, which PEFT loads.

    The head goes with the pairs: it was trained as it is.

    Args:
      folder: Made if it is not there.
      params: With the pairs.
      lora: What they change.
      config: Of the encoder.
      kind: A row of `heads.KINDS`.
      of: Hub id or folder of the model that is changed.

    Raises:
      MetalrError: The files cannot be written.
    """
    from safetensors.numpy import save

    tensors: dict[str, np.ndarray] = {}
    for there, here in lora.modules:
        pair = weights.leaf(params[KEY], tuple(here.split(".")))
        for name, value in (("lora_A", pair["a"]), ("lora_B", pair["b"])):
            key = f"base_model.model.{there}.{name}.weight"
            tensors[key] = np.ascontiguousarray(np.asarray(value, np.float32).T)
    head: dict[str, None] = {}  # keeps the order
    for there, path, transposed in weights.weight_map(config, kind):
        if path[0] != "encoder":
            value = np.asarray(weights.leaf(params, path), np.float32)
            value = np.ascontiguousarray(value.T if transposed else value)
            tensors[f"base_model.model.{there}"] = value
            head[_saved_module(there, config)] = None
    # A name that a module of the head ends in too would change that as well.
    clear = not any(_fits(module, name) for module in head for name in lora.names)
    said = {
        "peft_type": "LORA",
        "task_type": TASKS.get(kind, "SEQ_CLS"),
        "base_model_name_or_path": of,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": list(lora.names if clear else dict(lora.modules)),
        "modules_to_save": list(head),
    }

    def write(draft: Path) -> None:
        (draft / "adapter_model.safetensors").write_bytes(
            save(tensors, metadata={"format": "pt"})
        )
        text = json.dumps(said, indent=2) + "\n"
        (draft / "adapter_config.json").write_text(text)

    files.fill(folder, write)


def _saved_module(there: str, config: EncoderConfig) -> str:
    """Return the module of a head's weight that PEFT is to keep whole.

    Of a head in parts it is their parent; a pooler lies within the encoder.
    """
    inside = there.startswith(f"{config.differences.prefix}.")
    return there.rpartition(".")[0] if inside else there.partition(".")[0]
