"""A task's rows in the user's own files, or the task that such a file defines."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from metalr.data import guesses, holdout, labels, reading, rows, structured
from metalr.data.cells import NoLabel
from metalr.data.columns import Row
from metalr.data.formats import opening
from metalr.data.formats.table import PLAIN, DataFile, Options
from metalr.data.rows import Checked
from metalr.data.schema import Task
from metalr.data.tasks import TASKS, TaskData
from metalr.errors import MetalrError, unknown_name
from metalr.runtime.origin import Origin

Columns = tuple[str | None, str | None, str | None]  # text, pair, label; None: guess

_QA = {"context", "question", "answers"}


class Given(NamedTuple):
    """What the user says of the files."""

    columns: Columns = (None, None, None)
    kind: str | None = None  # of the task
    separator: str | None = None  # between several labels in one cell
    options: Options = PLAIN


def read(
    task_name: str,
    train_file: str | Path,
    validation_file: str | Path | None,
    given: Given,
    seed: int,
) -> TaskData:
    """Read and check the user's rows; the arguments are those of `loading.load`.

    Raises:
      MetalrError: Anything that is wrong with names, files or rows.
    """
    if task_name != "file" and task_name not in TASKS:
        raise unknown_name("task", task_name, ["file", *TASKS])
    given_files = [Path(f) for f in (train_file, validation_file) if f is not None]
    opening.refuse_ignored(given_files, given.options)
    table = opening.look(Path(train_file), given.options)
    _refuse_separator(task_name, given)
    if task_name == "file":
        task, found, assumed = _define_task(table, given)
    else:
        if given.kind not in (None, TASKS[task_name].kind):
            raise MetalrError(
                f"{task_name} is a {TASKS[task_name].kind}; --kind {given.kind} goes "
                "with a file that defines its own task: drop one of them"
            )
        task = _with_columns(TASKS[task_name], given)
        found = rows.read(_wanted(table, task), task, str(table.path))
        found, assumed = by_name(found, table, task)
    train = rows.finish(found, task, str(table.path))
    notes = (*table.notes, *assumed)
    if {"answer", "_task_hash"} <= {*table.names}:
        notes += ("rows that were rejected or ignored in Prodigy count as others do",)
    where, note = str(train_file), ""
    if validation_file is not None:
        other = opening.look(Path(validation_file), given.options)
        notes += tuple(note for note in other.notes if note not in notes)
        validation, differ = labelled(other, task)
        notes += tuple(note for note in differ if note not in notes)
        where += f", validation: {validation_file}"
        held_out = validation.rows
        left_out = _added(train.left_out, validation.left_out)
    else:
        parts = holdout.split(train.rows, task, str(train_file), seed)
        held_out = train.rows.select(parts.held_out)
        train = train._replace(rows=train.rows.select(parts.train))
        note, *thin = parts.notes
        notes, left_out = (*notes, *thin), train.left_out
    origin = Origin("file", where, note)
    used = {*columns_of(table, task), *(_QA if task.kind == "qa" else ())}
    unread = tuple(name for name in table.names if name and name not in used)
    record = reading.of(task, unread, left_out, notes)
    return TaskData(task, train.rows, {task.validation[0]: held_out}, origin, record)


def labelled(table: DataFile, task: Task) -> tuple[Checked, tuple[str, ...]]:
    """Return the rows of a file for a task whose labels are known, and notes.

    Raises:
      MetalrError: The file lacks a column, or a row is not of the task.
    """
    found = rows.read(_wanted(table, task), task, str(table.path))
    found, notes = by_name(found, table, task)
    return rows.finish(found, task, str(table.path)), notes


def _refuse_separator(task_name: str, given: Given) -> None:
    """Refuse a separator of labels where a row has one label, or a list."""
    kind = given.kind if task_name == "file" else TASKS[task_name].kind
    if given.separator and kind not in (None, "multilabel"):
        raise MetalrError(
            f"--label-separator is read by tasks of several labels alone, got one of "
            f"{kind}; leave it out, or say --kind multilabel"
        )


def _added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return dict(Counter(one) + Counter(other))


def columns_of(table: DataFile, task: Task, way_out: str = "") -> list[str]:
    """Return the columns of a table that a task needs.

    Args:
      table: The table.
      task: The task.
      way_out: Ends the message of an error.

    Raises:
      MetalrError: The table lacks one.
    """
    columns = [c for c in (task.text, task.pair, task.label) if c is not None]
    if twice := [name for name, n in Counter(columns).items() if n > 1]:
        raise MetalrError(
            f"{table.path}: column {twice[0]!r} is taken for two of text, pair and "
            "label; name others with --text-column, --pair-column and --label-column"
        )
    if task.kind == "choice" and task.pair not in table.names:
        apart = structured.numbered(table.names)
        if "sent2" in table.names:
            apart.append("sent2")
        columns = [c for c in columns if c != task.pair or not apart] + apart
    for column in columns:
        # Rows that may have it all the same are looked at one by one.
        if column not in table.names and not table.may_have_more:
            raise MetalrError(
                f"{table.path} row 1: column {column!r} is missing; the row has "
                f"{guesses.some(table)}{table.way_out or way_out}"
            )
    return [*columns, "id"] if task.kind == "qa" else columns


def _wanted(table: DataFile, task: Task) -> Iterator[Row]:
    flags = "; --text-column, --pair-column and --label-column name others"
    return table.rows(columns_of(table, task, "" if task.kind == "qa" else flags))


def _with_columns(task: Task, given: Given) -> Task:
    text, pair, label = given.columns
    if task.kind == "qa" and any(given.columns):
        raise MetalrError(
            "a file of questions has SQuAD's columns context, question and answers; "
            "other column names are not supported"
        )
    if pair and not task.pair:
        raise MetalrError(f"{task.name} has one text a row; drop the pair column")
    return dataclasses.replace(
        task,
        text=text or task.text,
        pair=pair or task.pair,
        label=label or task.label,
        separator=given.separator,
        validation=task.validation[:1],
    )


def _define_task(
    table: DataFile, given: Given
) -> tuple[Task, rows.Read, tuple[str, ...]]:
    """Return the task that a training file defines by its columns and labels."""
    text, pair, label = given.columns
    known, where = set(table.names), str(table.path)
    unsaid = given.kind is None and text is None and given.separator is None
    if given.kind == "qa" or (unsaid and _QA <= known):
        return _define_questions(table, given)
    kind = said = given.kind or ("multilabel" if given.separator else None)
    if kind is None and (lists := structured.list_columns(table.names, label)):
        kind = structured.guess(table.rows(lists), label)
    if kind in structured.KINDS:
        return _define_lists(table, given, kind, guessed=said is None)
    if text is None:
        text, guessed = guesses.texts(table)
        pair = pair or guessed
    label = label or guesses.label(table)
    task = Task(name="file", text=text, pair=pair, label=label, hub=("", None))
    found = rows.read(_wanted(table, task), task, where)
    found, _ = by_name(found, table, task)
    names = table.classes.get(label)
    defined = labels.define(found.labels, where, label, given.kind, names)
    return dataclasses.replace(task, **defined.fields), found, defined.notes


def _define_questions(
    table: DataFile, given: Given
) -> tuple[Task, rows.Read, tuple[str, ...]]:
    task = _with_columns(TASKS["squad_v2"], given)
    task = dataclasses.replace(task, name="file", hub=("", None))
    found = rows.read(_wanted(table, task), task, str(table.path))
    empty = sum(not answers["text"] for answers in found.labels)
    if not empty:
        squad = TASKS["squad"]
        task = dataclasses.replace(task, null=False, metrics=squad.metrics)
        return task, found, ()
    return task, found, (f"{empty} questions have no answer, as in SQuAD 2.0",)


def _define_lists(
    table: DataFile, given: Given, kind: str, guessed: bool
) -> tuple[Task, rows.Read, tuple[str, ...]]:
    """Return a task whose texts or labels are lists."""
    text, pair, label = given.columns
    names = table.names
    if kind == "tokens":
        if pair:
            raise MetalrError(
                "a task of words and their tags has no second text; leave out "
                f"--pair-column {pair}"
            )
        text = text or _first(structured.WORDS, names)
        label = label or _first(structured.TAGS, names)
    else:
        if text is None:
            begun = [n for n in ("sent1", "premise", "context") if n in names]
            text = begun[0] if begun and kind == "choice" else guesses.texts(table)[0]
        several = kind == "multilabel" and "labels" in names
        label = label or ("labels" if several else guesses.label(table))
    task = Task(
        name="file",
        kind=kind,
        text=text,
        pair=(pair or "choices") if kind == "choice" else pair,
        label=label,
        separator=given.separator,
        hub=("", None),
    )
    found = rows.read(_wanted(table, task), task, str(table.path))
    found, _ = by_name(found, table, task)
    known = table.classes.get(label)
    said = structured.define(found.labels, str(table.path), label, kind, known)
    notes = said.notes
    if guessed:
        notes += (f"taken for {kind} by its lists (--kind says another)",)
    if kind == "choice":
        way = structured.told_by(found.labels, found.lists[task.pair or ""])
        task = dataclasses.replace(task, told_by=way)
        notes += (f"labels read as the {way} of a choice",)
    return dataclasses.replace(task, **said.fields), found, notes


def _first(wanted: Iterable[str], names: Iterable[str]) -> str:
    """Return the first name that is there; the first of all where none is."""
    there = {*names}
    wanted = list(wanted)
    return next((name for name in wanted if name in there), wanted[0])


def by_name(
    found: rows.Read, table: DataFile, task: Task
) -> tuple[rows.Read, tuple[str, ...]]:
    """Put names in the place of ids, in a file that has names for its ids.

    Where a known task has other names the ids are taken as they are, which the second
    value says.

    Raises:
      MetalrError: Names of the file are equal when they are spelled as labels are.
    """
    names = table.classes.get(task.label)
    if names is None:
        return found, ()
    if same := [name for name, n in Counter(names).items() if n > 1 or not name]:
        raise MetalrError(
            f"{table.path}: the ClassLabel names of column {task.label!r} must differ "
            f"and not be empty, got {same[0]!r} for {names.count(same[0])} of the ids; "
            "rename them (labels are the same but for spaces around them, as are 1.0 "
            "and 1, True and true, and both codes of an accented letter)"
        )
    if task.name != "file":
        own = {name.casefold(): name for name in task.labels}
        if {name.casefold() for name in names} != {*own}:
            pairs = zip(names, task.labels, strict=False)
            same = ", ".join(f"{theirs} is {ours}" for theirs, ours in pairs)
            return found, (f"labels of {task.name} taken by their ids: {same}",)
        names = tuple(own[name.casefold()] for name in names)

    def name(label: Any) -> Any:
        if isinstance(label, list):
            return [name(one) for one in label]
        is_id = isinstance(label, int) and 0 <= label < len(names)
        return names[label] if is_id else label

    # -1 as a text, or "-", could be the name of a class.
    named = [
        NoLabel.HIDDEN if isinstance(label, int) and label == -1 else name(label)
        for label in found.labels
    ]
    return found._replace(labels=named), ()
