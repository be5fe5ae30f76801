"""What every reader of a format answers with."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


class Options(NamedTuple):
    """What the user says about how files are written."""

    encoding: str | None = None
    header: bool = True  # of delimited text: the first line names the columns


PLAIN = Options()
# How names of files of rows end, for whoever is told of them; `opening` reads more.
ENDINGS = (".jsonl", ".csv", ".tsv", ".json", ".parquet", ".arrow", ".conll")


class DataFile(NamedTuple):
    """A file that was looked at: its columns, and how to go through its rows."""

    path: Path
    names: tuple[str, ...]  # of its columns; JSON: those of its first rows
    # With the columns asked for, None: all; JSON may yield others too, and lack some.
    rows: Callable[[Sequence[str] | None], Iterator[Row]]
    notes: tuple[str, ...] = ()
    may_have_more: bool = False  # later rows other columns than `names`, as in JSON
    # Ends the error of a column that it lacks, where it looks like another format.
    way_out: str = ""
    # Names of a column's ids, where the file has them (ClassLabel of datasets).
    classes: dict[str, tuple[str, ...]] = {}
