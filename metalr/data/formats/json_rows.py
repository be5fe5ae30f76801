"""JSON Lines, and the forms in which one JSON value holds rows."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metalr.data.formats import text
from metalr.data.formats.table import DataFile, Options, Row
from metalr.errors import MetalrError

# A file that is one value has to be in memory several times over. All of SQuAD has
# 30 MB, and whoever has more can write one row a line.
MAX_WHOLE = 256 * 2**20
# A value of one byte may take a hundred in memory.
_MAX_VALUES = 20_000_000

_FIRST = 50  # rows whose keys are the columns
_FORMS = (
    "one JSON object a line, one list of objects, columns of lists (pandas, datasets), "
    "rows under one name, or SQuAD's paragraphs"
)


def look(path: Path, options: Options) -> DataFile:
    """Look at a file of JSON: one object a line, or one value, whatever its name.

    Raises:
      MetalrError: The file breaks its format.
    """
    found = text.look(path, options.encoding)
    begun = _beginning(found)
    if begun and begun[0] not in "[{":
        raise MetalrError(
            f"{path} is not JSON: it begins with {begun!r}, not with [ or {{. If it is "
            "a table, name it .csv or .tsv"
        )
    try:
        first = list(itertools.islice(_lines(found), _FIRST))
    except MetalrError:
        if not _goes_on(found):
            raise
        return _whole_table(found, path, _whole(found))
    if len(first) == 1 and not _is_lines(path) and _is_container(first[0]):
        return _whole_table(found, path, first[0])
    return _table(found, first, lambda columns: _lines(found))


def _is_lines(path: Path) -> bool:
    """Say whether a file's name promises one row a line, of which it may have one."""
    return bool({".jsonl", ".ndjson"} & {*map(str.lower, path.suffixes)})


def _beginning(found: text.TextFile) -> str:
    """Return the first signs that are no space."""
    for piece in text.chunks(found):
        if (
            begun := piece[:4096]
            .decode(found.encoding, "ignore")
            .lstrip("\ufeff \r\n\t")
        ):
            return begun[:20]
    return ""


def _goes_on(found: text.TextFile) -> bool:
    """Say whether the first line is no object, and so may be part of a larger value."""
    try:
        next(_lines(found))
    except MetalrError as fault:
        if isinstance(fault.__cause__, json.JSONDecodeError):
            return True
        # A line that is too long may be all of a .json, and is a fault of a .jsonl.
        whole = ".json" in map(str.lower, found.path.suffixes)
        return fault.__cause__ is None and (whole or "not a JSON object" in str(fault))
    return False


def _table(found: text.TextFile, first: list[Row], rows: Any) -> DataFile:
    names = tuple(dict.fromkeys(str(name) for row in first for name in row))
    return DataFile(found.path, names, rows, found.notes, may_have_more=True)


def _whole_table(found: text.TextFile, path: Path, whole: Any) -> DataFile:
    rows = _rows_of(path, whole)
    return _table(found, rows[:_FIRST], lambda columns: iter(rows))


def _lines(found: text.TextFile) -> Iterator[Row]:
    for number, line in enumerate(text.lines(found), start=1):
        line = line.strip()
        if not line:
            continue
        row = _parse(line, f"{found.path} line {number}")
        if not isinstance(row, dict):
            raise MetalrError(
                f"{found.path} line {number} is not a JSON object: {line[:40]!r}. "
                'One row a line: {"sentence": "...", "label": 0}'
            )
        yield row


def _parse(line: str, where: str) -> Any:
    _check_values(line, where)
    try:
        return json.loads(line)
    except json.JSONDecodeError as fault:
        if fault.lineno > 1:  # a whole file; a line of JSON Lines has one line only
            where = f"{where} line {fault.lineno}"
        raise MetalrError(
            f"{where} is not JSON: {fault.msg} at column {fault.colno}"
        ) from fault
    except RecursionError as fault:
        raise MetalrError(f"{where} is not usable JSON: nested too deeply") from fault
    except ValueError as fault:  # an integer of thousands of digits
        raise MetalrError(f"{where} is not usable JSON: {fault}") from fault


def _check_values(line: str, where: str) -> None:
    if len(line) > _MAX_VALUES // 4:
        values = sum(line.count(sign) for sign in ",[{")
        if values > _MAX_VALUES:
            raise MetalrError(
                f"{where} holds more than {_MAX_VALUES} values; write one row a line "
                "(.jsonl)"
            )


def _whole(found: text.TextFile) -> Any:
    parts, size = [], 0
    for piece in text.chunks(found):
        parts.append(piece)
        size += len(piece)
        if size > MAX_WHOLE:
            raise MetalrError(
                f"{found.path} is one JSON value of more than {MAX_WHOLE} bytes; "
                "write one row a line (.jsonl)"
            )
    raw = b"".join(parts)
    parts.clear()
    try:
        content = raw.decode(found.encoding).lstrip("\ufeff")
    except UnicodeError as fault:
        raise _undecoded(found, raw, getattr(fault, "start", 0)) from fault
    try:
        return _parse(content, str(found.path))
    except MetalrError as fault:
        if "Extra data" not in str(fault.__cause__):
            raise
    return _several(content, found.path)


def _undecoded(found: text.TextFile, raw: bytes, at: int) -> MetalrError:
    """Return the error of a file of which a byte is not in its encoding."""
    begin, end = raw.rfind(b"\n", 0, at) + 1, raw.find(b"\n", at)
    line = raw[begin : end if end >= 0 else None]
    try:
        line.decode(found.encoding)
    except UnicodeError as fault:
        return text.undecoded(found, raw.count(b"\n", 0, at) + 1, line, fault)
    return MetalrError(
        f"{found.path} is not {found.encoding}; name its own with --encoding"
    )


_BETWEEN = re.compile(r"[\s,]*(?=[^\s,])")


def _several(content: str, path: Path) -> list[Any]:
    """Return the objects that stand one after another, as jq and others write them."""
    found, place, reader = [], 0, json.JSONDecoder()
    while match := _BETWEEN.match(content, place):
        try:
            value, place = reader.raw_decode(content, match.end())
        except (ValueError, RecursionError) as fault:
            line = content.count("\n", 0, match.end()) + 1
            raise MetalrError(
                f"{path} line {line} is not JSON, after {len(found)} objects that are"
            ) from fault
        found.append(value)
    return found


# ------------------------------------------------------------ one value


_OF_A_ROW = {"text", "sentence", "question", "premise", "tokens", "words"}


def _is_container(value: Row) -> bool:
    """Say whether an object holds rows, and is none itself."""
    if isinstance(value.get("data"), list | dict) or _list_of_rows(value) is not None:
        return True
    if isinstance(value.get("rows"), list):
        return True
    inner = list(value.values())
    columns = all(isinstance(i, list) for i in inner) or all(
        isinstance(i, dict) for i in inner
    )
    return bool(inner) and columns


def _list_of_rows(value: Row) -> list[Row] | None:
    """Return the one list of objects beside numbers and words, as APIs answer with."""
    found = [
        of
        for of in value.values()
        if isinstance(of, list) and of and all(isinstance(row, dict) for row in of)
    ]
    return found[0] if len(found) == 1 and not _OF_A_ROW & {*value} else None


def _rows_of(path: Path, whole: Any) -> list[Row]:
    """Return the rows that one JSON value holds."""
    rows: Any = whole
    if isinstance(whole, dict):
        rows = _of_object(path, whole)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MetalrError(f"{path} holds none of what is read: {_FORMS}")
    if rows and all(set(row) >= {"annotations", "data"} for row in rows[:_FIRST]):
        raise MetalrError(
            f"{path} is Label Studio's full export; export it as JSON-MIN or CSV"
        )
    return rows


def _of_object(path: Path, whole: Row) -> Any:
    data, inner = whole.get("data"), list(whole.values())
    if isinstance(data, dict) and not _OF_A_ROW & {*whole}:
        return _of_object(path, data)
    if isinstance(data, list):
        names = whole.get("columns")
        if isinstance(names, list) and all(isinstance(row, list) for row in data):
            return _named(path, names, data)  # pandas, orient="split"
        if any(isinstance(row, dict) and "paragraphs" in row for row in data[:1]):
            return _flatten_squad(path, data)
        return data
    if isinstance(whole.get("rows"), list):  # the hub's data set viewer
        return [
            row["row"]
            if isinstance(row, dict) and isinstance(row.get("row"), dict)
            else row
            for row in whole["rows"]
        ]
    if inner and all(isinstance(column, list) for column in inner):
        return _of_lists(path, whole)
    if inner and all(isinstance(column, dict) for column in inner):
        return _of_dicts(path, whole)
    return _list_of_rows(whole)


def _of_lists(path: Path, whole: Row) -> list[Row]:
    """Return the rows of columns that are lists, or the one list of rows."""
    lists = list(whole.values())
    if all(isinstance(row, dict) for of in lists for row in of):
        if len(lists) > 1:
            raise MetalrError(
                f"{path} holds several lists of rows: {', '.join(whole)}; write each "
                "to a file of its own"
            )
        return lists[0]
    if len({len(of) for of in lists}) > 1:
        lengths = ", ".join(f"{name} {len(of)}" for name, of in whole.items())
        raise MetalrError(f"{path} has columns of different lengths: {lengths}")
    return [dict(zip(whole, row, strict=True)) for row in zip(*lists, strict=True)]


def _of_dicts(path: Path, whole: Row) -> list[Row]:
    """Return the rows of pandas' to_json: by column, or with orient="index"."""
    keys = list(next(iter(whole.values())))
    if any({*of} != {*keys} for of in whole.values()):
        if all(_OF_A_ROW & {*of} for of in whole.values()):
            return list(whole.values())  # by row, and some lack a column
        raise MetalrError(
            f"{path} holds objects that do not have the same keys; write one row a "
            "line (.jsonl)"
        )
    # By column the inner keys are the rows' numbers, by row the outer ones.
    if not all(key.isdecimal() for key in keys) and (
        all(key.isdecimal() for key in whole) or len(whole) > len(keys)
    ):
        return list(whole.values())
    return [{name: of[key] for name, of in whole.items()} for key in keys]


def _named(path: Path, names: list[Any], data: Sequence[Any]) -> list[Row]:
    for number, row in enumerate(data, start=1):
        if len(row) != len(names):
            raise MetalrError(
                f"{path} row {number} of 'data' has {len(row)} values for "
                f"{len(names)} columns"
            )
    return [dict(zip(map(str, names), row, strict=True)) for row in data]


def _flatten_squad(path: Path, articles: list[Any]) -> list[Row]:
    rows = []
    for number, article in enumerate(articles, start=1):
        try:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    row = {
                        "id": str(qa["id"]),
                        "title": str(article.get("title", "")),
                        "context": paragraph["context"],
                        "question": qa["question"],
                    }
                    # Questions to predict have none, which is not an empty list.
                    if (answers := qa.get("answers")) is not None:
                        row["answers"] = {
                            "text": [a["text"] for a in answers],
                            "answer_start": [a["answer_start"] for a in answers],
                        }
                    rows.append(row)
        except (KeyError, TypeError, AttributeError) as fault:
            raise MetalrError(
                f"{path}: article {number} of 'data' is not in SQuAD's form "
                f"(paragraphs, qas, answers): {type(fault).__name__} {fault}"
            ) from fault
    return rows
