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
    first = next((cells for _, cells in _cells(found) if cells), None)
    if first is None:
        raise MetalrError(f"{path} is empty: it holds no rows")
    if len(first) < 2:
        raise MetalrError(
            f"{path} has one column; a line is a word, white space and its tag"
        )
    between = [f"column_{i}" for i in range(2, len(first))]
    names = ("tokens", *between, "tags")

    def rows(columns: Sequence[str] | None) -> Iterator[Row]:
        wanted = [i for i, n in enumerate(names) if columns is None or n in columns]
        for sentence in _sentences(found, len(names)):
            lists = list(zip(*sentence, strict=True))
            yield {names[i]: list(lists[i]) for i in wanted}

    return DataFile(path, names, rows, found.notes)


def _cells(found: text.TextFile) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line; none of them at the end of a sentence."""
    for number, line in enumerate(text.lines(found), start=1):
        # Universal Dependencies write comments so; a word # has its tag beside it.
        comment = line.startswith("# ")
        cells = [] if comment or line.startswith(_DOCUMENT) else line.split()
        yield number, cells


def _sentences(found: text.TextFile, width: int) -> Iterator[list[list[str]]]:
    sentence: list[list[str]] = []
    for number, cells in _cells(found):
        if cells and len(cells) != width:
            raise MetalrError(
                f"{found.path} line {number} has {len(cells)} columns, the first has "
                f"{width}"
            )
        if cells:
            sentence.append(cells)
        elif sentence:
            yield sentence
            sentence = []
    if sentence:
        yield sentence
