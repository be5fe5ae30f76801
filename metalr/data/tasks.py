"""The tasks, and `load`: checked rows of one of them from any source."""

import dataclasses
import difflib
import os
import random
from pathlib import Path
from typing import NamedTuple

from metalr.data import derived, sources, toy
from metalr.data.rows import Row, Task, check_columns, check_rows, label_set
from metalr.errors import MetalrError, unknown_name


class TaskData(NamedTuple):
    """The rows of one run: `load`'s answer."""

    task: Task
    train: list[Row]
    validation: dict[str, list[Row]]  # by split, the main one first
    origin: dict[str, str]  # kind: hub, folder, toy or file; where; note


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="sst2",
            text="sentence",
            labels=("negative", "positive"),
            hub=("nyu-mll/glue", "sst2"),
            max_length=64,
        ),
        Task(
            name="mnli",
            text="premise",
            pair="hypothesis",
            labels=("entailment", "neutral", "contradiction"),
            hub=("nyu-mll/glue", "mnli"),
            validation=("validation_matched", "validation_mismatched"),
        ),
        # GLUE scores QQP and MRPC by accuracy and F1 both. QQP is quoted by its
        # accuracy; two thirds of MRPC are positive, where F1 is the one quoted.
        Task(
            name="qqp",
            text="question1",
            pair="question2",
            labels=("not_duplicate", "duplicate"),
            metrics=("accuracy", "f1"),
            hub=("nyu-mll/glue", "qqp"),
        ),
        Task(
            name="qnli",
            text="question",
            pair="sentence",
            labels=("entailment", "not_entailment"),
            hub=("nyu-mll/glue", "qnli"),
        ),
        Task(
            name="cola",
            text="sentence",
            labels=("unacceptable", "acceptable"),
            metric="matthews",
            metrics=("matthews", "accuracy"),
            hub=("nyu-mll/glue", "cola"),
            max_length=48,
        ),
        Task(
            name="rte",
            text="sentence1",
            pair="sentence2",
            labels=("entailment", "not_entailment"),
            hub=("nyu-mll/glue", "rte"),
            max_length=256,  # one row in eight is longer than 128
        ),
        Task(
            name="mrpc",
            text="sentence1",
            pair="sentence2",
            labels=("not_equivalent", "equivalent"),
            metric="f1",
            metrics=("accuracy", "f1"),
            hub=("nyu-mll/glue", "mrpc"),
        ),
        Task(
            name="stsb",
            kind="regression",
            text="sentence1",
            pair="sentence2",
            metric="pearson",
            metrics=("pearson", "spearman"),
            hub=("nyu-mll/glue", "stsb"),
        ),
        Task(
            name="imdb",
            text="text",
            labels=("neg", "pos"),
            hub=("stanfordnlp/imdb", None),
        ),
        Task(
            name="ag_news",
            text="text",
            labels=("World", "Sports", "Business", "Sci/Tech"),
            hub=("fancyzhx/ag_news", None),
        ),
        Task(
            name="squad",
            kind="qa",
            text="question",
            pair="context",
            label="answers",
            metric="f1",
            metrics=("exact_match", "f1"),
            hub=("rajpurkar/squad", None),
            max_length=256,
        ),
        *derived.TASKS,
    )
}

# These two have no validation split on the hub; their papers score on test.
_HUB_SPLITS = {("imdb", "validation"): "test", ("ag_news", "validation"): "test"}
_FILE_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".tsv")
_TOY_ROWS = {"train": 960}  # and 240 of every other split

# Columns that a user's file is known by when the user names none.
_GUESSES = (
    ("text", None),
    ("sentence", None),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
)


def load(
    task_name: str,
    source: str = "auto",
    *,
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    seed: int = 0,
) -> TaskData:
    """Loads and checks the rows of a task.

    Args:
      task_name: A row of `TASKS`; with files also "file", a task that the training
        file itself defines (its label set, or a score where labels are fractions, or
        questions where it has SQuAD's columns).
      source: "auto" (the hub where it answers, else toy), "hub", "toy", a folder that
        holds `<task>/{train,validation}` in a format of `read_rows`, or one file,
        which is the same as `train_file`.
      train_file: The user's own rows. A tenth of them is held out where there is no
        `validation_file`.
      validation_file: The rows to score on.
      text_column: Column of the text in the user's files; `pair_column` that of the
        second text, `label_column` that of the label. Guessed where not given.
      pair_column: See `text_column`.
      label_column: See `text_column`.
      train_rows: Take this many of them, drawn by `seed`. (Toy: make this many.)
      validation_rows: The same for each validation split.
      seed: Of the draw and of the toy generator. Not the training seed: runs that
        differ in that one have to see the same rows, or their spread would mix the
        data's luck with the optimizer's.

    Raises:
      MetalrError: Anything that is wrong with names, files or rows.
    """
    for name, rows in (("train", train_rows), ("validation", validation_rows)):
        if rows is not None and rows < 1:
            raise MetalrError(f"{name} rows must be at least 1, got {rows}")
    if train_file is None and source not in _NAMED and os.path.isfile(source):
        train_file, source = source, "auto"
    columns = (text_column, pair_column, label_column)
    if train_file is not None:
        if source != "auto":
            raise MetalrError(f"give a training file or --data {source}, not both")
        data = _from_files(task_name, train_file, validation_file, columns, seed)
    elif validation_file is not None or any(columns):
        raise MetalrError(
            "--validation-file and the column names go with --train-file, "
            "which is not given"
        )
    elif task_name not in TASKS:
        raise unknown_name("task", task_name, TASKS)
    else:
        sizes = {"train": train_rows, "validation": validation_rows}
        data = _from_source(TASKS[task_name], source, sizes, seed)
    return data._replace(
        train=_draw(data.train, train_rows, seed),
        validation={
            split: _draw(rows, validation_rows, seed)
            for split, rows in data.validation.items()
        },
    )


def _draw(rows: list[Row], count: int | None, seed: int) -> list[Row]:
    if count is None or count >= len(rows):
        return rows
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return [rows[index] for index in order[:count]]


# ------------------------------------------------------------ hub, folder, toy


def _from_source(
    task: Task, source: str, sizes: dict[str, int | None], seed: int
) -> TaskData:
    if task.made_of:
        return _from_others(task, source, seed)
    if source == "hub":
        return _from_hub(task)
    if source == "toy":
        return _from_toy(task, sizes, seed, "generated rows, not the real set")
    if source != "auto":
        return _from_folder(task, source)
    reason = "the hub does not answer"
    if sources.hub_answers():
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
    where = f"{dataset_id} {name or ''}".strip()
    dropped = 0

    def read(split: str) -> list[Row]:
        nonlocal dropped
        split = _HUB_SPLITS.get((task.name, split), split)
        rows = sources.read_hub(dataset_id, name, split)
        # Some sets have a handful of rows with an empty text among hundreds of
        # thousands. In a user's own file that is a fault; here nobody can mend it.
        texts = [column for column in (task.text, task.pair) if column]
        kept = [row for row in rows if all(row.get(c, "?") != "" for c in texts)]
        dropped += len(rows) - len(kept)
        return check_rows(kept, task, f"{where} ({split})")

    train = read("train")
    validation = {split: read(split) for split in task.validation}
    note = f"rows with an empty text left out: {dropped}" if dropped else ""
    origin = {"kind": "hub", "where": where, "note": note}
    return TaskData(task, train, validation, origin)


def _from_others(task: Task, source: str, seed: int) -> TaskData:
    """Returns rows of a task that are put together from those of others."""
    first = load(task.made_of[0], source, seed=seed)
    rest = task.made_of[1:]
    if source == "auto":  # or some might be of the hub and others generated
        source = first.origin["kind"]
    parts = [first, *(load(name, source, seed=seed) for name in rest)]

    trained = {data.task.name: data.train for data in parts}
    scored = {data.task.name: next(iter(data.validation.values())) for data in parts}
    train = derived.make(task.name, trained, seed)
    validation = derived.make(task.name, scored, seed, without=trained)
    origin = first.origin | {
        "where": f"{first.origin['where']} (and {', '.join(rest)})",
        "note": first.origin["note"].replace(task.made_of[0], task.name),
    }
    return TaskData(
        task,
        check_rows(train, task, task.name),
        {task.validation[0]: check_rows(validation, task, task.name)},
        origin,
    )


def _from_toy(
    task: Task, sizes: dict[str, int | None], seed: int, note: str
) -> TaskData:
    def make(split: str) -> list[Row]:
        size = sizes["train" if split == "train" else "validation"]
        rows = toy.make(task.name, split, size or _TOY_ROWS.get(split, 240), seed)
        return check_rows(rows, task, f"toy {task.name} ({split})")

    validation = {split: make(split) for split in task.validation}
    origin = {"kind": "toy", "where": "metalr's own generator", "note": note}
    return TaskData(task, make("train"), validation, origin)


def _from_folder(task: Task, source: str) -> TaskData:
    folder = Path(source).expanduser()
    if not os.path.isdir(folder):
        near = difflib.get_close_matches(source, _NAMED, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise MetalrError(
            f"the data must be auto, hub, toy or a folder or file that exists, "
            f"got {source!r}{hint}"
        )
    if not (folder / task.name).is_dir():
        held = sources.listing(folder)
        raise MetalrError(f"{folder} has no folder {task.name!r}; it holds {held}")
    train = _read_split(task, folder / task.name, "train")
    validation = {}
    for number, split in enumerate(task.validation):
        # MNLI's first split may be called just "validation", as everybody's is.
        names = (split,) if number else tuple(dict.fromkeys((split, "validation")))
        validation[split] = _read_split(task, folder / task.name, *names)
    origin = {"kind": "folder", "where": str(folder / task.name), "note": ""}
    return TaskData(task, train, validation, origin)


def _read_split(task: Task, folder: Path, *names: str) -> list[Row]:
    wanted = [folder / f"{name}{end}" for name in names for end in _FILE_ENDINGS]
    found = [path for path in wanted if path.is_file()]
    if not found:
        raise MetalrError(
            f"{folder} has no file {names[-1]}{{{','.join(_FILE_ENDINGS)}}}; "
            f"it holds {sources.listing(folder)}"
        )
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise MetalrError(f"{folder} holds {both}: leave one of them there")
    return check_rows(sources.read_rows(found[0]), task, str(found[0]))


# ------------------------------------------------------------ the user's files


def _from_files(
    task_name: str,
    train_file: str | Path,
    validation_file: str | Path | None,
    columns: tuple[str | None, str | None, str | None],
    seed: int,
) -> TaskData:
    if task_name != "file" and task_name not in TASKS:
        raise unknown_name("task", task_name, ["file", *TASKS])
    rows = sources.read_rows(train_file)
    if task_name == "file":
        task = _define_task(rows, str(train_file), columns)
    else:
        task = _with_columns(TASKS[task_name], columns)
    train = check_rows(rows, task, str(train_file))
    where, note = str(train_file), ""
    if validation_file is not None:
        validation = check_rows(
            sources.read_rows(validation_file), task, str(validation_file)
        )
        where += f", validation: {validation_file}"
    else:
        held_out = max(1, len(train) // 10)
        if held_out == len(train):
            raise MetalrError(
                f"{train_file} has one row, and none to hold out for validation; "
                "give more rows or a --validation-file"
            )
        order = list(train)
        random.Random(seed).shuffle(order)
        validation, train = order[:held_out], order[held_out:]
        note = f"{held_out} rows of the training file held out for validation"
    origin = {"kind": "file", "where": where, "note": note}
    return TaskData(task, train, {task.validation[0]: validation}, origin)


def _with_columns(
    task: Task, columns: tuple[str | None, str | None, str | None]
) -> Task:
    text, pair, label = columns
    if task.kind == "qa" and any(columns):
        raise MetalrError(
            "a file of questions has SQuAD's columns context, question and answers; "
            "other column names are not supported"
        )
    if pair and not task.pair:
        raise MetalrError(f"{task.name} has one text a row; drop the pair column")
    return dataclasses.replace(
        task,
        text=text or task.text,
        pair=pair or task.pair,
        label=label or task.label,
        validation=task.validation[:1],
    )


def _define_task(
    rows: list[Row], where: str, columns: tuple[str | None, str | None, str | None]
) -> Task:
    """Returns the task that a training file defines by its columns and labels."""
    text, pair, label = columns
    known = rows[0].keys()
    if text is None and {"context", "question", "answers"} <= known:
        task = _with_columns(TASKS["squad"], columns)
        return dataclasses.replace(task, name="file", hub=("", None))
    if text is None:
        fits = [g for g in _GUESSES if g[0] in known and (not g[1] or g[1] in known)]
        if not fits:
            raise MetalrError(
                f"{where} has no column 'text' or 'sentence'; it has "
                f"{', '.join(known)}. Name it with --text-column"
            )
        text, guessed = fits[0]
        pair = pair or guessed
    label = label or "label"
    task = Task(name="file", text=text, pair=pair, label=label, hub=("", None))
    check_columns(rows, task, where)
    return dataclasses.replace(
        task, **label_set([r[label] for r in rows], where, label)
    )
