"""Tasks made of the rows of GLUE's sets: with more classes than two, and with spans.

GLUE's own tasks have two or three classes, so they cannot show how a run responds whose
loss starts at log 7, or is that of a span. The labels of these tasks come from how the
texts are put together, so that no other data is needed:

- `origin`: a text; which of the seven sets is it from?
- `part`: texts of three sets, one after another; the question names a set, and the
  answer is its text.
- `cloze`: three texts, one after another; the question is some words of one of them
  around a gap, and the answer is what stands there.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from metalr.data.columns import Row
from metalr.data.schema import Task
from metalr.errors import MetalrError

# The sets that predictors learn from: GLUE without STS-B, whose labels are numbers; and
# the words that `part` has for a text of each.
SETS = {
    "sst2": "movie review",
    "qqp": "user's question",
    "qnli": "encyclopedia",
    "mnli": "talk or fiction",
    "cola": "example of grammar",
    "mrpc": "news",
    "rte": "report",
}
_QA: dict[str, Any] = {
    "kind": "qa",
    "text": "question",
    "pair": "context",
    "label": "answers",
    "metric": "f1",
    "metrics": ("exact_match", "f1"),
    "hub": ("", None),
    "made_of": tuple(SETS),
}
TASKS = (
    Task(
        name="origin",
        text="text",
        labels=tuple(SETS),
        hub=("", None),
        max_length=64,
        made_of=tuple(SETS),
    ),
    Task(name="part", **_QA),
    Task(name="cloze", **_QA),
)
_TEXTS = 3  # of a context
_AROUND = 3  # words of a question on each side of its gap
_GAP = 3  # words at most
_WORDS = range(2 * _AROUND + _GAP, 21)  # of a text; three of them are some 80 tokens


def build(
    name: str,
    sets: Mapping[str, Sequence[Row]],
    seed: int,
    *,
    without: Mapping[str, Sequence[Row]] | None = None,
) -> list[Row]:
    """Return rows of one of `TASKS`, in the order that `seed` draws.

    Args:
      name: Name of the task.
      sets: Rows of each of its sets; only their texts are read.
      seed: Seed of all draws.
      without: Rows whose texts are left out. A text of a pair can be in several rows,
        and so in both training and validation.

    Raises:
      MetalrError: A set has no text of suitable length.
    """
    texts = {of: _texts(of, rows, (without or {}).get(of)) for of, rows in sets.items()}
    rng = random.Random(f"{name} {seed}")
    rows = _MAKERS[name](texts, rng)
    rng.shuffle(rows)
    return rows


def _texts(of: str, rows: Sequence[Row], without: Sequence[Row] | None) -> list[str]:
    """Return the texts of a set that are neither short nor long, each once."""
    found = dict.fromkeys(_fitting(rows))
    for text in _fitting(without or ()):
        found.pop(text, None)
    if not found:
        raise MetalrError(
            f"no text of {of} has {_WORDS.start} to {_WORDS.stop - 1} words, and the "
            "tasks that are made of GLUE's sets need some; leave these tasks out"
        )
    return list(found)


def _fitting(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for text in row.values():
            if isinstance(text, str) and len(words := text.split()) in _WORDS:
                yield " ".join(words)


def _origin(texts: dict[str, list[str]], rng: random.Random) -> list[Row]:
    """Return as many texts of each set as the smallest has."""
    count = min(map(len, texts.values()))
    return [
        {"text": text, "label": of}
        for of in texts
        for text in rng.sample(texts[of], count)
    ]


def _part(texts: dict[str, list[str]], rng: random.Random) -> list[Row]:
    rows = []
    for number in range(sum(map(len, texts.values())) // _TEXTS):
        chosen = rng.sample(list(texts), _TEXTS)
        context = [rng.choice(texts[of]) for of in chosen]
        which = rng.randrange(_TEXTS)
        question = f"Which one is the {SETS[chosen[which]]}?"
        rows.append(_question(number, question, context, which, 0, context[which]))
    return rows


def _cloze(texts: dict[str, list[str]], rng: random.Random) -> list[Row]:
    pool = [text for of in texts.values() for text in of]
    rng.shuffle(pool)
    rows = []
    for number in range(len(pool) // _TEXTS):
        context = pool[number * _TEXTS : (number + 1) * _TEXTS]
        which = rng.randrange(_TEXTS)
        words = context[which].split(" ")
        size = rng.randint(1, _GAP)
        start = rng.randint(_AROUND, len(words) - _AROUND - size)
        before, after = words[:start], words[start + size :]
        question = " ".join([*before[-_AROUND:], "what", *after[:_AROUND], "?"])
        answer = " ".join(words[start : start + size])
        offset = len(" ".join(before)) + 1
        rows.append(_question(number, question, context, which, offset, answer))
    return rows


def _question(
    number: int, question: str, context: list[str], which: int, offset: int, answer: str
) -> Row:
    """Return a row in SQuAD's form; the answer is at `offset` of one of its texts."""
    start = sum(len(text) + 1 for text in context[:which]) + offset
    return {
        "id": str(number),
        "question": question,
        "context": " ".join(context),
        "answers": {"text": [answer], "answer_start": [start]},
    }


_MAKERS: dict[str, Callable[[dict[str, list[str]], random.Random], list[Row]]] = {
    "origin": _origin,
    "part": _part,
    "cloze": _cloze,
}
