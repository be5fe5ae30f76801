"""Which columns of a row a model reads, and the checks that hold rows to it."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from metalr.data import cells, structured
from metalr.data.columns import Row
from metalr.data.rows import well_formed
from metalr.data.schema import Task
from metalr.errors import MetalrError, unknown_name
from metalr.finetune.usage import Usage

_COLUMNS = ("text", "pair", "label")


def renamed(usage: Usage, columns: Mapping[str, str]) -> Usage:
    """Return a usage that reads other columns.

    Args:
      usage: As the model has it.
      columns: New names by what they are of: `text`, `pair` or `label`.

    Raises:
      MetalrError: The model reads one text, and a second is named; or questions, whose
        columns have no other names.
    """
    for of in columns:
        if of not in _COLUMNS:
            raise unknown_name("column", of, _COLUMNS)
    task = usage.task
    if "pair" in columns and task.pair is None:
        raise MetalrError(
            f"this model reads one text a row; drop the pair column {columns['pair']!r}"
        )
    if task.kind == "qa":
        _refuse_other_names(task, columns)
    return dataclasses.replace(usage, task=dataclasses.replace(task, **columns))


def _refuse_other_names(task: Task, columns: Mapping[str, str]) -> None:
    """Refuse other names for the columns of questions."""
    for of, name in columns.items():
        if name != getattr(task, of):
            raise MetalrError(
                f"a model of questions reads the columns {task.text}, {task.pair} and, "
                f"to score, {task.label}; rename the column {name!r}, and leave out "
                f"--{of}-column (columns= in Python)"
            )


def check(row: Mapping[str, Any], task: Task, where: str) -> Row:
    """Return the columns of a row that a model reads.

    Args:
      row: By column.
      task: Names the columns.
      where: The row's place, for errors.

    Raises:
      MetalrError: A column is missing, or holds no text.
    """
    try:
        row = structured.shaped(dict(row), task)
    except ValueError as fault:
        raise MetalrError(f"{where}: column {task.pair!r} {fault}") from fault
    found: Row = {}
    for column in (task.text, task.pair):
        if column is None:
            continue
        if column not in row:
            names = ", ".join(map(str, row)) or "none"
            flag = "--pair-column" if column == task.pair else "--text-column"
            raise MetalrError(
                f"{where} has no column {column!r}, which the model reads; it has "
                f"{names:.200}. Name another with {flag}"
            )
        value = row[column]
        if column in task.lists:
            found |= _list(value, task, column, where)
            continue
        if not isinstance(value, str) or not value.strip():
            raise MetalrError(
                f"{where}: column {column!r} must hold a text, got {value!r:.60}"
            )
        found[column] = value
    return found


def refuse_other_things(rows: Any) -> None:
    """Refuse what holds no rows that can be gone through one by one.

    Raises:
      MetalrError: A table, which is gone through by its columns; the name of a file; or
        what cannot be gone through.
    """
    kind = type(rows).__name__
    if hasattr(rows, "columns"):
        raise MetalrError(
            f"`rows` must be a list of rows, got a {kind}, which is a table; "
            'give frame.to_dict("records") of pandas, to_dicts() of Polars or '
            "to_pylist() of pyarrow"
        )
    if not isinstance(rows, Iterable):
        raise MetalrError(
            f"`rows` must be a list of rows, got {rows!r:.60}; metalr predict and "
            "metalr evaluate read files"
        )


def mappings(rows: Iterable[Any], task: Task) -> Iterator[Row]:
    """Yield rows with labels as dictionaries.

    Raises:
      MetalrError: They are no list, or one is no mapping, which has no label.
    """
    refuse_other_things(rows)
    if isinstance(rows, str | Mapping):
        raise MetalrError(
            f"`rows` must be a list of rows, got {rows!r:.60}; put one row into a "
            "list, and metalr evaluate reads files"
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            wanted = (task.text, task.pair, task.label)
            names = " and ".join(repr(name) for name in wanted if name is not None)
            raise MetalrError(
                f"`rows` row {number} must be a mapping of columns ({names}), got "
                f"{row!r:.60}"
            )
        yield dict(row)


def _list(value: Any, task: Task, column: str, where: str) -> Row:
    """Return a list of texts; a text in place of words is split, with their places."""
    value = cells.unwritten(value)
    if task.kind == "tokens" and isinstance(value, str) and value.strip():
        value = well_formed(value)  # as long, so that places hold
        places = [word.span() for word in _WORDS.finditer(value)]
        return {column: [value[a:b] for a, b in places], "spans": places}
    try:
        return {column: structured.texts(value)}
    except ValueError as fault:
        raise MetalrError(f"{where}: column {column!r} {fault}") from fault


_WORDS = re.compile(r"\w+|[^\w\s]")  # as CoNLL's sets split them, nearly
