"""Files in columns, as CoNLL has them: what is a word, a tag, a comment or a number."""

import pytest

from metalr.data.formats import opening
from metalr.data.formats.table import PLAIN
from metalr.errors import MetalrError
from tests.data.rows_of_files import own, read_rows

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER

"""


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
