"""What was read, left out and assumed, for the first lines of a run and its result."""

import dataclasses
from collections import Counter
from typing import Any

from metalr.data.columns import Rows
from metalr.data.rows import Task

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

    def lines(self) -> list[str]:
        """Returns it in two or three lines."""
        read = f"{self.kind} of {' + '.join(self.columns[:-1])} by {self.columns[-1]}"
        if self.unread:
            read += f"; not read: {_some(self.unread)}"
        found = [read]
        if self.classes:
            counts = tuple(f"{name} {count}" for name, count in self.classes.items())
            found.append(f"{len(counts)} classes: {_some(counts)}")
        if self.left_out:
            reasons = (f"{count} {reason}" for reason, count in self.left_out.items())
            found.append(f"rows left out: {', '.join(reasons)}")
        return found + list(self.assumed)

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON-ready values."""
        return dataclasses.asdict(self)


def of(
    task: Task,
    unread: tuple[str, ...] = (),
    left_out: dict[str, int] | None = None,
    assumed: tuple[str, ...] = (),
) -> Reading:
    """Returns the record of a task's rows, before its classes are counted."""
    columns = [name for name in (task.text, task.pair, task.label) if name]
    return Reading(
        kind=task.kind,
        columns=tuple(columns),
        unread=unread,
        left_out=left_out or {},
        assumed=assumed,
    )


def counted(record: Reading, task: Task, train: Rows) -> Reading:
    """Returns the record with the classes of the training rows counted."""
    if task.kind != "classification":
        return record
    counts = Counter(train.column(task.label))
    classes = {name: counts[i] for i, name in enumerate(task.labels)}
    empty = tuple(name for name, count in classes.items() if not count)
    assumed = record.assumed
    if empty:
        assumed += (f"classes without a training row: {_some(empty)}",)
    return dataclasses.replace(record, classes=classes, assumed=assumed)


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
