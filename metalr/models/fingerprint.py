"""What identifies a model and its tokenizer, whatever their name."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from metalr.models.huggingface import Pretrained

TOKENIZER = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def fingerprint(model: Pretrained) -> dict[str, str]:
    """Return where a model is from, and the SHA-256 of what it was read from.

    Of files and not of arrays: a run may resume on another device, where what is drawn
    at random may round differently.
    """
    config, *weights = model.files
    beside = (config.parent / name for name in TOKENIZER)
    return {
        "where": model.origin.where,
        "config": _sum([config]),
        "weights": _sum(weights),
        "tokenizer": _sum(path for path in beside if path.is_file()),
    }


def _sum(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the names and contents of files."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.name} {digest}\n".encode())
    return whole.hexdigest()
