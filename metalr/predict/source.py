"""Read the rows to predict, from a file or from stdin."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from metalr.data.columns import Row
from metalr.data.formats import delimited, opening
from metalr.data.formats.table import PLAIN, Options
from metalr.errors import MetalrError

_LONGEST = 64 * 2**20  # characters of a line; no text is near this


def from_file(
    path: Path, options: Options, say: Callable[[str], None] = lambda note: None
) -> Iterator[Row]:
    """Return the rows of a file as training reads them, few of them in memory.

    Args:
      path: The file.
      options: How it is written, where it does not say.
      say: Called with each note on how the file is read.

    Raises:
      MetalrError: The file is missing, empty, or breaks its format.
    """
    opening.refuse_ignored([path], options)
    table = opening.look(path, options)
    for note in table.notes:
        say(note)
    return _some(path, table.rows(None))


def _some(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows; refuse a file without any."""
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise MetalrError(f"{path} is empty: it holds no rows")


def from_stream(file: IO[str], form: str, options: Options = PLAIN) -> Iterator[Row]:
    """Yield the rows of a stream of text as they come.

    Args:
      file: Such as stdin.
      form: jsonl, csv or tsv.
      options: Its encoding, for errors, and whether it has a header.

    Raises:
      MetalrError: There are none, or a line breaks the format.
    """
    if form == "jsonl" and not options.header:
        raise MetalrError(
            "--no-header is of CSV and TSV; leave it out, or say --format"
        )
    named = form != "jsonl" and options.header
    rows = _json_lines(file) if form == "jsonl" else _table(file, form, named)
    count = 0
    try:
        for row in rows:
            count += 1
            yield row
    except UnicodeDecodeError as fault:
        raise MetalrError(
            f"stdin is not {options.encoding or 'UTF-8'} after row {count}: {fault}; "
            "name its own with --encoding, such as cp1252"
        ) from fault
    except csv.Error as fault:
        raise MetalrError(
            f"stdin breaks the {form} format after row {count}: {fault}"
        ) from fault
    if not count:
        raise MetalrError("stdin is empty: it holds no rows")


def _lines(file: IO[str]) -> Iterator[str]:
    first = True
    while line := file.readline(_LONGEST + 1):
        line, first = line.removeprefix("\ufeff") if first else line, False
        if len(line) > _LONGEST:
            raise MetalrError(
                f"a line of stdin is longer than {_LONGEST} characters: is it text?"
            )
        yield line


def _json_lines(file: IO[str]) -> Iterator[Row]:
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as fault:
            raise MetalrError(
                f"stdin line {number} is not JSON ({fault}); --format csv or tsv reads "
                "tables, --format tsv --no-header --text-column 1 a text a line"
            ) from fault
        if not isinstance(row, dict):
            raise MetalrError(
                f"stdin line {number} is not a JSON object: {line.strip()!r:.60}. One "
                'row a line: {"text": "..."}'
            )
        yield row


def _table(file: IO[str], form: str, named: bool) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST)  # of the module; as it comes, 128 KiB
    plain = form == "tsv"  # no quotes there, as in GLUE's files
    reader: Any = csv.reader(
        _lines(file),
        delimiter="\t" if plain else ",",
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        strict=True,
    )
    header: list[str] = []
    for values in filter(None, reader):
        if not header:
            numbers = [str(i) for i in range(1, len(values) + 1)]
            names = delimited.names_of(values)
            header = delimited.all_named(names) if named else numbers
            if named:
                continue
        if len(values) != len(header):
            than, way = "the header", ""
            if not named:
                than = "the first line"
                way = "" if plain else "; where each line is one text, say --format tsv"
            raise MetalrError(
                f"stdin line {reader.line_num} has other columns than {than}: "
                f"{', '.join(header):.200}{way}"
            )
        row = zip(header, values, strict=True)
        yield {name: value for name, value in row if name}
