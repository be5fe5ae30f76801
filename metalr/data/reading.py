"""What was read, left out and assumed, for the first lines of a run and its result."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from metalr.data.columns import Rows
from metalr.data.cutting import Lost
from metalr.data.schema import Task
from metalr.errors import printable

_SHOWN = 8  # classes and columns of a line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """What a run learns from, as it was understood."""

    kind: str  # of the task
    columns: tuple[str, ...]  # read, texts first and the label last
    unread: tuple[str, ...] = ()  # the file's other columns
    classes: dict[str, int] = dataclasses.field(default_factory=dict)  # training rows
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)  # by reason
    assumed: tuple[str, ...] = ()  # one sentence each
    max_length: int | None = None  # tokens of an entry
    rows_cut: float = 0.0  # share of the training rows that lose their end
    tokens_cut: float = 0.0  # and of their tokens
    longest: int | None = None  # tokens that --max-length may go to

    def lines(self) -> list[str]:
        """Return it in two or three lines."""
        read = f"{self.kind} of {' + '.join(self.columns[:-1])} by {self.columns[-1]}"
        if self.unread:
            read += f"; not read: {_some(self.unread)}"
        found = [read]
        if self.classes:
            counts = tuple(f"{_short(n)} {count}" for n, count in self.classes.items())
            found.append(f"{len(counts)} classes: {_some(counts)}")
        if self.left_out:
            found.append(f"rows left out: {by_reason(self.left_out)}")
        if self.rows_cut:
            more = "the model reads no more"
            if self.longest and self.max_length and self.max_length < self.longest:
                more = f"--max-length may be up to {self.longest}"
            found.append(
                f"cut to {self.max_length} tokens: {_share(self.rows_cut)} of the rows "
                f"lose their end, {_share(self.tokens_cut)} of all tokens; {more}"
            )
        return [printable(line) for line in (*found, *self.assumed)]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return dataclasses.asdict(self)


def by_reason(left_out: Mapping[str, int]) -> str:
    """Return in words how many rows were left out, by reason.

    >>> by_reason({"blank": 2, "no gold label (-1)": 1})
    '2 blank, 1 no gold label (-1)'
    """
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


def of(
    task: Task,
    unread: tuple[str, ...] = (),
    left_out: dict[str, int] | None = None,
    assumed: tuple[str, ...] = (),
) -> Reading:
    """Return the record of a task's rows, before its classes are counted."""
    columns = [name for name in (task.text, task.pair, task.label) if name]
    return Reading(
        kind=task.kind,
        columns=tuple(columns),
        unread=unread,
        left_out=left_out or {},
        assumed=assumed,
    )


def counted(record: Reading, task: Task, train: Rows) -> Reading:
    """Return the record with the classes of the training rows counted."""
    if not task.labels:
        return record
    if task.kind == "classification":
        found = train.array(task.label)
    else:  # several a row
        found = np.array([i for ids in train.column(task.label) for i in ids], np.int64)
    counts = np.bincount(found, minlength=len(task.labels))
    classes = {name: int(counts[i]) for i, name in enumerate(task.labels)}
    empty = tuple(name for name, count in classes.items() if not count)
    assumed = record.assumed
    if empty:
        assumed += (f"classes without a training row: {_some(empty)}",)
    return dataclasses.replace(record, classes=classes, assumed=assumed)


def cut(record: Reading, lost: Lost, rows: int, most: int, longest: int) -> Reading:
    """Return the record with what was cut off the training rows.

    Args:
      record: What there is.
      lost: Of the rows.
      rows: How many there are.
      most: Tokens that an entry has at most.
      longest: Tokens that it could have.
    """
    return dataclasses.replace(
        record,
        max_length=most,
        longest=longest,
        rows_cut=lost.rows / max(1, rows),
        tokens_cut=lost.tokens / max(1, lost.total),
    )


def _share(share: float) -> str:
    """Return a share in words.

    >>> _share(0.594), _share(0.0012)
    ('59 %', 'under 1 %')
    """
    return f"{share * 100:.0f} %" if share >= 0.01 else "under 1 %"


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:37]}..."


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(_short, names[:_SHOWN])) + (
        f" and {more} more" if more > 0 else ""
    )
