"""CoNLL's columns: one word a line, its tag last, an empty line after each sentence."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from metalr.data.formats import text
from metalr.data.formats.table import DataFile, Options, Row
from metalr.errors import MetalrError

_DOCUMENT = "-DOCSTART-"  # a sentence of its own, which is none
_SAMPLE = 50  # sentences that are looked at to tell whether their words are numbered
# A word may hold other white space, as a number its no-break space does.
_TABS, _SPACES = re.compile(r" *\t[ \t]*"), re.compile(r"[ \t]+")


def look(path: Path, options: Options) -> DataFile:
    """Look at a file of columns set off by tabs or spaces.

    Its rows have the lists `tokens` and `tags`, and those of other columns as
    `column_2`, `column_3`, ... Words are in the first column, or in the second where
    the first numbers them.

    Raises:
      MetalrError: The file breaks its format.
    """
    found = text.look(path, options.encoding)
    first = _first(found)
    if first is None:
        raise MetalrError(f"{path} is empty: it holds no rows")
    tabs = "\t" in first
    width = len(_cells(first, tabs))
    if width < 2:
        raise MetalrError(
            f"{path} has one column; a line is a word, a tab or spaces, and its tag"
        )
    names = [f"column_{i}" for i in range(1, width)] + ["tags"]
    sample = [*itertools.islice(_sentences(found, width, tabs), _SAMPLE)]
    words = 1 if width > 2 and _are_numbered(sample) else 0
    names[words] = "tokens"
    notes = found.notes
    if words:
        said = "the first column numbers the words, which are read from the second"
        notes += (f"{path.name}: {said}",)

    def rows(columns: Sequence[str] | None) -> Iterator[Row]:
        wanted = [i for i, n in enumerate(names) if columns is None or n in columns]
        for sentence in _sentences(found, width, tabs):
            lists = list(zip(*sentence, strict=True))
            yield {names[i]: list(lists[i]) for i in wanted}

    return DataFile(path, tuple(names), rows, notes)


def way_out(lines: Sequence[str]) -> str:
    """Return what an error says of a table whose first lines are as those here."""
    lines = [line for line in lines if not line.startswith(("# ", _DOCUMENT))]
    widths = [len(_cells(line, "\t" in lines[0])) for line in lines]
    if 0 not in widths[1:-1] or len({*widths} - {0}) > 1 or max(widths) < 2:
        return ""
    return "; if its lines are words with their tags, name the file .conll"


def _cells(line: str, tabs: bool) -> list[str]:
    """Return the columns of a line, set off by tabs or else by spaces."""
    line = line.strip(" \t\r\n")
    return (_TABS if tabs else _SPACES).split(line) if line.strip() else []


def _are_numbered(sentences: Sequence[Sequence[Sequence[str]]]) -> bool:
    """Say whether the first column counts the words of each sentence from 1."""
    return any(len(sentence) > 1 for sentence in sentences) and all(
        cells[0] == str(number)
        for sentence in sentences
        for number, cells in enumerate(sentence, start=1)
    )


def _first(found: text.TextFile) -> str | None:
    """Return the first line that is of a sentence; a word # may begin one."""
    comment = None
    for line in text.lines(found):
        if line.startswith("# "):
            comment = comment or line
        elif line.strip() and not line.startswith(_DOCUMENT):
            return line
    return comment


def _sentences(
    found: text.TextFile, width: int, tabs: bool
) -> Iterator[list[list[str]]]:
    sentence: list[list[str]] = []
    for number, line in enumerate(text.lines(found), start=1):
        cells = _cells(line, tabs)
        # Universal Dependencies write comments so. A word # is set off by a tab there,
        # and where cells are set off by spaces it has a word's number of them.
        if line.startswith("# ") and (tabs or (not sentence and len(cells) != width)):
            continue
        if cells and not line.startswith(_DOCUMENT):
            if len(cells) != width:
                raise MetalrError(
                    f"{found.path} line {number} has {len(cells)} columns, the first "
                    f"has {width}"
                )
            sentence.append(cells)
        elif sentence:
            yield sentence
            sentence = []
    if sentence:
        yield sentence
