"""Rows of lists: files of every form, tokens of words, and what is refused."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from metalr.data import loading, structured, tagged, toy
from metalr.data.encode import encode
from metalr.data.formats import opening
from metalr.data.formats.table import PLAIN
from metalr.data.rows import check_rows
from metalr.data.schema import Task
from metalr.data.tasks import TASKS
from metalr.errors import MetalrError
from tests.data.rows_of_files import read_rows
from tests.data.small_tokenizers import TOKENIZERS, word_piece

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER

"""


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def own(path, **more):
    return loading.load("file", train_file=path, validation_file=path, **more)


@pytest.mark.parametrize("name", ["train.conll", "eng.testa.txt", "train.bio"])
def test_columns_of_conll_are_words_and_their_last_column(name, tmp_path):
    (tmp_path / name).write_text(CONLL)
    data = own(tmp_path / name)
    assert data.task.kind == "tokens" and data.task.metric == "entity_f1"
    assert data.task.labels == ("O", "B-MISC", "B-ORG", "B-PER", "I-PER")
    first, second = data.train
    assert first["tokens"] == ["EU", "rejects", "German", "call"]
    assert [data.task.labels[i] for i in first["tags"]] == ["B-ORG", "O", "B-MISC", "O"]
    assert second["tokens"] == ["Peter", "Blackburn"]


def test_another_column_of_conll_can_be_learned(tmp_path):
    (tmp_path / "train.conll").write_text(CONLL)
    data = own(tmp_path / "train.conll", label_column="column_2", kind="tokens")
    assert data.task.labels == ("JJ", "NN", "NNP", "VBZ")
    assert data.task.metrics == ("accuracy", "macro_f1")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("a O\n# O\nb O\n", [["a", "#", "b"]]),
        ("# O\nb O\n", [["#", "b"]]),
        ("# text = a b\na O\nb O\n\n# text = c\nc O\n", [["a", "b"], ["c"]]),
        ("# id\na\tO\n# said\n#\tO\n", [["a", "#"]]),
    ],
)
def test_a_sign_of_comments_is_a_word_where_it_has_a_tag(written, words, tmp_path):
    (tmp_path / "x.conll").write_text(written)
    rows = read_rows(tmp_path / "x.conll")
    assert [row["tokens"] for row in rows] == words


SIGNS = {
    "spaces in a word": ("10 000\tO\nmen\tB-X\n", [["10 000", "men"]]),
    "no-break space, tabs": ("10\u00a0000\tO\nmen\tB-X\n", [["10\u00a0000", "men"]]),
    "no-break space, spaces": ("10\u00a0000 O\nmen  B-X\n", [["10\u00a0000", "men"]]),
    "a next line": ("\u0085 O\nmen B-X\n", [["\u0085", "men"]]),
    "columns made even by tabs": ("EU\tO\nBrussels \t\tB-X\n", [["EU", "Brussels"]]),
    "a sentence's end of white space": ("a O\n \t\nb O\n\u00a0\nc O", ["a", "b", "c"]),
}


@pytest.mark.parametrize(("written", "words"), SIGNS.values(), ids=SIGNS)
def test_words_of_conll_keep_white_space_that_parts_no_columns(
    written, words, tmp_path
):
    (tmp_path / "x.conll").write_text(written, "utf-8")
    rows = read_rows(tmp_path / "x.conll")
    assert [row["tokens"] for row in rows] == [[*of] for of in words]


NUMBERED = {
    "tags beside": ("1\tEU\tO\n2\tit\tO\n\n1\ta\tO\n", [["EU", "it"], ["a"]]),
    "a column between": ("1 EU NNP O\n2 it PRP O\n", [["EU", "it"]]),
    "two columns": ("1 B-X\n2 O\n", [["1", "2"]]),
    "a word that is a number": ("1 CD O\n\n1 CD O\n", [["1"], ["1"]]),
    "numbers that are words": ("1 CD O\n2 CD O\n\na DT O\n", [["1", "2"], ["a"]]),
}


@pytest.mark.parametrize("name", NUMBERED)
def test_numbers_of_words_in_conll_are_not_taken_for_the_words(name, tmp_path):
    written, words = NUMBERED[name]
    (tmp_path / "x.conll").write_text(written)
    table = opening.look(tmp_path / "x.conll", PLAIN)
    assert [row["tokens"] for row in table.rows(None)] == words
    numbered = words[0][0] == "EU"
    assert ("column numbers the words" in " ".join(table.notes)) is numbered


def test_line_of_conll_with_other_columns_is_told(tmp_path):
    (tmp_path / "train.conll").write_text("a O\nb\n")
    with pytest.raises(MetalrError, match="line 2 has 1 columns, the first has 2"):
        own(tmp_path / "train.conll")


def test_json_of_words_and_tags_needs_no_flag(tmp_path):
    rows = [{"tokens": ["Al", "left"], "tags": ["B-PER", "O"]}] * 3
    data = own(write(tmp_path / "rows.jsonl", rows))
    assert data.task.kind == "tokens" and data.reading.classes == {"O": 3, "B-PER": 3}


LABELS = [["joy", "fear"], [], ["fear"], ["joy"]]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_several_labels_are_lists_or_have_a_separator(form, tmp_path):
    path = tmp_path / f"rows.{form}"
    if form == "csv":
        lines = [f"text {i},{'|'.join(names)}" for i, names in enumerate(LABELS)]
        path.write_text("\n".join(["text,labels", *lines]))
    else:
        rows = ({"text": f"text {i}", "labels": x} for i, x in enumerate(LABELS))
        write(path, rows)
    data = own(path, label_separator="|" if form == "csv" else None)
    assert (data.task.kind, data.task.labels) == ("multilabel", ("fear", "joy"))
    assert data.train.column("labels") == [[0, 1], [], [0], [1]]
    encoded = encode(data.train, data.task, word_piece(), 16)
    np.testing.assert_array_equal(encoded.labels, [[1, 1], [0, 0], [1, 0], [0, 1]])


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
    data = own(write(tmp_path / "rows.jsonl", [row, row]))
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
    data = own(write(tmp_path / "rows.jsonl", rows))
    assert [row["label"] for row in data.train] == places
    assert f"labels read as the {way} of a choice" in " ".join(data.reading.assumed)


def test_a_hidden_label_does_not_turn_letters_into_texts(tmp_path):
    # Read as a text, "A" would be the second choice.
    row = {"text": "?", "choices": ["B", "A"]}
    rows = [row | {"label": label} for label in ("A", "B", "-1")]
    data = own(write(tmp_path / "rows.jsonl", rows))
    assert [row["label"] for row in data.train] == [0, 1]


def test_validation_labels_of_choices_are_read_as_those_of_training(tmp_path):
    row = {"text": "?", "choices": ["1", "7"]}
    train = write(tmp_path / "a.jsonl", [row | {"label": "7"}, row | {"label": "1"}])
    other = write(tmp_path / "b.jsonl", [row | {"label": "1"}])
    data = loading.load("file", train_file=train, validation_file=other)
    assert [r["label"] for r in data.train] == [1, 0]
    assert [r["label"] for r in next(iter(data.validation.values()))] == [0]


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_a_text_to_choose_that_is_missing_is_refused(missing, tmp_path):
    row = {"text": "b", "choice0": "x", "choice1": "y", "label": 1}
    path = write(tmp_path / "rows.jsonl", [row, row | {"choice1": missing}])
    with pytest.raises(MetalrError, match="row 2.*lacks the text of 'choice1'"):
        own(path)


def test_rows_with_other_numbers_of_choices_are_told_by_their_place(tmp_path):
    row = {"text": "b", "choices": ["x", "y"], "label": 1}
    path = write(tmp_path / "a.jsonl", [row, row, row | {"choices": ["x", "y", "z"]}])
    with pytest.raises(MetalrError, match=r"as the first, 2; .*a.jsonl row 3 has 3"):
        own(path)


def test_questions_without_an_answer_make_a_file_squad_v2(tmp_path):
    answered = {"text": ["b"], "answer_start": [2]}
    rows = [
        {"question": "q", "context": "a b", "answers": answers}
        for answers in (answered, {"text": [], "answer_start": []})
    ]
    data = own(write(tmp_path / "rows.jsonl", rows))
    assert data.task.null and "best_f1" in data.task.metrics
    assert "1 questions have no answer" in " ".join(data.reading.assumed)
    with pytest.raises(MetalrError, match="--task squad_v2"):
        check_rows(rows, TASKS["squad"], "rows")


BAD = {
    "fewer tags": ("tokens", {"tokens": ["a", "b"], "tags": ["O"]}, "1 tags.*2 words"),
    "no list": ("tokens", {"tokens": "a b", "tags": ["O"]}, "not a list of texts"),
    "no separator": ("multilabel", {"text": "a", "labels": "x,y"}, "label-separator"),
    "a number": ("tokens", {"tokens": ["a", 1], "tags": ["O", "O"]}, "holds 1 in its"),
    "choice": ("choice", {"text": "a", "choices": ["x"], "label": 3}, "numbered from"),
}


@pytest.mark.parametrize("name", BAD)
def test_lists_that_do_not_fit_are_told_with_their_row(name, tmp_path):
    kind, row, message = BAD[name]
    with pytest.raises(MetalrError, match=f"row 1: .*{message}"):
        own(write(tmp_path / "rows.jsonl", [row] * 2), kind=kind)


# ------------------------------------------------------------------ tokens of words

TAGS = Task(name="t", kind="tokens", text="tokens", label="tags", hub=("", None),
            labels=("O", "B-X", "I-X"))  # fmt: skip


def tagged_rows(count=20, longest=30):
    rng = np.random.default_rng(0)
    words = [
        w for row in toy.generate("conll2003", "train", 50, 0) for w in row["tokens"]
    ]
    words += ["naïve", "a-b/c", "12,5", "…", "日本"]
    return [
        {"tokens": [*rng.choice(words, n)], "tags": [*map(int, rng.integers(0, 3, n))]}
        for n in rng.integers(1, longest, count)
    ]


def test_first_pieces_of_words_are_those_that_the_library_names():
    tokenizer, rows = word_piece(), tagged_rows()
    found = encode(rows, TAGS, tokenizer, 500)
    for i, row in enumerate(rows):
        theirs = tokenizer(row["tokens"], is_split_into_words=True)
        assert found.input_ids[i].tolist() == theirs["input_ids"]
        names, before = theirs.word_ids(), None
        for place, word in enumerate(names):
            first = word is not None and word != before
            assert found.words[i][place] == (word if first else -1)
            assert found.labels[i][place] == (row["tags"][word] if first else -1)
            before = word


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("length", [12, 24, 400])
def test_every_word_is_learned_and_read_back_once_however_long_the_row(name, length):
    tokenizer, rows = TOKENIZERS[name], tagged_rows(longest=60)
    found = encode(rows, TAGS, tokenizer, length, stride=6)
    assert max(map(len, found.input_ids)) <= length
    logits = [np.eye(3)[np.maximum(labels, 0)] for labels in found.labels]
    counts = [len(row["tokens"]) for row in rows]
    read = tagged.decode(logits, found, counts, missing=0)
    seen = np.zeros(len(rows), int)
    np.add.at(seen, found.example, [int((w >= 0).sum()) for w in found.words])
    for row, tags, words in zip(rows, read, seen, strict=True):
        assert words <= len(tags)
        if words == len(tags):  # a word of signs that are dropped has no token
            assert tags.tolist() == row["tags"]
    assert (seen == counts).mean() > 0.8
    np.testing.assert_array_equal(found.weights, [(x >= 0).sum() for x in found.labels])


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


def test_scores_of_tags_follow_from_their_names():
    assert structured.tag_scores(["O", "B-PER", "I-PER"])[0] == "entity_f1"
    assert structured.tag_scores(["NN", "VB"])[0] == "accuracy"


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


@pytest.mark.parametrize("written", ["x.jsonl", "x.parquet"])
def test_null_in_place_of_several_labels_is_no_gold_label(written, tmp_path):
    labels = [["x", "y"], ["x"], [], None]
    rows = [{"text": f"t{n}", "labels": some} for n, some in enumerate(labels)]
    path = tmp_path / written
    if written == "x.jsonl":
        write(path, rows)
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
    data = own(write(tmp_path / "rows.jsonl", rows))
    assert data.task.labels == ("x", "y")
    assert data.train.column("labels") == [[0, 1], [0], []]
    assert data.reading.left_out == {"no gold label (-1)": 2}  # of both sides
