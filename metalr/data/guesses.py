"""Which columns of a user's file hold its texts and labels, by their names."""

import re
from collections.abc import Iterable, Iterator

from metalr.data.formats import opening
from metalr.data.formats.table import DataFile
from metalr.errors import MetalrError

# Pairs first, since a text alone would leave the other half out.
_PAIRS = (
    ("premise", "hypothesis"),
    ("text", "pair"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "document"),
    ("claim", "evidence"),
    ("context", "response"),
    ("headline", "body"),
)
# Two columns that differ in a mark behind the same word are the two texts of a pair.
_MARKED = re.compile(
    r"(text|sentence|sent|s|question|q|utterance|phrase|passage|paragraph|doc|document"
    r"|string|input|title|headline)([ _-]?)(1|a)?"
)
_SECOND = {"1": ("2",), "a": ("b",), None: ("2", "_2", "_b", "_pair")}
_TEXTS = ("text", "sentence")
# And where there is none of these, one of these, if it is the only one.
_OTHER_TEXTS = ("review", "comment", "content", "message", "tweet", "headline", "query")
_LABELS = (
    *("labels", "gold_label", "class", "category", "sentiment", "emotion", "intent"),
    *("score", "rating", "stars", "target", "entailment_judgment"),
)


def texts(table: DataFile) -> tuple[str, str | None]:
    """Return the columns of the text and, of pairs, of the second text.

    Raises:
      MetalrError: No column has a name that is known.
    """
    known = _by_word(table.names)
    for first, second in (*_twins(known), *_PAIRS):
        if first in known and second in known:
            return known[first], known[second]
    others = [word for word in _OTHER_TEXTS if word in known]
    for word in (*_TEXTS, *(others if len(others) == 1 else ())):
        if word in known:
            return known[word], None
    if not any(table.names):
        raise MetalrError(f"{table.path} is empty: it holds no rows")
    raise MetalrError(
        f"{table.path} has no column 'text' or 'sentence'; it has {some(table)}. "
        f"Name it with --text-column{_way_out(table)}"
    )


def label(table: DataFile) -> str:
    """Return the column of the labels.

    Raises:
      MetalrError: No column, or more than one, has a name that is known.
    """
    known = _by_word(table.names)
    if "label" in known:
        return known["label"]
    found = [known[word] for word in _LABELS if word in known]
    if len(found) == 1:
        return found[0]
    which = f", but {', '.join(found)}" if found else f"; it has {some(table)}"
    raise MetalrError(
        f"{table.path} has no column 'label'{which}. Name it with --label-column"
    )


def some(table: DataFile) -> str:
    """Return the first names of a table's columns, for an error."""
    names = [n if len(n) <= 40 else f"{n[:37]}..." for n in filter(None, table.names)]
    return ", ".join(names[:12] + ["..."] * (len(names) > 12)) or "none"


def _by_word(names: Iterable[str]) -> dict[str, str]:
    """Return the names by what they are in small letters; exact ones go first."""
    names = [name for name in names if name]
    found = {name: name for name in names if name == name.lower()}
    for name in names:
        found.setdefault(name.lower(), name)
    return found


def _twins(known: Iterable[str]) -> Iterator[tuple[str, str]]:
    for word in known:
        if marked := _MARKED.fullmatch(word):
            stem, gap, mark = marked.groups()
            for second in _SECOND[mark] if mark or not gap else ():
                yield word, f"{stem}{gap}{second}"


def _way_out(table: DataFile) -> str:
    names = table.names
    if table.way_out:
        return table.way_out
    if all(name.isdecimal() for name in names):  # of a file without a header
        return " 1, or another number"
    if table.may_have_more or not opening.is_delimited(table.path):
        return ""
    if len(names) == 1:
        return (
            ". If another sign stands between the fields than commas, tabs, semicolons "
            "or bars, a first line such as sep=^ says so"
        )
    return (
        "; if that is a row and no header, add --no-header and name columns by "
        "number, from 1"
    )
