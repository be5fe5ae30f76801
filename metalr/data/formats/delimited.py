"""CSV and TSV, as spreadsheets, pandas, R and GLUE write them."""

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metalr.data.formats import conll, text
from metalr.data.formats.table import DataFile, Options, Row
from metalr.errors import MetalrError

_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_SEP_LINE = re.compile(r'"?sep=(\\t|.)"?[\r\n ]*', re.I)
UNNAMED = "Unnamed: "  # and its place: a column without a name, as in pandas
_SAMPLE = 50  # records that are looked at to tell how a file is written
_LINES = "; where each line is one text, name the file .txt"
_LONE_CR = "\udfff"  # in place of one; no file can hold it


class Dialect(NamedTuple):
    """How the records of a file are written."""

    delimiter: str
    quoted: bool  # a quote at a field's start is none of its text
    skip_space: bool  # after a delimiter
    skip_lines: int  # before the header

    @property
    def parted(self) -> str:
        """What stands between fields, in words."""
        return _NAMES.get(self.delimiter, repr(self.delimiter))

    def __str__(self) -> str:
        """Say the rule that fields are told apart by."""
        rule = "quotes are text"
        if self.quoted:
            rule = "quotes around them taken off; one of these in a text needs quotes"
        return f"read with {self.parted} between the fields, {rule}"


def look(path: Path, preferred: str, options: Options) -> DataFile:
    """Look at a delimited file.

    Args:
      path: The file.
      preferred: The delimiter that its name's ending says.
      options: What the user says of it.

    Raises:
      MetalrError: The file breaks its format.
    """
    csv.field_size_limit(text.MAX_LINE)  # of the module; as it comes, 128 KiB
    found = text.look(path, options.encoding)
    dialect = _dialect(found, preferred, options.header)
    sample = [values for _, values in itertools.islice(_records(found, dialect), 50)]
    first, *body = sample or [[]]
    notes = list(found.notes)
    if dialect.delimiter != preferred:
        notes.append(f"{path.name} read with {dialect.parted} between the fields")
    if dialect.delimiter == "\t" and dialect.quoted:
        notes.append(f"{path.name}: quotes around a field are none of its text")
    elif not dialect.quoted and any(
        v[:1] == '"' == v[-1:] for values in body for v in values if len(v) > 1
    ):
        notes.append(f"{path.name}: quotes around a field are taken for its text")
    if not options.header:
        names = [str(number) for number in range(1, len(first) + 1)]
    elif _has_row_names(first, body):
        names = ["", *names_of(first)]
    else:
        names = names_of(first)

    def rows(columns: Sequence[str] | None) -> Iterator[Row]:
        return _rows(found, dialect, names, columns, options.header)

    begun = list(itertools.islice(text.lines(found), _SAMPLE))
    way_out = conll.way_out(begun)
    return DataFile(path, tuple(names), rows, tuple(notes), way_out=way_out)


def _has_row_names(header: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    """Say whether rows begin with their number, which has no name, as R writes them."""
    numbers = [values[0] for values in body if len(values) == len(header) + 1]
    return bool(body) and numbers == [str(n) for n in range(1, len(body) + 1)]


def names_of(header: Sequence[str]) -> list[str]:
    """Return the names of columns, all different.

    Spaces around a name are none of it. A column without a name has "", and the second
    of a name a number, as in pandas.

    >>> names_of(["text", " label", "", "text", ""])
    ['text', 'label', '', 'text.1', '']
    """
    taken: dict[str, int] = {}
    names = []
    for name in (name.strip().strip("\ufeff") for name in header):
        number = taken[name] = taken.get(name, -1) + 1
        while name and number and f"{name}.{number}" in taken:
            number += 1
        names.append(f"{name}.{number}" if name and number else name)
    return names


def all_named(names: Sequence[str]) -> list[str]:
    """Return names as pandas has them where there is none, for whoever keeps all.

    Behind the last column with a name they stay "": spreadsheets write blanks there.

    >>> all_named(["", "text", "", "label", ""])
    ['Unnamed: 0', 'text', 'Unnamed: 2', 'label', '']
    """
    found = list(names)
    for place in range(_least(names)):
        name = names[place] or f"{UNNAMED}{place}"
        while not names[place] and name in names:
            name += ".1"
        found[place] = name
    return found


def _least(names: Sequence[str]) -> int:
    """Return how many fields a row has: what has no name may be missing at the end."""
    return max((place for place, name in enumerate(names) if name), default=-1) + 1


def _rows(
    found: text.TextFile,
    dialect: Dialect,
    names: list[str],
    columns: Sequence[str] | None,
    header: bool,
) -> Iterator[Row]:
    asked = None if columns is None else set(columns)
    wanted = [
        (place, name)
        for place, name in enumerate(all_named(names) if asked is None else names)
        if name and (asked is None or name in asked)
    ]
    least = _least(names)
    for line, values in itertools.islice(
        _records(found, dialect), 1 if header else 0, None
    ):
        if not least <= len(values) <= len(names) and (
            len(values) < least or any(v.strip() for v in values[len(names) :])
        ):
            said = ", ".join(names) if len(names) < 30 else f"{names[0]}, ..."
            way = "" if header or dialect.delimiter == "\t" else _LINES
            raise MetalrError(
                f"{found.path} line {line} has {len(values)} fields, "
                f"the {'header' if header else 'first line'} has {len(names)}: "
                f"{said} ({dialect}){way}"
            )
        yield {name: values[place] for place, name in wanted}


def _records(
    found: text.TextFile, dialect: Dialect, most: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a file, each with its last line's number."""
    lines = itertools.islice(text.lines(found), dialect.skip_lines, most)
    reader: Any = csv.reader(
        map(_guarded, lines) if dialect.quoted else lines,
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE,
        skipinitialspace=dialect.skip_space,
        strict=dialect.quoted,
    )
    begun = False
    try:
        for values in reader:
            # Spreadsheets may have blank rows before the header.
            begun = begun or any(value.strip() for value in values)
            if values and begun:
                if any(_LONE_CR in value for value in values):
                    values = [value.replace(_LONE_CR, "\r") for value in values]
                yield reader.line_num + dialect.skip_lines, values
    except csv.Error as fault:
        raise MetalrError(
            f"{found.path} line {reader.line_num + dialect.skip_lines} breaks the "
            f"format: {fault} (read with {dialect.parted} between the fields). Is a "
            "quote left open, or another sign between the fields? A quote in a field "
            "is doubled, and the field between quotes; a first line such as sep=^ says "
            "which sign"
        ) from fault


def _guarded(line: str) -> str:
    """Hide carriage returns inside of a line, for which csv wants quotes."""
    body = line.rstrip("\r\n")
    return body.replace("\r", _LONE_CR) + line[len(body) :] if "\r" in body else line


# ------------------------------------------------------------ telling the dialect


def _dialect(found: text.TextFile, preferred: str, header: bool) -> Dialect:
    sample = list(itertools.islice(text.lines(found), _SAMPLE))
    said = _SEP_LINE.fullmatch(sample[0]) if sample else None
    skip = 1 if said else 0
    blank = re.compile(r"[\s,;|]*")
    sample[skip:] = itertools.dropwhile(blank.fullmatch, sample[skip:])
    if said:
        delimiter = said[1].replace("\\t", "\t")
    else:
        delimiter = _delimiter(sample, preferred, header)
    spaces = _skips_space(sample[skip:], delimiter)
    quoted = delimiter != "\t" or _is_quoted(found, delimiter, skip)
    return Dialect(delimiter, quoted, spaces, skip)


def _delimiter(sample: list[str], preferred: str, header: bool) -> str:
    """Return what parts the fields: the preferred if the first lines agree on it."""
    if not header and preferred != ",":
        return preferred  # texts have commas; only .csv promises a table of any sign
    first = sample[0] if sample else ""
    order = [preferred, *(sign for sign in _NAMES if sign != preferred)]
    there = [sign for sign in order if sign in first]
    for sign in there:
        counts = _counts(sample, sign)
        if len(counts) == 1 and counts != {1}:
            return sign
    # A header has a sign for its columns' sake; a first row may have it in its text.
    return there[0] if there and header else preferred


def _counts(sample: list[str], sign: str) -> set[int]:
    """Return the numbers of fields that the first records have."""
    counts: list[int] = []
    try:
        for values in csv.reader(map(_guarded, sample), delimiter=sign, strict=True):
            if values:
                counts.append(len(values))
    except csv.Error:  # the sample may end within a field
        pass
    return set(counts)


def _skips_space(sample: list[str], delimiter: str) -> bool:
    """Say whether a space after a delimiter is how the file is written."""
    if delimiter in "\t ":
        return False
    header = sample[0].split(delimiter)[1:] if sample else []
    body = [line.split(delimiter, 1)[1:] for line in sample[1:]]
    return bool(header) and (
        all(name[:1] == " " for name in header)
        or (bool(body) and all(rest and rest[0][:2] == ' "' for rest in body))
    )


def _is_quoted(found: text.TextFile, delimiter: str, skip: int) -> bool:
    """Say whether quotes in a tab-separated file are none of its text.

    GLUE's files quote nothing. pandas quotes a field that holds a quote (doubled), a
    tab or a line end, spreadsheets one with a comma too; and both may quote all fields
    of a column. Where all quotes fit one of these, and some field begins with one, it
    is so.
    """
    start = re.compile(f'(^|{delimiter})"')
    if not any(start.search(line) for line in text.lines(found)):
        return False
    quotes = 0  # of the record

    def counted() -> Iterator[str]:
        nonlocal quotes
        for line in itertools.islice(text.lines(found), skip, None):
            quotes += line.count('"')
            yield _guarded(line)

    needed = split = False  # some field could not be written without
    as_spreadsheets, width = True, 0
    try:
        for values in csv.reader(counted(), delimiter=delimiter, strict=True):
            if not any(value.strip() for value in values):
                continue
            width = width or len(values)
            least = sum(_quotes(value, '"\t\n') for value in values)
            if len(values) != width or quotes < least:
                return False
            needed = needed or any('"' in value for value in values)
            split = split or any("\t" in value or "\n" in value for value in values)
            spread = sum(_quotes(value, '"\t\n,') for value in values)
            as_spreadsheets = as_spreadsheets and quotes == spread
            quotes = 0
    except csv.Error:
        return False
    if needed or (as_spreadsheets and not split):
        return True
    bare = uneven = 0
    for line in itertools.islice(text.lines(found), skip, None):
        fields = line.rstrip("\r\n").split(delimiter)
        uneven += len(fields) != width
        bare += not any(field[:1] == '"' == field[-1:] for field in fields)
    return bool(split and uneven) or bare <= 1  # the header may have none


def _quotes(value: str, signs: str) -> int:
    """Return how many quotes a field is written with that has to have them."""
    return 2 * value.count('"') + 2 if any(sign in value for sign in signs) else 0
