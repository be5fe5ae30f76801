"""The labels of a user's own file: one spelling, their order, and what they mean."""

import decimal
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from metalr.data.cells import DASH, NoLabel, is_missing, number, show, spelled
from metalr.data.schema import SCORES, Task
from metalr.errors import MetalrError

# The way out for a row whose label is none.
LEAVE_OUT = "leave the row out, or write - for a row without a gold label"

KINDS = ("classification", "regression", "qa", "tokens", "multilabel", "choice")

_MAX_CLASSES = 1000
_FEW = 20  # values; more whole numbers may be a scale
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)
_PERCENT = re.compile(r"([+-]?\d+(?:[.,]\d+)?) ?%", re.ASCII)
# What stands for nothing among numbers; among words it may be one of them.
_NOTHING = {"nan", "inf", "-inf", "infinity", "none", "null", "na", "n/a", "<na>", "?"}
_SCORES = re.compile(
    r"scores?|ratings?|grades?|points?|similarity|relatedness(_score)?|.*_score", re.I
)
# What SNLI and the hub write where annotators did not agree, or a label is hidden;
# and what transformers leaves out of the loss.
_HIDDEN, _IGNORED = "-1", "-100"
# What people write where a row has no label, if no class is called so.
_DOUBTFUL = {*_NOTHING, "--", "unlabeled", "unlabelled", _IGNORED}


class Labels(NamedTuple):
    """What the labels of a file say about its task."""

    fields: dict[str, Any]  # of the task
    notes: tuple[str, ...]  # what was assumed


def unknown(value: Any, task: Task) -> ValueError:
    """Return the error for a label that a task does not have."""
    some = task.labels[:_FEW]
    known = ", ".join(some)
    if task.name != "file":
        known = f"{', '.join(map(str, range(len(some))))} ({known})"
    if more := len(task.labels) - len(some):
        known += f" and {more} more"
    whose = "the training file" if task.name == "file" else task.name
    marks = task.kind == "classification" and DASH not in task.labels
    way = LEAVE_OUT if marks else "leave the row out"
    return ValueError(f"holds {show(value)}; {whose} knows {known}; {way}")


def is_hidden(name: str, task_labels: Sequence[str]) -> bool:
    """Say whether a label's spelling means that the row has none."""
    return name in (_HIDDEN, _IGNORED, DASH) and name not in task_labels


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
    hidden = {DASH} & {*counts}
    if kind != "regression":
        hidden = _hidden(counts, notes)
    kept = [name for name in counts if name not in hidden]
    if not kept:
        raise MetalrError(
            f"{where}: column {column!r} holds {' or '.join(sorted(hidden))} in every "
            "row, which marks rows without a gold label; a test split has no labels"
        )
    kind = kind or _kind(kept, counts, where, column, first, notes)
    if kind == "regression":
        _check_scores(kept, counts, where, column, notes)
        scores = SCORES[kind]
        fields = {"kind": kind, "metric": scores[0], "metrics": scores}
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
    notes += _doubts(ordered, counts)
    return _classes(ordered, where, column, notes)


def _name(value: Any, where: str, row: int, column: str) -> str:
    if isinstance(value, NoLabel):
        return DASH
    if isinstance(value, list | tuple | dict):
        raise MetalrError(
            f"{where} row {row}: column {column!r} holds {show(value)}, which is not a "
            f"label: a row has one of them{_of_a_list(value)}"
        )
    if is_missing(value) or not isinstance(value, str | int | float):
        raise MetalrError(
            f"{where} row {row}: column {column!r} holds {show(value)}, which is not a "
            f"label; {LEAVE_OUT}"
        )
    return spelled(value)


def _of_a_list(value: Any) -> str:
    """Return the way out for a cell that holds more than a label."""
    inner = list(value) if isinstance(value, list | tuple) else []
    if inner and all(isinstance(one, str | int) for one in inner[2:] or inner):
        places = len(inner) == 3 and all(isinstance(i, int) for i in inner[:2])
        if not places:
            return " (--kind multilabel takes several)"
    return (
        "; if these are places in the text, give words and their tags "
        "(--kind tokens), and else a column that holds the label alone"
    )


def _hidden(counts: Counter[str], notes: list[str]) -> set[str]:
    """Return the spellings that mean "no gold label" here.

    "-" does beside any label but "+". -1 does beside the ids 0, 1, ... that data sets
    have; but in {-1, 0, 1} it may be a class as well, if a tenth of the rows has it.
    """
    found = set()
    if DASH in counts and "+" not in counts:
        found.add(DASH)
    others = set(counts) - {_HIDDEN, _IGNORED, DASH}
    ids = others == {str(i) for i in range(len(others))}
    if _IGNORED in counts and ids and others:
        found.add(_IGNORED)
    if _HIDDEN not in counts:
        return found
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
    numbers = {name: _value(name) for name in names}
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
    if any(value is None for value in numbers.values()):
        return "classification"
    commas = [name for name in names if "," in name]
    if commas:
        notes.append(f"scores with a decimal comma, as {commas[0]!r}")
        return "regression"
    if not all(float(value).is_integer() for value in numbers.values() if value):
        return "regression"
    whole = [int(value or 0) for value in numbers.values()]
    if _is_scale(whole, names, counts, column):
        ordered = sorted(names, key=lambda name: numbers[name] or 0)
        notes.append(
            f"{len(names)} different whole numbers from {ordered[0]} to {ordered[-1]} "
            "taken for scores: a regression (--kind classification makes them classes)"
        )
        return "regression"
    return "classification"


def _value(name: str) -> float | None:
    """Return a label as a number; with a decimal comma or a sign of percent too."""
    percent = _PERCENT.fullmatch(name)
    name = percent[1] if percent else name
    return number(name.replace(",", ".") if _COMMA.fullmatch(name) else name)


def _exact(name: str) -> decimal.Decimal | None:
    return None if number(name) is None else decimal.Decimal(name)


def _check_scores(
    names: list[str], counts: Counter[str], where: str, column: str, notes: list[str]
) -> None:
    """Refuse scores that nothing can be learned from, and say what is doubtful."""
    if len(names) == 1:
        more = ", which marks hidden labels" if names == [_HIDDEN] else ""
        raise MetalrError(
            f"{where}: column {column!r} holds {names[0]} in every row{more}; a score "
            "that is always the same can't be learned: is it the right column? "
            "(--label-column)"
        )
    below = [name for name in names if (_value(name) or 0) < 0]
    if below == [_HIDDEN] and len(names) > 2:
        notes.append(
            f"-1 taken for a score: {counts[_HIDDEN]} of {counts.total()} rows have it "
            "and no other is below 0; write - where it means that a row has none"
        )


def check_commas(values: Iterable[Any], where: str, column: str) -> None:
    """Refuse scores whose commas may stand before decimals or between thousands.

    Raises:
      MetalrError: All that have a comma have three digits behind it.
    """
    commas = [v for v in values if isinstance(v, str) and "," in v and "%" not in v]
    if commas and all(_THOUSANDS.fullmatch(name.strip()) for name in commas):
        raise MetalrError(
            f"{where}: column {column!r} holds {commas[0]!r}, which may be a thousand "
            "or more, or a decimal comma; write such scores without the comma"
        )


def _doubts(names: list[str], counts: Counter[str]) -> list[str]:
    """Return what is said of classes that may not be meant as they are."""
    notes = []
    odd = [name for name in names if name.lower() in _DOUBTFUL]
    if odd:
        notes.append(
            f"{odd[0]!r} is a class ({counts[odd[0]]} rows); write - where it means "
            "that a row has no gold label"
        )
    for same, say in ((str.casefold, "but for their case"), (_exact, "as numbers")):
        alike: dict[Any, list[str]] = {}
        for name in names:
            alike.setdefault(same(name), []).append(name)
        found = [of for word, of in alike.items() if len(of) > 1 and word is not None]
        if found:
            notes.append(f"classes that are equal {say}: {' and '.join(found[0][:4])}")
    once = sum(counts[name] == 1 for name in names)
    if len(names) > _FEW and 2 * once > len(names):
        notes.append(
            f"{once} of {len(names)} classes have one row: is it the right column? "
            "(--label-column), or are they scores? (--kind regression)"
        )
    return notes


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
    fields = {"labels": tuple(names), "metrics": SCORES["classification"]}
    return Labels(fields, tuple(notes))


def score(value: Any) -> float:
    """Return a score; a comma may stand for the decimal point.

    Raises:
      ValueError: The value is not a finite number.
    """
    text = isinstance(value, str)
    number_of = _value(value.strip()) if text else number(value)
    found = None if isinstance(value, bool) else number_of
    if found is None or not math.isfinite(found):
        raise ValueError(
            f"holds {show(value)}, which is not a finite number; {LEAVE_OUT}"
        )
    return found
