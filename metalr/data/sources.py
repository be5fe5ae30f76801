"""Rows from files.

Every fault of a file is a `MetalrError` that names the file and, where the format has
lines, the line. Nothing here knows tasks: a row is a plain dict as the file has it.
"""

import csv
import difflib
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from metalr.data.rows import Row
from metalr.errors import MetalrError
from metalr.runtime import memory

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".tsv", ".json")

# No row of a text set is near this; a binary file without line ends is stopped here
# instead of filling the memory.
_MAX_LINE = 64 * 2**20
# A JSON file that is one value has to be in memory several times over; and equal rows
# pack so well, by gzip and in Parquet, that a small file may fill any memory. MNLI has
# 0.4 million rows, and all of SQuAD 30 MB.
_MAX_WHOLE = 2**30
_MAX_ROWS = 10_000_000


def read_rows(path: str | Path) -> list[Row]:
    """Reads all rows of one file; its name's ending says the format.

    `.jsonl` and `.json` hold one JSON object a line; `.json` may also be one list of
    objects or a file in SQuAD's own nested form, whose rows come out flat as on the
    hub. `.csv` has a header line and quotes as in RFC 4180; `.tsv` has a header line
    and no quoting, as GLUE's files (a quote there is a character of the text).
    All of these may be gzipped (`.gz`). `.parquet` is read by pyarrow.

    Args:
      path: The file.

    Returns:
      At least one row; values of CSV and TSV are strings.

    Raises:
      MetalrError: The file is missing, empty, or breaks its format.
    """
    path = Path(path)
    kind = _format(path)
    if not os.path.exists(path):  # unlike Path's, never raises
        raise _missing_file(path)
    try:
        rows = _READERS[kind](path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
        raise MetalrError(f"{path} is no whole gzip file: {fault}") from fault
    except OSError as fault:
        raise MetalrError(f"{path} can't be read: {fault.strerror or fault}") from fault
    except MemoryError as fault:
        raise MetalrError(f"{path} does not fit into the memory") from fault
    except RecursionError as fault:
        raise MetalrError(f"{path} is not usable: nested too deeply") from fault
    if not rows:
        raise MetalrError(f"{path} is empty: it holds no rows")
    return rows


def listing(folder: Path) -> str:
    """Returns the names in a folder, for an error."""
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


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"] and suffixes[-2:-1] != [".parquet"]:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix not in _READERS:
        raise MetalrError(
            f"{path}: a data file ends in {', '.join(SUFFIXES)}, not in {suffix!r}"
        )
    return suffix


def _open(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _lines(path: Path) -> Iterator[str]:
    """Yields the decoded lines of a text file with their line ends."""
    with _open(path) as file:
        number = 0
        while raw := file.readline(_MAX_LINE + 1):
            number += 1
            if number > _MAX_ROWS:
                raise MetalrError(f"{path} has more than {_MAX_ROWS} lines")
            if len(raw) > _MAX_LINE:
                raise MetalrError(
                    f"{path} line {number} is longer than {_MAX_LINE} bytes: "
                    "is this a text file?"
                )
            try:
                # Spreadsheets start a file with a byte-order mark.
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as fault:
                raise MetalrError(
                    f"{path} line {number} is not UTF-8: byte 0x{raw[fault.start]:02x} "
                    f"at column {fault.start + 1}"
                ) from fault


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as fault:
        if fault.lineno > 1:  # a whole file; a line of JSON Lines has one line only
            where = f"{where} line {fault.lineno}"
        raise MetalrError(
            f"{where} is not JSON: {fault.msg} at column {fault.colno}"
        ) from fault
    except RecursionError as fault:
        raise MetalrError(f"{where} is not usable JSON: nested too deeply") from fault
    except ValueError as fault:  # an integer of thousands of digits
        raise MetalrError(f"{where} is not usable JSON: {fault}") from fault


def _json_lines(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        row = _parse(line.strip(), f"{path} line {number}")
        if not isinstance(row, dict):
            raise MetalrError(
                f"{path} line {number} is no JSON object: {line.strip()[:40]!r}. "
                'One row a line: {"sentence": "...", "label": 0}'
            )
        rows.append(row)
    if len(rows) == 1 and isinstance(rows[0].get("data"), list):
        return _flatten_squad(path, rows[0]["data"])
    return rows


def _json(path: Path) -> list[Row]:
    """Reads a `.json` file, which is lines, one list, or SQuAD's nested object."""
    first = next((line for line in _lines(path) if line.strip()), "")
    try:
        is_lines = isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        is_lines = False  # the value goes on in the next line, or is broken
    if is_lines or not first:
        return _json_lines(path)
    parts, size = [], 0
    for line in _lines(path):
        parts.append(line)
        size += len(line)
        if size > _MAX_WHOLE:
            raise MetalrError(
                f"{path} is one JSON value of more than {_MAX_WHOLE} characters; "
                "write one row a line (.jsonl)"
            )
    whole = _parse("".join(parts), str(path))
    if isinstance(whole, dict) and isinstance(whole.get("data"), list):
        return _flatten_squad(path, whole["data"])
    if not isinstance(whole, list) or not all(isinstance(row, dict) for row in whole):
        raise MetalrError(
            f"{path} holds neither one JSON object a line, nor one list of objects, "
            'nor SQuAD\'s {"data": [{"paragraphs": ...}]}'
        )
    return whole


def _flatten_squad(path: Path, articles: list[Any]) -> list[Row]:
    rows = []
    for number, article in enumerate(articles, start=1):
        try:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    answers = qa["answers"]
                    rows.append(
                        {
                            "id": str(qa["id"]),
                            "title": str(article.get("title", "")),
                            "context": paragraph["context"],
                            "question": qa["question"],
                            "answers": {
                                "text": [a["text"] for a in answers],
                                "answer_start": [a["answer_start"] for a in answers],
                            },
                        }
                    )
        except (KeyError, TypeError, AttributeError) as fault:
            raise MetalrError(
                f"{path}: article {number} of 'data' is not in SQuAD's form "
                f"(paragraphs, qas, answers): {type(fault).__name__} {fault}"
            ) from fault
    return rows


def _csv(path: Path) -> list[Row]:
    return _delimited(path, csv.reader(_lines(path), strict=True))


def _tsv(path: Path) -> list[Row]:
    reader = csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    return _delimited(path, reader)


def _delimited(path: Path, reader: Any) -> list[Row]:
    csv.field_size_limit(_MAX_LINE)  # of the module; as it comes, 128 KiB
    rows: list[Row] = []
    try:
        header = next(reader, [])
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise MetalrError(f"{path} has the column {twice[0]!r} more than once")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise MetalrError(
                    f"{path} line {reader.line_num} has {len(values)} fields, "
                    f"the header has {len(header)}: {', '.join(header)}"
                )
            rows.append(dict(zip(header, values, strict=True)))
    except csv.Error as fault:
        raise MetalrError(
            f"{path} line {reader.line_num} breaks the format: {fault}. "
            "Is a quote left open?"
        ) from fault
    return rows


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        # ParquetFile and not read_table: that one makes columns of folder names
        # such as "label=1".
        with memory.bounded(path), pyarrow.parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > _MAX_ROWS:
                raise MetalrError(f"{path} has more than {_MAX_ROWS} rows")
            table = file.read()
        names = table.column_names
        if len(set(names)) < len(names):
            raise MetalrError(f"{path} has a column more than once: {names}")
        return table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, TypeError) as fault:
        raise MetalrError(f"{path} is no readable Parquet file: {fault}") from fault


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
