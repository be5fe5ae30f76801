"""The labels of a user's own file: one spelling, their order, and what they mean."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from metalr.errors import MetalrError

KINDS = ("classification", "regression", "qa", "tokens", "multilabel", "choice")

_MAX_CLASSES = 1000
_FEW = 20  # values; more whole numbers may be a scale
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
# What stands for nothing among numbers; among words it may be one of them.
_NOTHING = {"nan", "inf", "-inf", "infinity", "none", "null", "na", "n/a", "<na>", "?"}
_SCORES = re.compile(
    r"scores?|ratings?|grades?|points?|similarity|relatedness(_score)?|.*_score", re.I
)
# What SNLI and the hub write where annotators did not agree, or a label is hidden.
_HIDDEN, _DASH = "-1", "-"


class Labels(NamedTuple):
    """What the labels of a file say about its task."""

    fields: dict[str, Any]  # of the task
    notes: tuple[str, ...]  # what was assumed


def is_missing(value: Any) -> bool:
    """Say whether a cell holds nothing."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def show(value: Any) -> str:
    """Return a value for an error, shortened."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def plain(value: Any) -> Any:
    """Return the label in a list of one, as annotation tools export it.

    >>> plain(["good"]), plain({"choices": ["good"]}), plain("good"), plain([])
    ('good', 'good', 'good', '-')
    """
    if isinstance(value, dict) and list(value) == ["choices"]:
        value = value["choices"]
    if isinstance(value, list | tuple) and len(value) < 2:
        return value[0] if value else _DASH
    return value


def spelled(value: str | int | float) -> str:
    """Return the one spelling of a label.

    A CSV file's "1" is a JSON file's 1 or 1.0, pandas' "True" is JSON's true, and an
    accented letter is one sign, not two.

    >>> [spelled(label) for label in ("1", "1.0", 1, 1.0, True, "True", " yes", 0.5)]
    ['1', '1', '1', '1', 'true', 'true', 'yes', '0.5']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    name = unicodedata.normalize("NFC", str(value).strip())
    if name in ("True", "TRUE", "False", "FALSE"):
        return name.lower()
    return name.split(".")[0] if re.fullmatch(r"-?\d+\.0+", name) else name


def number(value: Any) -> float | None:
    """Return a value as a number, or None.

    >>> number("0.5"), number("1_0"), number("nan"), number("1e999"), number(True)
    (0.5, None, None, inf, 1.0)
    """
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def is_hidden(name: str, task_labels: Sequence[str]) -> bool:
    """Say whether a label's spelling means that the row has none."""
    return name in (_HIDDEN, _DASH) and name not in task_labels


def define(
    values: Sequence[Any],
    where: str,
    column: str,
    kind: str | None = None,
    names: Sequence[str] | None = None,
) -> Labels:
    """Return what the labels of the training rows say about the task.

    Args:
      values: The labels, one a row.
      where: Names the file in an error.
      column: Names the labels' column in an error.
      kind: One of `KINDS`, where the user says it.
      names: Of the ids that the file holds, where it says them.

    Raises:
      MetalrError: A label is none, or there are too few or too many of them.
    """
    if names is not None and kind != "regression":
        return _classes(list(names), where, column, [])
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    known: dict[Any, str] = {}  # by type too: True equals 1
    for row, value in enumerate(values, start=1):
        key = (type(value), value) if isinstance(value, str | int) else None
        name = known.get(key) or _name(value, where, row, column)
        if key is not None and len(known) < 10_000:
            known[key] = name
        counts[name] += 1
        first.setdefault(name, row)
    notes: list[str] = []
    hidden = _hidden(counts, notes) if kind != "regression" else set()
    kept = [name for name in counts if name not in hidden]
    if not kept:
        raise MetalrError(
            f"{where}: column {column!r} holds {' or '.join(sorted(hidden))} in every "
            "row, which marks rows without a gold label; a test split has no labels"
        )
    kind = kind or _kind(kept, counts, where, column, first, notes)
    if kind == "regression":
        metrics = ("pearson", "spearman")
        fields = {"kind": kind, "metric": metrics[0], "metrics": metrics}
        return Labels(fields, tuple(notes))
    if all(number(name) is not None for name in kept):
        ordered = sorted(kept, key=lambda name: (number(name), name))
    else:
        ordered = sorted(kept)
    if column in ordered:
        notes.append(
            f"class {column!r} is named like its column: is a header among the rows "
            f"(row {first[column]})?"
        )
    return _classes(ordered, where, column, notes)


def _name(value: Any, where: str, row: int, column: str) -> str:
    if isinstance(value, list | tuple | dict):
        raise MetalrError(
            f"{where} row {row}: column {column!r} holds {show(value)}, which is not a "
            "label: a row has one of them"
        )
    if is_missing(value) or not isinstance(value, str | int | float):
        raise MetalrError(
            f"{where} row {row}: column {column!r} holds {show(value)}, which is not a "
            "label; leave the row out, or write - for a row without a gold label"
        )
    return spelled(value)


def _hidden(counts: Counter[str], notes: list[str]) -> set[str]:
    """Return the spellings that mean "no gold label" here.

    "-" does beside any label but "+". -1 does beside the ids 0, 1, ... that data sets
    have; but in {-1, 0, 1} it may be a class as well, if a tenth of the rows has it.
    """
    found = set()
    if _DASH in counts and "+" not in counts:
        found.add(_DASH)
    others = set(counts) - {_HIDDEN, _DASH}
    if _HIDDEN not in counts:
        return found
    ids = others == {str(i) for i in range(len(others))}
    share = counts[_HIDDEN] / counts.total()
    limit = 0.1 if len(others) == 2 else 0.5
    words = not any(number(name) is not None for name in others)
    if (ids and len(others) != 1 and share < limit) or words or not others:
        found.add(_HIDDEN)
    elif ids:
        notes.append(
            f"-1 taken for a class: {share:.0%} of the rows have it; write - where it "
            "means that a row has no gold label"
        )
    return found


def _kind(
    names: list[str],
    counts: Counter[str],
    where: str,
    column: str,
    first: dict[str, int],
    notes: list[str],
) -> str:
    """Return whether labels are classes or scores."""
    numbers = {name: number(name) for name in names}
    nothing = [name for name in names if name.lower() in _NOTHING]
    rest = [name for name in names if name not in nothing]
    if nothing and rest and all(numbers[name] is not None for name in rest):
        name = nothing[0]
        raise MetalrError(
            f"{where} row {first[name]}: column {column!r} holds {name!r} among "
            f"numbers ({', '.join(sorted(rest)[:5])}), which is not a label; leave "
            f"such rows out ({counts[name]} of {counts.total()}), or write - for a row "
            "without a gold label"
        )
    commas = [name for name in names if _COMMA.fullmatch(name)]
    if commas and all(numbers[n] is not None or n in commas for n in names):
        notes.append(f"scores with a decimal comma, as {commas[0]!r}")
        return "regression"
    if any(value is None for value in numbers.values()):
        return "classification"
    if not all(float(value).is_integer() for value in numbers.values() if value):
        return "regression"
    whole = [int(value or 0) for value in numbers.values()]
    if _is_scale(whole, names, counts, column):
        low, high = min(names, key=float), max(names, key=float)
        notes.append(
            f"{len(names)} different whole numbers from {low} to {high} taken for "
            "scores: a regression (--kind classification makes them classes)"
        )
        return "regression"
    return "classification"


def _is_scale(
    values: list[int], names: list[str], counts: Counter[str], column: str
) -> bool:
    """Say whether many whole numbers are points of a scale, or ids and codes."""
    if len(values) <= _FEW or any(re.match(r"0\d", name) for name in names):
        return False
    low, high = min(values), max(values)
    rows = sum(counts[name] for name in names)
    if _SCORES.fullmatch(column) or (low, high) in ((0, 100), (1, 100), (0, 10)):
        return True
    if len(values) == high - low + 1 and low in (0, 1):  # no gap: ids
        return rows < 3 * len(values)
    return len(values) > (high - low) / 2 or rows < 10 * len(values)


def _classes(names: list[str], where: str, column: str, notes: Sequence[str]) -> Labels:
    if len(names) < 2:
        raise MetalrError(
            f"{where}: column {column!r} holds {names[0]!r} in every row; "
            "a task needs two labels at least"
        )
    if len(names) > _MAX_CLASSES:
        raise MetalrError(
            f"{where}: column {column!r} holds {len(names)} different labels, more "
            f"than {_MAX_CLASSES}; is it the right one? (--label-column), or are they "
            "scores? (--kind regression)"
        )
    # Matthews beside accuracy, because nobody says which of the user's labels is
    # the positive one that F1 would need.
    fields = {"labels": tuple(names), "metrics": ("accuracy", "matthews")}
    return Labels(fields, tuple(notes))


def score(value: Any) -> float:
    """Return a score; a comma may stand for the decimal point.

    Raises:
      ValueError: The value is not a finite number.
    """
    if isinstance(value, str) and _COMMA.fullmatch(value.strip()):
        value = value.replace(",", ".")
    found = None if isinstance(value, bool) else number(value)
    if found is None or not math.isfinite(found):
        raise ValueError(f"holds {show(value)}, which is not a finite number")
    return found
