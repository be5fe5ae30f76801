"""Texts to choose from: where they stand, what labels them, the pairs they become."""

import pytest

from metalr.data import loading
from metalr.data.encode import encode
from metalr.data.schema import Task
from metalr.errors import MetalrError
from tests.data.rows_of_files import own, write_lines
from tests.data.small_tokenizers import word_piece

CHOICES = (
    {"text": "b", "choices": ["x", "y"], "label": 1},
    {"text": "b", "choice0": "x", "choice1": "y", "label": "1"},
    {"sent1": "b", "sent2": "", "ending0": "x", "ending1": "y", "label": 1},
    {"premise": "b", "choice1": "x", "choice2": "y", "label": 1},
    {"text": "b", "choices": ["x", "y"], "label": "y"},
    {"text": "b", "choices": ["x", "y"], "label": "B"},
)


@pytest.mark.parametrize("row", CHOICES)
def test_choices_stand_in_a_list_or_in_numbered_columns(row, tmp_path):
    data = own(write_lines(tmp_path / "rows.jsonl", [row, row]))
    assert data.task.kind == "choice"
    assert data.train[0]["choices"] == ["x", "y"]
    assert data.train[0][data.task.label] == 1


SUMS = [["2", "3", "0", "1"], ["2", "1", "0", "3"], ["2", "3", "1", "0"]]


TOLD = {  # labels of the sums, what they are, places
    "number": ([0, 1, "3"], [0, 1, 3]),
    "letter": (["a", "B", "D"], [0, 1, 3]),
    "text": (["2", "1", "0"], [0, 1, 3]),
}


@pytest.mark.parametrize("way", TOLD)
def test_labels_of_choices_are_read_one_way_in_all_rows(way, tmp_path):
    labels, places = TOLD[way]
    offered = SUMS if way != "text" else [[f"{x}{x}" for x in row] for row in SUMS]
    labels = labels if way != "text" else [f"{x}{x}" for x in labels]
    rows = [
        {"text": "?", "choices": texts, "label": label}
        for texts, label in zip(offered, labels, strict=True)
    ]
    data = own(write_lines(tmp_path / "rows.jsonl", rows))
    assert [row["label"] for row in data.train] == places
    assert f"labels read as the {way} of a choice" in " ".join(data.reading.assumed)


def test_a_hidden_label_does_not_turn_letters_into_texts(tmp_path):
    # Read as a text, "A" would be the second choice.
    row = {"text": "?", "choices": ["B", "A"]}
    rows = [row | {"label": label} for label in ("A", "B", "-1")]
    data = own(write_lines(tmp_path / "rows.jsonl", rows))
    assert [row["label"] for row in data.train] == [0, 1]


def test_validation_labels_of_choices_are_read_as_those_of_training(tmp_path):
    row = {"text": "?", "choices": ["1", "7"]}
    train = write_lines(
        tmp_path / "a.jsonl", [row | {"label": "7"}, row | {"label": "1"}]
    )
    other = write_lines(tmp_path / "b.jsonl", [row | {"label": "1"}])
    data = loading.load("file", train_file=train, validation_file=other)
    assert [r["label"] for r in data.train] == [1, 0]
    assert [r["label"] for r in next(iter(data.validation.values()))] == [0]


def test_a_hidden_choice_whose_ids_have_names_is_left_out(tmp_path):
    import datasets

    text, names = datasets.Value("string"), datasets.ClassLabel(names=["0", "1"])
    kinds = {"sent1": text, "ending0": text, "ending1": text, "label": names}
    rows = {name: ["a"] * 3 for name in kinds} | {"label": [1, 0, -1]}
    saved = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    saved.to_parquet(tmp_path / "x.parquet")
    data = own(tmp_path / "x.parquet")
    assert data.train.column("label") == [1, 0]
    assert data.reading.left_out == {"no gold label (-1)": 2}  # of both sides


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_a_text_to_choose_that_is_missing_is_refused(missing, tmp_path):
    row = {"text": "b", "choice0": "x", "choice1": "y", "label": 1}
    path = write_lines(tmp_path / "rows.jsonl", [row, row | {"choice1": missing}])
    with pytest.raises(MetalrError, match="row 2.*lacks the text of 'choice1'"):
        own(path)


def test_rows_with_other_numbers_of_choices_are_told_by_their_place(tmp_path):
    row = {"text": "b", "choices": ["x", "y"], "label": 1}
    path = write_lines(
        tmp_path / "a.jsonl", [row, row, row | {"choices": ["x", "y", "z"]}]
    )
    with pytest.raises(MetalrError, match=r"as the first, 2; .*a.jsonl row 3 has 3"):
        own(path)


def test_one_text_is_no_choice(tmp_path):
    row = {"text": "b", "choices": ["x"], "label": 0}
    path = write_lines(tmp_path / "a.jsonl", [row, row])
    with pytest.raises(MetalrError, match="2 choices or more, got 1 in .*row 1"):
        loading.load("file", train_file=path)
    task = Task(name="t", kind="choice", text="text", pair="choices", hub=("", None))
    with pytest.raises(MetalrError, match="2 choices or more, got 1 in row 1"):
        encode([row], task, word_piece(), 32)


def test_choices_become_pairs_one_after_another():
    row = {"text": "the film", "choices": ["is good", "is bad"], "label": 1}
    task = Task(name="t", kind="choice", text="text", pair="choices", hub=("", None))
    tokenizer = word_piece()
    found = encode([row, row], task, tokenizer, 32)
    assert (len(found.input_ids), found.size, found.group) == (4, 2, 2)
    wanted = tokenizer("the film", "is bad")
    assert found.input_ids[3].tolist() == wanted["input_ids"]
    other = row | {"choices": ["is good"]}
    with pytest.raises(MetalrError, match="as many choices as the first, 2; row 2"):
        encode([row, other], task, tokenizer, 32)
