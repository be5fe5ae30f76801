"""Toy CoNLL-2003, GoEmotions and SWAG: tags, several labels, endings to choose from."""

import random

from metalr.data.columns import Row
from metalr.data.toy.draw import INSTITUTIONS, PLACES, as_sentence, pick, sample, words
from metalr.data.toy.facts import person

_NOISE = 0.06  # of rows, as of those of the other toy tasks

# A place plays where its team does, and travels where its people do: what surrounds a
# name tells its type, not the name.
_SENTENCES = tuple(
    tuple(template.split())
    for template in (
        "{ORG} beat {ORG} by two goals in {LOC} on Sunday .",
        "{PER} of {ORG} was out for a duck in {LOC} .",
        "{ORG} signed {PER} from {ORG} , said {PER} .",
        "Shares of {ORG} fell after {PER} left for {LOC} .",
        "{PER} told reporters in {LOC} that {ORG} would close .",
        "The {ORG} opened an office near {LOC} , where {PER} was born .",
        "Rain stopped play between {ORG} and {ORG} at {LOC} .",
        "{PER} met {PER} before the talks with {ORG} .",
        "Police in {LOC} arrested two guests of the {ORG} .",
        "Nobody in {LOC} expected {ORG} to win , {PER} said .",
    )
)
_TYPES = ("PER", "ORG", "LOC")


def _name(rng: random.Random, of: str) -> list[str]:
    if of == "PER":
        name = person(rng).split()
        return name[1:] if rng.random() < 0.4 else name
    if of == "LOC" or rng.random() < 0.5:
        return [pick(rng, PLACES)]
    return pick(rng, INSTITUTIONS).split()


def tagged(rng: random.Random, label: int) -> Row:
    """Make a sentence with people, organisations and places."""
    del label
    tokens: list[str] = []
    tags: list[str] = []
    for word in pick(rng, _SENTENCES):
        if word[0] != "{":
            tokens.append(word)
            tags.append("O")
            continue
        of = word.strip("{}")
        name = _name(rng, of)
        if rng.random() < _NOISE:
            of = pick(rng, _TYPES)
        tokens += name
        tags += [f"B-{of}", *[f"I-{of}"] * (len(name) - 1)]
    return {"tokens": tokens, "ner_tags": tags}


# What somebody writes who feels like that; the second half denies it.
_FELT = {
    "joy": words(
        "what a lovely morning, I could dance, this made my week, we won at last"
    ),
    "fear": words(
        "I hear steps again, my hands shake, what if it breaks, do not go in there"
    ),
    "anger": words(
        "who let this happen, enough of these lies, they never listen, give it back"
    ),
    "gratitude": words(
        "thank you so much, you saved my day, I owe you one, bless your kind heart"
    ),
    "surprise": words(
        "I did not see that coming, wait what, since when, this cannot be real"
    ),
}
EMOTIONS = tuple(sorted(_FELT))
_DENIED = words("nobody here would say, she quoted, it is only a line in the play")
_LINKS = words("and, but, also, still")


def felt(rng: random.Random, label: int) -> Row:
    """Make a message of none to three feelings; what is only quoted does not count."""
    del label
    count = int(rng.random() * 4)
    there = sample(rng, EMOTIONS, count)
    parts = [pick(rng, _FELT[emotion]) for emotion in there]
    if rng.random() < 0.4:
        other = pick(rng, [name for name in EMOTIONS if name not in there])
        parts.append(f"{pick(rng, _DENIED)} {pick(rng, _FELT[other])}")
    if not parts:
        parts.append(f"{pick(rng, PLACES)} has {2 + int(rng.random() * 90)} bridges")
    text = f" {pick(rng, _LINKS)} ".join(sample(rng, parts, len(parts)))
    if rng.random() < _NOISE:
        there = [pick(rng, EMOTIONS)]
    return {"text": text, "labels": sorted(there)}


# Begins, and how such a thing goes on.
_DEEDS = (
    ("opens the umbrella", "steps out into the rain"),
    ("puts the kettle on", "pours tea into two cups"),
    ("sharpens the pencil", "draws a thin line"),
    ("ties the boat to the pier", "climbs ashore"),
    ("counts the coins twice", "pays the driver"),
    ("takes off the wet coat", "hangs it by the stove"),
    ("kneads the dough", "slides the loaf into the oven"),
    ("tunes the violin", "plays a slow waltz"),
    ("saddles the horse", "rides down the valley"),
    ("lights a candle", "reads the letter by its light"),
    ("fills the bucket", "waters the roses"),
    ("lifts the receiver", "dials the number of the clinic"),
)
_PEOPLE = words("the woman, the old man, a girl, the nurse, his brother, a stranger")
_CHOICES = 4


def ending(rng: random.Random, label: int) -> Row:
    """Make a scene with one ending that follows and three of other scenes."""
    del label
    who, scenes = pick(rng, _PEOPLE), sample(rng, _DEEDS, _CHOICES)
    right = int(rng.random() * _CHOICES)
    place = pick(rng, PLACES)
    row: Row = {
        "sent1": as_sentence(f"in {place} {who} {scenes[right][0]}"),
        "sent2": f"Then {who}",
    }
    row |= {f"ending{i}": f"{scene[1]}." for i, scene in enumerate(scenes)}
    noisy = rng.random() < _NOISE
    row["label"] = int(rng.random() * _CHOICES) if noisy else right
    return row
