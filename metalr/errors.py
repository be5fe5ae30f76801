"""The one family of errors that a user can cause, and how they are worded."""

import difflib
import os
import re
from collections.abc import Iterable

EXIT_FAULT = 2  # what the user gave does not work, as of argparse itself


class MetalrError(Exception):
    """A fault in what the user gave: one clear line, exit status 2.

    The message states the rule, the value that broke it, and the way out. Scripts
    print it without a traceback; anything else that escapes is a bug in metalr.
    What a message quotes may come from a hostile file or from a library: line ends and
    control characters are escaped, tokens of the hub left out, and a long message is
    shortened in its middle, since the way out stands at its end.
    """

    def __init__(self, message: str = ""):
        text = without_secrets(message)
        text = printable(text)
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
        super().__init__(text)


_LONGEST = 1000  # characters of a message
# Where the libraries of the hub look for the user's token.
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
_PATTERNS = (
    r"\bhf_[A-Za-z0-9]{8,}",  # the form of a token
    r"(?<=://)[^/\s@]+(?=@)",  # user and password of an address
    r"(?i)(?<=token=)[^&\s]+",
    r"(?i)(?<=signature=)[^&\s]+",
    r"(?i)(?<=bearer )\S+",
)


def printable(text: str) -> str:
    """Return a text with its control and direction characters escaped.

    In a terminal they move the cursor, hide words or turn them round.

    >>> print(printable("größer \\x1b[2J"))
    größer \\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def without_secrets(text: str) -> str:
    """Return a text without tokens and passwords.

    >>> without_secrets("https://me:word@hub.example/x?token=123 hf_abcdefghij")
    'https://***@hub.example/x?token=*** ***'
    """
    text = str(text)
    for name in _SECRETS:
        if len(secret := os.environ.get(name, "").strip()) >= 4:
            text = text.replace(secret, "***")
    for pattern in _PATTERNS:
        text = re.sub(pattern, "***", text)
    return text


def unknown_name(kind: str, name: str, known: Iterable[str]) -> MetalrError:
    """Return the error for a name that is not in a table, with the nearest names.

    Args:
      kind: What the name stands for, as the user would say it ("task").
      name: What was given.
      known: The names that exist.

    >>> print(unknown_name("task", "sst", ["sst2", "squad"]))
    unknown task 'sst'; did you mean 'sst2'? Known: sst2, squad
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return MetalrError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}")
