"""Files as spreadsheets, pandas, data sets and annotation tools write them."""

import bz2
import decimal
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from metalr.data.formats.table import Options
from metalr.data.loading import load
from metalr.errors import MetalrError
from tests.data.rows_of_files import read_rows

ROOT = Path(__file__).parents[2]
TEXTS = ["a good film", "so bad", "quite, good", "not my film"]
LABELS = [1, 0, 1, 0]
FRAME = pandas.DataFrame({"text": TEXTS, "label": LABELS})
PLAIN = "text,label\n" + "".join(
    f'"{text}",{label}\n' for text, label in zip(TEXTS, LABELS, strict=True)
)


def rows_of(path: Path, **more):
    """Return texts and class names of all rows, and what is said of them."""
    data = load("file", train_file=path, validation_file=path, **more)
    task = data.task
    texts = data.train.column(task.text)
    labels = data.train.column(task.label)
    if task.kind == "classification":
        labels = [task.labels[i] for i in labels]
    return texts, labels, "\n".join(data.reading.lines())


def write(path: Path, content) -> Path:
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8", newline="")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content))
    return path


# ------------------------------------------------------------ the same rows, written

DICTS = FRAME.to_dict("records")
SAME = {
    "blank columns": (
        "x.csv",
        PLAIN.replace("\n", ",,\n").replace("label,,", "label,,"),
    ),
    "a column more than once": (
        "x.csv",
        "id,text,label,id\n"
        + "".join(f'1,"{r["text"]}",{r["label"]},2\n' for r in DICTS),
    ),
    "spaces around names": ("x.csv", PLAIN.replace("text,label", " text , label ")),
    "spaces after commas": ("x.csv", PLAIN.replace('",', '", ').replace("t,l", "t, l")),
    "semicolons": ("x.csv", PLAIN.replace('",', '";').replace("t,l", "t;l")),
    "bars": ("x.csv", PLAIN.replace('",', '"|').replace("t,l", "t|l")),
    "sep line": ("x.csv", "sep=;\n" + PLAIN.replace('",', '";').replace("t,l", "t;l")),
    "quoted sep line": ("x.csv", '"sep=,"\r\n' + PLAIN.replace("\n", "\r\n")),
    "old Mac": ("x.csv", PLAIN.replace("\n", "\r")),
    "UTF-8 with mark": ("x.csv", PLAIN.encode("utf-8-sig")),
    "UTF-16": ("x.csv", PLAIN.encode("utf-16")),
    "UTF-16, tabs": ("x.txt", FRAME.to_csv(sep="\t", index=False).encode("utf-16")),
    "UTF-16 without mark": ("x.csv", PLAIN.encode("utf-16-be")),
    "UTF-16, old Mac": ("x.csv", PLAIN.replace("\n", "\r").encode("utf-16")),
    "UTF-32": ("x.csv", PLAIN.encode("utf-32")),
    "pandas' row numbers": ("x.csv", FRAME.to_csv()),
    "all quoted, tabs": ("x.tsv", FRAME.to_csv(sep="\t", index=False, quoting=1)),
    "words quoted, tabs": ("x.tsv", FRAME.to_csv(sep="\t", index=False, quoting=2)),
    "capital names": ("x.csv", PLAIN.replace("text,label", "Text,LABEL")),
    "names of the Kaggle set": ("x.csv", PLAIN.replace("t,label", "t,sentiment")),
    "blank rows first": ("x.csv", "\n  \n,\n" + PLAIN),
    "R's row names": (
        "x.csv",
        '"text","label"\n'
        + "".join(
            f'"{n}","{r["text"]}",{r["label"]}\n' for n, r in enumerate(DICTS, 1)
        ),
    ),
    "sep line of a tab": ("x.csv", "sep=\t\n" + FRAME.to_csv(sep="\t", index=False)),
    "sep line in words": ("x.csv", "SEP=\\t\n" + FRAME.to_csv(sep="\t", index=False)),
    "sep line of another sign": (
        "x.csv",
        "sep=^\n" + FRAME.to_csv(sep="^", index=False),
    ),
    "two marks": ("x.csv", "\ufeff\ufeff" + PLAIN),
    "UTF-16 of lines of JSON": (
        "x.jsonl",
        FRAME.to_json(orient="records", lines=True).encode("utf-16"),
    ),
    "spreadsheet's tabs": (
        "x.txt",
        PLAIN.replace('",', '"\t')
        .replace("t,l", "t\tl")
        .replace('"quite, good"', "Q")
        .replace('"', "")
        .replace("Q", '"quite, good"'),
    ),
    "JSON named csv": ("x.csv", FRAME.to_json(orient="records", lines=True)),
    "a list named jsonl": ("x.jsonl", FRAME.to_json(orient="records")),
    "a list over lines named jsonl": (
        "x.jsonl",
        FRAME.to_json(orient="records", indent=1),
    ),
    "objects over lines": ("x.json", "\n".join(json.dumps(r, indent=1) for r in DICTS)),
    "objects without lines": ("x.jsonl", "".join(map(json.dumps, DICTS))),
    "commas behind lines": ("x.jsonl", ",\n".join(map(json.dumps, DICTS))),
    "an answer of an API": ("x.json", {"count": 4, "next": None, "results": DICTS}),
    "columns under data": ("x.json", {"data": FRAME.to_dict("list")}),
    "by name, one with more": (
        "x.json",
        {f"row {n}": r | ({"more": 1} if n == 2 else {}) for n, r in enumerate(DICTS)},
    ),
    "lists in cells": ("x.csv", FRAME.assign(label=[[x] for x in "1010"]).to_csv()),
    "choices in cells": (
        "x.csv",
        FRAME.assign(label=[f'{{"choices": ["{x}"]}}' for x in LABELS]).to_csv(),
    ),
    "signs without width": (
        "x.json",
        [{**r, "label": f"\u200b{r['label']} "} for r in DICTS],
    ),
    "empty last lines": ("x.csv", PLAIN + ",\n,\n\n"),
    "spaces in last lines": ("x.csv", PLAIN + ' , \n"\u00a0",""\n\n'),
    "gz that is none": ("x.csv.gz", PLAIN.encode()),
    "gz without the name": ("x.csv", gzip.compress(PLAIN.encode())),
    "ndjson": ("x.ndjson", FRAME.to_json(orient="records", lines=True)),
    "lines as json": ("x.json", FRAME.to_json(orient="records", lines=True)),
    "columns": ("x.json", FRAME.to_json()),
    "columns, indented": ("x.json", FRAME.to_json(indent=2)),
    "index": ("x.json", FRAME.to_json(orient="index")),
    "named index": ("x.json", FRAME.set_axis(list("abcd")).to_json(orient="index")),
    "split": ("x.json", FRAME.to_json(orient="split")),
    "table": ("x.json", FRAME.to_json(orient="table", indent=1)),
    "records": ("x.json", FRAME.to_json(orient="records")),
    "lists": ("x.json", FRAME.to_dict("list")),
    "rows under data": ("x.json", {"version": 1, "data": DICTS}),
    "rows under another name": ("x.json", {"train": DICTS}),
    "data set viewer": ("x.json", {"rows": [{"row_idx": 0, "row": r} for r in DICTS]}),
    "lists as labels": ("x.json", [{**r, "label": [r["label"]]} for r in DICTS]),
    "choices as labels": (
        "x.json",
        [{**r, "label": {"choices": [str(r["label"])]}} for r in DICTS],
    ),
}


@pytest.mark.parametrize("name, content", SAME.values(), ids=SAME)
def test_rows_are_the_same_however_they_are_written(tmp_path, name, content):
    texts, labels, _ = rows_of(write(tmp_path / name, content))
    assert texts == TEXTS and labels == [str(label) for label in LABELS]


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


@pytest.mark.parametrize("text", ["это очень хороший фильм", "这是一部好电影"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_encodings_without_a_mark_are_known(tmp_path, encoding, text):
    content = f"text,label\n{text},0\n{text}2,1\n".encode(encoding)
    texts, _, said = rows_of(write(tmp_path / "x.csv", content))
    assert texts == [text, f"{text}2"] and f"read as {encoding}" in said


def test_an_encoding_that_is_not_the_file_s_is_said(tmp_path):
    path = write(tmp_path / "x.csv", PLAIN.replace("so bad", "très mal"))
    assert "is UTF-8 by its bytes" in rows_of(path, encoding="cp1252")[2]
    for name in ("utf-16", "utf-32", "ascii"):
        with pytest.raises(MetalrError, match=f"is not {name}"):
            rows_of(path, encoding=name)


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


def test_an_encoding_that_is_none_is_refused(tmp_path):
    for name in ("klingon", "base64", "rot13"):
        with pytest.raises(MetalrError, match=f"--encoding '{name}' is not an enc"):
            rows_of(write(tmp_path / "x.csv", PLAIN), encoding=name)


def test_names_that_parquet_has_for_ids_are_kept(tmp_path):
    import datasets

    names = ["zebra", "ant", "unseen"]
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    rows = {"text": [*TEXTS, "hidden"], "label": [1, 0, 1, 0, -1]}
    data = datasets.Dataset.from_dict(rows, features=features)
    data.to_parquet(tmp_path / "x.parquet")
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=data).save_to_disk(tmp_path / "splits")
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    for path in (tmp_path / "x.parquet", tmp_path / "saved", arrow):
        texts, labels, said = rows_of(path)
        assert texts == TEXTS and labels == ["ant", "zebra", "ant", "zebra"]
        assert "zebra 2, ant 2, unseen 0" in said and "without a training row" in said
        assert "2 no gold label" in said  # one of each side
    assert load("file", str(tmp_path / "saved")).task.labels == tuple(names)
    with pytest.raises(MetalrError, match="the splits train; name one, such as"):
        rows_of(tmp_path / "splits")


def test_bytes_that_are_no_utf8_are_no_texts(tmp_path):
    table = pyarrow.table({"text": [b"\xff", b"b"], "label": [0, 1]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(MetalrError, match="which is not text"):
        rows_of(tmp_path / "x.parquet")


LABEL_TYPES = {
    "decimal": pyarrow.array([decimal.Decimal(i) for i in LABELS]),
    "bytes": pyarrow.array([str(i).encode() for i in LABELS]),
    "bytes of a length": pyarrow.array([b"1", b"0", b"1", b"0"], pyarrow.binary(1)),
    "category": pyarrow.array(LABELS).dictionary_encode(),
    "category of texts": pyarrow.array(list("1010")).dictionary_encode(),
    "list of one": pyarrow.array([[i] for i in LABELS]),
    "unsigned": pyarrow.array(LABELS, pyarrow.uint64()),
    "float": pyarrow.array([1.0, 0.0, 1.0, 0.0]),
    "half": pyarrow.array(numpy.array(LABELS, numpy.float16)),
}


@pytest.mark.parametrize("kind", LABEL_TYPES)
def test_labels_of_every_type_of_arrow_are_labels(tmp_path, kind):
    table = pyarrow.table({"text": TEXTS, "label": LABEL_TYPES[kind]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    assert rows_of(tmp_path / "x.parquet")[1] == ["1", "0", "1", "0"]


@pytest.mark.parametrize("kind", ["text", "binary", "dictionary", "large", "view"])
def test_texts_of_every_type_of_arrow_are_texts(tmp_path, kind):
    types = {
        "dictionary": pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
        "large": pyarrow.large_string(),
        "view": pyarrow.string_view(),
    }
    texts = pyarrow.array(TEXTS).cast(types.get(kind, pyarrow.string()))
    if kind == "binary":
        texts = pyarrow.array([text.encode() for text in TEXTS])
    table = pyarrow.table({"text": texts, "label": LABELS})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    assert rows_of(tmp_path / "x.parquet")[0] == TEXTS


FAR = 2**62
ODD = {
    "date32": pyarrow.array([2**31 - 1] * 4, pyarrow.int32()).cast(pyarrow.date32()),
    "date64": pyarrow.array([FAR // 86_400_000 * 86_400_000] * 4).cast(
        pyarrow.date64()
    ),
    "timestamp": pyarrow.array([FAR] * 4).cast(pyarrow.timestamp("ms")),
    "zone": pyarrow.array([FAR] * 4).cast(pyarrow.timestamp("us", "Mars/Olympus")),
    "duration": pyarrow.array([FAR] * 4).cast(pyarrow.duration("s")),
}


@pytest.mark.parametrize("kind", ODD)
def test_dates_out_of_range_matter_only_where_they_are_labels(tmp_path, kind):
    table = pyarrow.table({"text": TEXTS, "label": LABELS, "when": ODD[kind]})
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(table, path)
    texts, _, said = rows_of(path)
    assert texts == TEXTS and "not read: when" in said
    with pytest.raises(MetalrError, match="not a readable Parquet|(no|not a) label"):
        rows_of(path, label_column="when")


REFUSED = {
    "packed by bzip2": ("x.csv", bz2.compress(PLAIN.encode()), "bzip2; unpack it"),
    "packed by zstd": ("x.jsonl", b"(\xb5/\xfd..", "zstd; unpack it"),
    "packed twice": ("x.csv.gz", gzip.compress(gzip.compress(b"x")), "gzipped twice"),
    "half a gzip header": ("x.csv.gz", b"\x1f\x8b", "not a complete gzip file"),
    "a packed nothing": ("x.csv.gz", gzip.compress(b""), "is empty"),
    "packed Parquet": ("x.parquet.gz", gzip.compress(b"PAR1.."), "unpack it .gunzip"),
    "old workbook": ("x.csv", b"\xd0\xcf\x11\xe0" + b"\0" * 99, "save it as CSV"),
    "pointer": ("x.csv", "version https://git-lfs.github.com/spec/v1\n", "lfs pull"),
    "web page": ("x.json", "<!DOCTYPE html>\n<html>", "web page"),
    "table named json": ("x.json", PLAIN, "name it .csv or .tsv"),
    "splits": ("x.json", {"data": {"train": DICTS, "test": DICTS}}, "several lists"),
    "one column": ("x.csv", "text^label\na^1\n", "first line such as sep=\\^"),
    "two columns of labels": (
        "x.csv",
        "text,stars,intent\na,1,b\n",
        "no column 'label', but intent, stars. Name it with --label-column",
    ),
    "no column of labels": ("x.jsonl", '{"text": "a"}', "Name it with --label-column"),
    "several labels": (
        "x.json",
        [{"text": "a", "label": ["x"]}] * 60 + [{"text": "a", "label": ["x", "y"]}],
        "row 61: .*--kind multilabel",
    ),
    "places": ("x.json", [{"text": "a", "label": [[0, 1, "X"]]}], "--kind tokens"),
    "one score": ("x.csv", "text,label\na,2.5\nb,2.5\n", "always the same"),
    "thousands": ("x.csv", 'text,label\na,"1,000"\nb,"2,000"\n', "without the comma"),
    "pieces of words": (
        "x.json",
        [{"tokens": ["a", "b"], "tags": [-100, 1]}] * 2,
        "pieces of words .*whole words",
    ),
    "two encodings": (
        "x.csv",
        PLAIN.encode() + "très bien,1\n".encode() + "très,1\n".encode("cp1252"),
        "line 7 is not UTF-8: .*holds two encodings.*cp1252 it reads 'très,1'",
    ),
    "workbook": ("x.xlsx", b"PK\x03\x04", "save it as CSV"),
    "workbook, named csv": ("x.csv", b"PK\x03\x04" + b"\0" * 50, "save it as CSV"),
    "pickle": ("x.pkl", b"\x80", "could run code"),
    "archive": ("x.zip", b"PK", "unpack it"),
    "several lists": ("x.json", {"train": DICTS, "test": DICTS}, "several lists"),
    "label studio": (
        "x.json",
        [{"id": 1, "data": {"text": "a"}, "annotations": []}],
        "export it as JSON-MIN or CSV",
    ),
    "nan among numbers": (
        "x.csv",
        "text,label\na,0\nb,1\nc,nan\n",
        "row 3: .* holds 'nan' among numbers .* leave such rows out .1 of 3.",
    ),
    "no gold label": (
        "x.csv",
        "text,label\na,-1\nb,-1\n",
        "a test split has no labels",
    ),
    "quotes with backslash": (
        "x.csv",
        'text,label\n"a \\"b\\" c",1\n',
        "line 2 breaks the format: .* is doubled",
    ),
    "fields": ("x.csv", "text,label\na,b,1\n", "3 fields.* has 2: .*with commas"),
    "tsv fields": ("x.tsv", "text\tlabel\na\n", "with tabs .* quotes are text"),
}


@pytest.mark.parametrize("name, content, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_with_a_way_out(
    tmp_path, name, content, message
):
    with pytest.raises(MetalrError, match=message) as fault:
        rows_of(write(tmp_path / name, content))
    assert "\n" not in str(fault.value)


def test_many_columns_are_read_in_no_time_and_unread(tmp_path):
    names = [f"c{n}" for n in range(30_000)]
    rows = [["text", "label", *names]]
    rows += [[f"t{n}", str(n % 2), *("1" * len(names))] for n in range(3)]
    path = write(tmp_path / "x.csv", "\n".join(",".join(row) for row in rows))
    assert rows_of(path)[0] == ["t0", "t1", "t2"]


# ------------------------------------------------------------ what is understood


def csv_of(tmp_path, labels, column="label"):
    body = "".join(f"text {n},{label}\n" for n, label in enumerate(labels))
    return write(tmp_path / "x.csv", f"text,{column}\n{body}")


UNDERSTOOD = {
    "percent": ([f"{n % 50}%" for n in range(99)], "regression", "from 0% to 49%"),
    "ignored": ([0, 1, 2] * 9 + [-100] * 2, "classification", "2 no gold label (-100)"),
    "no score": ([0.5, 1.5, "-"] * 5, "regression", "left out: 5 no gold label (-)"),
    "minus one of scores": ([0.5, 1.5, -1] * 5, "regression", "5 of 15 rows have it"),
    "nan among words": (["yes", "no", "nan"] * 5, "classification", "'nan' is a class"),
    "case": (["yes", "Yes", "no"] * 5, "classification", "for their case: Yes and yes"),
    "zeros before": (["7", "07", "8"] * 5, "classification", "as numbers: 07 and 7"),
    "one row each": ([f"t{n}" for n in range(40)], "classification", "have one row"),
    "control characters": (["a\x1b[2J", "\u202eb"] * 5, "classification", "\\u202eb 4"),
    "scores to 100": (
        [n * 37 % 101 for n in range(80)],
        "regression",
        "taken for scores",
    ),
    "ids without gap": ([n % 30 for n in range(300)], "classification", "30 classes"),
    "three of each id": ([n % 30 for n in range(90)], "classification", "30 classes"),
    "not three of each": ([n % 30 for n in range(89)], "regression", "for scores"),
    "codes": ([f"0{n % 30}" for n in range(99)], "classification", "30 classes"),
    "stars": ([n % 5 + 1 for n in range(50)], "classification", "5 classes"),
    "fractions": ([0.5, 1, 2] * 5, "regression", "regression of text"),
    "decimal commas": (['"3,5"', '"4,0"', "2"] * 5, "regression", "decimal comma"),
    "true": (
        ["true", "True", "FALSE", "false"] * 5,
        "classification",
        "2 classes: false 9,",
    ),
    "sentiment": ([-1, 0, 1] * 9, "classification", "-1 taken for a class: 33%"),
    "plus and minus": (["+", "-"] * 9, "classification", "2 classes: + "),
    "minus one of two": ([-1, 1] * 9, "classification", "2 classes: -1 "),
    "dashes": (
        ["yes", "no", "-"] * 9,
        "classification",
        "left out: 9 no gold label (-)",
    ),
    "hidden": ([0, 1, 2] * 9 + [-1] * 2, "classification", "2 no gold label (-1)"),
    "header again": (["yes", "no", "label"] * 5, "classification", "'label' is named"),
    "accents": (["caf\u00e9", "cafe\u0301", "tea"] * 5, "classification", "2 classes"),
}


@pytest.mark.parametrize("labels, kind, said", UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_what_labels_are_taken_for_is_said(tmp_path, labels, kind, said):
    data = load("file", train_file=csv_of(tmp_path, labels))
    assert data.task.kind == kind
    assert said in "\n".join(data.reading.lines())
    assert data.reading.to_json()["kind"] == kind


@pytest.mark.parametrize("value", [True, "True", "true", "TRUE"])
def test_true_is_one_class_in_every_format(tmp_path, value):
    train = write(
        tmp_path / "x.json", [{"text": "a", "label": v} for v in (True, False)]
    )
    other = write(tmp_path / "y.json", [{"text": "a", "label": value}])
    data = load("file", train_file=train, validation_file=other)
    assert data.task.labels == ("false", "true")
    assert data.validation["validation"][0]["label"] == 1


def test_the_user_says_what_the_rows_are(tmp_path):
    path = csv_of(tmp_path, [n * 37 % 101 for n in range(80)])
    data = load("file", train_file=path, kind="classification")
    assert data.task.kind == "classification" and len(data.task.labels) == 80
    path = csv_of(tmp_path, [1, 2, 3] * 9)
    assert load("file", train_file=path, kind="regression").task.kind == "regression"
    path = csv_of(tmp_path, ["low", "high"] * 9)
    with pytest.raises(MetalrError, match="'low', which is not a finite number"):
        load("file", train_file=path, kind="regression")
    with pytest.raises(MetalrError, match="column 'question' is missing"):
        load("file", train_file=path, kind="qa")
    with pytest.raises(MetalrError, match="sst2 is a classification; --kind"):
        load("sst2", train_file=path, kind="regression")


@pytest.mark.parametrize(
    "pair",
    [
        ("text", "text_pair"),
        ("question", "sentence"),
        ("premise", "hypothesis"),
        ("sentence1", "sentence2"),
        ("question1", "question2"),
        ("Sentence_A", "Sentence_B"),
        ("text_1", "text_2"),
        ("textA", "textB"),
        ("s1", "s2"),
        ("text", "text2"),
        ("query", "document"),
        ("claim", "evidence"),
    ],
)
@pytest.mark.parametrize("label", ["label", "gold_label"])
def test_pairs_are_known_by_their_columns(tmp_path, pair, label):
    rows = [{"id": n, pair[0]: "a", pair[1]: f"b{n}", label: n % 2} for n in range(20)]
    data = load("file", train_file=write(tmp_path / "x.json", rows))
    assert (data.task.text, data.task.pair, data.task.label) == (*pair, label)
    assert data.reading.columns == (*pair, label) and data.reading.unread == ("id",)


def test_the_order_of_classes_does_not_hang_on_hashes(tmp_path):
    path = csv_of(tmp_path, ["7", "07", "12", "7.0", "007"] * 6)
    script = (
        "import sys; from metalr.data.loading import load; "
        "print(load('file', train_file=sys.argv[1]).task.labels)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script, str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert said == {"('007', '07', '7', '12')\n"}


def test_what_is_left_out_of_a_known_set_is_counted(tmp_path):
    rows = [{"sentence": f"t{n}", "label": n % 3 - 1} for n in range(30)]
    path = write(tmp_path / "x.json", rows)
    data = load("sst2", train_file=path, validation_file=path)
    assert len(data.train) == 20
    assert data.reading.left_out == {"no gold label (-1)": 20}  # of both


WRITTEN = ["café", "b\nc", "it's", 'a "b"', "c:\\d"]


@pytest.mark.parametrize("write_list", [json.dumps, repr], ids=["json", "python"])
def test_a_list_that_a_cell_holds_as_text_keeps_its_signs(tmp_path, write_list):
    rows = [{"text": "a film", "labels": write_list(WRITTEN)}] * 4
    pandas.DataFrame(rows).to_csv(tmp_path / "x.csv", index=False)
    data = load("file", train_file=tmp_path / "x.csv", kind="multilabel")
    assert {*data.task.labels} == {*WRITTEN}


def test_one_row_of_lists_is_a_row_where_a_file_has_one_a_line(tmp_path):
    row = {"tokens": ["John", "lives", "in", "Paris"]}
    write(tmp_path / "one.jsonl", json.dumps(row))
    assert read_rows(tmp_path / "one.jsonl") == [row]
    write(tmp_path / "columns.json", {"text": TEXTS, "label": LABELS})
    assert len(read_rows(tmp_path / "columns.json")) == len(TEXTS)


def named_classes(path: Path, names, labels=LABELS) -> Path:
    """Write rows whose ids have names, as `datasets` keeps them."""
    datasets = pytest.importorskip("datasets")
    kinds = {
        "sentence": datasets.Value("string"),
        "label": datasets.ClassLabel(names=names),
    }
    columns = {"sentence": [*TEXTS, "more"][: len(labels)], "label": labels}
    rows = datasets.Dataset.from_dict(columns, datasets.Features(kinds))
    rows.to_parquet(str(path))
    return path


SPELLED = {
    "capitals of truth": (["False", "True"], ("false", "true")),
    "fractions of ids": (["1.0", "2.0"], ("1", "2")),
    "a space behind": (["not spam ", "spam"], ("not spam", "spam")),
    "an accent apart": (["cafe\u0301", "tea"], ("caf\u00e9", "tea")),
}


@pytest.mark.parametrize("names, spelled", SPELLED.values(), ids=SPELLED)
def test_names_of_ids_are_spelled_as_labels_are(names, spelled, tmp_path):
    path = named_classes(tmp_path / "x.parquet", names)
    assert load("file", train_file=path, validation_file=path).task.labels == spelled
    assert rows_of(path)[1] == [spelled[label] for label in LABELS]
    other = write(tmp_path / "y.json", [{"sentence": "a", "label": names[1]}])
    data = load("file", train_file=path, validation_file=other)
    assert data.validation["validation"][0]["label"] == 1


@pytest.mark.parametrize("names", [["spam", "spam "], ["1", "1.0"], ["", "spam"]])
def test_names_of_ids_that_become_one_or_none_are_refused(names, tmp_path):
    path = named_classes(tmp_path / "x.parquet", names)
    with pytest.raises(MetalrError, match="names of column 'label' must differ"):
        load("file", train_file=path)
    with pytest.raises(MetalrError, match="names of column 'label' must differ"):
        load("sst2", train_file=path)


@pytest.mark.parametrize("name", ["-", "-1", "-100"])
def test_a_class_that_is_named_like_no_label_is_kept_apart_from_it(name, tmp_path):
    labels = [*LABELS, -1]
    path = named_classes(tmp_path / "x.parquet", ["good", name], labels)
    texts, found, said = rows_of(path)
    assert found == [("good", name)[label] for label in LABELS]
    assert "2 no gold label (-1)" in said  # one of each side


def test_a_hidden_score_that_has_names_is_left_out(tmp_path):
    path = named_classes(tmp_path / "x.parquet", ["1", "2"], [*LABELS, -1])
    texts, found, said = rows_of(path, kind="regression")
    assert found == [2.0, 1.0, 2.0, 1.0] and "2 no gold label (-1)" in said


@pytest.mark.parametrize(
    ("names", "first", "said"),
    [
        (["negative", "positive"], "positive", ""),
        (["positive", "negative"], "negative", ""),
        (["bad", "good"], "positive", "taken by their ids: bad is negative, good is"),
    ],
)
def test_ids_of_a_known_task_are_read_by_the_names_that_the_file_has(
    names, first, said, tmp_path
):
    path = named_classes(tmp_path / "x.parquet", names)
    data = load("sst2", train_file=path, validation_file=path)
    (tmp_path / "sst2").mkdir()
    for split in ("train", "validation"):
        named_classes(tmp_path / f"sst2/{split}.parquet", names)
    for of in (data, load("sst2", str(tmp_path))):
        assert data.task.labels[of.train[0]["label"]] == first
        assert said in "\n".join(of.reading.lines())


TWICE = {
    "label": {"text_column": "text", "label_column": "text"},
    "pair": {"text_column": "text", "pair_column": "text"},
    "tags": {"kind": "tokens", "text_column": "text", "label_column": "text"},
}


@pytest.mark.parametrize("name", TWICE)
def test_a_column_that_is_named_twice_is_refused(tmp_path, name):
    write(tmp_path / "x.csv", PLAIN)
    with pytest.raises(MetalrError, match="'text' is taken for two of text, pair and"):
        load("file", train_file=tmp_path / "x.csv", **TWICE[name])


@pytest.mark.parametrize("kind", ["classification", "tokens", "qa"])
def test_a_separator_of_labels_is_read_or_refused(tmp_path, kind):
    write(tmp_path / "x.csv", "text,labels\na film,joy|fear\nso bad,joy\n")
    path = tmp_path / "x.csv"
    with pytest.raises(MetalrError, match="--label-separator is read by tasks of sev"):
        load("file", train_file=path, kind=kind, label_separator="|")
    data = load(
        "go_emotions", train_file=path, validation_file=path, label_separator="|"
    )
    found = [[data.task.labels[i] for i in row["labels"]] for row in data.train]
    assert [{*labels} for labels in found] == [{"joy", "fear"}, {"joy"}]


@pytest.mark.parametrize(
    ("more", "guessed"),
    [({}, True), ({"label_separator": "|"}, False), ({"kind": "multilabel"}, False)],
)
def test_a_kind_is_said_to_be_guessed_only_where_it_was(more, guessed, tmp_path):
    rows = [{"text": f"t{n}", "labels": ["joy", "fear"][n % 2 :]} for n in range(4)]
    path = write(tmp_path / "x.json", rows)
    data = load("file", train_file=path, validation_file=path, **more)
    assert data.task.kind == "multilabel"
    assert ("taken for multilabel" in "\n".join(data.reading.lines())) is guessed


@pytest.mark.parametrize(
    ("name", "content", "flags"),
    [
        ("x.json.csv", "a,label\nb,1\n", True),
        ("x.csv", '{"a": "b", "label": 1}\n', False),
        ("x.jsonl", '{"a": "b", "label": 1}\n', False),
    ],
)
def test_what_a_file_holds_says_whether_later_rows_may_have_a_column(
    name, content, flags, tmp_path
):
    with pytest.raises(MetalrError, match="row 1: column 'text' is missing") as fault:
        rows_of(write(tmp_path / name, content), text_column="text")
    assert ("--text-column" in str(fault.value)) is flags


@pytest.mark.parametrize("squads", [True, False], ids=["list", "dict"])
def test_answers_in_a_cell_of_a_table_are_read(squads, tmp_path):
    answers = {"text": ["so"], "answer_start": [0]}
    cell = [{"text": "so", "answer_start": 0}] if squads else answers
    row = {"context": "so bad", "question": "how?", "answers": json.dumps(cell)}
    pandas.DataFrame([row] * 4).to_csv(tmp_path / "x.csv", index=False)
    data = load("file", train_file=tmp_path / "x.csv")
    assert data.task.kind == "qa" and data.train[0]["answers"] == answers


def test_words_with_tags_have_no_second_text(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": ["O", "B-X"], "extra": "c"}] * 4
    write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(MetalrError, match="no second text; leave out --pair-column"):
        load("file", train_file=tmp_path / "x.jsonl", pair_column="extra")


def test_thousands_are_refused_in_rows_to_score_on_as_in_those_to_train_on(tmp_path):
    head = "text,score\n"
    scores = [500, 507.5, 520, 512.5]
    write(tmp_path / "a.csv", head + "".join(f"a film,{s}\n" for s in scores))
    write(tmp_path / "b.csv", head + "".join(f'a film,"1,{n:03}"\n' for n in range(4)))
    files = {"train_file": tmp_path / "a.csv", "validation_file": tmp_path / "b.csv"}
    with pytest.raises(MetalrError, match="b.csv: column 'score' holds '1,000', which"):
        load("file", **files)
