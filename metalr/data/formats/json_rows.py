"""JSON Lines, and the forms in which one JSON value holds rows."""

import itertools
import json
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


def look_at_lines(path: Path, options: Options) -> DataFile:
    """Look at a `.jsonl` file.

    Raises:
      MetalrError: The file breaks its format.
    """
    found = text.look(path, options.encoding)
    first = list(itertools.islice(_lines(found), _FIRST))
    if len(first) == 1 and _is_container(first[0]):
        return _whole_table(found, path, first[0])
    return _table(found, first, lambda columns: _lines(found))


def look(path: Path, options: Options) -> DataFile:
    """Look at a `.json` file, which is lines or one value.

    Raises:
      MetalrError: The file breaks its format.
    """
    found = text.look(path, options.encoding)
    head = b""
    for piece in text.chunks(found):
        head = piece.lstrip()
        if head:
            break
    try:
        lines = list(itertools.islice(_lines(found), 2)) if head else []
    except MetalrError:  # a value that goes on in the next line, or is broken
        lines = []
    if not head or len(lines) > 1 or (lines and not _is_container(lines[0])):
        return look_at_lines(path, options)
    return _whole_table(found, path, _whole(found))


def _table(found: text.TextFile, first: list[Row], rows: Any) -> DataFile:
    names = tuple(dict.fromkeys(str(name) for row in first for name in row))
    return DataFile(found.path, names, rows, found.notes)


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
    if len(line) > _MAX_VALUES // 4:
        values = sum(line.count(sign) for sign in ",[{")
        if values > _MAX_VALUES:
            raise MetalrError(
                f"{where} holds more than {_MAX_VALUES} values; write one row a line "
                "(.jsonl)"
            )
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
        content = raw.decode(found.encoding)
    except UnicodeDecodeError as fault:
        line = raw.count(b"\n", 0, fault.start) + 1
        raise MetalrError(
            f"{found.path} line {line} is not {found.encoding}; name the file's "
            "encoding with --encoding"
        ) from fault
    return _parse(content, str(found.path))


# ------------------------------------------------------------ one value


def _is_container(value: Row) -> bool:
    """Say whether an object holds rows, and is none itself."""
    if isinstance(value.get("data"), list) or isinstance(value.get("rows"), list):
        return True
    inner = list(value.values())
    columns = all(isinstance(i, list) for i in inner) or all(
        isinstance(i, dict) for i in inner
    )
    return bool(inner) and columns


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
    return None


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
    if any(list(of) != keys for of in whole.values()):
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
                    answers = qa["answers"]
                    rows.append(
                        {
                            "id": str(qa["id"]),
                            "title": str(article.get("title", "")),
                            "context": paragraph["context"],
                            "question": qa["question"],
                            "answers": {
                                "text": [a["text"] for a in answers],
                                "answer_start": [a["answer_start"] for a in answers],
                            },
                        }
                    )
        except (KeyError, TypeError, AttributeError) as fault:
            raise MetalrError(
                f"{path}: article {number} of 'data' is not in SQuAD's form "
                f"(paragraphs, qas, answers): {type(fault).__name__} {fault}"
            ) from fault
    return rows
