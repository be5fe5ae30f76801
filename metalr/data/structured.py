"""Rows whose cells are lists: words with tags, several labels, texts to choose from.

tokens      {"tokens": ["John", "left"], "tags": ["B-PER", "O"]}
multilabel  {"text": "...", "labels": ["joy", "fear"]}, or "joy|fear" in a table
choice      {"text": "...", "choices": ["...", "..."], "label": 1}, or the columns
            choice0, choice1, ... (SWAG's ending0, ... too)
"""

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from metalr.data.cells import NoLabel, is_missing, number, show, spelled, unwritten
from metalr.data.labels import Labels, unknown
from metalr.data.schema import SCORES, Task
from metalr.errors import MetalrError

KINDS = ("tokens", "multilabel", "choice")
WAYS = ("number", "letter", "text")  # to say which choice is the right one
OUTSIDE = "O"  # the tag of a word that is part of nothing

WORDS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "labels", "pos_tags", "label")
_MOST = 1000  # different labels
_NUMBERED = re.compile(r"(choice|ending|option|candidate|answer)_?\d+")
_HIDDEN = ({"-1"}, {"-"}, {"-100"})  # the names of all labels of a row
_PEEKED = 50  # rows that a file's kind is guessed from


def numbered(names: Iterable[str]) -> list[str]:
    """Return the columns that hold one text each to choose from.

    >>> numbered(["sent1", "ending1", "ending0", "label"])
    ['ending0', 'ending1']
    """
    found = [name for name in names if _NUMBERED.fullmatch(name)]
    return sorted(found, key=lambda name: (len(name), name))


def list_columns(names: Iterable[str], label: str | None) -> list[str]:
    """Return the columns that may hold lists, by their names."""
    names = [name for name in names if name]
    known = {*WORDS, *TAGS, "choices", label, *numbered(names)}
    return [name for name in names if name in known]


def guess(rows: Iterable[dict[str, Any]], label: str | None) -> str | None:
    """Return the kind of task that the first rows of a file look like, or None.

    Args:
      rows: By column.
      label: The column of the labels, where the user names it.
    """
    kinds = {_looks_like(row, label) for row in itertools.islice(rows, _PEEKED)}
    return next((kind for kind in KINDS if kind in kinds), None)


def _looks_like(row: dict[str, Any], label: str | None) -> str | None:
    row = {name: unwritten(value) for name, value in row.items()}
    lists = {name for name, value in row.items() if isinstance(value, list)}
    if lists & {*WORDS} and lists & ({label} if label else {*TAGS}):
        return "tokens"
    if "choices" in lists or len(numbered(row)) > 1:
        return "choice"
    column = label or ("labels" if "labels" in row else "label")
    several = row.get(column) if column in lists else None
    if several is not None and len(several) > 1:
        return "multilabel" if all(isinstance(v, str | int) for v in several) else None
    return None


def texts(value: Any) -> list[str]:
    """Return a cell that holds a list of texts.

    Raises:
      ValueError: It holds something else.
    """
    value = unwritten(value.tolist() if hasattr(value, "tolist") else value)
    if not isinstance(value, list) or not value:
        raise ValueError(f"holds {show(value)}, which is not a list of texts")
    for text in value:
        if not isinstance(text, str):
            raise ValueError(f"holds {show(text)} in its list, which is not text")
    return value


def shaped(row: dict[str, Any], task: Task) -> dict[str, Any]:
    """Return a row with its texts to choose from in one column.

    Raises:
      ValueError: One of them is missing.
    """
    if task.kind != "choice" or task.pair is None or task.pair in row:
        return row
    names = numbered(row)
    if not names:
        return row  # the error of a missing column
    for name in names:
        if is_missing(row[name]):
            raise ValueError(
                f"lacks the text of {name!r} (holds {show(row[name])}); every row has "
                "as many texts to choose from"
            )
    # SWAG has the first words of every ending in a column of their own.
    begin = row.get("sent2")
    begin = f"{begin} " if isinstance(begin, str) and begin else ""
    return row | {task.pair: [begin + str(row[name]) for name in names]}


def label(row: dict[str, Any], task: Task) -> Any:
    """Return a row's labels as they are: a list, or what tells a choice.

    A `NoLabel` says that the row has no gold label.

    Raises:
      ValueError: They are none, or not as many as the words.
    """
    value = row[task.label]
    value = unwritten(value.tolist() if hasattr(value, "tolist") else value)
    if task.kind == "choice":
        return value  # what it means, the whole column says: `chosen`
    if task.kind == "multilabel" and not isinstance(value, list):
        # An empty cell is all that a table can write for [].
        if is_missing(value) and not isinstance(value, str):
            return NoLabel.NULL
        value = _split(value, task.separator)
    if not isinstance(value, list):
        raise ValueError(
            f"holds {show(value)}, which is not a list of labels; leave the row out"
        )
    if task.kind == "tokens" and len(value) != len(row[task.text]):
        raise ValueError(
            f"holds {len(value)} tags, and {task.text!r} {len(row[task.text])} words"
        )
    for one in value:
        if is_missing(one) or not isinstance(one, str | int | float):
            raise ValueError(f"holds {show(one)} in its list, which is not a label")
    names = {spelled(one) for one in value}
    if task.kind == "tokens" and "-100" in names:
        raise ValueError(
            "holds -100, which marks pieces of words that were cut before; give whole "
            "words, each with its tag"
        )
    return NoLabel.HIDDEN if names in _HIDDEN else value


def _split(value: Any, separator: str | None) -> list[str]:
    if is_missing(value):
        return []
    if separator is None:
        raise ValueError(
            f"holds {show(value)}, which is not a list of labels; --label-separator "
            "says what stands between them"
        )
    return [name.strip() for name in str(value).split(separator) if name.strip()]


def told_by(values: Sequence[Any], offered: Sequence[Sequence[str]]) -> str:
    """Return what the labels of choices are: their number, their letter or their text.

    A number may be the text of another choice, as of a sum. So a column is read one
    way: as numbers if all of them fit, else as letters if they do, else as texts.

    Args:
      values: The labels, one a row.
      offered: The texts of each row to choose from.

    >>> sums = [["2", "3", "1", "0"]] * 2
    >>> told_by(["3", "0"], sums), told_by(["a", "-1"], sums), told_by(["3", "x"], sums)
    ('number', 'letter', 'text')
    """
    pairs = [(v, len(c)) for v, c in zip(values, offered, strict=True)]
    told = [pair for pair in pairs if _numbered_place(*pair) != -1]  # not hidden
    for way, place in (("number", _numbered_place), ("letter", _lettered_place)):
        if all(place(*pair) is not None for pair in told):
            return way
    return "text"


def chosen(value: Any, choices: Sequence[str], way: str) -> int | None:
    """Return the number of a choice, or None for a hidden label.

    Args:
      value: The label.
      choices: The texts to choose from.
      way: As `told_by` found it; a label that is no text of a choice may be a letter
        or a number all the same.

    Raises:
      ValueError: There is no such choice.
    """
    found = None
    if way == "text" and value in choices:
        found = list(choices).index(value)
    elif way != "number":
        found = _lettered_place(value, len(choices))
    if found is None:
        found = _numbered_place(value, len(choices))
    if found is None:
        raise ValueError(
            f"holds {show(value)}; the row has {len(choices)} choices, numbered from 0"
        )
    return None if found == -1 else found


def check_counts(
    offered: Sequence[Sequence[str]],
    where: Callable[[int], str],
    count: int | None = None,
) -> None:
    """Check that each row has as many choices as a batch holds, and two at least.

    Args:
      offered: The texts of each row to choose from.
      where: Names a row, from 0, for errors.
      count: The choices that each has to have; None: as the first.

    Raises:
      MetalrError: One has more or fewer, or less than two.
    """
    for place, texts in enumerate(offered):
        count = len(texts) if count is None else count
        if len(texts) != count:
            raise MetalrError(
                f"every row must have as many choices as the first, {count}; "
                f"{where(place)} has {len(texts)}"
            )
        if count < 2:
            raise MetalrError(
                f"a row must have 2 choices or more, got {count} in {where(place)}; "
                "leave such rows out"
            )


def _numbered_place(value: Any, count: int) -> int | None:
    """Return a choice's place from its number; -1 hides it."""
    if value is NoLabel.HIDDEN:
        return -1
    found = None if is_missing(value) else number(value)
    return int(found) if found is not None and found in range(-1, count) else None


def _lettered_place(value: Any, count: int) -> int | None:
    """Return a choice's place from its letter."""
    letter = value.strip().upper() if isinstance(value, str) else ""
    fits = len(letter) == 1 and "A" <= letter < chr(ord("A") + count)
    return ord(letter) - ord("A") if fits else None


def ids(value: Sequence[Any], task: Task) -> list[int]:
    """Return the ids of labels that are given by name or, for a known set, by id.

    Raises:
      ValueError: One is not of the task.
    """
    names = {name: i for i, name in enumerate(task.labels)}
    found = []
    for one in value:
        place = names.get(spelled(one))
        count = number(one)
        if place is None and task.name != "file" and count in range(len(names)):
            place = int(count or 0)
        if place is None:
            raise unknown(one, task)
        found.append(place)
    return found


def define(
    values: Sequence[Any],
    where: str,
    column: str,
    kind: str,
    known: Sequence[str] | None = None,
) -> Labels:
    """Return what the labels of the training rows say about a task of lists.

    Args:
      values: As `label` returns them, one a row.
      where: Names the file in an error.
      column: Names the labels' column in an error.
      kind: A row of KINDS.
      known: Names of the ids that the file holds, where it says them.

    Raises:
      MetalrError: There are too few labels or too many.
    """
    if kind == "choice":
        return Labels({"kind": kind}, ())
    lists = [value for value in values if not isinstance(value, NoLabel)]
    names = {spelled(one) for value in lists for one in value} | {*(known or ())}
    least = 2 if kind == "tokens" else 1
    if not least <= len(names) <= _MOST:
        raise MetalrError(
            f"{where}: column {column!r} holds {len(names)} different labels, and a "
            f"task of {kind} has {least} to {_MOST}; is it the right column? "
            "(--label-column)"
        )
    if kind == "multilabel":
        return Labels(_fields(kind, known or sorted(names), SCORES[kind]), ())
    # Of a word's place in an entity the type comes first: B-PER beside I-PER.
    ordered = known or sorted(names, key=lambda n: (n != OUTSIDE, n[2:], n[:2]))
    return Labels(_fields(kind, ordered, tag_scores(ordered)), ())


def _fields(kind: str, names: Sequence[str], scores: Sequence[str]) -> dict[str, Any]:
    return {
        "kind": kind,
        "labels": tuple(names),
        "metric": scores[0],
        "metrics": tuple(scores),
    }


def tag_scores(names: Sequence[str]) -> tuple[str, ...]:
    """Return the scores of tags: of entities where they begin with B- and I-."""
    if all(name == OUTSIDE or re.match("[BIESLU]-", name) for name in names):
        return ("entity_f1", "entity_precision", "entity_recall", "accuracy")
    return ("accuracy", "macro_f1")
