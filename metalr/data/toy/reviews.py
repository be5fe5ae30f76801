"""Toy SST-2 and IMDB: praise and blame, often by denying the opposite."""

import random

from metalr.data.columns import Row
from metalr.data.toy.draw import as_sentence, pick, sample, words

_ADJECTIVES = (
    words(
        "dull, tedious, clumsy, lifeless, forgettable, shallow, incoherent, "
        "grating, predictable, bland, tiresome, sloppy, pretentious, contrived, "
        "muddled, lazy, hollow, sluggish, awkward, irritating, amateurish, stale, "
        "murky, charmless, joyless, overlong, pointless, insipid, laboured, "
        "unconvincing, cheap, dreary, flimsy, confusing, mediocre, soulless, "
        "heavy-handed, unfunny, disappointing, painful"
    ),
    words(
        "moving, witty, gripping, elegant, inventive, charming, tender, thrilling, "
        "fresh, graceful, hilarious, haunting, vivid, clever, assured, delightful, "
        "compelling, luminous, honest, absorbing, brilliant, touching, lively, "
        "refreshing, poignant, engaging, masterful, superb, warm, sharp, subtle, "
        "wonderful, stylish, rewarding, captivating, funny, rich, intelligent, "
        "powerful, original"
    ),
)
_VERBS = (
    words(
        "drag on, fall flat, misfire, grate on the nerves, collapse, run out of "
        "ideas, bore, ring false, lose its way, stumble, insult its audience, waste "
        "its cast"
    ),
    words(
        "delight, pay off, sparkle, hold together, move the audience, soar, win you "
        "over, ring true, surprise, work like a charm, earn its laughs, shine"
    ),
)
_ASPECTS = words(
    "the script, the lead performance, the camera work, the dialogue, the story, "
    "the ending, the pacing, the soundtrack, the direction, the humour, the plot, "
    "the editing, the romance, the premise, the supporting cast, the final act, the "
    "animation, the chemistry between the leads, the first hour, the satire, the "
    "villain, the tone, the whole thing, this sequel, the film, the movie, the "
    "documentary, the drama, the comedy, the picture"
)
_WORKS = words(
    "film, comedy, thriller, drama, romance, sequel, documentary, adventure, "
    "character study, love story, satire, fable, piece of work, coming-of-age tale"
)
_DEGREES = words(
    "very, truly, remarkably, rather, quite, thoroughly, simply, often, always, "
    "surprisingly, utterly, genuinely"
)
_NEGATORS = words("not, never, anything but, far from, hardly, by no means, not at all")
_OPENERS = words(
    "in the end, for all its length, as a whole, on second viewing, frankly, to me, "
    "for most of its running time, as an adaptation of the novel, without a doubt, "
    "from the first scene, for a debut, like it or not"
)
_PLOT = words(
    "the story follows a young teacher who moves to a small town, it was shot on "
    "location over two summers, the hero inherits a house from an uncle he never "
    "met, two brothers meet again after twenty years, I saw it on a rainy evening "
    "with my sister, the director also wrote the music, most of it takes place on a "
    "train, the book came out when I was at school, a detective is asked to find a "
    "missing painter, there are about a dozen speaking parts, it runs for just "
    "under two hours, the second half is set in winter, a widow opens a bakery by "
    "the sea, the lead actress used to work in television, I had read nothing about "
    "it before"
)
_VERDICTS = (
    words(
        "I can't recommend it, I want my two hours back, give this one a miss, two "
        "stars and that is generous, I would not sit through it again, skip it"
    ),
    words(
        "I can only recommend it, I would watch it again tomorrow, do not miss it, "
        "nine out of ten from me, it was worth every minute, go and see it"
    ),
)


def opinion(rng: random.Random, good: int) -> str:
    """Return a clause that praises (1) or pans (0), often by denying the opposite."""
    shape = rng.random()
    aspect = pick(rng, _ASPECTS)
    if shape < 0.45:
        degree = pick(rng, _DEGREES) + " " if rng.random() < 0.5 else ""
        return f"{aspect} is {degree}{pick(rng, _ADJECTIVES[good])}"
    if shape < 0.65:
        return f"{aspect} is {pick(rng, _NEGATORS)} {pick(rng, _ADJECTIVES[1 - good])}"
    if shape < 0.8:
        first, second = sample(rng, _ADJECTIVES[good], 2)
        return f"this is a {first} and {second} {pick(rng, _WORKS)}"
    if shape < 0.92:
        head, *tail = pick(rng, _VERBS[good]).split(" ")
        return " ".join([aspect, f"{head}s", *tail])
    denial = pick(rng, ("never", "does not", "fails to", "hardly ever manages to"))
    verb = pick(rng, _VERBS[1 - good])
    if denial == "never":
        head, *tail = verb.split(" ")
        verb = " ".join([f"{head}s", *tail])
    return f"{aspect} {denial} {verb}"


def contrast(rng: random.Random, good: int) -> str:
    """Return a sentence that has both polarities and ends on `good`."""
    for_it, against = opinion(rng, good), opinion(rng, 1 - good)
    yes, no = pick(rng, _ADJECTIVES[good]), pick(rng, _ADJECTIVES[1 - good])
    return pick(
        rng,
        (
            f"{against} , but {for_it}",
            f"although {against} , {for_it}",
            f"{for_it} , even if {against}",
            f"{against} ; all the same , {for_it}",
            f"what could have been {no} turns out to be {yes}",
            f"{pick(rng, _ASPECTS)} is not {no} but {yes}",
            f"less {no} than {yes}",
            f"critics called it {no} , yet {for_it}",
        ),
    )


def line(rng: random.Random, label: int) -> Row:
    """Make one line of a review, plain or with a turn."""
    text = opinion(rng, label) if rng.random() < 0.7 else contrast(rng, label)
    if rng.random() < 0.3:
        text = f"{pick(rng, _OPENERS)} , {text}"
    return {"sentence": text + pick(rng, (" .", " ", " !", " .")), "label": label}


def review(rng: random.Random, label: int) -> Row:
    """Make a review whose last sentence decides, with the majority (4 in 5) or not."""
    agreeing = 3 if rng.random() < 0.8 else 1
    opinions = [label] * agreeing + [1 - label] * (4 - agreeing)
    body = [opinion(rng, good) for good in opinions] + sample(rng, _PLOT, 2)
    body = sample(rng, body, len(body))
    turn = pick(rng, ("all in all", "in the end", "so", "my verdict", "to sum up"))
    last = pick(rng, _VERDICTS[label]) if rng.random() < 0.6 else contrast(rng, label)
    sentences = [as_sentence(part) for part in [*body, f"{turn}, {last}"]]
    return {"text": " ".join(sentences).replace(" ,", ","), "label": label}
