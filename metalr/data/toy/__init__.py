"""Toy tasks: rows that metalr generates itself, in the form of the real sets.

They are there so that a run needs no network and a test no download. Each is built so
that a pre-trained encoder can learn it from a thousand rows, words alone don't give
it away (negation, contrast, swapped facts), and some labels are wrong, so that no
score can reach 1 and the learning rate decides how much of it is reached.

A row is drawn from grammar and word lists by `random.Random.random` alone, the one
method whose values Python promises to keep, so the rows stay the same for ever.
"""

import hashlib
import random
import zlib
from collections.abc import Callable, Iterator

from metalr.data.columns import Row
from metalr.data.toy import facts, lists, pairs, reviews, singles
from metalr.errors import MetalrError, unknown_name

# Share of rows with a wrong label, in training and validation alike.
LABEL_NOISE = 0.06

# A row belongs to the split that the checksum of its text says, so no two splits
# overlap, whatever their sizes and seeds.
_PARTS = 8
_VALIDATION, _MISMATCHED = 0, 1


def generate(task_name: str, split: str, rows: int, seed: int) -> list[Row]:
    """Return generated rows with the fields of the task's version on the hub.

    The rows are all different; the first n of a longer draw are the draw of n rows.

    Args:
      task_name: A row of `GENERATORS`.
      split: "train", or a split that starts with "validation".
      rows: How many.
      seed: Draws of different seeds may share rows; splits never do.
    """
    if task_name not in GENERATORS:
        raise unknown_name("toy task", task_name, GENERATORS)
    draw, classes = GENERATORS[task_name]
    noisy = classes and task_name != "squad_v2"  # whose answers are no ids
    if split == "validation_mismatched" and task_name == "mnli":
        draw = pairs.spoken_inference
    rng = random.Random(f"{task_name} {split} {seed}")
    drawn: list[Row] = []
    seen: set[str] = set()
    for _ in range(100 * rows + 1000):
        label = int(rng.random() * classes)
        row = draw(rng, label)
        key = "\n".join(_texts(row))
        if noisy and rng.random() < LABEL_NOISE:
            row["label"] = (label + 1 + int(rng.random() * (classes - 1))) % classes
        if key in seen or not _in_split(key, split):
            continue
        seen.add(key)
        drawn.append(_numbered(task_name, row, key, len(drawn)))
        if len(drawn) == rows:
            return drawn
    raise MetalrError(
        f"the toy task {task_name} has no {rows} different rows for {split}; ask fewer"
    )


def _texts(row: Row) -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, str):
            yield value
        elif name == "tokens":
            yield " ".join(value)


def _in_split(key: str, split: str) -> bool:
    part = zlib.crc32(key.encode()) % _PARTS
    if split == "validation_mismatched":
        return part == _MISMATCHED
    if split.startswith("validation"):
        return part == _VALIDATION
    return part not in (_VALIDATION, _MISMATCHED)


def _numbered(task_name: str, row: Row, key: str, index: int) -> Row:
    if task_name in ("squad", "squad_v2"):
        return {"id": hashlib.sha256(key.encode()).hexdigest()[:24], **row}
    return row if task_name in ("imdb", "ag_news") else {**row, "idx": index}


# The generator of each task, and its number of classes (0: no classes).
GENERATORS: dict[str, tuple[Callable[[random.Random, int], Row], int]] = {
    "sst2": (reviews.line, 2),
    "mnli": (pairs.inference, 3),
    "qqp": (pairs.questions, 2),
    "qnli": (facts.answerable, 2),
    "cola": (singles.grammar, 2),
    "rte": (facts.entailed, 2),
    "mrpc": (pairs.paraphrase, 2),
    "stsb": (pairs.similarity, 0),
    "imdb": (reviews.review, 2),
    "ag_news": (singles.news, 4),
    "squad": (facts.span, 0),
    "squad_v2": (facts.perhaps, 2),
    "conll2003": (lists.tagged, 0),
    "go_emotions": (lists.felt, 0),
    "swag": (lists.ending, 0),
}
