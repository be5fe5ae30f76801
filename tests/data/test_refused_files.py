"""What cannot be read or does not go together is refused with a way out."""

import bz2
import gzip
import json

import pytest

from metalr.data.loading import load
from metalr.errors import MetalrError
from tests.data.rows_of_files import DICTS, PLAIN, rows_of, write

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


def test_thousands_are_refused_in_rows_to_score_on_as_in_those_to_train_on(tmp_path):
    head = "text,score\n"
    scores = [500, 507.5, 520, 512.5]
    write(tmp_path / "a.csv", head + "".join(f"a film,{s}\n" for s in scores))
    write(tmp_path / "b.csv", head + "".join(f'a film,"1,{n:03}"\n' for n in range(4)))
    files = {"train_file": tmp_path / "a.csv", "validation_file": tmp_path / "b.csv"}
    with pytest.raises(MetalrError, match="b.csv: column 'score' holds '1,000', which"):
        load("file", **files)


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


@pytest.mark.parametrize("columns", [{}, {"text_column": "text"}])
@pytest.mark.parametrize("place", ["train_file", "validation_file"])
def test_a_file_of_nothing_is_said_to_be_empty(tmp_path, place, columns):
    full = write(tmp_path / "full.csv", "text,label\nx,1\ny,0\n")
    files = {"train_file": full, place: write(tmp_path / "none.csv", "")}
    with pytest.raises(MetalrError, match="none.csv is empty: it holds no rows"):
        load("file", **files, **columns)


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


def test_words_with_tags_have_no_second_text(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": ["O", "B-X"], "extra": "c"}] * 4
    write(tmp_path / "x.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(MetalrError, match="no second text; leave out --pair-column"):
        load("file", train_file=tmp_path / "x.jsonl", pair_column="extra")


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
