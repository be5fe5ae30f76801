"""What the rows of a task look like, and the checks that hold them to it.

Whatever the source, the rows that come out hold the task's columns alone, with labels
as ids (int), as scores (float) or as SQuAD's answers, so nothing behind this module
has to look at a row with suspicion.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from metalr.errors import MetalrError

Row = dict[str, Any]

_MAX_CLASSES = 1000
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a task is: its columns, its labels, its scores and its home on the hub."""

    name: str
    kind: str = "classification"  # or "regression" or "qa"
    text: str  # column
    pair: str | None = None  # column of the second text
    label: str = "label"  # column
    labels: tuple[str, ...] = ()  # names by id; () for regression and qa
    metric: str = "accuracy"  # the score that picks the best step
    metrics: tuple[str, ...] = ("accuracy",)
    hub: tuple[str, str | None]  # data set id, configuration; ("", None): a file's
    validation: tuple[str, ...] = ("validation",)  # splits, the main one first
    # Tokens, unless the user says otherwise. Lengths are chosen so that under 1 % of
    # the real rows are cut; not so for IMDB (median 228; 256 costs twice the time)
    # and SQuAD, whose contexts are split into overlapping windows anyway.
    max_length: int = 128
    made_of: tuple[str, ...] = ()  # tasks whose texts its rows are put together from


def well_formed(text: str) -> str:
    """Returns a text as tokenizers take it.

    JSON can hold half of a surrogate pair, which has no UTF-8. Its stand-in is as
    long, so that offsets hold.
    """
    return _SURROGATE.sub("\ufffd", text)


def check_rows(rows: list[Row], task: Task, where: str) -> list[Row]:
    """Returns the rows with the task's columns alone and labels in their final form.

    Args:
      rows: As read; `where` names their origin in an error.
      task: Says the columns and labels.
      where: See `rows`.

    Raises:
      MetalrError: The first fault, with its row (counted from 1), column and value.
    """
    if not rows:
        raise MetalrError(f"{where} is empty: it holds no rows")
    check_columns(rows, task, where)
    label: Callable[[Any, Task], Any] = {
        "classification": _class_id,
        "regression": _score,
    }.get(task.kind, lambda value, task: value)
    checked = []
    for number, row in enumerate(rows, start=1):
        column = task.text
        clean: Row = {}
        try:
            for column in (task.text, task.pair):
                if column is not None:
                    clean[column] = _text(row[column])
            column = task.label
            clean[column] = label(row[column], task)
            if task.kind == "qa":
                clean[column] = _answers(row[column], clean["context"])
                clean["id"] = str(row.get("id", number))
        except ValueError as fault:
            raise MetalrError(
                f"{where} row {number}: column {column!r} {fault}"
            ) from fault
        checked.append(clean)
    return checked


def check_columns(rows: list[Row], task: Task, where: str) -> None:
    """Raises the error for the first row that lacks one of the task's columns."""
    wanted = [column for column in (task.text, task.pair, task.label) if column]
    for number, row in enumerate(rows, start=1):
        for column in wanted:
            if column not in row:
                raise MetalrError(
                    f"{where} row {number}: column {column!r} is missing; "
                    f"the row has {', '.join(map(str, row)) or 'none'}"
                )


def _text(value: Any) -> str:
    if _is_missing(value):
        raise ValueError(f"is empty (holds {_show(value)})")
    if not isinstance(value, str):
        raise ValueError(f"holds {_show(value)}, which is no text")
    return value


def _class_id(value: Any, task: Task) -> int:
    """Returns the id of a label that is given by name or, for a known set, by id."""
    own = task.name == "file"  # there 1 is the name of a label, not its id
    if not _is_missing(value) and isinstance(value, str | int | float):
        name = _label_name(value)
        if name in task.labels:
            return task.labels.index(name)
        number = _number(value)
        if not own and number is not None and number in range(len(task.labels)):
            return int(number)
    if own:
        known = f"the training file knows {', '.join(task.labels)}"
    else:
        ids = ", ".join(map(str, range(len(task.labels))))
        known = f"{task.name} knows {ids} ({', '.join(task.labels)})"
    hidden = "; -1 marks the hidden labels of a test split" if value == -1 else ""
    raise ValueError(f"holds {_show(value)}; {known}{hidden}")


def _score(value: Any, task: Task) -> float:
    del task
    number = None if isinstance(value, bool) else _number(value)
    if number is None or not math.isfinite(number):
        raise ValueError(f"holds {_show(value)}, which is no finite number")
    return float(number)


def _answers(value: Any, context: str) -> dict[str, list[Any]]:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        # SQuAD's own form, a list of answers; the hub's is one dict of lists.
        keys = ("text", "answer_start")
        value = {key: [item.get(key) for item in value] for key in keys}
    texts = value.get("text") if isinstance(value, dict) else None
    starts = value.get("answer_start") if isinstance(value, dict) else None
    if not (isinstance(texts, list) and isinstance(starts, list)):
        raise ValueError(
            f"holds {_show(value)}; SQuAD's form is "
            '{"text": ["..."], "answer_start": [0]}'
        )
    if len(texts) != len(starts):
        raise ValueError(f"has {len(texts)} texts and {len(starts)} answer_start")
    if not texts:
        raise ValueError("has no answer; every question must have one in its context")
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"has an answer without text ({_show(text)})")
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            raise ValueError(f"has the answer_start {_show(start)}, which is no offset")
        there = context[start : start + len(text)]
        if there != text:
            raise ValueError(
                f"says that {_show(text)} starts at {start}, "
                f"where the context has {_show(there)}"
            )
    return {"text": texts, "answer_start": starts}


def _is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def _label_name(value: str | int | float) -> str:
    """Returns the one spelling of a label: a CSV file's "1" is a JSON file's 1 or 1.0.

    >>> [_label_name(label) for label in ("1", "1.0", 1, 1.0, True, " yes", 0.5)]
    ['1', '1', '1', '1', 'true', 'yes', '0.5']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    name = str(value).strip()
    return name.split(".")[0] if re.fullmatch(r"-?\d+\.0+", name) else name


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def label_set(values: list[Any], where: str, column: str) -> dict[str, Any]:
    """Returns the fields of a task that follow from the labels of its rows."""
    for number, value in enumerate(values, start=1):
        if _is_missing(value) or not isinstance(value, str | int | float):
            raise MetalrError(
                f"{where} row {number}: column {column!r} holds {_show(value)}, "
                "which is no label"
            )
    names = {_label_name(value) for value in values}
    numbers = [_number(name) for name in names]
    if all(n is not None for n in numbers):
        if not all(float(n).is_integer() for n in numbers if n is not None):
            metrics = ("pearson", "spearman")
            return {"kind": "regression", "metric": metrics[0], "metrics": metrics}
        ordered = sorted(names, key=float)
    else:
        ordered = sorted(names)
    if len(ordered) < 2:
        raise MetalrError(
            f"{where}: column {column!r} holds {ordered[0]!r} in every row; "
            "a task needs two labels at least"
        )
    if len(ordered) > _MAX_CLASSES:
        raise MetalrError(
            f"{where}: column {column!r} holds {len(ordered)} different labels, more "
            f"than {_MAX_CLASSES}; is it the right one? (--label-column)"
        )
    # Matthews beside accuracy, because nobody says which of the user's labels is
    # the positive one that F1 would need.
    return {"labels": tuple(ordered), "metrics": ("accuracy", "matthews")}
