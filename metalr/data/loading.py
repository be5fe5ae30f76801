"""`load`: checked rows of a task from any source."""

import difflib
import hashlib
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from metalr.data import derived, files, hub_rows, reading, rows, toy
from metalr.data.columns import Row, Rows
from metalr.data.formats import opening
from metalr.data.formats.table import PLAIN, Options
from metalr.data.rows import check_rows
from metalr.data.schema import Task
from metalr.data.tasks import TASKS, TaskData
from metalr.errors import MetalrError, unknown_name
from metalr.runtime import hub
from metalr.runtime.origin import Origin

# These two have no validation split on the hub; their papers score on test.
_HUB_SPLITS = {("imdb", "validation"): "test", ("ag_news", "validation"): "test"}
_TOY_ROWS = {"train": 960, "validation": 240}  # where nobody says how many


def load(
    task_name: str,
    source: str = "auto",
    *,
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    kind: str | None = None,
    label_separator: str | None = None,
    encoding: str | None = None,
    header: bool = True,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    seed: int = 0,
) -> TaskData:
    """Load and check the rows of a task.

    Args:
      task_name: A row of `TASKS`; with files also "file", a task that the training
        file itself defines (its label set, or a score where labels are fractions, or
        questions where it has SQuAD's columns).
      source: "auto" (the hub where it answers, else toy), "hub", "toy", a folder that
        holds `<task>/{train,validation}` in a format of `metalr.data.formats`, or one
        file, which is the same as `train_file`.
      train_file: The user's own rows. A tenth of them is held out where there is no
        `validation_file`.
      validation_file: The rows to score on.
      text_column: Column of the text in the user's files; `pair_column` that of the
        second text, `label_column` that of the label. Guessed where not given.
      pair_column: See `text_column`.
      label_column: See `text_column`.
      kind: Of the task that the user's file defines, one of `labels.KINDS`; None:
        by its columns and labels.
      label_separator: Between several labels in one cell of the user's files.
      encoding: Of the user's text files; None: UTF-8, or what their first bytes say.
      header: Whether the first line of the user's CSV and TSV files names the columns;
        if not, their names are the numbers from 1 on.
      train_rows: Take this many of them, drawn by `seed`. (Toy: make this many.)
      validation_rows: The same for each validation split.
      seed: Of the draw and of the toy generator. Not the training seed: runs that
        differ in that one have to see the same rows, or their spread would mix the
        data's luck with the optimizer's.

    Raises:
      MetalrError: Anything that is wrong with names, files or rows.
    """
    for name, count in (("train", train_rows), ("validation", validation_rows)):
        if count is not None and count < 1:
            raise MetalrError(f"{name} rows must be at least 1, got {count}")
    if train_file is None and source not in _NAMED and opening.is_one(source):
        train_file, source = source, "auto"
    columns = (text_column, pair_column, label_column)
    if train_file is not None:
        if source != "auto":
            raise MetalrError(f"give a training file or --data {source}, not both")
        options = Options(encoding, header)
        given = files.Given(columns, kind, label_separator, options)
        data = files.read(task_name, train_file, validation_file, given, seed)
    elif validation_file is not None or any(
        (*columns, kind, label_separator, encoding, not header)
    ):
        raise MetalrError(
            "--validation-file, the column names, --kind, --label-separator, "
            "--encoding and --no-header go with --train-file, which is not given"
        )
    elif task_name not in TASKS:
        raise unknown_name("task", task_name, TASKS)
    else:
        sizes = {"train": train_rows, "validation": validation_rows}
        data = _from_source(TASKS[task_name], source, sizes, seed)
    train = _draw(data.train, train_rows, seed)
    return data._replace(
        train=train,
        validation={
            split: _draw(scored, validation_rows, seed)
            for split, scored in data.validation.items()
        },
        reading=reading.counted(data.reading, data.task, train),
    )


def fingerprint(data: TaskData) -> dict[str, str]:
    """Return what identifies these rows: kind, where and a SHA-256."""
    digest = hashlib.sha256()
    for split in (data.train, *data.validation.values()):
        Rows.of(split).digest(digest)
        digest.update(b"\n")  # the end of a split
    kind, where, *_ = data.origin
    return {"kind": kind, "where": where, "sha256": digest.hexdigest()}


def resolve(names: Sequence[str], source: str) -> tuple[str, str]:
    """Return where "auto" leads, once for many runs, and a note on it.

    Raises:
      MetalrError: A task is unknown.
    """
    for name in names:
        if name not in TASKS:
            raise unknown_name("task", name, TASKS)
    if source != "auto":
        return source, ""
    origin = load(names[0], source).origin
    return origin.kind, origin.note


def _draw(split: Rows, count: int | None, seed: int) -> Rows:
    if count is None or count >= len(split):
        return split
    order = list(range(len(split)))
    random.Random(seed).shuffle(order)
    return split.select(order[:count])


# ------------------------------------------------------------ hub, folder, toy


def _from_source(
    task: Task, source: str, sizes: dict[str, int | None], seed: int
) -> TaskData:
    if task.made_of:
        return _from_others(task, source, sizes, seed)
    if source == "hub":
        return _from_hub(task)
    if source == "toy":
        return _from_toy(task, sizes, seed, "generated rows, not the real set")
    if source != "auto":
        return _from_folder(task, source)
    reason = "the hub does not answer"
    if hub.answers():
        try:
            return _from_hub(task)
        except MetalrError as fault:
            reason = str(fault)
    note = (
        f"TOY DATA: {reason}, so this runs on rows that metalr generates in the form "
        f"of {task.name}. Scores say nothing about the real {task.name}"
    )
    return _from_toy(task, sizes, seed, note)


_NAMED = ("auto", "hub", "toy")


def _from_hub(task: Task) -> TaskData:
    dataset_id, name = task.hub
    if not dataset_id:
        raise MetalrError(
            f"the hub has {task.name} only behind a script, which is not run; give "
            f"--data FOLDER with {task.name}/train.jsonl and validation.jsonl"
        )
    where = f"{dataset_id} {name or ''}".strip()
    dropped = 0
    left_out: Counter[str] = Counter()

    def with_texts(rows: Iterable[Row]) -> Iterator[Row]:
        # Some sets have a handful of rows with an empty text among hundreds of
        # thousands. In a user's own file that is a fault; those the user can't mend.
        nonlocal dropped
        texts = [column for column in (task.text, task.pair) if column]
        for row in rows:
            if all(row.get(column, "?") != "" for column in texts):
                yield row
            else:
                dropped += 1

    def read(split: str) -> Rows:
        split = _HUB_SPLITS.get((task.name, split), split)
        there = with_texts(hub_rows.read(dataset_id, name, split))
        place = f"{where} ({split})"
        checked = rows.finish(rows.read(there, task, place), task, place)
        left_out.update(checked.left_out)
        return checked.rows

    train = read("train")
    validation = {split: read(split) for split in task.validation}
    note = f"rows with an empty text left out: {dropped}" if dropped else ""
    origin = Origin("hub", where, note)
    record = reading.of(task, left_out=dict(left_out))
    return TaskData(task, train, validation, origin, record)


def _from_others(
    task: Task, source: str, sizes: dict[str, int | None], seed: int
) -> TaskData:
    """Return rows of a task that are put together from those of others."""
    # Of a set's rows some are too long or too short: no fewer than it makes unasked.
    sizes = {split: max(sizes[split] or 0, _TOY_ROWS[split]) for split in sizes}
    first, *rest = (TASKS[name] for name in task.made_of)
    parts = [_from_source(first, source, sizes, seed)]
    origin = parts[0].origin
    if source == "auto":  # or some might be of the hub and others generated
        source = origin.kind
    parts += [_from_source(other, source, sizes, seed) for other in rest]

    trained = {data.task.name: data.train for data in parts}
    scored = {data.task.name: next(iter(data.validation.values())) for data in parts}
    train = derived.build(task.name, trained, seed)
    validation = derived.build(task.name, scored, seed, without=trained)
    origin = origin._replace(
        where=f"{origin.where} (and {', '.join(other.name for other in rest)})",
        note=origin.note.replace(first.name, task.name),
    )
    return TaskData(
        task,
        check_rows(train, task, task.name),
        {task.validation[0]: check_rows(validation, task, task.name)},
        origin,
        reading.of(task),
    )


def _from_toy(
    task: Task, sizes: dict[str, int | None], seed: int, note: str
) -> TaskData:
    if task.name not in toy.GENERATORS:
        raise MetalrError(
            f"there are no generated rows in the form of {task.name}; give --data hub, "
            f"or --data FOLDER with {task.name}/train.jsonl and validation.jsonl"
        )

    def make(split: str) -> Rows:
        kind = "train" if split == "train" else "validation"
        made = toy.generate(task.name, split, sizes[kind] or _TOY_ROWS[kind], seed)
        return check_rows(made, task, f"toy {task.name} ({split})")

    validation = {split: make(split) for split in task.validation}
    origin = Origin("toy", "metalr's own generator", note)
    return TaskData(task, make("train"), validation, origin, reading.of(task))


def check_folder(name: str, source: str) -> None:
    """Refuse a source that holds no rows of a task; none are read, no hub is asked.

    Args:
      name: A row of `metalr.data.tasks.TASKS`.
      source: As of `load`.

    Raises:
      MetalrError: There is no such folder, or it has none for the task.
    """
    if source not in _NAMED:
        for one in TASKS[name].made_of or (name,):
            _folder_of(TASKS[one], source)


def _folder_of(task: Task, source: str) -> Path:
    folder = Path(os.path.expanduser(source))
    if not os.path.isdir(folder):
        near = difflib.get_close_matches(source, _NAMED, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise MetalrError(
            f"the data must be auto, hub, toy or a folder or file that exists, "
            f"got {source!r}{hint}"
        )
    if not (folder / task.name).is_dir():
        held = opening.listing(folder)
        raise MetalrError(f"{folder} has no folder {task.name!r}; it holds {held}")
    return folder / task.name


def _from_folder(task: Task, source: str) -> TaskData:
    place = _folder_of(task, source)
    left_out: Counter[str] = Counter()
    notes: dict[str, None] = {}
    train = _read_split(task, place, left_out, notes, "train")
    validation = {}
    for number, split in enumerate(task.validation):
        # MNLI's first split may be called just "validation", as everybody's is.
        names = (split,) if number else tuple(dict.fromkeys((split, "validation")))
        validation[split] = _read_split(task, place, left_out, notes, *names)
    origin = Origin("folder", str(place))
    record = reading.of(task, left_out=dict(left_out), assumed=tuple(notes))
    return TaskData(task, train, validation, origin, record)


def _read_split(
    task: Task, folder: Path, left_out: Counter, notes: dict[str, None], *names: str
) -> Rows:
    """Read a split; count what it leaves out, and add what was assumed."""
    wanted = [folder / f"{name}{end}" for name in names for end in opening.SUFFIXES]
    found = [path for path in wanted if path.is_file()]
    if not found:
        raise MetalrError(
            f"{folder} has no file {names[-1]}{{{','.join(opening.SUFFIXES)}}}; "
            f"it holds {opening.listing(folder)}"
        )
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise MetalrError(f"{folder} holds {both}: leave one of them there")
    table = opening.look(found[0], PLAIN)
    read = rows.read(table.rows(files.columns_of(table, task)), task, str(found[0]))
    read, assumed = files.by_name(read, table, task)
    notes.update(dict.fromkeys(assumed))
    checked = rows.finish(read, task, str(found[0]))
    left_out.update(checked.left_out)
    return checked.rows
