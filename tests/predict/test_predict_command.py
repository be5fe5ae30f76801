"""`metalr predict` keeps the rows that it is given, and says what is wrong in them."""

import csv
import io
import json
import re
import sys

import pytest

import metalr
from metalr import cli
from metalr.errors import MetalrError
from metalr.predict import command, files
from tests.predict.short_runs import read, write


def call(*argv, capsys):
    status = cli.main(["predict", *map(str, argv)])
    return status, capsys.readouterr()


def parsed(argv):
    parser = cli.Parser()
    command.add(parser.add_subparsers(parser_class=cli.Parser))
    return parser.parse_args(argv)


@pytest.mark.parametrize("source", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("target", [".csv", ".jsonl", ".parquet"])
def test_rows_come_out_as_they_went_in_with_predictions_beside_them(
    source, target, sst2, rows, tmp_path, capsys
):
    given = [{"number": str(i), **row} for i, row in enumerate(rows["sst2"])]
    file = write(tmp_path / f"rows{source}", given)
    out = tmp_path / f"out{target}"
    status, told = call(sst2, "--file", file, "--output", out, "--quiet", capsys=capsys)
    assert status == 0, told.err
    wanted = metalr.load(sst2)(given)
    found = read(out)
    for row, prediction, line in zip(given, wanted, found, strict=True):
        assert line["predicted_label"] == prediction["predicted_label"]
        assert {name: str(line[name]) for name in row} == {
            name: str(value) for name, value in row.items()
        }
    if target == ".csv":
        column = "predicted_probability_positive"
        values = [float(line[column]) for line in found]
        assert 0.0 < min(values) <= max(values) < 1.0
    assert [p.name for p in tmp_path.iterdir() if "draft" in p.name] == []


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_stdin_to_stdout(form, sst2, rows, monkeypatch, capsys):
    text = io.StringIO()
    lines = [{"text": row["sentence"]} for row in rows["sst2"]]
    if form == "csv":
        table = csv.DictWriter(text, ["text"])
        table.writeheader()
        table.writerows(lines)
    else:
        text.write("".join(json.dumps(line) + "\n\n" for line in lines))
    monkeypatch.setattr(sys, "stdin", io.StringIO(text.getvalue()))
    status, told = call(
        sst2, "--file", "-", "--format", form, "--text-column", "text",
        capsys=capsys,
    )  # fmt: skip
    assert status == 0
    assert f"{len(lines)} rows" in told.err
    out = told.out.splitlines()
    found = list(csv.DictReader(out)) if form == "csv" else [*map(json.loads, out)]
    assert [line["text"] for line in found] == [line["text"] for line in lines]


def test_stdin_is_read_in_its_encoding_and_without_a_header(sst2, monkeypatch, capsys):
    def say(written, *flags):
        stream = io.TextIOWrapper(io.BytesIO(written), errors="surrogateescape")
        monkeypatch.setattr(sys, "stdin", stream)
        argv = (sst2, "--file", "-", "--quiet", "--text-column", *flags)
        return call(*argv, capsys=capsys)

    coded = "text\ncafé noir\n".encode("cp1252")
    status, told = say(coded, "text", "--format", "csv", "--encoding", "cp1252")
    assert status == 0 and "café noir" in told.out
    status, told = say(coded, "text", "--format", "csv")
    assert status == 2 and "stdin is not UTF-8 after row 0" in told.err
    assert "name its own with --encoding" in told.err
    status, told = say(b"fine\ndull\n", "1", "--format", "csv", "--no-header")
    assert status == 0 and len(told.out.splitlines()) == 3
    status, told = say(b"{}", "1", "--no-header")
    assert status == 2 and "--no-header is of CSV and TSV" in told.err


def test_texts_on_stdin_are_read_as_the_error_says(sst2, monkeypatch, capsys):
    def say(*flags):
        monkeypatch.setattr(sys, "stdin", io.StringIO('so "fine", so good\n'))
        return call(sst2, "--file", "-", *flags, capsys=capsys)

    status, told = say()
    way = re.search("(--format tsv .*) a text a line", told.err)
    assert status == 2 and way
    status, told = say(*way[1].split())
    assert status == 0 and 'so "fine", so good\t' in told.out
    assert "1 row, " in told.err


def test_blank_rows_of_a_table_are_left_out_and_counted(sst2, tmp_path, capsys):
    (tmp_path / "x.csv").write_text("sentence,n\nfine,1\n,\ndull,2\n , \n")
    numbered = "".join(f"{i},{x}\n" for i, x in enumerate(["fine,1", ",", "dull,2"]))
    (tmp_path / "pandas.csv").write_text(f",sentence,n\n{numbered}")
    for name, blank in (("x.csv", 2), ("pandas.csv", 1)):
        status, told = call(sst2, "--file", tmp_path / name, capsys=capsys)
        assert status == 0 and len(told.out.splitlines()) == 2
        assert f"blank rows left out: {blank}" in told.err
    (tmp_path / "x.csv").write_text("sentence,n\n,\n,\n")
    flags = ("--output", tmp_path / "x.parquet")
    status, told = call(sst2, "--file", tmp_path / "x.csv", *flags, capsys=capsys)
    assert status == 2 and "all 2 rows are blank" in told.err


NOTES = {
    "semicolons": ("text;n\na, b;1\n", [], "read with semicolons between the fields"),
    "encoding": ("text\ncafé\n", ["--encoding", "cp1252"], "is the --encoding right?"),
}


@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["", "quiet"])
@pytest.mark.parametrize("name", NOTES)
def test_notes_on_how_a_file_is_read_are_said(name, quiet, sst2, tmp_path, capsys):
    text, flags, note = NOTES[name]
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    flags = ["--file", tmp_path / "x.csv", "--text-column", "text", *flags, *quiet]
    status, told = call(sst2, *flags, capsys=capsys)
    assert status == 0
    assert (note in told.err) == (not quiet)


@pytest.mark.parametrize("flags", [["--no-header"], ["--encoding", "cp1252"]])
def test_flags_of_text_files_beside_parquet_are_refused(sst2, flags, tmp_path, capsys):
    files.write(tmp_path / "x.parquet", "parquet", [{"sentence": "fine"}])
    status, told = call(sst2, "--file", tmp_path / "x.parquet", *flags, capsys=capsys)
    assert status == 2 and "leave it out" in told.err


BAD_ROWS = {
    "no column": ([{"review": "fine"}], "row 1 has no column 'sentence'.*review"),
    "second row": ([{"sentence": "a"}, {"text": "b"}], "row 2 has no column"),
    "number": ([{"sentence": 3}], "must hold a text, got 3"),
    "blank": ([{"sentence": " "}], "must hold a text"),
    "none": ([{"sentence": None}], "must hold a text, got None"),
    "taken": ([{"sentence": "a", "predicted_label": "x"}], "rename it"),
    "taken in a table": (
        [{"sentence": "a", "predicted_probability_negative": "x"}],
        "rename it",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_rows_that_do_not_fit_are_refused_and_leave_no_file(name, sst2, tmp_path):
    given, message = BAD_ROWS[name]
    file, out = write(tmp_path / "rows.jsonl", given), tmp_path / "out.jsonl"
    argv = ["predict", str(sst2), "--file", str(file), "--output", str(out)]
    with pytest.raises(MetalrError, match=message):
        command.carry_out(parsed(argv))
    assert not out.exists()


BAD_FLAGS = {
    "no such folder": (["nowhere", "--file", "-"], "is not a folder"),
    "format": (["RUN", "--file", "-", "--format", "jsno"], "did you mean 'jsonl'"),
    "output": (["RUN", "--file", "-", "--output", "out.xlsx"], "format of an output"),
    "pair": (["RUN", "--file", "-", "--pair-column", "b"], "reads one text a row"),
    "batch": (["RUN", "--file", "-", "--batch-size", "0"], "at least 1"),
    "folder": (["RUN", "--file", "-", "--output", "no/out.csv"], "no folder"),
}


@pytest.mark.parametrize("name", BAD_FLAGS)
def test_wrong_flags_are_told_in_one_line(name, sst2, monkeypatch, capsys):
    argv, message = BAD_FLAGS[name]
    argv = [str(sst2) if word == "RUN" else word for word in argv]
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"sentence": "a"}\n'))
    assert cli.main(["predict", *argv]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
