"""Write rows with predictions to a file, completely or not at all, or print them."""

import csv
import gzip
import itertools
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from metalr.data.columns import Row
from metalr.data.formats import opening
from metalr.data.rows import well_formed
from metalr.errors import MetalrError, unknown_name
from metalr.predict.outputs import flat
from metalr.runtime import files

FORMATS = ("jsonl", "csv", "tsv", "parquet")
_GROUP = 10_000  # rows of Parquet that are in memory together


def format_of(path: Path) -> str:
    """Return the format that a file's name ends in; of `.gz` what stands before it.

    Raises:
      MetalrError: None of `FORMATS`.
    """
    found = opening.suffix_of(path).removeprefix(".")
    found = "jsonl" if found == "json" else found
    if found not in FORMATS:
        raise unknown_name("format of an output file", path.name, FORMATS)
    return found


def write(path: Path, form: str, rows: Iterable[Row]) -> None:
    """Write rows as they come; the file is there once all of them are.

    Args:
      path: The file, in a folder that exists.
      form: A row of FORMATS.
      rows: The rows; few of them are held at a time.

    Raises:
      MetalrError: The file cannot be written, or a row has other columns than the
        first in a format that has a header; they are then kept as JSON Lines.
    """
    if not path.parent.is_dir():
        raise MetalrError(f"cannot write {path}: there is no folder {path.parent}")
    if form == "parquet":
        files.replace(path, lambda draft: _parquet(draft, rows, path))
        return
    text = _lines if form == "jsonl" else _or_lines
    files.replace(path, lambda draft: text(draft, form, rows, path))


def print_to(
    file: IO[str], form: str, rows: Iterable[Row], *, quoted: bool = True
) -> None:
    """Print rows as JSON Lines, CSV or TSV.

    Args:
      file: Where to.
      form: A row of FORMATS that is text.
      rows: The rows.
      quoted: Whether a cell of TSV may stand in quotes. Who reads a file can tell, who
        reads a stream cannot.

    Raises:
      MetalrError: A row of a table has other columns than the first, or a cell needs
        quotes where none are.
    """
    if form == "jsonl":
        for row in rows:
            file.write(_json(row) + "\n")
        return
    rule: dict[str, Any] = {"delimiter": "\t"} if form == "tsv" else {}
    if form == "tsv" and not quoted:
        rule |= {"quoting": csv.QUOTE_NONE, "quotechar": None}
    table = csv.writer(file, lineterminator="\n", **rule)
    header: list[str] = []
    for row in map(flat, rows):
        if not header:
            header = list(row)
            table.writerow(header)
        _same_columns(header, row, form)
        try:
            table.writerow([_cell(value) for value in row.values()])
        except csv.Error as fault:
            raise MetalrError(
                "a line of tsv has no quotes, and a cell of this row holds a tab or a "
                f"line end: {_json(row):.200}; print jsonl or csv"
            ) from fault


def _json(value: Any) -> str:
    # The rows may hold what JSON has not: dates of Parquet, halves of a surrogate pair.
    text = json.dumps(files.plain(value), ensure_ascii=False, default=str)
    return well_formed(text)


def _cell(value: Any) -> Any:
    """Return what stands in a cell: lists and dictionaries as JSON."""
    if isinstance(value, list | dict | bool):
        return _json(value)
    return well_formed(value) if isinstance(value, str) else value


class _Unfit(MetalrError):
    """Rows that a table does not hold."""


def _same_columns(header: list[str], row: Row, form: str) -> None:
    if header != list(row):
        odd = sorted(map(str, {*header} ^ {*row})) or ["their order"]
        raise _Unfit(
            f"a {form} file has the same columns in every row, but these differ: "
            f"{', '.join(odd):.200}; write .jsonl"
        )


def _lines(draft: Path, form: str, rows: Iterable[Row], path: Path) -> None:
    """Write text, packed where the name says so."""
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(draft, "wt", encoding="utf-8", newline="") as file:
        print_to(file, form, rows)


def _or_lines(draft: Path, form: str, rows: Iterable[Row], path: Path) -> None:
    """Write a table of text, or JSON Lines beside it if a row does not fit.

    A table has not the types of what went into it, so each row is noted besides.

    Args:
      draft: Where to.
      form: csv or tsv.
      rows: The rows.
      path: What the draft is to be called.

    Raises:
      MetalrError: A row has other columns than the first; says where all are kept.
    """
    left = iter(rows)
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as noted:

        def note(row: Row) -> Row:
            noted.write(_json(row) + "\n")
            return row

        try:
            _lines(draft, form, map(note, left), path)
        except _Unfit as fault:
            noted.seek(0)
            kept = _keep(path, itertools.chain(map(json.loads, noted), left))
            raise MetalrError(f"{fault}; the rows are kept in {kept}") from fault


def _parquet(draft: Path, rows: Iterable[Row], path: Path) -> None:
    """Write Parquet, or JSON Lines beside it if a column has no one type.

    A column may begin with thousands of empty values and tell its type late, so groups
    lie on the disk until the last one has come.

    Args:
      draft: Where to.
      rows: The rows.
      path: What the draft is to be called.

    Raises:
      MetalrError: The rows do not fit into a table; says where they are kept.
    """
    import pyarrow

    left, group, schema = iter(rows), [], None
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as place:
        parts: list[Path] = []
        try:
            while group := list(itertools.islice(left, _GROUP)):
                for row in group:
                    _same_columns(
                        schema.names if schema else [*group[0]], row, "parquet"
                    )
                table = pyarrow.Table.from_pylist(group)
                schema = _common(schema or table.schema, table.schema)
                part = Path(place, str(len(parts)))
                _write_tables(part, table.schema, [table])
                parts.append(part)
            if schema is not None:
                tables = (_table(part).cast(schema) for part in parts)
                _write_tables(draft, schema, tables)
        except (
            pyarrow.ArrowException,
            UnicodeEncodeError,
            OverflowError,
            _Unfit,
        ) as fault:
            done = (row for part in parts for row in _table(part).to_pylist())
            kept = _keep(path, itertools.chain(done, group, left))
            raise MetalrError(
                f"the rows do not fit into one Parquet table ({fault}); they are kept "
                f"in {kept}"
            ) from fault


def _common(one: Any, other: Any) -> Any:
    """Return a schema that holds the rows of two: an empty column's is the other's."""
    import pyarrow

    return pyarrow.unify_schemas([one, other], promote_options="permissive")


def _write_tables(path: Path, schema: Any, tables: Iterable[Any]) -> None:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _table(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path).read()


def _keep(path: Path, rows: Iterable[Row]) -> Path:
    """Write rows that took long to compute beside a file, under a name that is free."""
    names = (f"{path.name}{end}.jsonl" for end in ("", *map(".{}".format, range(1000))))
    free = next(found for name in names if not (found := path.with_name(name)).exists())
    write(free, "jsonl", rows)
    return free
