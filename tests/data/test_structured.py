"""Rows of lists from files of every form, and what is refused."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from metalr.data import structured
from metalr.data.encode import encode
from metalr.data.rows import check_rows
from metalr.data.tasks import TASKS
from metalr.errors import MetalrError
from tests.data.rows_of_files import own, write_lines
from tests.data.small_tokenizers import word_piece


def test_json_of_words_and_tags_needs_no_flag(tmp_path):
    rows = [{"tokens": ["Al", "left"], "tags": ["B-PER", "O"]}] * 3
    data = own(write_lines(tmp_path / "rows.jsonl", rows))
    assert data.task.kind == "tokens" and data.reading.classes == {"O": 3, "B-PER": 3}


def test_lists_that_pandas_wrote_into_a_table_are_lists(tmp_path):
    rows = [("EU rejects", "B-ORG O"), ("it's Peter", "O B-PER")]
    body = "".join(
        f'"{words.split()}","{tags.split()}"\n'.replace("it's\"", 'it\'s""').replace(
            '["it', '[""it'
        )
        for words, tags in rows
    )
    (tmp_path / "x.csv").write_text("tokens,tags\n" + body)
    data = own(tmp_path / "x.csv")
    assert data.task.kind == "tokens"
    assert data.train.column("tokens") == [["EU", "rejects"], ["it's", "Peter"]]
    (tmp_path / "y.csv").write_text("text,labels\na,\"['x', 'y']\"\nb,\"['x']\"\n")
    data = own(tmp_path / "y.csv")
    assert data.task.kind == "multilabel"
    assert data.train.column("labels") == [[0, 1], [0]]


@pytest.mark.parametrize("kind", ["tokens", "multilabel"])
def test_names_that_datasets_has_for_ids_in_lists_are_kept(kind, tmp_path):
    import datasets

    names, text = ["O", "B-X", "unseen"], datasets.Value("string")
    columns = {"tokens": ("tokens", "tags"), "multilabel": ("text", "labels")}[kind]
    cell = [["a", "b"]] * 4 if kind == "tokens" else list("abcd")
    features = datasets.Features(
        {
            columns[0]: datasets.Sequence(text) if kind == "tokens" else text,
            columns[1]: datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    rows = {columns[0]: cell, columns[1]: [[0, 1], [1, 0], [0, 0], [1, 1]]}
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(tmp_path / "saved")
    data.to_parquet(tmp_path / "x.parquet")
    for path in (tmp_path / "saved", tmp_path / "x.parquet"):
        found = own(path)
        assert found.task.kind == kind and found.task.labels == tuple(names)
        assert found.train.column(columns[1])[0] == [0, 1]
        assert "without a training row: unseen" in "\n".join(found.reading.lines())


LABELS = [["joy", "fear"], [], ["fear"], ["joy"]]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_several_labels_are_lists_or_have_a_separator(form, tmp_path):
    path = tmp_path / f"rows.{form}"
    if form == "csv":
        lines = [f"text {i},{'|'.join(names)}" for i, names in enumerate(LABELS)]
        path.write_text("\n".join(["text,labels", *lines]))
    else:
        rows = ({"text": f"text {i}", "labels": x} for i, x in enumerate(LABELS))
        write_lines(path, rows)
    data = own(path, label_separator="|" if form == "csv" else None)
    assert (data.task.kind, data.task.labels) == ("multilabel", ("fear", "joy"))
    assert data.train.column("labels") == [[0, 1], [], [0], [1]]
    encoded = encode(data.train, data.task, word_piece(), 16)
    np.testing.assert_array_equal(encoded.labels, [[1, 1], [0, 0], [1, 0], [0, 1]])


@pytest.mark.parametrize("written", ["x.jsonl", "x.parquet"])
def test_null_in_place_of_several_labels_is_no_gold_label(written, tmp_path):
    labels = [["x", "y"], ["x"], [], None]
    rows = [{"text": f"t{n}", "labels": some} for n, some in enumerate(labels)]
    path = tmp_path / written
    if written == "x.jsonl":
        write_lines(path, rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    data = own(path)
    assert data.train.column("labels") == [[0, 1], [0], []]
    assert data.reading.left_out == {"no gold label (null)": 2}  # of both sides


def test_an_empty_cell_in_place_of_several_labels_is_none_of_them(tmp_path):
    (tmp_path / "x.csv").write_text("text,labels\na,x|y\nb,\nc,x\n")
    data = own(tmp_path / "x.csv", label_separator="|")
    assert data.train.column("labels") == [[0, 1], [], [0]]
    assert not data.reading.left_out


@pytest.mark.parametrize("hidden", [-1, "-1", "-", -100])
def test_a_list_of_no_gold_label_is_left_out_and_counted(hidden, tmp_path):
    labels = [["x", "y"], ["x"], [], [hidden]]
    rows = [{"text": f"t{n}", "labels": some} for n, some in enumerate(labels)]
    data = own(write_lines(tmp_path / "rows.jsonl", rows))
    assert data.task.labels == ("x", "y")
    assert data.train.column("labels") == [[0, 1], [0], []]
    assert data.reading.left_out == {"no gold label (-1)": 2}  # of both sides


def test_questions_without_an_answer_make_a_file_squad_v2(tmp_path):
    answered = {"text": ["b"], "answer_start": [2]}
    rows = [
        {"question": "q", "context": "a b", "answers": answers}
        for answers in (answered, {"text": [], "answer_start": []})
    ]
    data = own(write_lines(tmp_path / "rows.jsonl", rows))
    assert data.task.null and "best_f1" in data.task.metrics
    assert "1 questions have no answer" in " ".join(data.reading.assumed)
    with pytest.raises(MetalrError, match="--task squad_v2"):
        check_rows(rows, TASKS["squad"], "rows")


def test_scores_of_tags_follow_from_their_names():
    assert structured.tag_scores(["O", "B-PER", "I-PER"])[0] == "entity_f1"
    assert structured.tag_scores(["NN", "VB"])[0] == "accuracy"


BAD = {
    "fewer tags": ("tokens", {"tokens": ["a", "b"], "tags": ["O"]}, "1 tags.*2 words"),
    "no list": ("tokens", {"tokens": "a b", "tags": ["O"]}, "not a list of texts"),
    "no separator": ("multilabel", {"text": "a", "labels": "x,y"}, "label-separator"),
    "a number": ("tokens", {"tokens": ["a", 1], "tags": ["O", "O"]}, "holds 1 in its"),
    "choice": (
        "choice",
        {"text": "a", "choices": ["x", "y"], "label": 3},
        "numbered from",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_lists_that_do_not_fit_are_told_with_their_row(name, tmp_path):
    kind, row, message = BAD[name]
    with pytest.raises(MetalrError, match=f"row 1: .*{message}"):
        own(write_lines(tmp_path / "rows.jsonl", [row] * 2), kind=kind)
