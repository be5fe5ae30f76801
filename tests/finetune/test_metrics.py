"""Scores against scikit-learn, scipy and values of SQuAD's definition by hand."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from metalr.errors import MetalrError
from metalr.finetune import metrics

labels = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1)


@settings(deadline=None)
@given(labels)
def test_class_scores_are_those_of_sklearn(pairs):
    predictions, references = (np.array(side) for side in zip(*pairs, strict=True))
    found = metrics.score(("accuracy", "f1", "matthews"), predictions, references)
    true = np.sum(predictions & references)
    false = np.sum(predictions ^ references)
    assert found["accuracy"] == pytest.approx(
        sklearn.metrics.accuracy_score(references, predictions)
    )
    assert found["f1"] == pytest.approx(2 * true / max(1, 2 * true + false))
    if np.ptp(predictions) and np.ptp(references):  # else sklearn may warn
        assert found["matthews"] == pytest.approx(
            sklearn.metrics.matthews_corrcoef(references, predictions)
        )


def test_f1_counts_class_1_alone():
    # 2 true positives, 1 false positive, 1 false negative: 4 / (4 + 1 + 1).
    assert metrics.f1([1, 1, 1, 0, 0], [1, 1, 0, 1, 0]) == pytest.approx(2 / 3)


def test_macro_f1_counts_each_class_alike():
    # Class 0: 2 * 3 / (4 + 3), class 1: 0, class 2: 1.
    assert metrics.macro_f1([0, 0, 0, 0, 2], [0, 0, 0, 1, 2]) == pytest.approx(13 / 21)
    assert metrics.chance("macro_f1", [0, 0, 0, 1]) == pytest.approx(3 / 7)


def test_a_set_of_labels_is_right_as_a_whole():
    said = np.array([[1, 0], [0, 1], [0, 0]])
    known = np.array([[1, 0], [1, 1], [0, 0]])
    assert metrics.accuracy(said, known) == pytest.approx(2 / 3)


def test_several_labels_are_counted_together_or_each_alike():
    known = np.array([[1, 0], [1, 0], [1, 1]])
    said = np.array([[1, 0], [1, 0], [0, 0]])
    # Together: TP 2, FN 2. Apart: 2 * 2 / (2 * 2 + 1) and 0.
    assert metrics.micro_f1(said, known) == pytest.approx(2 / 3)
    assert metrics.macro_f1(said, known) == pytest.approx(0.4)


@pytest.mark.parametrize(
    "lengths", [(1, 1, 1), (2, 2), (3, 1, 2)], ids=["a word each", "equal", "any"]
)
def test_tags_of_rows_are_scored_word_by_word(lengths):
    known, said = iter("NVNXVN"), iter("NVVXXN")
    gold = [[next(known) for _ in range(n)] for n in lengths]
    found = [[next(said) for _ in range(n)] for n in lengths]
    flat = [[tag for row in rows for tag in row] for rows in (gold, found)]
    macro = sklearn.metrics.f1_score(*flat, average="macro")
    assert metrics.macro_f1(found, gold) == pytest.approx(macro)
    right = sklearn.metrics.accuracy_score(*flat)
    assert metrics.accuracy(found, gold) == pytest.approx(right)


def test_classes_and_labels_are_counted_apart():
    found = metrics.by_class([0, 0, 1, 0, 2], [0, 0, 0, 1, 2], ["a", "b", "c", "d"])
    assert found["a"] == {
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "rows": 3,
    }
    assert found["b"]["recall"] == 0.0 and found["b"]["rows"] == 1
    assert found["c"]["f1"] == 1.0
    assert found["d"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 0}
    said, known = np.array([[1, 0], [1, 1], [0, 0]]), np.array([[1, 0], [0, 1], [0, 1]])
    several = metrics.by_class(said, known, ["x", "y"])
    assert several["x"] == {
        "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "rows": 1,
    }  # fmt: skip
    assert several["y"]["precision"] == 1.0 and several["y"]["recall"] == 0.5
    assert metrics.by_class(said[:, 1:], known[:, 1:], ["y"])["y"] == several["y"]


def test_types_of_entities_are_counted_apart_whole_ones_alone():
    known = [["B-PER", "I-PER", "O", "U-LOC"], ["B-LOC", "O"]]
    said = [["B-PER", "O", "O", "U-LOC"], ["B-LOC", "O"]]
    found = metrics.by_entity(said, known)
    assert found.keys() == {"PER", "LOC"}
    assert found["LOC"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "rows": 2}
    assert (found["PER"]["recall"], found["PER"]["rows"]) == (0.0, 1)


def test_one_label_of_several_is_scored_as_a_class_is():
    # TP 1, FN 1: 2 / 3. scikit-learn takes [n, 1] for two classes.
    said, known = np.array([[0], [0], [0], [1]]), np.array([[1], [0], [0], [1]])
    assert metrics.micro_f1(said, known) == pytest.approx(2 / 3)
    assert metrics.macro_f1(said, known) == pytest.approx(2 / 3)


def test_units_and_last_words_are_entities_as_in_seqeval_s_own_scheme():
    from seqeval.metrics import f1_score
    from seqeval.scheme import BILOU

    known = [["U-PER", "U-PER", "O", "B-ORG", "I-ORG", "L-ORG"]]
    said = [["U-PER", "O", "O", "B-ORG", "I-ORG", "L-ORG"]]
    expected = f1_score(known, said, mode="strict", scheme=BILOU)
    assert metrics.entity_f1(said, known) == pytest.approx(expected) == 0.8


def test_precision_is_of_what_was_said_and_recall_of_what_there_is():
    known = [["B-PER", "O", "B-ORG", "I-ORG"]]
    said = [["B-PER", "O", "O", "O"]]
    names = ("entity_precision", "entity_recall", "entity_f1")
    found = metrics.score(names, said, known)
    assert found == pytest.approx(dict(zip(names, (1.0, 0.5, 2 / 3), strict=True)))


def test_matthews_matches_its_formula():
    # TP 2, TN 1, FP 1, FN 1: (2 * 1 - 1 * 1) / sqrt(3 * 3 * 2 * 2).
    assert metrics.matthews([1, 1, 1, 0, 0], [1, 1, 0, 1, 0]) == pytest.approx(1 / 6)


def test_correlations_are_those_of_scipy():
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    x[3] = x[4]  # a tie
    found = metrics.score(("pearson", "spearman"), x, y)
    assert found["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found["spearman"] == pytest.approx(
        np.corrcoef(scipy.stats.rankdata(x), scipy.stats.rankdata(y))[0, 1]
    )


@pytest.mark.parametrize(
    ("name", "predictions", "references"),
    [
        ("f1", [0, 0, 0], [0, 0, 0]),
        ("f1", [0, 0, 0], [1, 1, 0]),
        ("matthews", [1, 1, 1], [0, 1, 1]),
        ("matthews", [0, 1, 1], [1, 1, 1]),
        ("pearson", [2.0, 2.0, 2.0], [1.0, 2.0, 3.0]),
        ("pearson", [1.0, 1.0 + 1e-15, 1.0], [1.0, 1.0, 1.0]),
        ("spearman", [1.0, 2.0], [3.0, 3.0]),
        ("pearson", [np.nan, 1.0, 2.0], [1.0, 2.0, 3.0]),
        ("spearman", [np.inf, 1.0, 2.0], [1.0, 2.0, 3.0]),
        ("pearson", [1.0], [1.0]),
    ],
)
def test_an_undefined_score_is_zero_without_a_warning(name, predictions, references):
    assert metrics.score([name], predictions, references) == {name: 0.0}


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Panthers", "panthers"),
        ("Panthers!", "panthers"),
        ("a  an\tthe\n theory", "theory"),
        ("U.S.", "us"),  # punctuation goes before the articles
        ("a.", ""),
        ("well-known", "wellknown"),
        ("Café “Müller”", "café “müller”"),  # only ASCII punctuation goes
        ("An A-team", "ateam"),
    ],
)
def test_normalisation_is_the_official_one(text, normal):
    assert metrics.normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("text", "golds", "exact", "f1"),
    [
        ("the Denver Broncos", ["Denver Broncos"], 1, 1),
        # 2 words shared of 3 and of 2: P = 2/3, R = 1, F1 = 4/5.
        ("Denver Broncos team", ["the Denver Broncos"], 0, 0.8),
        # Words count as often as they occur in both: P = 1/2, R = 1/3.
        ("ha ha", ["ha he ho"], 0, 0.4),
        ("1999", ["in 1999", "1999", "1998"], 1, 1),
        # Best gold: P = 1, R = 1/2 against "in 1999"; 0 against "1998".
        ("1999", ["1998", "in 1999"], 0, 2 / 3),
        ("", ["Denver"], 0, 0),
        ("the", [], 1, 1),
        ("Denver", "Denver", 1, 1),  # one gold as a plain text
    ],
)
def test_answers_score_as_squad_defines(text, golds, exact, f1):
    found = metrics.score(("exact_match", "f1"), [text], [golds])
    assert found == pytest.approx({"exact_match": exact, "f1": f1})


def test_answer_scores_are_means_over_questions():
    found = metrics.score(("exact_match", "f1"), ["a b", "c"], [["b"], ["d"]])
    assert found == {"exact_match": 0.5, "f1": 0.5}


@pytest.mark.parametrize(
    ("name", "references", "expected"),
    [
        ("accuracy", [0, 1, 1, 2], 0.5),
        ("accuracy", np.array([3, 3, 3]), 1.0),
        ("f1", [1, 0, 0, 0], 0.4),
        ("f1", [0, 0], 0.0),
        ("f1", [["some"], ["texts"]], 0.0),
        ("f1", [{"text": ["some"]}], 0.0),
        ("exact_match", [["some"]], 0.0),
        ("matthews", [0, 1], 0.0),
        ("pearson", [0.5, 1.0], 0.0),
        ("spearman", [0.5, 1.0], 0.0),
    ],
)
def test_chance_is_the_best_constant_guess(name, references, expected):
    assert metrics.chance(name, references) == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1))
def test_no_constant_guess_beats_chance(references):
    for name in ("accuracy", "f1", "matthews"):
        constant = [
            metrics.score([name], np.full(len(references), guess), references)[name]
            for guess in (0, 1)
        ]
        assert metrics.chance(name, references) == pytest.approx(max(constant))


def test_an_unknown_metric_is_named_with_its_neighbours():
    with pytest.raises(MetalrError, match="did you mean 'accuracy'"):
        metrics.score(["acuracy"], [1], [1])
    with pytest.raises(MetalrError, match="unknown metric"):
        metrics.chance("bleu", [1])


@pytest.mark.parametrize(("predictions", "references"), [([], []), ([1, 0], [1])])
def test_unequal_or_empty_input_is_refused(predictions, references):
    with pytest.raises(ValueError, match="as many predictions as references"):
        metrics.score(["accuracy"], predictions, references)
