"""Cells that hold labels: one spelling for what different tools write."""

import ast
import decimal
import enum
import json
import math
import re
import unicodedata
import warnings
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
DASH = "-"  # stands for no label
_UNSEEN = "\u200b\u2060\ufeff"  # signs without width, as of copied texts
# A list that pandas wrote to CSV, of Python's strings or NumPy's.
_ITEM = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_LISTED = re.compile(rf"\[\s*(({_ITEM})[\s,]*)*\]")


class NoLabel(enum.Enum):
    """What stands for a label that a row does not have; no text, which may be a class.

    The value is how the file says it.
    """

    HIDDEN = "-1"
    NULL = "null"


def is_missing(value: Any) -> bool:
    """Say whether a cell holds nothing."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def is_blank(row: Mapping[str, Any]) -> bool:
    """Say whether a row of several cells holds nothing, as a spreadsheet's last."""
    return len(row) > 1 and all(map(is_missing, row.values()))


def show(value: Any) -> str:
    """Return a value for an error, shortened."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def plain(value: Any) -> Any:
    """Return the label in a list of one, as annotation tools export it.

    >>> plain(["good"]), plain({"choices": ["good"]}), plain("good"), plain([])
    ('good', 'good', 'good', '-')
    """
    value = unwritten(value)
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict) and list(value) == ["choices"]:
        value = value["choices"]
    if isinstance(value, list | tuple) and len(value) < 2:
        return value[0] if value else DASH
    return value


def unwritten(value: Any) -> Any:
    """Return the list or object that a cell of a table holds as text.

    >>> unwritten("['a', 'b']"), unwritten('["a"]'), unwritten("[a]"), unwritten("a")
    (['a', 'b'], ['a'], '[a]', 'a')

    In JSON an escape is JSON's, in a list of Python's strings it is Python's.

    >>> unwritten(json.dumps(["caf\u00e9"])) == unwritten("['caf\u00e9']")
    True
    """
    if not isinstance(value, str) or value[:1] + value[-1:] not in ("[]", "{}"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        if _LISTED.fullmatch(value):
            return [_quoted(item) for item in re.findall(_ITEM, value)]
        return value
    return found if isinstance(found, list | dict) else value


def _quoted(item: str) -> str:
    """Return the text of a string as Python writes it."""
    if "\\" not in item:
        return item[1:-1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an escape that Python does not have
            return ast.literal_eval(item)
    except (SyntaxError, ValueError):
        return item[1:-1]


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
    name = unicodedata.normalize("NFC", str(value).strip().strip(_UNSEEN).strip())
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
