"""A task's rows in the user's own files, or the task that such a file defines."""

import dataclasses
import random
from pathlib import Path

from metalr.data import sources
from metalr.data.rows import Row, Task, check_columns, check_rows, label_set
from metalr.data.tasks import TASKS, TaskData
from metalr.errors import MetalrError, unknown_name

Columns = tuple[str | None, str | None, str | None]  # text, pair, label; None: guess

# Columns that a user's file is known by when the user names none.
_GUESSES = (
    ("text", None),
    ("sentence", None),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
)


def read(
    task_name: str,
    train_file: str | Path,
    validation_file: str | Path | None,
    columns: Columns,
    seed: int,
) -> TaskData:
    """Reads and checks the user's rows; the arguments are those of `loading.load`.

    Raises:
      MetalrError: Anything that is wrong with names, files or rows.
    """
    if task_name != "file" and task_name not in TASKS:
        raise unknown_name("task", task_name, ["file", *TASKS])
    rows = sources.read_rows(train_file)
    if task_name == "file":
        task = _define_task(rows, str(train_file), columns)
    else:
        task = _with_columns(TASKS[task_name], columns)
    train = check_rows(rows, task, str(train_file))
    where, note = str(train_file), ""
    if validation_file is not None:
        validation = check_rows(
            sources.read_rows(validation_file), task, str(validation_file)
        )
        where += f", validation: {validation_file}"
    else:
        held_out = max(1, len(train) // 10)
        if held_out == len(train):
            raise MetalrError(
                f"{train_file} has one row, and none to hold out for validation; "
                "give more rows or a --validation-file"
            )
        order = list(train)
        random.Random(seed).shuffle(order)
        validation, train = order[:held_out], order[held_out:]
        note = f"{held_out} rows of the training file held out for validation"
    origin = {"kind": "file", "where": where, "note": note}
    return TaskData(task, train, {task.validation[0]: validation}, origin)


def _with_columns(task: Task, columns: Columns) -> Task:
    text, pair, label = columns
    if task.kind == "qa" and any(columns):
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
        validation=task.validation[:1],
    )


def _define_task(rows: list[Row], where: str, columns: Columns) -> Task:
    """Returns the task that a training file defines by its columns and labels."""
    text, pair, label = columns
    known = rows[0].keys()
    if text is None and {"context", "question", "answers"} <= known:
        task = _with_columns(TASKS["squad"], columns)
        return dataclasses.replace(task, name="file", hub=("", None))
    if text is None:
        fits = [g for g in _GUESSES if g[0] in known and (not g[1] or g[1] in known)]
        if not fits:
            raise MetalrError(
                f"{where} has no column 'text' or 'sentence'; it has "
                f"{', '.join(known)}. Name it with --text-column"
            )
        text, guessed = fits[0]
        pair = pair or guessed
    label = label or "label"
    task = Task(name="file", text=text, pair=pair, label=label, hub=("", None))
    check_columns(rows, task, where)
    return dataclasses.replace(
        task, **label_set([r[label] for r in rows], where, label)
    )
