"""Scores of SQuAD 2.0: constants that the official script gave for the same answers."""

import json

import numpy as np
import pytest

from metalr.data import loading
from metalr.data.answers import Answer
from metalr.errors import MetalrError
from metalr.finetune import decode, inputs, squad_v2

# Best span, lead of "no answer", right answers.
CASES = (
    ("the Eiffel Tower", -4.0, ["Eiffel Tower", "tower"]),
    ("in 1889 by Eiffel", -2.5, ["1889"]),
    ("Paris", -1.0, []),
    ("Gustave", 0.5, ["Gustave Eiffel"]),
    ("iron", 1.5, []),
    ("a river", 2.0, ["The Seine", "river Seine"]),
    ("London", 3.0, []),
    ("wrong", -3.0, ["right"]),
)
ANSWERS = [Answer(text, 0, len(text), 1.0, 1.0 + lead) for text, lead, _ in CASES]
GOLDS = [golds for _, _, golds in CASES]
# From evaluate-v2.0.py with --na-prob-file and --na-prob-thresh, in percent.
OFFICIAL = {
    0.0: {
        "exact_match": 37.5,
        "has_answer_exact_match": 20.0,
        "f1": 42.5,
        "has_answer_f1": 28.0,
        "no_answer_f1": 66.66666666666667,
        "best_exact_match": 50.0,
        "best_f1": 55.0,
    },
    1.0: {
        "exact_match": 37.5,
        "has_answer_exact_match": 20.0,
        "f1": 50.83333333333333,
        "has_answer_f1": 41.33333333333333,
        "no_answer_f1": 66.66666666666667,
        "best_exact_match": 50.0,
        "best_f1": 55.0,
    },
}


@pytest.mark.parametrize("threshold", OFFICIAL)
def test_scores_are_those_of_the_official_script(threshold):
    found = squad_v2.score(ANSWERS, GOLDS, threshold)
    wanted = {name: value / 100 for name, value in OFFICIAL[threshold].items()}
    assert found == pytest.approx(wanted)


def test_best_threshold_is_the_official_one_and_gives_the_best_f1():
    limit = squad_v2.best_threshold(ANSWERS, GOLDS)
    assert limit == -2.5
    at = squad_v2.score(ANSWERS, GOLDS, limit)
    assert at["f1"] == pytest.approx(at["best_f1"])


def test_threshold_is_below_all_where_no_answer_is_best_for_all():
    limit = squad_v2.best_threshold(ANSWERS, [[] for _ in ANSWERS])
    assert [answer.unless_null(limit) for answer in ANSWERS] == [""] * len(ANSWERS)


def test_text_is_given_up_where_no_answer_leads_by_more():
    said = [answer.unless_null(0.5) for answer in ANSWERS]
    assert said == [text if lead <= 0.5 else "" for text, lead, _ in CASES]


def test_question_without_a_span_has_no_answer():
    none = Answer("", -1, -1, -np.inf, 3.0)
    assert squad_v2.score([none], [[]], 0.0)["f1"] == 1.0
    assert squad_v2.score([none], [["a word"]], 0.0)["f1"] == 0.0


def questions(tmp_path, answers):
    rows = [
        {"id": str(n), "question": "Who?", "context": "It was Al.", "answers": known}
        for n, known in enumerate(answers)
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return loading.load("squad_v2", train_file=path, validation_file=path)


AL = {"text": ["Al"], "answer_start": [7]}
NOBODY = {"text": [], "answer_start": []}


def test_chance_of_each_score_is_what_no_answer_gets(tmp_path):
    data = questions(tmp_path, [AL, NOBODY, NOBODY, NOBODY])
    (rows,) = data.validation.values()
    silent = [Answer("", 0, 0, 0.0, 9.0)] * 4
    golds = [row["answers"]["text"] for row in rows]
    for name, value in squad_v2.score(silent, golds, 0.0).items():
        assert decode.chance(name, data.task, rows) == value, name


@pytest.mark.parametrize(
    ("known", "metric"), [(AL, "no_answer_f1"), (NOBODY, "has_answer_f1")]
)
def test_score_of_questions_that_are_not_there_picks_no_step(known, metric, tmp_path):
    data = questions(tmp_path, [known, known])
    with pytest.raises(MetalrError, match=f"--metric {metric} is of questions with"):
        inputs._scored(data, metric)
