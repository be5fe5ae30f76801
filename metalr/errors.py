"""The one family of errors that a user can cause, and how they are worded."""

import difflib
from collections.abc import Iterable


class MetalrError(Exception):
    """A fault in what the user gave: one clear line, exit status 2.

    The message states the rule, the value that broke it, and the way out. Scripts
    print it without a traceback; anything else that escapes is a bug in metalr.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> MetalrError:
    """Returns the error for a name that is not in a table, with the nearest names.

    Args:
      kind: What the name stands for, as the user would say it ("task").
      name: What was given.
      known: The names that exist.

    >>> print(unknown_name("task", "sst", ["sst2", "squad"]))
    unknown task 'sst'; did you mean 'sst2'? Known: sst2, squad
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return MetalrError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}")
