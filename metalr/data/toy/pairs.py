"""Toy MNLI, STS-B, MRPC and QQP: two texts that share most of their words."""

import random

from metalr.data.columns import Row
from metalr.data.toy.draw import (
    INSTITUTIONS,
    PLACES,
    as_sentence,
    pick,
    pick_other,
    sample,
    table,
    words,
)

# what is said, what follows from it
_PEOPLE = table(
    """
    a young woman / a woman
    an old man / a man
    a violinist / a musician
    two surgeons / two doctors
    a small boy / a child
    three carpenters / three workers
    a tall girl / a girl
    a sergeant / a soldier
    two brothers / two relatives
    a waitress / an employee
    a goalkeeper / an athlete
    a chemist / a scientist
    """
)
# doing, more general, cannot be true at once
_DOINGS = table(
    """
    frying onions / cooking / sleeping in bed
    waltzing slowly / dancing / sitting still
    sprinting / running / standing motionless
    singing an aria / making music / keeping silent
    reading a novel / reading / swimming
    painting a fence / painting something / lying on a couch
    riding a pony / riding an animal / driving a lorry
    peeling apples / preparing food / flying a plane
    sketching a tower / drawing / having a nap
    repairing a bicycle / fixing a vehicle / taking a shower
    planting roses / working with plants / diving under water
    sipping coffee / drinking something / refusing every drink
    """
)
_SPOTS = table(
    """
    in a crowded kitchen / indoors
    on a sandy beach / outdoors
    in a quiet library / inside a building
    in a muddy field / outside
    on the deck of a ship / on a boat
    in a hotel lobby / inside a building
    beside a highway / near a road
    on a rooftop / above the ground
    in a narrow tent / under cover
    in the park behind the school / outdoors
    """
)
_TIMES = words(
    "at dawn, on a Sunday, after lunch, late at night, during a storm, before work, "
    "in early spring, on the last day of school"
)
_REASONS = words(
    "to earn some money, for the first time, because of a lost bet, for a wedding, "
    "as a favour to a friend, to calm down, for a magazine, in order to win a prize"
)
_SPOKEN = words("well, you know, uh, yeah and, i mean, oh, so anyway, right")


def inference(rng: random.Random, label: int) -> Row:
    """Make premise and hypothesis: 0 follows, 1 is open, 2 is impossible.

    Reasons and negations occur with every label, so the hypothesis alone says little.
    """
    person, doing, spot = (pick(rng, t) for t in (_PEOPLE, _DOINGS, _SPOTS))
    are = _be(person[0])
    reason = f" {pick(rng, _REASONS)}" if rng.random() < 0.6 else ""
    premise = f"{pick(rng, _TIMES)}, {person[0]} {are} {doing[0]} {spot[0]}{reason}"
    who = pick(rng, person)
    what, never = pick(rng, doing[:2]), doing[2]
    where = pick(rng, ("", f" {spot[1]}", f" {spot[0]}"))
    if label == 0:
        claim = pick(rng, (f"{what}{where}", f"not {never}", f"{what}{where}{reason}"))
    elif label == 1:
        other = pick_other(rng, _REASONS, reason.strip())
        claim = pick(rng, (f"{what}{where}", what, f"not {never}")) + f" {other}"
    else:
        shown = pick(rng, (where, reason))
        claim = pick(rng, (f"{never}{shown}", f"not {what}{shown}"))
    return {
        "premise": as_sentence(premise),
        "hypothesis": as_sentence(f"{who} {are} {claim}"),
        "label": label,
    }


def _be(person: str) -> str:
    return "are" if person.startswith(("two", "three")) else "is"


def spoken_inference(rng: random.Random, label: int) -> Row:
    """Make the same with a premise in spoken words: the mismatched split."""
    row = inference(rng, label)
    first, second = sample(rng, _SPOKEN, 2)
    premise = row["premise"].rstrip(".").lower()
    return {**row, "premise": f"{first} {premise} {second} that's what i saw"}


def similarity(rng: random.Random, label: int) -> Row:
    """Make two scenes; the score is the weighted share of what they have in common."""
    del label
    tables, weights = (_PEOPLE, _DOINGS, _SPOTS), (1.5, 2.5, 1.0)
    keep = rng.random()
    score, first, second = 0.0, [], []
    for choices, weight in zip(tables, weights, strict=True):
        entry = pick(rng, choices)
        first.append(entry[0])
        if rng.random() < keep:
            near = rng.random() < 0.5
            second.append(entry[1] if near else entry[0])
            score += weight * (0.8 if near else 1.0)
        else:
            second.append(pick_other(rng, choices, entry)[0])
    score += 0.5 * (rng.random() + rng.random() - 1.0)  # annotators disagree
    score = round(min(5.0, max(0.0, score)) * 5) / 5

    def scene(parts: list[str]) -> str:
        return as_sentence(f"{parts[0]} {_be(parts[0])} {parts[1]} {parts[2]}")

    return {"sentence1": scene(first), "sentence2": scene(second), "label": score}


_DEALS = table(
    """
    bought / acquired
    sold / disposed of
    sued / took legal action against
    praised / spoke well of
    criticised / found fault with
    rescued / saved
    warned / sent a warning to
    financed / gave money to
    copied / imitated
    """
)
_DAYS = words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday")
_SUMS = tuple(f"{count} million dollars" for count in range(2, 99))


def paraphrase(rng: random.Random, label: int) -> Row:
    """Make two tellings of one deal; in the second, one to four facts may differ."""
    choices = {
        "a": INSTITUTIONS,
        "b": INSTITUTIONS,
        "verb": _DEALS,
        "day": _DAYS,
        "sum": _SUMS,
        "place": PLACES,
    }
    fact = {slot: pick(rng, options) for slot, options in choices.items()}
    retold = dict(fact)
    if label == 0:
        for slot in sample(rng, list(choices), 1 + int(rng.random() * 4)):
            retold[slot] = pick_other(rng, choices[slot], fact[slot])
    tellings = (
        "{a} {verb} {b} on {day} , in a case worth {sum} , a court in {place} heard .",
        "On {day} , a court in {place} heard that {a} {verb} {b} , worth {sum} .",
        "In {place} , a case of {sum} was heard on {day} : {a} {verb} {b} .",
        "A court in {place} was told on {day} that {a} {verb} {b} ; it asks {sum} .",
    )
    texts = []
    for telling, facts in zip(sample(rng, tellings, 2), (fact, retold), strict=True):
        texts.append(telling.format(**{**facts, "verb": pick(rng, facts["verb"])}))
    return {"sentence1": texts[0], "sentence2": texts[1], "label": label}


_TOPICS = words(
    "French, the violin, chess, sourdough bread, a small garden, Python, "
    "watercolours, a marathon, a used car, a visa for Japan, knee pain, a blog, a "
    "job interview, house plants, a bank loan, insomnia, astronomy, public "
    "speaking, an old laptop, a mountain hike, a rescue dog, vegetarian cooking, a "
    "mortgage, statistics"
)
_INTENTS = table(
    """
    How do I get started with {x}? / What is the best first step in {x}?
    How much money does {x} cost? / What is the price of {x}? / How expensive is {x}?
    How long does {x} take? / How many hours go into {x}?
    What are common mistakes with {x}? / What often goes wrong with {x}?
    Which book about {x} is good? / What should I read on {x}?
    Is {x} dangerous? / How risky is {x}? / What are the dangers of {x}?
    Why is {x} so popular? / What makes people like {x}?
    Who can help me with {x}? / Where do I find an expert on {x}?
    """
)
_HOOKS = words("Honestly, As a student, At my age, In 2016, In India, Just curious")


def questions(rng: random.Random, label: int) -> Row:
    """Make two questions with one intent and topic, or with one of the two changed."""
    topic, intent = pick(rng, _TOPICS), pick(rng, _INTENTS)
    first, second = sample(rng, intent, 2)
    other = topic
    if label == 0 and rng.random() < 0.5:
        other = pick_other(rng, _TOPICS, topic)
    elif label == 0:
        second = pick(rng, pick_other(rng, _INTENTS, intent))
    texts = [first.format(x=topic), second.format(x=other)]
    for side in (0, 1):
        if rng.random() < 0.4:
            text = texts[side]
            texts[side] = f"{pick(rng, _HOOKS)}, {text[0].lower()}{text[1:]}"
    return {"question1": texts[0], "question2": texts[1], "label": label}
