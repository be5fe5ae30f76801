"""What the rows of a task look like, and the checks that hold them to it.

Whatever the source, the rows that come out hold the task's columns alone, with labels
as ids (int), as scores (float) or as SQuAD's answers, so that no module
that uses them has to check a row again.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metalr.data import cells, labels, structured
from metalr.data.cells import NoLabel, is_missing, show
from metalr.data.columns import Row, Rows, TextColumns, numeric_column
from metalr.data.schema import Task
from metalr.errors import MetalrError
from metalr.runtime import progress

_SURROGATE = re.compile("[\ud800-\udfff]")


class Read(NamedTuple):
    """The cells of a file that a task needs: texts checked, labels as they are."""

    texts: TextColumns
    labels: list[Any]
    ids: list[str]  # of questions
    blank: int  # rows that hold nothing, passed over
    numbers: list[int]  # of the rows in the file, from 1; [] where none is missing
    lists: dict[str, list[list[str]]]  # columns whose cells are lists of texts


class Checked(NamedTuple):
    """Rows in their final form."""

    rows: Rows
    left_out: dict[str, int]  # rows, by the reason in words


def well_formed(text: str) -> str:
    """Return a text as tokenizers take it.

    JSON can hold half of a surrogate pair, which has no UTF-8. Its stand-in is as
    long, so that offsets hold.
    """
    return _SURROGATE.sub("\ufffd", text)


def check_rows(rows: Iterable[Row], task: Task, where: str) -> Rows:
    """Return the rows with the task's columns alone and labels in their final form.

    Args:
      rows: As read; `where` names their origin in an error.
      task: Says the columns and labels.
      where: See `rows`.

    Raises:
      MetalrError: The first fault, with its row (counted from 1), column and value.
    """
    return finish(read(rows, task, where), task, where).rows


def read(rows: Iterable[Row], task: Task, where: str) -> Read:
    """Take what a task needs out of rows, before the labels are known.

    Raises:
      MetalrError: As `check_rows`.
    """
    texts = [c for c in (task.text, task.pair) if c is not None and c not in task.lists]
    found = Read(TextColumns(texts), [], [], 0, [], {name: [] for name in task.lists})
    blank, number = 0, 0
    kept: dict[str, str] = {}  # equal labels are one object
    for number, row in enumerate(_told(rows, where), start=1):
        column = task.text
        try:
            if task.text in row and cells.is_blank(row):
                blank += 1
                continue
            values, lists = [], []
            column = task.pair or task.text
            row = structured.shaped(row, task)
            for column in texts:
                values.append(_text(row[column]))
            for column in task.lists:
                lists.append(structured.texts(row[column]))
                row = {**row, column: lists[-1]}
            column = task.label
            label = _label(row, task)
            if task.kind == "qa":
                label = _answers(label, values[texts.index("context")], task)
                found.ids.append(well_formed(str(row.get("id", number))))
        except KeyError:
            raise MetalrError(
                f"{where} row {number}: column {column!r} is missing; "
                f"the row has {', '.join(map(str, row)) or 'none'}"
            ) from None
        except ValueError as fault:
            raise MetalrError(
                f"{where} row {number}: column {column!r} {fault}"
            ) from fault
        if type(label) is str:
            label = kept.setdefault(label, label) if len(kept) < 10_000 else label
        found.texts.append(values)
        for name, cell in zip(task.lists, lists, strict=True):
            found.lists[name].append([well_formed(text) for text in cell])
        found.labels.append(label)
        if blank:
            found.numbers.append(number)
    if not number:
        raise MetalrError(f"{where} is empty: it holds no rows")
    if blank and len(found.numbers) < len(found.labels):
        before = len(found.labels) - len(found.numbers)
        found.numbers[:0] = range(1, before + 1)
    return found._replace(blank=blank)


def _told(rows: Iterable[Row], where: str) -> Iterator[Row]:
    """Yield the rows, and report progress where that takes long."""
    with progress.loading(f"reading {Path(where).name}") as tell:
        for number, row in enumerate(rows):
            if number % 8192 == 0:
                tell(number)
            yield row


def finish(found: Read, task: Task, where: str) -> Checked:
    """Put the labels into their final form.

    Raises:
      MetalrError: As `check_rows`.
    """
    form: Callable[[Any, Task], Any] = {
        "classification": _class_id,
        "regression": lambda value, task: _score(value),
        "tokens": structured.ids,
        "multilabel": lambda value, task: sorted({*structured.ids(value, task)}),
    }.get(task.kind, lambda value, task: value)
    if task.kind == "regression":
        labels.check_commas(found.labels, where, task.label)
    offered = found.lists.get(task.pair or "", []) if task.kind == "choice" else []
    structured.check_counts(
        offered, lambda place: f"{where} row {_number(found, place)}"
    )
    way = task.told_by or structured.told_by(found.labels, offered) if offered else ""
    known: dict[Any, Any] = {}  # by type too: True equals 1
    final, hidden = [], Counter[str]()
    for place, value in enumerate(found.labels):
        plain = isinstance(value, str | int | float) and not offered
        key = (type(value), value) if plain else None
        if key is not None and key in known:
            label = known[key]
        else:
            try:
                if isinstance(value, NoLabel):
                    label = None
                elif offered:
                    label = structured.chosen(value, offered[place], way)
                else:
                    label = form(value, task)
            except ValueError as fault:
                raise MetalrError(
                    f"{where} row {_number(found, place)}: column {task.label!r} "
                    f"{fault}"
                ) from fault
            if key is not None and len(known) < 10_000:
                known[key] = label
        if label is None:
            hidden[value.value if isinstance(value, NoLabel) else str(value)] += 1
        final.append(label)
    return _kept(found, task, where, final, hidden)


def _number(found: Read, place: int) -> int:
    """Return the number of a row in its file, from 1."""
    return found.numbers[place] if found.numbers else place + 1


def _kept(
    found: Read, task: Task, where: str, final: list[Any], hidden: Counter[str]
) -> Checked:
    """Return the rows that have a label, by column."""
    import pyarrow

    several = pyarrow.list_(pyarrow.int32())
    types = {"tokens": several, "multilabel": several}
    numbers = {"classification": np.int32, "choice": np.int32, "regression": np.float64}
    if task.kind in numbers:
        # What has no label is not selected below.
        values = [0 if value is None else value for value in final]
        label = numeric_column(np.array(values, numbers[task.kind]))
    else:
        label = pyarrow.array(final, types.get(task.kind), from_pandas=False)
    columns: dict[str, Any] = {task.label: label}
    if task.kind == "qa":
        columns["id"] = pyarrow.array(found.ids, pyarrow.string())
    of_texts = pyarrow.large_list(pyarrow.large_string())
    columns |= {n: pyarrow.array(of, of_texts) for n, of in found.lists.items()}
    rows = found.texts.finish(columns)
    if task.kind == "regression" and {*final} == {-1.0}:
        hidden, final = Counter({"-1": len(final)}), [None] * len(final)
    if hidden:
        there = np.flatnonzero([label is not None for label in final])
        if len(there) == 0:
            raise MetalrError(
                f"{where}: no row has a gold label; {', '.join(hidden)} marks the "
                "hidden labels of a test split"
            )
        rows = rows.select(there)
    left_out = {f"no gold label ({name})": n for name, n in sorted(hidden.items())}
    if found.blank:
        left_out["blank"] = found.blank
    return Checked(rows, left_out)


def _label(row: Row, task: Task) -> Any:
    """Return a label as it is, those of lists in one form."""
    if task.kind in structured.KINDS:
        return structured.label(row, task)
    value = row[task.label]
    return cells.unwritten(value) if task.kind == "qa" else cells.plain(value)


def _text(value: Any) -> str:
    if is_missing(value):
        raise ValueError(f"is empty (holds {show(value)}); leave the row out")
    if not isinstance(value, str):
        raise ValueError(f"holds {show(value)}, which is not text")
    return well_formed(value)


def _score(value: Any) -> float | None:
    """Return a score, or None for a row that has none."""
    is_none = isinstance(value, str) and cells.spelled(value) == cells.DASH
    return None if is_none else labels.score(value)


def _class_id(value: Any, task: Task) -> int | None:
    """Return the id of a label that is given by name or, for a known set, by id.

    None says that the row has no gold label.
    """
    own = task.name == "file"  # there 1 is the name of a label, not its id
    if not is_missing(value) and isinstance(value, str | int | float):
        name = cells.spelled(value)
        if name in task.labels:
            return task.labels.index(name)
        number = cells.number(value)
        if not own and number is not None and number in range(len(task.labels)):
            return int(number)
        if labels.is_hidden(name, task.labels):
            return None
    raise labels.unknown(value, task)


def _answers(value: Any, context: str, task: Task) -> dict[str, list[Any]]:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        # SQuAD's own form, a list of answers; the hub's is one dict of lists.
        keys = ("text", "answer_start")
        value = {key: [item.get(key) for item in value] for key in keys}
    texts = value.get("text") if isinstance(value, dict) else None
    starts = value.get("answer_start") if isinstance(value, dict) else None
    if not (isinstance(texts, list) and isinstance(starts, list)):
        raise ValueError(
            f"holds {show(value)}; SQuAD's form is "
            '{"text": ["..."], "answer_start": [0]}'
        )
    if len(texts) != len(starts):
        raise ValueError(f"has {len(texts)} texts and {len(starts)} answer_start")
    if not texts and not task.null:
        whose = "the training file" if task.name == "file" else task.name
        raise ValueError(
            f"has no answer, and every question of {whose} has one in its context; "
            "leave the row out, or train with --task squad_v2, which takes it"
        )
    texts = [well_formed(text) if isinstance(text, str) else text for text in texts]
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"has an answer without text ({show(text)})")
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            raise ValueError(
                f"has the answer_start {show(start)}, which is not an offset"
            )
        there = context[start : start + len(text)]
        if there != text:
            raise ValueError(
                f"says that {show(text)} starts at {start}, "
                f"where the context has {show(there)}"
            )
    return {"text": texts, "answer_start": starts}
