"""CoNLL's columns: one word a line, its tag last, an empty line after each sentence."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from metalr.data.formats import text
from metalr.data.formats.table import DataFile, Options, Row
from metalr.errors import MetalrError

_DOCUMENT = "-DOCSTART-"  # a sentence of its own, which is none


def look(path: Path, options: Options) -> DataFile:
    """Look at a file of columns set off by tabs or spaces.

    Its rows have the lists `tokens` and `tags`, and those of the columns between as
    `column_2`, `column_3`, ...

    Raises:
      MetalrError: The file breaks its format.
    """
    found = text.look(path, options.encoding)
    first = _first(found)
    if first is None:
        raise MetalrError(f"{path} is empty: it holds no rows")
    width = len(first.split())
    if width < 2:
        raise MetalrError(
            f"{path} has one column; a line is a word, white space and its tag"
        )
    between = [f"column_{i}" for i in range(2, width)]
    names = ("tokens", *between, "tags")

    def rows(columns: Sequence[str] | None) -> Iterator[Row]:
        wanted = [i for i, n in enumerate(names) if columns is None or n in columns]
        for sentence in _sentences(found, width, "\t" in first):
            lists = list(zip(*sentence, strict=True))
            yield {names[i]: list(lists[i]) for i in wanted}

    return DataFile(path, names, rows, found.notes)


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
        cells = line.split()
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
