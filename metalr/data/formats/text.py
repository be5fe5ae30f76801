"""Text files as lines: gzip, encodings, line ends, and bounds on all of them."""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from metalr.data.formats import encodings
from metalr.errors import MetalrError

# No row of a text set is near this; a binary file without line ends is stopped here
# instead of filling the memory.
MAX_LINE = 16 * 2**20
MAX_ROWS = 10_000_000
# Text packs to a third or a tenth, and equal rows by a thousand: a small file could
# fill any memory.
LEAST_UNPACKED, MOST_PACKED = 64 * 2**20, 100

_SAMPLE = 2**16  # bytes that are looked at to tell how a file is written


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
        encoding = encodings.marked(sample)
        if encoding not in ("utf-8", "utf-8-sig"):
            notes.append(f"{path.name} read as {encoding}")
    else:
        encoding = encodings.known(encoding)
        if not encoding.startswith("utf") and encodings.is_utf8(sample):
            notes.append(
                f"{path.name} is UTF-8 by its bytes, and read as {encoding}: is the "
                "--encoding right?"
            )
    return TextFile(path, encoding, _newline(sample, encoding), packed, tuple(notes))


def _newline(sample: bytes, encoding: str) -> bytes:
    """Return "\\r" for a file that has no other line end, as old Macs wrote them."""
    text = sample.decode(encoding, "ignore") if encodings.is_wide(encoding) else None
    ends = ("\n" in text, "\r" in text) if text else (b"\n" in sample, b"\r" in sample)
    return b"\r" if ends == (False, True) else b"\n"


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
    if encodings.is_wide(text.encoding) or text.newline == b"\r":
        found = _decoded_lines(text)
    else:
        found = _byte_lines(text)
    for number, line in enumerate(found, start=1):
        if number > MAX_ROWS:
            raise MetalrError(f"{text.path} has more than {MAX_ROWS} lines")
        # A mark that the encoding does not take off, or the second of two.
        yield line.lstrip("\ufeff") if number == 1 else line


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
            except UnicodeError as fault:
                raise undecoded(text, number, raw, fault) from fault


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
            except UnicodeError as fault:  # more of it than decoding errors
                raise MetalrError(
                    f"{text.path} is not {text.encoding} near line {number + 1}; name "
                    "its own with --encoding, or leave that out where it is UTF-8"
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


def undecoded(
    text: TextFile, number: int, raw: bytes, fault: UnicodeError
) -> MetalrError:
    """Return the error of a line that is not in the file's encoding.

    Args:
      text: The file.
      number: Of the line.
      raw: The line.
      fault: What decoding it raised.
    """
    place = f"{text.path} line {number} is not {_said(text.encoding)}"
    if not isinstance(fault, UnicodeDecodeError):
        return MetalrError(f"{place}: {fault}; name its own with --encoding")
    place += f": byte 0x{raw[fault.start]:02x} at column {fault.start + 1}"
    sample = _odd_lines(text)
    likely = encodings.likely([raw])
    if text.encoding.startswith("utf-8") and any(map(encodings.is_utf8, sample)):
        around = _around(raw, fault.start, likely or "latin-1")
        return MetalrError(
            f"{place}, and other lines are: the file holds two encodings. Write that "
            f"line as UTF-8; in {likely or 'latin-1'} it reads {around!r}"
        )
    likely = encodings.likely(sample)
    if likely is None or likely == text.encoding:
        return MetalrError(f"{place}; name the file's encoding with --encoding")
    around = _around(raw, fault.start, likely)
    return MetalrError(
        f"{place}. It may be {likely}, where it reads {around!r}: if that is right, "
        f"add --encoding {likely}"
    )


def _said(encoding: str) -> str:
    return "UTF-8" if encoding.startswith("utf-8") else encoding


def _around(raw: bytes, place: int, encoding: str) -> str:
    text = raw[: place + 13].decode(encoding, "replace")
    return text[-30:].rstrip("\ufffd").strip()


def _odd_lines(text: TextFile) -> list[bytes]:
    """Return some lines that are more than ASCII."""
    sample, size = [], 0
    with _open(text.path, text.packed) as file:
        for raw in iter(lambda: file.readline(MAX_LINE), b""):
            size += len(raw)
            if not raw.isascii():
                sample.append(raw)
            if size > 2**22 or len(sample) >= 200:
                break
    return sample
