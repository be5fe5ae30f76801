"""Toy AG News and CoLA: topics that the event decides, and errors of grammar."""

import random

from metalr.data.columns import Row
from metalr.data.toy.draw import PLACES, as_sentence, pick, sample, table, words

_ACTORS = (
    words(
        "the prime minister, the rebel army, the foreign ministry, the opposition, "
        "the peace force, the president, the border guard, the defence minister, "
        "the aid agency"
    ),
    words(
        "the home side, the champion, the national team, the league leader, the "
        "young striker, the veteran pitcher, the coach, the Olympic hopeful, the "
        "club"
    ),
    words(
        "the airline, the oil company, the central bank, the pension fund, the "
        "carmaker, the retailer, the insurer, the brewery group, the investor, the "
        "lender"
    ),
    words(
        "the software maker, the university, the space agency, the chip designer, "
        "the search engine, the observatory, the phone maker, the game studio, the "
        "laboratory"
    ),
)
_EVENTS = (
    words(
        "signs a ceasefire after weeks of fighting, calls an early election, "
        "rejects the treaty, faces protests over the new law, asks for help after "
        "the flood, expels two diplomats, survives a vote of confidence, sends "
        "troops to the border, denies claims of a coup, opens talks on a prisoner "
        "exchange"
    ),
    words(
        "wins in extra time, loses the opening match, breaks the season record, is "
        "out for six weeks with a knee injury, draws level in the standings, "
        "reaches the semi-final, rallies from two sets down, names the squad for "
        "the cup, is beaten at home, takes gold in the relay"
    ),
    words(
        "reports a fall in quarterly profit, cuts two thousand jobs, raises its "
        "sales forecast, agrees to a takeover, sells its stake, files for "
        "bankruptcy, warns of rising costs, lifts interest rates, sees its stock "
        "jump, delays the share offering"
    ),
    words(
        "fixes a security hole in its browser, unveils a faster processor, finds "
        "water in the images of the probe, releases the code to the public, tests a "
        "robot arm in orbit, maps the genome of a moth, warns of a new computer "
        "worm, shows a thinner display, puts its library online, prints a working "
        "valve"
    ),
)
_FILLERS = words(
    "officials said on Monday, it was announced in a statement, according to two "
    "people close to the matter, after a week of rumours, the second time this "
    "year, local papers reported, in a move that few had expected, a spokesman "
    "confirmed"
)


def news(rng: random.Random, label: int) -> Row:
    """Make news about the event that comes first.

    Its actor often belongs to another topic, and an event of another may follow.
    """
    kind = label if rng.random() < 0.5 else int(rng.random() * 4)
    actor, event = pick(rng, _ACTORS[kind]), pick(rng, _EVENTS[label])
    place, filler = pick(rng, PLACES), pick(rng, _FILLERS)
    stray = int(rng.random() * 4)
    aside = pick(rng, _ACTORS[stray])
    if rng.random() < 0.5:
        aside += f" {pick(rng, _EVENTS[stray])}"
    else:
        aside += " declined to comment"
    text = pick(
        rng,
        (
            f"{place} - {as_sentence(f'{actor} {event}, {filler}')}",
            f"{as_sentence(f'{actor} {event}')} Elsewhere {aside}, {filler}.",
            f"In {place} {actor} {event}, while {aside}.",
            f"{as_sentence(f'{actor} {event}')} In {place} {aside}, {filler}.",
        ),
    )
    return {"text": text, "label": label}


_SUBJECTS = words(
    "teacher, farmer, pilot, doctor, singer, lawyer, student, baker, sailor, "
    "painter, nurse, writer, judge, driver, gardener, guest, soldier, neighbour"
)
_OBJECTS = words(
    "letter, garden, bridge, picture, window, story, basket, table, ticket, coat, "
    "answer, engine, lamp, song, key, map, cake, report"
)
# base, past, participle
_ACTIONS = table(
    """
    write / wrote / written
    break / broke / broken
    steal / stole / stolen
    take / took / taken
    give / gave / given
    choose / chose / chosen
    draw / drew / drawn
    forget / forgot / forgotten
    hide / hid / hidden
    know / knew / known
    see / saw / seen
    throw / threw / thrown
    """
)
_PREPOSITIONS = words("near, behind, beside, with, in front of, next to")
_ADVERBS = words("quietly, often, yesterday, again, in the morning, with great care")


def grammar(rng: random.Random, label: int) -> Row:
    """Make a sentence whose agreement, verb form, reflexive or order may be wrong."""
    plural, wrong = rng.random() < 0.5, label == 0
    noun, near, thing = *sample(rng, _SUBJECTS, 2), pick(rng, _OBJECTS)
    subject = f"the {noun}s" if plural else f"the {noun}"
    # The noun between subject and verb has the other number, as a distraction.
    if rng.random() < 0.6:
        attractor = f"the {near}" if plural else f"the {near}s"
        subject += f" {pick(rng, _PREPOSITIONS)} {attractor}"
    base, past, participle = pick(rng, _ACTIONS)
    adverb = pick(rng, _ADVERBS)
    agrees = plural != wrong  # whether the plural form is written
    shape = int(rng.random() * 6)
    if shape == 0:
        text = f"{subject} {'have' if agrees else 'has'} {participle} the {thing}"
    elif shape == 1:
        text = f"{subject} {base if agrees else base + 's'} the {thing} {adverb}"
    elif shape == 2:
        text = f"{subject} did not {past if wrong else base} the {thing} {adverb}"
    elif shape == 3:
        text = f"{subject} hurt {'themselves' if agrees else 'itself'} {adverb}"
    elif shape == 4:
        order = [f"the {thing}", "that", subject, past]
        if wrong:
            order = [order[0], subject, "that", past]
        text = f"{' '.join(order)} was found {adverb}"
    else:
        asked = f"what {subject} {past}" if not wrong else f"what did {subject} {base}"
        text = f"nobody remembers {asked} {adverb}"
    return {"sentence": as_sentence(text), "label": label}
