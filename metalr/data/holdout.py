"""A tenth of a training file held out for validation, where there is no other file.

Rows that share a paragraph or a text go to the same side, or the score would tell what
was memorised. Each class keeps its share, and training at least one row of each.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from metalr.data.columns import Rows
from metalr.data.schema import Task
from metalr.errors import MetalrError

_SHARE = 10  # one in so many rows is held out
_THIN = 10  # rows of a class that a score can hardly be told from
_CHUNK = 4096


class Split(NamedTuple):
    """Which rows go where."""

    train: np.ndarray  # [n] int64, ascending
    held_out: np.ndarray  # [m] int64, ascending
    notes: tuple[str, ...]


def split(rows: Rows, task: Task, where: str, seed: int) -> Split:
    """Draw the rows to hold out.

    Args:
      rows: Checked rows.
      task: What they are.
      where: Names their origin in an error.
      seed: Of the draw.

    Raises:
      MetalrError: There are fewer than two rows.
    """
    if len(rows) < 2:
        raise MetalrError(
            f"{where} has one row, and none to hold out for validation; "
            "give more rows or a --validation-file"
        )
    groups, grouped = _groups(rows, task)
    classes = _classes(rows, task)
    held = _draw(groups, classes, seed)
    apart = f", {grouped} on one side" if grouped else ""
    notes = [f"{held.sum()} rows of the training file held out for validation{apart}"]
    if task.kind == "classification":
        notes += _thin(task, classes, held)
    if task.kind == "qa" and not grouped:
        notes.append("all questions are of one paragraph, and both sides have some")
    return Split(np.flatnonzero(~held), np.flatnonzero(held), tuple(notes))


def _classes(rows: Rows, task: Task) -> np.ndarray:
    """Return a number for each row, [n] int64, of which the parts should have a share.

    Of several labels, or the tags of words, it is that of the row's rarest.
    """
    if task.kind == "classification":
        return rows.array(task.label).astype(np.int64)
    classes = np.zeros(len(rows), np.int64)
    if task.kind in ("multilabel", "tokens"):
        several = [sorted({*found}) for found in rows.column(task.label)]
        common = np.bincount([i for found in several for i in found], minlength=1)
        for row, found in enumerate(several):
            classes[row] = min(found, key=lambda i: common[i]) + 1 if found else 0
    return classes


def _draw(groups: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray:
    """Return which rows are held out, [n] bool.

    Groups are taken in a drawn order, each if no class then loses more rows than its
    share; a class of one or of few rows may have none to give.
    """
    wanted = _wanted(np.bincount(classes))
    order = np.argsort(groups, kind="stable")  # rows of a group, one after another
    bounds = np.flatnonzero(np.diff(groups[order], prepend=-1, append=-1))
    taken = np.zeros(len(groups), bool)
    drawn = np.random.default_rng(seed).permutation(len(bounds) - 1)
    for number in drawn:
        rows = order[bounds[number] : bounds[number + 1]]
        if len(rows) == 1:  # nearly all of them, where no text comes back
            fits = wanted[classes[rows[0]]] > 0
            wanted[classes[rows[0]]] -= fits
        else:
            counts = np.bincount(classes[rows], minlength=len(wanted))
            fits = (counts <= wanted).all()
            wanted -= counts * fits
        taken[rows] = fits
        if not wanted.any():
            break
    if not taken.any():  # every group is larger than a class's share
        taken[_smallest(order, bounds, classes)] = True
    return taken


def _smallest(order: np.ndarray, bounds: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the rows of the smallest group that leaves every class some rows.

    Args:
      order: [n] the rows, those of a group one after another.
      bounds: [groups + 1] where groups begin and end.
      classes: [n] of each row.
    """
    total = np.bincount(classes)
    by_size = np.argsort(np.diff(bounds), kind="stable")
    parts = [order[bounds[g] : bounds[g + 1]] for g in by_size[:1000]]
    for rows in parts:
        left = total - np.bincount(classes[rows], minlength=len(total))
        if (left > 0)[total > 0].all():
            return rows
    # None can go: a class ends all the same, which is said.
    return parts[0] if len(parts[0]) < len(order) else parts[0][:1]


def _wanted(counts: np.ndarray) -> np.ndarray:
    """Return how many rows of each class to hold out.

    >>> _wanted(np.array([25, 25, 2, 0, 4]))
    array([3, 2, 0, 0, 1])
    """
    total = max(1, int(counts.sum()) // _SHARE)
    exact = counts / _SHARE
    wanted = np.floor(exact).astype(np.int64)
    for place in np.argsort(wanted - exact, kind="stable"):
        if wanted.sum() < total and counts[place] > 1:
            wanted[place] += 1
    # So that a rare class is scored at all.
    wanted[(wanted == 0) & (counts >= 4)] = 1
    return np.minimum(wanted, np.maximum(counts - 1, 0))


def _groups(rows: Rows, task: Task) -> tuple[np.ndarray, str]:
    """Return the number of each row's group, [n] int64, and what they share."""
    if task.kind == "qa":
        contexts = _numbered(_hashes(rows, ["context"]))
        if contexts.max() > 0:
            return contexts, "questions of one paragraph"
        return np.arange(len(rows)), ""
    if task.pair is None:
        return _named(_numbered(_hashes(rows, [task.text])), "equal texts")
    equal = _numbered(_hashes(rows, [task.text, task.pair]))
    # Where one text of a pair comes back (a paragraph, a premise), it is the longer;
    # but where all rows share a few, there is nothing to tell apart.
    longer = max((task.text, task.pair), key=lambda name: _length(rows, name))
    shared = _numbered(_hashes(rows, [longer]))
    if np.bincount(shared).max() <= max(2, len(rows) // 20):
        return _named(shared, f"rows of equal {longer!r}")
    return _named(equal, "equal pairs")


def _named(groups: np.ndarray, words: str) -> tuple[np.ndarray, str]:
    return groups, words if groups.max() + 1 < len(groups) else ""


def _length(rows: Rows, name: str) -> int:
    return sum(len(_said(text)) for text in rows.column(name, 0, _CHUNK))


def _hashes(rows: Rows, names: list[str]) -> np.ndarray:
    """Return 64 bits of each row's texts; case and white space make no difference."""

    def of() -> Iterator[int]:
        for first in range(0, len(rows), _CHUNK):
            columns = [rows.column(name, first, first + _CHUNK) for name in names]
            for texts in zip(*columns, strict=True):
                said = "\n".join(map(_said, texts))
                digest = hashlib.blake2b(said.encode(), digest_size=8).digest()
                yield int.from_bytes(digest, "little")

    return np.fromiter(of(), np.uint64, len(rows))


def _said(text: str | list[str]) -> str:
    words = text if isinstance(text, str) else " ".join(text)
    return " ".join(words.casefold().split())


def _numbered(hashes: np.ndarray) -> np.ndarray:
    """Return numbers from 0 on in place of hashes, in the order of the rows."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[inverse]


def _thin(task: Task, classes: np.ndarray, held: np.ndarray) -> Iterator[str]:
    """Yield what is said of classes with few rows."""
    total = Counter(classes.tolist())
    out = Counter(classes[held].tolist())
    thin = [
        f"{task.labels[i]!r} ({total[i]} rows, {out[i]} held out)"
        for i in sorted(total)
        if total[i] < _THIN or not out[i]
    ]
    if thin:
        more = f" and {len(thin) - 8} more" if len(thin) > 8 else ""
        yield f"thin: {', '.join(thin[:8])}{more}; their scores say little"
