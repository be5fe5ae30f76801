"""What identifies a model and its tokenizer, whatever their name."""

from metalr.models.huggingface import Pretrained
from metalr.runtime import files

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
        "config": files.checksum([config]),
        "weights": files.checksum(weights),
        "tokenizer": files.checksum(path for path in beside if path.is_file()),
    }
