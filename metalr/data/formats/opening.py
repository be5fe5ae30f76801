"""`look`: which format a file has, and its columns."""

import contextlib
import difflib
import functools
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from metalr.data.formats import arrow, conll, delimited, json_rows
from metalr.data.formats.table import DataFile, Options, Row
from metalr.errors import MetalrError

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".arrow", ".csv", ".tsv", ".json")
_FILES = (*SUFFIXES, ".conll")

_csv = functools.partial(delimited.look, preferred=",")
_tsv = functools.partial(delimited.look, preferred="\t")
_READERS: dict[str, Callable[..., DataFile]] = {
    ".jsonl": json_rows.look_at_lines,
    ".ndjson": json_rows.look_at_lines,
    ".json": json_rows.look,
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _tsv,
    ".tab": _tsv,
    ".parquet": arrow.look_at_parquet,
    ".arrow": arrow.look_at_arrow,
    ".feather": arrow.look_at_arrow,
    ".conll": conll.look,
    ".bio": conll.look,
    ".iob": conll.look,
    ".iob2": conll.look,
}
_WAYS_OUT = {
    (".xlsx", ".xls", ".xlsm", ".ods"): "save it as CSV (UTF-8) there",
    (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst"): "unpack it first",
    (".pkl", ".pickle", ".pt", ".pth"): "it could run code; write it as .parquet",
    (".npy", ".npz", ".h5", ".hdf5", ".orc", ".avro", ".db", ".sqlite", ".xml"): (
        "write it as .csv or .jsonl"
    ),
}
# What a file begins with says more than its name.
_STARTS: tuple[tuple[bytes, Callable[..., DataFile]], ...] = (
    (b"PAR1", arrow.look_at_parquet),
    (b"ARROW1", arrow.look_at_arrow),
    (b"-DOCSTAR", conll.look),
)
_WORKBOOK = b"PK\x03\x04"


def look(path: Path, options: Options) -> DataFile:
    """Look at a file or a folder of rows; its name's ending says the format.

    Raises:
      MetalrError: It is missing, empty, or breaks its format; so do its rows, when
        they are gone through.
    """
    if not os.path.exists(path):  # unlike Path's, never raises
        raise _missing_file(path)
    with _caught(path):
        table = _reader(path)(path, options=options)
    rows = table.rows
    return table._replace(rows=lambda columns: _caught_rows(path, rows(columns)))


def _reader(path: Path) -> Callable[..., DataFile]:
    if os.path.isdir(path):
        return arrow.look_at_folder
    suffix = _suffix(path)
    with path.open("rb") as file:
        start = file.read(8)
    for sign, reader in _STARTS:
        if start.startswith(sign):
            return reader
    if start.startswith(_WORKBOOK) and suffix in _READERS:
        raise MetalrError(
            f"{path} is a workbook or a ZIP archive, whatever its name; save it as "
            "CSV (UTF-8), or unpack it"
        )
    if suffix not in _READERS:
        shown = ", ".join(_FILES)
        way = next((way for of, way in _WAYS_OUT.items() if suffix in of), "")
        raise MetalrError(
            f"{path}: a data file ends in {shown}, not in {suffix!r}"
            + (f"; {way}" if way else "")
        )
    return _READERS[suffix]


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"] and suffixes[-2:-1] != [".parquet"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _caught_rows(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    with _caught(path):
        yield from rows


@contextlib.contextmanager
def _caught(path: Path) -> Iterator[None]:
    """Turn what reading a file raises into one error."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
        raise MetalrError(f"{path} is not a complete gzip file: {fault}") from fault
    except OSError as fault:
        raise MetalrError(f"{path} can't be read: {fault.strerror or fault}") from fault
    except MemoryError as fault:
        raise MetalrError(f"{path} does not fit into the memory") from fault
    except RecursionError as fault:
        raise MetalrError(f"{path} is not usable: nested too deeply") from fault


def listing(folder: Path) -> str:
    """Return the names in a folder, for an error."""
    names = _names(folder)
    return ", ".join(names[:20] + ["..."] * (len(names) > 20)) or "nothing"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # not ours to read; the error at hand is another one
        return []


def _missing_file(path: Path) -> MetalrError:
    if not os.path.isdir(path.parent):
        return MetalrError(f"{path} does not exist: there is no folder {path.parent}")
    near = difflib.get_close_matches(path.name, _names(path.parent), n=3, cutoff=0.5)
    hint = f"; the nearest there: {', '.join(near)}" if near else ""
    return MetalrError(f"{path} does not exist{hint}")


def is_one(path: str) -> bool:
    """Say whether a path is one set of rows: a file, or a folder of `save_to_disk`."""
    return os.path.isfile(path) or (os.path.isdir(path) and arrow.is_saved(Path(path)))
