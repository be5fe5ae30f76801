"""Text files as lines: gzip, encodings, line ends, and bounds on all of them."""

import codecs
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from metalr.errors import MetalrError

# No row of a text set is near this; a binary file without line ends is stopped here
# instead of filling the memory.
MAX_LINE = 16 * 2**20
MAX_ROWS = 10_000_000
# Text packs to a third or a tenth, and equal rows by a thousand: a small file could
# fill any memory.
LEAST_UNPACKED, MOST_PACKED = 64 * 2**20, 100

_SAMPLE = 2**16  # bytes that are looked at to tell how a file is written
_MARKS = (  # the longer first: the first two bytes of UTF-32 are those of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-16", "utf-32")  # a line's end is no single byte there


class TextFile(NamedTuple):
    """A text file and how it is written."""

    path: Path
    encoding: str
    newline: bytes  # that ends a line
    packed: bool
    notes: tuple[str, ...]


def look(path: Path, encoding: str | None) -> TextFile:
    """Tell how a text file is written from its first bytes.

    Args:
      path: The file.
      encoding: As the user says it; None: UTF-8, or what a byte-order mark says.

    Raises:
      MetalrError: There is no such encoding.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    notes = []
    if packed != (path.suffix.lower() == ".gz"):
        said = "" if packed else "not "
        notes.append(f"{path.name} is {said}gzipped, whatever its name says")
    with _open(path, packed) as file:
        sample = file.read(_SAMPLE)
    if encoding is None:
        encoding = _marked(sample)
        if encoding not in ("utf-8", "utf-8-sig"):
            notes.append(f"{path.name} read as {encoding}")
    else:
        encoding = _known(encoding)
    return TextFile(path, encoding, _newline(sample, encoding), packed, tuple(notes))


def _known(encoding: str) -> str:
    try:
        found = codecs.lookup(encoding)
        "a".encode(found.name)  # base64 and the like are no encodings of text
    except (LookupError, ValueError):
        raise MetalrError(
            f"--encoding {encoding!r} is not an encoding that Python knows; try "
            "cp1252, latin-1, utf-16 or gb18030"
        ) from None
    return "utf-8-sig" if found.name == "utf-8" else found.name


def _marked(sample: bytes) -> str:
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    # Text of Latin letters in UTF-16 has a zero in every other byte, and no other does.
    half = len(sample) // 2
    for name, zeros in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        if half and zeros.count(0) > 0.7 * half:
            return name
    return "utf-8"


def _newline(sample: bytes, encoding: str) -> bytes:
    """Return "\\r" for a file that has no other line end, as old Macs wrote them."""
    text = sample.decode(encoding, "ignore") if _is_wide(encoding) else None
    ends = ("\n" in text, "\r" in text) if text else (b"\n" in sample, b"\r" in sample)
    return b"\r" if ends == (False, True) else b"\n"


def _is_wide(encoding: str) -> bool:
    return encoding.replace("_", "-").startswith(_WIDE)


def _open(path: Path, packed: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def chunks(text: TextFile) -> Iterator[bytes]:
    """Yield the bytes of a file, unpacked, no more of them than it may have.

    Raises:
      MetalrError: The file unpacks to too much.
    """
    left = _most(text)
    with _open(text.path, text.packed) as file:
        while piece := file.read(2**20):
            left -= len(piece)
            _check_left(text, left)
            yield piece


def lines(text: TextFile) -> Iterator[str]:
    """Yield the lines of a text file with their ends.

    Raises:
      MetalrError: A line is too long or not in the file's encoding, or there are too
        many.
    """
    if _is_wide(text.encoding) or text.newline == b"\r":
        found = _decoded_lines(text)
    else:
        found = _byte_lines(text)
    for number, line in enumerate(found, start=1):
        if number > MAX_ROWS:
            raise MetalrError(f"{text.path} has more than {MAX_ROWS} lines")
        yield line


def _byte_lines(text: TextFile) -> Iterator[str]:
    """Split at the byte that ends a line in every encoding that is not wide."""
    left, first = _most(text), text.encoding
    rest = "utf-8" if first == "utf-8-sig" else first
    with _open(text.path, text.packed) as file:
        number = 0
        while raw := file.readline(MAX_LINE + 1):
            number += 1
            left -= len(raw)
            _check_left(text, left)
            if len(raw) > MAX_LINE:
                raise _too_long(text.path, number)
            try:
                yield raw.decode(first if number == 1 else rest)
            except UnicodeDecodeError as fault:
                raise _undecoded(text, number, raw, fault) from fault


def _decoded_lines(text: TextFile) -> Iterator[str]:
    left, number = _most(text), 0
    newline = text.newline.decode()
    with (
        _open(text.path, text.packed) as raw,
        io.TextIOWrapper(raw, text.encoding, newline=newline) as file,
    ):
        while True:
            try:
                line = file.readline(MAX_LINE + 1)
            except UnicodeDecodeError as fault:
                raise MetalrError(
                    f"{text.path} is not {text.encoding} near line {number + 1}; name "
                    "its own with --encoding"
                ) from fault
            if not line:
                return
            number += 1
            left -= len(line)
            _check_left(text, left)
            if len(line) > MAX_LINE:
                raise _too_long(text.path, number)
            yield line


def _most(text: TextFile) -> int:
    """Return how many bytes a file may have when it is unpacked."""
    size = text.path.stat().st_size
    return max(LEAST_UNPACKED, MOST_PACKED * size) if text.packed else 2**62


def _check_left(text: TextFile, left: int) -> None:
    if left < 0:
        raise MetalrError(
            f"{text.path} unpacks to more than {_most(text)} bytes, over "
            f"{MOST_PACKED} times its size; if that is no mistake, unpack it"
        )


def _too_long(path: Path, number: int) -> MetalrError:
    return MetalrError(
        f"{path} line {number} is longer than {MAX_LINE} bytes: is this a text file?"
    )


def _undecoded(
    text: TextFile, number: int, raw: bytes, fault: UnicodeDecodeError
) -> MetalrError:
    name = "UTF-8" if text.encoding.startswith("utf-8") else text.encoding
    place = (
        f"{text.path} line {number} is not {name}: byte 0x{raw[fault.start]:02x} at "
        f"column {fault.start + 1}"
    )
    likely = _likely(text)
    if likely is None or likely == text.encoding:
        return MetalrError(f"{place}; name the file's encoding with --encoding")
    around = raw[max(0, fault.start - 12) : fault.start + 13].decode(likely, "replace")
    return MetalrError(
        f"{place}. It may be {likely}, where it reads {around.strip()!r}: if that is "
        f"right, add --encoding {likely}"
    )


def _likely(text: TextFile) -> str | None:
    """Return the encoding that a file seems to have."""
    from charset_normalizer import from_bytes

    sample, size = [], 0
    with _open(text.path, text.packed) as file:
        for raw in iter(lambda: file.readline(MAX_LINE), b""):
            size += len(raw)
            if not raw.isascii():
                sample.append(raw)
            if size > 2**22 or len(sample) >= 200:
                break
    found = b"".join(sample)[: 2**15]
    # Most such files are of Windows in western Europe, and a few signs in English
    # text are too little for a statistic: another guess has to be clear.
    if _is_western(found):
        return "cp1252"
    best = from_bytes(found).best()
    return best.encoding.replace("_", "-") if best else None


def _is_western(raw: bytes) -> bool:
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        return False
    signs = [sign for sign in text if not sign.isascii()]
    words = [sign for sign in text if sign.isascii() and sign.isalpha()]
    return len(signs) * 3 < len(words)
