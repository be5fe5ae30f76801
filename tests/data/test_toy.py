"""The toy tasks: the same rows for ever, balanced, and no row in two splits."""

import hashlib
import json
from collections import Counter

import pytest

from metalr.data import toy
from metalr.data.rows import check_rows
from metalr.data.tasks import FRESH, TASKS
from metalr.errors import MetalrError

OWN = [name for name, task in TASKS.items() if not task.made_of and name not in FRESH]
SPLITS = ("train", "validation", "validation_mismatched")
PINNED = {
    "sst2": "6e8bf42312a753b08080bb0bf3cbbbdc",
    "mnli": "97a4f147fdf33446e1714a42b0d8d1d4",
    "qqp": "11102b8ef5230e0fbbcf40d8ab4346f6",
    "qnli": "623cbc8c6de26b237be126bf45c782aa",
    "cola": "d946a30e0cdb1c52f11c13379d3096ef",
    "rte": "9d34a738e22fd93b0e46e4d54e484ade",
    "mrpc": "443f176c5c296f8c4835d2930d1c7a93",
    "stsb": "3104dfeeabfaf8198b6ef8aa0020db2a",
    "imdb": "edd20270a2f7b9b16bdca2221970d35e",
    "ag_news": "eb3738e363bb26c42fa1f7d086a7483f",
    "squad": "24d4f7faf116b792322645b2b7e6944a",
    "squad_v2": "c8c2cf3011a3dd2796271e8f9216492f",
    "conll2003": "2cdbe0a4cc53070a019b6079dee8d9dd",
    "go_emotions": "0ddd48e2e62b4a7f0a6f77ebacd59591",
    "swag": "4ae46c4da3dd6a5686e7fb7b38b55923",
}


def texts(rows: list[dict]) -> list[str]:
    """Return what a model sees of each row."""
    hidden = ("id", "title", "idx", "label", "answers", "ner_tags", "labels")
    return [json.dumps([row[c] for c in row if c not in hidden]) for row in rows]


def test_every_task_but_the_fresh_and_the_made_ones_has_a_toy():
    assert set(toy.GENERATORS) == set(PINNED) == set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_the_rows_never_change(name):
    """Results on toy rows of different versions of metalr must be comparable."""
    drawn = [toy.generate(name, split, 20, seed=0) for split in ("train", "validation")]
    found = hashlib.sha256(json.dumps(drawn).encode()).hexdigest()
    assert found[:32] == PINNED[name]


@pytest.mark.parametrize("name", OWN)
def test_a_shorter_draw_is_the_start_of_a_longer_one(name):
    assert toy.generate(name, "train", 40, seed=3)[:15] == toy.generate(
        name, "train", 15, 3
    )


@pytest.mark.parametrize("name", OWN)
def test_no_row_is_in_two_splits_or_twice_in_one(name):
    splits = SPLITS if name == "mnli" else SPLITS[:2]
    seen: Counter[str] = Counter()
    for split in splits:
        seen.update(texts(toy.generate(name, split, 300, seed=0)))
    assert set(seen.values()) == {1}
    # Neither does another seed's training draw give a validation row away.
    validation = set(texts(toy.generate(name, "validation", 300, seed=0)))
    assert not validation & set(texts(toy.generate(name, "train", 300, seed=1)))


@pytest.mark.parametrize("name", [n for n in OWN if TASKS[n].kind == "classification"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_classes_are_about_equally_frequent(name, split):
    rows = toy.generate(name, split, 600, seed=0)
    count = Counter(row["label"] for row in rows)
    share = 1 / len(TASKS[name].labels)
    assert sorted(count) == list(range(len(TASKS[name].labels)))
    assert all(abs(n / len(rows) - share) < 0.07 for n in count.values())


def test_some_labels_are_wrong_in_training_and_validation():
    """Toy CoLA's "did not" rows show their own right label by the verb's form."""
    past = {"wrote", "broke", "stole", "took", "gave", "chose"}
    past |= {"drew", "forgot", "hid", "knew", "saw", "threw"}
    for split in ("train", "validation"):
        rows = toy.generate("cola", split, 3000, seed=0)
        told = [row for row in rows if "did not" in row["sentence"]]
        wrong = sum(
            row["label"] == bool(past & set(row["sentence"].split())) for row in told
        )
        assert 0.03 < wrong / len(told) < 0.1


def test_tags_of_a_toy_name_begin_and_go_on_as_conlls_do():
    for row in toy.generate("conll2003", "train", 200, seed=0):
        before = "O"
        for tag in row["ner_tags"]:
            assert tag[:2] != "I-" or tag[2:] == before[2:]
            before = tag


def test_about_half_of_the_toy_questions_have_no_answer():
    rows = toy.generate("squad_v2", "train", 400, seed=0)
    empty = [row for row in rows if not row["answers"]["text"]]
    assert 0.4 < len(empty) / len(rows) < 0.6
    assert all(row["context"] and row["question"] for row in empty)


def test_scores_spread_over_the_whole_range():
    scores = [row["label"] for row in toy.generate("stsb", "train", 600, seed=0)]
    assert min(scores) < 0.5 and max(scores) > 4.5 and 2.0 < sum(scores) / 600 < 3.0


def test_answers_stand_where_they_are_said_to():
    rows = toy.generate("squad", "train", 300, seed=0)
    for row in rows:
        (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(text)] == text
        assert row["title"] in row["question"]
    assert len({row["id"] for row in rows}) == 300


@pytest.mark.parametrize("name", OWN)
def test_the_fields_are_the_hubs(name):
    task = TASKS[name]
    row = toy.generate(name, "train", 1, seed=0)[0]
    second = "ending0" if name == "swag" else task.pair or task.text
    assert {task.text, task.label, second} <= set(row)
    assert check_rows([row], task, "toy")


def test_words_alone_do_not_tell_the_polarity():
    """A rule that knows every adjective, and no grammar, misses one row in four."""
    from metalr.data.toy.reviews import _ADJECTIVES

    right = 0
    rows = toy.generate("sst2", "train", 1000, seed=0)
    for row in rows:
        words = row["sentence"].split()
        good, bad = (sum(w in _ADJECTIVES[side] for w in words) for side in (1, 0))
        right += (good > bad) == row["label"] if good != bad else 0.5
    assert 0.45 < right / len(rows) < 0.75


def test_unknown_tasks_and_too_many_rows_are_refused(monkeypatch):
    with pytest.raises(MetalrError, match="unknown toy task 'sst'.*'sst2'"):
        toy.generate("sst", "train", 1, seed=0)
    few = (lambda rng, label: {"sentence": f"word {int(rng.random() * 9)}"}, 0)
    monkeypatch.setitem(toy.GENERATORS, "sst2", few)
    with pytest.raises(MetalrError, match="no 30 different rows for train; ask fewer"):
        toy.generate("sst2", "train", 30, seed=0)
