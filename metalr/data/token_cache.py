"""Tokens of large sets of rows, kept for the next run on the same rows.

An entry is a folder of arrays, named by a hash of all that decides them: the rows, the
task, the tokenizer, the lengths and the code itself. Arrays are mapped into
memory and held against their own hashes, so that a damaged entry is made anew.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metalr.data.columns import Row, Rows
from metalr.data.cutting import Lost
from metalr.data.encode import encode
from metalr.data.encoded import Encoded
from metalr.data.ragged import Ragged
from metalr.data.schema import Task
from metalr.runtime import caches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast as Tokenizer

_LEAST = 2**21  # bytes of rows; fewer are tokenized in about a second
_FIELDS = [name for name in Encoded._fields if name not in ("lost", "group")]


def encoded(
    rows: Sequence[Row],
    task: Task,
    tokenizer: "Tokenizer",
    max_length: int,
    *,
    stride: int,
) -> tuple[Encoded, Path | None]:
    """Return what `encode` makes of rows, from the cache where it has it.

    Args:
      rows: As `encode` takes them; few, or not by column: the cache is not asked.
      task: As `encode` takes it.
      tokenizer: As `encode` takes it.
      max_length: As `encode` takes it.
      stride: As `encode` takes it.

    Returns:
      The tokens, and the folder that they were read from, or None.

    Raises:
      MetalrError: As `encode` does.
    """
    root = caches.folder("tokens")
    if root is None or not isinstance(rows, Rows) or rows.nbytes < _LEAST:
        return encode(rows, task, tokenizer, max_length, stride=stride), None
    entry = root / _key(rows, task, tokenizer, (max_length, stride))
    try:
        found = _read(entry)
        os.utime(entry)  # the oldest go first
        return found, entry
    except Exception:  # whatever a damaged one raises, or there is none
        shutil.rmtree(entry, ignore_errors=True)
    made = encode(rows, task, tokenizer, max_length, stride=stride)
    if _nbytes(made) > caches.MOST_BYTES:  # it would go at once, with all others
        return made, None
    with contextlib.suppress(OSError):  # a full disk, or a folder that is read alone
        root.mkdir(parents=True, exist_ok=True)
        _write(entry, made)
        caches.prune(root)
    return made, None


def _key(
    rows: Rows, task: Task, tokenizer: "Tokenizer", lengths: tuple[int, int]
) -> str:
    digest = hashlib.sha256()
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # Calls set these two, and `encode` sets its own.
    backend.update(truncation=None, padding=None)
    known = [metadata.version(name) for name in ("transformers", "tokenizers")]
    means = [task.kind, task.text, task.pair, task.label, task.labels, task.null]
    how = [means, lengths, tokenizer.model_input_names, known, backend]
    digest.update(json.dumps(how, sort_keys=True).encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):  # what makes the tokens
        digest.update(module.read_bytes())
    rows.digest_bytes(digest)
    return digest.hexdigest()


def _arrays(made: Encoded) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of an entry by name."""
    for name in _FIELDS:
        value = getattr(made, name)
        if value is None:
            continue
        if isinstance(value, np.ndarray):
            yield name, value
            continue
        value = Ragged.of(value)
        yield f"{name}.bounds", value.bounds
        if len(value.flat) and value.flat.strides[0] == 0:  # one segment: all zeros
            yield f"{name}.zeros", np.array([len(value.flat)])
        else:
            yield f"{name}.flat", value.flat


def _nbytes(made: Encoded) -> int:
    # Zeros that take no memory take none in the file.
    return sum(array.nbytes for name, array in _arrays(made) if "zeros" not in name)


def _write(entry: Path, made: Encoded) -> None:
    draft = Path(tempfile.mkdtemp(prefix=".tokens.draft-", dir=entry.parent))
    try:
        hashes = {}
        for name, array in _arrays(made):
            np.save(draft / f"{name}.npy", array, allow_pickle=False)
            hashes[name] = _sha256(draft / f"{name}.npy")
        about: dict[str, Any] = {"lost": made.lost, "group": made.group}
        about["sha256"] = hashes
        (draft / "entry.json").write_text(json.dumps(about), encoding="utf-8")
        draft.rename(entry)  # another process may have been first: then it fails
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _read(entry: Path) -> Encoded:
    about = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
    found = {}
    for name, sha256 in about["sha256"].items():
        path = entry / f"{name}.npy"
        if _sha256(path) != sha256:
            raise ValueError(f"{path} is damaged")
        # Written to in memory alone.
        found[name] = np.load(path, mmap_mode="c", allow_pickle=False)

    def value(name: str) -> Any:
        if name in found or f"{name}.bounds" not in found:
            return found.get(name)
        if f"{name}.zeros" in found:
            flat = np.broadcast_to(np.zeros(1, np.int8), found[f"{name}.zeros"][0])
        else:
            flat = found[f"{name}.flat"]
        return Ragged(flat, found[f"{name}.bounds"])

    fields = {name: value(name) for name in _FIELDS}
    if any(fields[name] is None for name in Encoded._fields[:4]):
        raise ValueError(f"{entry} is not whole")
    return Encoded(**fields, lost=Lost(*about["lost"]), group=about["group"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
