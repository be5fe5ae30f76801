"""Files that are written whole or not at all, and JSON that is checked when read."""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError, printable

# The longest history of a long run is some 10 MB; a file that is larger by far is none
# of ours, and would fill the memory before anybody looked at it.
MAX_JSON = 256 * 2**20

_DRAFT = ".draft-"  # in the name of a file that is not finished, before the process id


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result or settings: the whole file or, if interrupted, the old one.

    Numbers that JSON cannot say (NaN, inf) become null; NumPy and JAX scalars become
    plain numbers and paths strings.

    Args:
      path: The file, in a folder that exists.
      content: JSON-ready, as a `metalr.finetune.result.Result` is.

    Raises:
      MetalrError: The file cannot be written.
    """
    text = json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False)

    def write(draft: Path) -> None:
        # Half a surrogate pair, as in a file name that is no UTF-8, becomes its escape.
        draft.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")

    replace(path, write)


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
      MetalrError: The file is missing, broken, or holds something else.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_JSON + 1)
        if len(content) > MAX_JSON:
            raise MetalrError(f"{path} must be JSON of at most {MAX_JSON} bytes")
        found = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise MetalrError(f"cannot read {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise MetalrError(f"{path} is not usable JSON: nested too deeply") from error
    except ValueError as error:  # broken JSON or broken UTF-8
        raise MetalrError(
            f"{path} is not JSON ({error}); it may be cut off: make or fetch it again"
        ) from error
    if not isinstance(found, dict):
        raise MetalrError(f"{path} must hold a JSON object, got {type(found).__name__}")
    return found


def checksum(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the names and contents of files."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.name} {digest}\n".encode())
    return whole.hexdigest()


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a draft of a file, then put it in the file's place.

    Args:
      path: The file, in a folder that exists.
      write: Called with the path of the draft.

    Raises:
      MetalrError: The file cannot be written; an old one is untouched.
    """
    path = Path(path)
    # Beside the target, because a rename is atomic only within one file system.
    draft = path.with_name(f".{path.name}{_DRAFT}{os.getpid()}")
    try:
        write(draft)
        # Or a power cut may leave the new name and nothing in it.
        _flush(draft)
        os.replace(draft, path)
        _flush(path.parent)
    except OSError as error:
        raise MetalrError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)


def check_new(path: Path) -> None:
    """Refuse a file that exists or cannot be written, before the work for it is done.

    Raises:
      MetalrError: The file is there, its folder is not, or takes no files.
    """
    if os.path.lexists(path):
        raise MetalrError(f"{path} exists; name a new file")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work for it is done.

    Raises:
      MetalrError: Its folder is not there, or takes no files.
    """
    if not path.parent.is_dir():
        raise MetalrError(f"cannot write {path}: there is no folder {path.parent}")
    draft = path.with_name(f".{path.name}{_DRAFT}{os.getpid()}")
    try:
        draft.touch()
    except OSError as error:
        raise MetalrError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def fill(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make files in a draft of a folder, then move them to their places.

    What a killed one has left in the folder goes first. The files get the rights that
    new files get here, whatever the library that wrote them thinks.

    Args:
      folder: Made if it is missing; files of the same names are replaced.
      write: Called with a folder that is empty; it makes files in it, and no folders.

    Raises:
      OSError: As of `write`, or a file cannot be moved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_drafts(folder)
    draft = folder / f".files{_DRAFT}{os.getpid()}"
    try:
        draft.mkdir()
        write(draft)
        for path in sorted(draft.iterdir()):
            path.chmod(draft.stat().st_mode & 0o666)
            _flush(path)
            os.replace(path, folder / path.name)
        _flush(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_draft(path: Path) -> bool:
    """Return whether a killed `replace` or `fill` may have left this behind.

    >>> is_draft(Path(".result.json.draft-12")), is_draft(Path(".lock"))
    (True, False)
    """
    return path.name[0] == "." and _DRAFT in path.name


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes left; call it where no other one writes."""
    for path in folder.iterdir():
        if is_draft(path):
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the system write a file or the names of a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain(value: Any) -> Any:
    """Return `value` in JSON's own types; null for a number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays and their scalars
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def escaped(value: Any) -> Any:
    """Return a value of JSON with its texts and names safe to show in a terminal."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): escaped(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [escaped(entry) for entry in value]
    return value


def is_number(value: Any) -> bool:
    """Return whether a value of JSON is a finite number that NumPy holds.

    >>> is_number(3), is_number(0.5), is_number(True), is_number(10**400)
    (True, True, False, False)
    """
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) is int and abs(value) < 2**63
