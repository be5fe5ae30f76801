"""Toy RTE, QNLI and SQuAD: facts on invented institutions."""

import random
from collections.abc import Callable

from metalr.data.columns import Row
from metalr.data.toy.draw import INSTITUTIONS, PLACES, as_sentence, pick, sample, words

_FIRST_NAMES = words(
    "Anna, Boris, Clara, Daniel, Elena, Felix, Greta, Hugo, Irene, Jonas, Karin, "
    "Leo, Marta, Nils, Olga, Pavel, Ruth, Simon, Teresa, Viktor"
)
_LAST_NAMES = words(
    "Adler, Brandt, Costa, Dumont, Eklund, Ferrari, Grant, Holm, Ivanov, Jensen, "
    "Keller, Lopez, Moreau, Novak, Olsen, Petrov, Quinn, Rossi, Santos, Weber"
)
_GOODS = words(
    "glass lenses, wooden toys, steel cables, wool blankets, brass clocks, silk "
    "maps, clay pipes, copper kettles, leather boots, paper lanterns, church bells, "
    "oil lamps"
)


def person(rng: random.Random) -> str:
    """Return a first name and a last one."""
    return f"{pick(rng, _FIRST_NAMES)} {pick(rng, _LAST_NAMES)}"


# value, statements, questions; {e} is the entity and {v} the value
_RELATIONS: tuple[
    tuple[Callable[[random.Random], str], tuple[str, ...], tuple[str, ...]], ...
] = (
    (
        lambda rng: str(1780 + int(rng.random() * 220)),
        ("the {e} was founded in {v}", "it was in {v} that the {e} came into being"),
        ("When was the {e} founded?", "In which year did the {e} come into being?"),
    ),
    (
        lambda rng: str(1780 + int(rng.random() * 220)),
        ("a fire damaged the {e} in {v}", "in {v} the {e} burned for two days"),
        ("When was the {e} damaged by fire?", "In what year did the {e} burn?"),
    ),
    (
        person,
        ("{v} set up the {e}", "the founder of the {e} was {v}"),
        ("Who founded the {e}?", "Which person set up the {e}?"),
    ),
    (
        person,
        ("today the {e} is led by {v}", "{v} is now the head of the {e}"),
        ("Who leads the {e} today?", "Who is the present head of the {e}?"),
    ),
    (
        lambda rng: pick(rng, PLACES),
        ("the {e} stands in {v}", "visitors find the {e} in the centre of {v}"),
        ("Where does the {e} stand?", "In which city can visitors find the {e}?"),
    ),
    (
        lambda rng: f"{20 + int(rng.random() * 900)} people",
        ("the {e} employs {v}", "{v} earn their living at the {e}"),
        ("How many people work at the {e}?", "How large is the staff of the {e}?"),
    ),
    (
        lambda rng: pick(rng, _GOODS),
        ("the {e} is best known for its {v}", "the {e} became famous through {v}"),
        ("What is the {e} known for?", "What made the {e} famous?"),
    ),
    (
        lambda rng: f"{2 + int(rng.random() * 90)} million crowns",
        ("the {e} has a yearly budget of {v}", "every year the {e} costs {v}"),
        ("What is the yearly budget of the {e}?", "How much does the {e} cost a year?"),
    ),
)


def entailed(rng: random.Random, label: int) -> Row:
    """Make three facts and a claim, one of them in other words or none."""
    first, second = pick(rng, INSTITUTIONS), pick(rng, INSTITUTIONS)
    kinds, owners = sample(rng, _RELATIONS, 3), (first, first, second)
    facts = [(kind, e, kind[0](rng)) for kind, e in zip(kinds, owners, strict=True)]
    premise = [as_sentence(pick(rng, k[1]).format(e=e, v=v)) for k, e, v in facts]
    kind, entity, value = pick(rng, facts)
    false = rng.random() if label == 1 else 1.0
    if false < 0.25:
        entity = second if entity == first else first
    elif false < 0.5:
        value = kind[0](rng)
    elif false < 1.0:  # true or not, the premise does not say
        kind = pick(rng, [each for each in _RELATIONS if each not in kinds])
        value = kind[0](rng)
    claim = as_sentence(pick(rng, kind[1]).format(e=entity, v=value))
    return {"sentence1": " ".join(premise), "sentence2": claim, "label": label}


def answerable(rng: random.Random, label: int) -> Row:
    """Make a question, and a sentence that answers it or something beside it."""
    asked, other, third = sample(rng, _RELATIONS, 3)
    entity = pick(rng, INSTITUTIONS)
    about = entity
    told = [asked, other]
    if label == 1 and rng.random() < 0.25:
        about = pick(rng, INSTITUTIONS)
    elif label == 1:
        told = [other, third]
    told = sample(rng, told, 2)
    parts = [pick(rng, kind[1]).format(e=about, v=kind[0](rng)) for kind in told]
    sentence = as_sentence(pick(rng, (", and ", "; ", ", while ")).join(parts))
    question = pick(rng, asked[2]).format(e=entity)
    return {"question": question, "sentence": sentence, "label": label}


def span(rng: random.Random, label: int) -> Row:
    """Make a paragraph of facts on two entities and a question about one of them."""
    del label
    first, second = pick(rng, INSTITUTIONS), pick(rng, INSTITUTIONS)
    facts = [(e, kind) for e in (first, second) for kind in sample(rng, _RELATIONS, 4)]
    facts = sample(rng, facts, len(facts))
    target = int(rng.random() * len(facts))
    context, answer, start = "", "", 0
    for index, (entity, kind) in enumerate(facts):
        value = kind[0](rng)
        before, after = as_sentence(pick(rng, kind[1])).split("{v}")
        before = before.format(e=entity)
        if index == target:
            answer, start = value, len(context) + len(before)
        context += before + value + after.format(e=entity) + " "
    entity, kind = facts[target]
    return {
        "title": entity,
        "context": context.rstrip(),
        "question": pick(rng, kind[2]).format(e=entity),
        "answers": {"text": [answer], "answer_start": [start]},
    }


def perhaps(rng: random.Random, label: int) -> Row:
    """Make a paragraph and a question that, for label 0, it has no answer to."""
    row = span(rng, label)
    if label == 1:
        return row
    told = row["context"]
    # The same question about an institution that is not there, or another one about
    # this one; both look as if they had an answer.
    if rng.random() < 0.5:
        others = [each for each in INSTITUTIONS[:50] if each not in told]
        question = row["question"].replace(row["title"], pick(rng, others))
    else:
        absent = [
            questions
            for _, statements, questions in _RELATIONS
            if not any(_begins(told, each, row["title"]) for each in statements)
        ]
        question = pick(rng, pick(rng, absent)).format(e=row["title"])
    return row | {"question": question, "answers": {"text": [], "answer_start": []}}


def _begins(context: str, statement: str, entity: str) -> bool:
    """Say whether a paragraph has a statement about an institution."""
    parts = as_sentence(statement).format(e=entity, v="{v}").split("{v}")
    return all(part.strip(" .") in context for part in parts if part.strip(" ."))
