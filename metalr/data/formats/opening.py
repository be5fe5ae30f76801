"""`look`: which format a file has, and its columns."""

import contextlib
import difflib
import functools
import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from metalr.data.formats import arrow, conll, delimited, json_rows
from metalr.data.formats.table import ENDINGS, PLAIN, DataFile, Options, Row
from metalr.errors import MetalrError

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".arrow", ".csv", ".tsv", ".json")

_csv = functools.partial(delimited.look, preferred=",")
_tsv = functools.partial(delimited.look, preferred="\t")
_READERS: dict[str, Callable[..., DataFile]] = {
    ".jsonl": json_rows.look,
    ".ndjson": json_rows.look,
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
_TEXTS = {json_rows.look, conll.look}
_WAYS_OUT = {
    (".xlsx", ".xls", ".xlsm", ".ods"): "save it as CSV (UTF-8) there",
    (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst"): "unpack it first",
    (".pkl", ".pickle", ".pt", ".pth"): "it could run code; write it as .parquet",
    (".npy", ".npz", ".h5", ".hdf5", ".orc", ".avro", ".db", ".sqlite", ".xml"): (
        "write it as .csv or .jsonl"
    ),
}
# What a file begins with says more than its name.
_STARTS: dict[bytes, Callable[..., DataFile]] = {
    b"PAR1": arrow.look_at_parquet,
    b"ARROW1": arrow.look_at_arrow,
    b"-DOCSTAR": conll.look,
}
_FOREIGN = {
    b"PK\x03\x04": "a workbook or a ZIP archive; save it as CSV (UTF-8), or unpack it",
    b"\xd0\xcf\x11\xe0": "an old workbook; save it as CSV (UTF-8)",
    b"\x1f\x8b": "gzipped twice; unpack it once",
    b"BZh": "packed by bzip2; unpack it first",
    b"\xfd7zXZ": "packed by xz; unpack it first",
    b"(\xb5/\xfd": "packed by zstd; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"SQLite format": "a database; write the table as .csv",
    b"%PDF": "a PDF; write its text as .csv or .jsonl",
    b"{\\rtf": "rich text; save it as plain text",
    b"<!doctype": "a web page, perhaps of an error; fetch the file again",
    b"<html": "a web page, perhaps of an error; fetch the file again",
    b"<?xml": "XML; write it as .csv or .jsonl",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file by git lfs pull",
    b"FEA1": "Feather of version 1; write it anew, or as .parquet",
}
_TAR = 257  # where an archive has its sign


def look(path: Path, options: Options) -> DataFile:
    """Look at a file or a folder of rows; its name's ending says the format.

    Raises:
      MetalrError: It is missing, empty, or breaks its format; so do its rows, when
        they are gone through.
    """
    if not os.path.exists(path):  # unlike Path's, never raises
        raise _missing_file(path)
    with _caught(path):
        reader = _reader(path)
        table = reader(path, options=options)
    if not table.names and not table.may_have_more:
        raise MetalrError(f"{path} is empty: it holds no rows")
    if reader is json_rows.look and is_delimited(path):
        said = f"{path.name} holds JSON, whatever its name says"
        table = table._replace(notes=(*table.notes, said))
    rows = table.rows
    return table._replace(rows=lambda columns: _caught_rows(path, rows(columns)))


def refuse_ignored(paths: Iterable[Path], options: Options) -> None:
    """Refuse what a user says of text files where none of the files is one.

    Raises:
      MetalrError: An option is without effect.
    """
    if options == PLAIN:
        return
    with contextlib.suppress(OSError, EOFError, zlib.error):  # said when they are read
        readers = {_reader(path) for path in paths if os.path.exists(path)}
        tables = readers & {_csv, _tsv}
        if not options.header and readers and not tables:
            raise MetalrError("--no-header is of CSV and TSV files; leave it out")
        if options.encoding and readers and not tables | (readers & _TEXTS):
            raise MetalrError(
                "--encoding is of text files; Parquet and Arrow say themselves how "
                "their texts are written: leave it out"
            )


def _reader(path: Path) -> Callable[..., DataFile]:
    if os.path.isdir(path):
        return arrow.look_at_folder
    suffix = suffix_of(path)
    start, packed = _start(path)
    reader = next((of for sign, of in _STARTS.items() if start.startswith(sign)), None)
    if reader in (arrow.look_at_parquet, arrow.look_at_arrow) and packed:
        raise MetalrError(f"{path} is packed, and no text inside; unpack it (gunzip)")
    if reader is not None:
        return reader
    if suffix in _READERS:
        begun = start.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
        for sign, what in _FOREIGN.items():
            if begun.startswith(sign.lower()):
                raise MetalrError(f"{path}, whatever its name, is {what}")
        if start[_TAR : _TAR + 5] == b"ustar":
            raise MetalrError(f"{path}, whatever its name, is a tar archive; unpack it")
        if _READERS[suffix] in (_csv, _tsv) and _is_json(begun):
            return json_rows.look
        return _READERS[suffix]
    shown = ", ".join(ENDINGS)
    way = next((way for of, way in _WAYS_OUT.items() if suffix in of), "")
    raise MetalrError(
        f"{path}: a data file ends in {shown}, not in {suffix!r}"
        + (f"; {way}" if way else "")
    )


def _start(path: Path) -> tuple[bytes, bool]:
    """Return the first bytes of a file, unpacked if it is gzipped."""
    with path.open("rb") as file:
        start = file.read(512)
    if start[:2] != b"\x1f\x8b":
        return start, False
    with gzip.open(path) as file:
        return file.read(512), True


def _is_json(begun: bytes) -> bool:
    """Say whether a table begins as JSON does: no header has braces and quotes so."""
    return re.match(rb"\[?\s*\{\s*[\"}]", begun) is not None


def suffix_of(path: Path) -> str:
    """Return how a file's name ends, in small letters; of `.gz` what stands before it.

    >>> [suffix_of(Path(name)) for name in ("a.CSV.gz", "a.parquet.gz", "a")]
    ['.csv', '.gz', '']
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"] and suffixes[-2:-1] != [".parquet"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_delimited(path: Path) -> bool:
    """Say whether a file's name is one of delimited text."""
    return _READERS.get(suffix_of(path)) in (_csv, _tsv)


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
