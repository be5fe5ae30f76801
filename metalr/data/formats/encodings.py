"""Which encoding a text file is in: what its first bytes say, and what it may be."""

import codecs
import re
from collections.abc import Sequence

from metalr.errors import MetalrError

_MARKS = (  # the longer first: the first two bytes of UTF-32 are those of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-16", "utf-32")  # a line's end is no single byte there
# What people have files in; a few letters are too little to tell rarer ones by.
_COMMON = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("koi8_r", "iso8859_2", "mac_roman", "gb18030", "big5", "cp949", "cp932"),
    *("euc_jp", "utf_8"),
)


def known(name: str) -> str:
    """Return an encoding as Python calls it.

    Raises:
      MetalrError: Python knows none of that name that is one of text.
    """
    try:
        found = codecs.lookup(name)
        "a".encode(found.name)  # base64 and the like are no encodings of text
    except (LookupError, ValueError):
        raise MetalrError(
            f"--encoding {name!r} is not an encoding that Python knows; try "
            "cp1252, latin-1, utf-16 or gb18030"
        ) from None
    return "utf-8-sig" if found.name == "utf-8" else found.name


def is_wide(encoding: str) -> bool:
    """Say whether a line's end is no single byte."""
    return encoding.replace("_", "-").startswith(_WIDE)


def marked(sample: bytes) -> str:
    """Return the encoding that a file's first bytes say, UTF-8 if they say none."""
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    if b"\0" in sample:
        for name, width in (("utf-16", 2), ("utf-32", 4)):
            whole = sample[: len(sample) // width * width]
            for order in ("le", "be"):
                if _is_text(whole.decode(f"{name}-{order}", "replace"), sample):
                    return f"{name}-{order}"
    return "utf-8"


def _is_text(text: str, sample: bytes) -> bool:
    """Say whether bytes with zeros among them were decoded as they should be."""
    # Zeros in UTF-8 text are read as rare letters; but its lines then do not end.
    ends, known = text.count("\n") + text.count("\r"), re.search(r"[,;\t{\[]", text)
    if not known or 2 * ends < sample.count(b"\n"):
        return False
    good = sum(sign.isprintable() or sign in "\r\n\t" for sign in text)
    return good > 0.95 * len(text)


def is_utf8(sample: bytes) -> bool:
    """Say whether a sample, perhaps cut off, is UTF-8 and has more than ASCII."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return not sample.isascii()


def likely(lines: Sequence[bytes]) -> str | None:
    """Return the encoding that lines seem to have, which are not all ASCII."""
    from charset_normalizer import from_bytes

    found = b"".join(lines)[: 2**15]
    if is_utf8(found):
        return "utf-8"
    # Most such files are of Windows in western Europe, and a few signs in English
    # text are too little for a statistic: another guess has to be clear.
    if _is_western(found):
        return "cp1252"
    for name in ("cp932", "euc_jp"):  # to a statistic they look Korean
        if _share(found, name, 0x3040, 0x30FF) > 0.2:
            return name
    best = from_bytes(found, cp_isolation=list(_COMMON)).best()
    return best.encoding.replace("_", "-") if best else None


def _is_western(raw: bytes) -> bool:
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        return False
    signs = [sign for sign in text if not sign.isascii()]
    words = [sign for sign in text if sign.isascii() and sign.isalpha()]
    # Of Polish, Czech or Turkish some letters are no letters there.
    odd = re.findall(r"\w[^\w\s’'`´\x00-\x7f–—…-]\w", text)
    return len(signs) * 2 < len(words) and not odd


def _share(raw: bytes, encoding: str, first: int, last: int) -> float:
    """Return which share of the signs lies in a range; 0 in another encoding."""
    text = raw.decode(encoding, "replace")
    if text.count("\ufffd") > 1:  # the sample may end within one
        return 0.0
    signs = [ord(sign) for sign in text if not sign.isascii()]
    return sum(first <= sign <= last for sign in signs) / max(1, len(signs))
