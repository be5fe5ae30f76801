"""Draws that depend on `random.Random.random` alone, and sentence making."""

import random
from collections.abc import Sequence
from typing import Any


def pick(rng: random.Random, items: Sequence[Any]) -> Any:
    """Return one of the items."""
    return items[int(rng.random() * len(items))]


def sample(rng: random.Random, items: Sequence[Any], count: int) -> list[Any]:
    """Return `count` different items in random order."""
    left = list(items)
    return [left.pop(int(rng.random() * len(left))) for _ in range(count)]


def pick_other(rng: random.Random, items: Sequence[Any], item: Any) -> Any:
    """Return one of the items that is not `item`."""
    return pick(rng, [each for each in items if each != item])


def as_sentence(text: str) -> str:
    """Return the text with a capital and a full stop."""
    return text[0].upper() + text[1:] + "."


def words(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas.

    >>> words("plain, very fine")
    ('plain', 'very fine')
    """
    return tuple(word.strip() for word in text.split(","))


def table(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the lines of a table whose columns are separated by slashes.

    >>> table("a nurse / a person")
    (('a nurse', 'a person'),)
    """
    lines = text.strip().splitlines()
    return tuple(tuple(cell.strip() for cell in line.split(" / ")) for line in lines)


PLACES = words(
    "Lisbon, Nairobi, Oslo, Jakarta, Toronto, Lima, Vienna, Cairo, Seoul, Dublin, "
    "Madrid, Mumbai, Warsaw, Chicago, Sydney, Prague, Athens, Havana, Geneva, Tunis"
)
_STEMS = words(
    "Alder, Bram, Cale, Dorn, Elm, Fair, Glen, Hart, Iron, Kings, Lang, Mill, "
    "North, Oak, Port, Raven, Stone, Thorn, Wells, Winter"
)
_ENDINGS = words("bridge, field, ford, ham, mouth, stead, ton, wick, wood, dale")
_BODIES = words(
    "Museum, Institute, Brewery, Theatre, Observatory, Railway, College, Hospital, "
    "Orchestra, Shipyard"
)
# Invented names, so that no encoder knows anything about them.
INSTITUTIONS = tuple(
    f"{stem}{ending} {body}"
    for stem in _STEMS
    for ending in _ENDINGS
    for body in _BODIES
)
