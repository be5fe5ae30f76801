"""Where a line of a table is cut: quotes, line ends, headers, commas of a text."""

import pandas
import pytest

from metalr.data.formats.table import Options
from metalr.errors import MetalrError
from tests.data.rows_of_files import PLAIN, TEXTS, read_rows, rows_of, write


@pytest.mark.parametrize(
    "text",
    ['she said "so" twice', "a\ttab", "two\nlines", '"all"', 'say ""', 'one"'],
)
@pytest.mark.parametrize("others", [["plain", "words"], ["a, b", "c"]])
def test_tsv_as_pandas_writes_it_comes_back(tmp_path, text, others):
    frame = pandas.DataFrame({"text": [text, *others], "label": [1, 0, 1]})
    path = write(tmp_path / "x.tsv", frame.to_csv(sep="\t", index=False))
    assert rows_of(path)[0] == [text, *others]


@pytest.mark.parametrize(
    "texts",
    [
        ['"whole"', 'he said "so" twice', "plain"],
        ['"so" he said', '"open', "plain"],
        ['"I am fine', 'and you?"', "plain"],
        ['"whole"', "plain", "words"],
    ],
)
def test_quotes_of_a_tsv_file_that_quotes_nothing_are_text(tmp_path, texts):
    body = "".join(f"{text}\t{n % 2}\n" for n, text in enumerate(texts))
    path = write(tmp_path / "x.tsv", "text\tlabel\n" + body)
    assert rows_of(path)[0] == texts


def test_a_carriage_return_within_a_line_is_text(tmp_path):
    path = write(tmp_path / "x.csv", 'text,label\none\rtwo,1\n"a\rb, c",0\n')
    assert rows_of(path)[0] == ["one\rtwo", "a\rb, c"]


def test_without_a_header_columns_are_named_by_number(tmp_path):
    path = write(tmp_path / "x.csv", PLAIN.split("\n", 1)[1])
    with pytest.raises(MetalrError, match="--text-column; .* --no-header .*number"):
        rows_of(path)
    found = rows_of(path, header=False, text_column="1", label_column="2")
    assert found[:2] == (TEXTS, ["1", "0", "1", "0"])


LINES = {
    "as many commas in each": ("x.txt", "Good film, I liked it\nBad film, I left\n"),
    "semicolons": ("x.txt", "I came; I saw\nI left; I cried\n"),
    "commas in the first alone": ("x.txt", "Good film, really\nBad\n"),
    "bars": ("x.tab", "a | b\nc | d\n"),
    "semicolons in the first alone": ("x.csv", "I came; I saw\nfine\n"),
}


@pytest.mark.parametrize("name, content", LINES.values(), ids=LINES)
def test_a_text_a_line_is_not_cut_at_its_commas(name, content, tmp_path):
    rows = read_rows(write(tmp_path / name, content), Options(header=False))
    assert [row["1"] for row in rows] == content.splitlines()


def test_without_a_header_another_sign_that_all_lines_agree_on_is_read(tmp_path):
    path = write(tmp_path / "x.csv", "a;1\nb;0\n")
    rows = read_rows(path, Options(header=False))
    assert rows == [{"1": "a", "2": "1"}, {"1": "b", "2": "0"}]


def test_lines_with_other_commas_than_the_first_are_told_the_way_out(tmp_path):
    path = write(tmp_path / "x.csv", "Good film, really\nBad\n")
    with pytest.raises(MetalrError, match="first line has 2.*one text, name .* .txt"):
        read_rows(path, Options(header=False))


@pytest.mark.parametrize("more", [{}, {"kind": "tokens"}], ids=["guessed", "said"])
@pytest.mark.parametrize("sign", [" ", "\t"], ids=["spaces", "tabs"])
def test_words_with_tags_in_a_file_of_text_are_told_their_ending(sign, more, tmp_path):
    words = "EU B-ORG\nrejects O\n\nPeter B-PER\n".replace(" ", sign)
    path = write(tmp_path / "x.txt", words)
    with pytest.raises(MetalrError, match=r"words with their tags, name .*\.conll$"):
        rows_of(path, **more)
