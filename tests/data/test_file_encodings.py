"""An encoding is known by its mark or bytes, or named by the user, never guessed."""

import pytest

from metalr.data.loading import load
from metalr.errors import MetalrError
from tests.data.rows_of_files import FRAME, PLAIN, rows_of, write


@pytest.mark.parametrize("text", ["это очень хороший фильм", "这是一部好电影"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_encodings_without_a_mark_are_known(tmp_path, encoding, text):
    content = f"text,label\n{text},0\n{text}2,1\n".encode(encoding)
    texts, _, said = rows_of(write(tmp_path / "x.csv", content))
    assert texts == [text, f"{text}2"] and f"read as {encoding}" in said


@pytest.mark.parametrize(
    "encoding, text",
    [
        ("cp1252", "it was £5 – “cheap”, no?"),
        ("latin-1", "très bien, à bientôt"),
        ("cp1251", "это очень хороший фильм про любовь и войну"),
        ("gb18030", "这是一部非常好的电影"),
        ("cp932", "これはとても良い映画です"),
        ("cp949", "정말 좋은 영화입니다"),
        ("cp1250", "zażółć gęślą jaźń, bardzo dobry film"),
    ],
)
def test_another_encoding_is_named_by_the_user(tmp_path, encoding, text):
    content = f'text,label\nplain words,0\n"{text}",1\n'
    path = write(tmp_path / "x.csv", content.encode(encoding))
    of_it = "cp1252" if encoding == "latin-1" else encoding
    with pytest.raises(MetalrError, match=f"line 3 is not UTF-8: .*--encoding {of_it}"):
        rows_of(path)
    assert rows_of(path, encoding=encoding)[0] == ["plain words", text]


def test_an_encoding_that_is_not_the_file_s_is_said(tmp_path):
    path = write(tmp_path / "x.csv", PLAIN.replace("so bad", "très mal"))
    assert "is UTF-8 by its bytes" in rows_of(path, encoding="cp1252")[2]
    for name in ("utf-16", "utf-32", "ascii"):
        with pytest.raises(MetalrError, match=f"is not {name}"):
            rows_of(path, encoding=name)


def test_an_encoding_that_is_none_is_refused(tmp_path):
    for name in ("klingon", "base64", "rot13"):
        with pytest.raises(MetalrError, match=f"--encoding '{name}' is not an enc"):
            rows_of(write(tmp_path / "x.csv", PLAIN), encoding=name)


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.jsonl"])
def test_flags_of_text_and_tables_beside_other_files_are_refused(tmp_path, name):
    path = tmp_path / name
    if name == "x.jsonl":
        FRAME.to_json(path, orient="records", lines=True)
    else:
        {"x.parquet": FRAME.to_parquet, "x.arrow": FRAME.to_feather}[name](path)
        with pytest.raises(MetalrError, match="--encoding is of text files"):
            rows_of(path, encoding="cp1252")
        table = write(tmp_path / "y.csv", PLAIN)  # read beside one that has use of it
        load("file", train_file=path, validation_file=table, encoding="cp1252")
    with pytest.raises(MetalrError, match="--no-header is of CSV"):
        rows_of(path, header=False)
