"""Small files of rows: what tests write into them, and what is read back."""

import json
from pathlib import Path

import pandas

from metalr.data.columns import Row
from metalr.data.formats import opening, table
from metalr.data.loading import load
from metalr.errors import MetalrError

TEXTS = ["a good film", "so bad", "quite, good", "not my film"]
LABELS = [1, 0, 1, 0]
FRAME = pandas.DataFrame({"text": TEXTS, "label": LABELS})
DICTS = FRAME.to_dict("records")
PLAIN = "text,label\n" + "".join(
    f'"{text}",{label}\n' for text, label in zip(TEXTS, LABELS, strict=True)
)


def write(path: Path, content) -> Path:
    """Write texts and bytes as they are, all else as JSON."""
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8", newline="")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content))
    return path


def write_lines(path: Path, rows) -> Path:
    """Write rows as lines of JSON."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def csv_of(folder: Path, labels) -> Path:
    """Write a CSV file of one row for each label."""
    body = "".join(f"text {n},{label}\n" for n, label in enumerate(labels))
    return write(folder / "x.csv", f"text,label\n{body}")


def read_rows(path: str | Path, options: table.Options = table.PLAIN) -> list[Row]:
    """Read all rows of one file; at least one."""
    path = Path(path)
    rows = list(opening.look(path, options).rows(None))
    if not rows:
        raise MetalrError(f"{path} is empty: it holds no rows")
    return rows


def own(path: Path, **more):
    """Load a user's own file, to train and to score on."""
    return load("file", train_file=path, validation_file=path, **more)


def rows_of(path: Path, **more):
    """Return texts and class names of all rows, and what is said of them."""
    data = own(path, **more)
    task = data.task
    texts = data.train.column(task.text)
    labels = data.train.column(task.label)
    if task.kind == "classification":
        labels = [task.labels[i] for i in labels]
    return texts, labels, "\n".join(data.reading.lines())
