"""Streams are read as files are, and what is written loses no row of any type."""

import datetime
import io
import signal
import subprocess
import sys
import time

import pytest

from metalr.data import structured
from metalr.data.formats.table import Options
from metalr.data.schema import Task
from metalr.errors import MetalrError
from metalr.predict import files, reading, source
from tests.predict.short_runs import read


def read_stream(text, form):
    return list(source.from_stream(io.StringIO(text), form))


STREAMS = {
    "the second of a name": ("text,label,text\na,1,b\n", "csv"),
    "mark": ("\ufefftext,label\na,1\n", "csv"),
    "mark before JSON": ('\ufeff{"text": "a", "label": "1"}\n', "jsonl"),
    "no name": ("text,,label\na,0,1\n", "csv"),
    "pandas' index": (",text,label\n17,a,1\n", "csv"),
    "pandas' index twice": (",Unnamed: 0,text,label\n0,17,a,1\n", "csv"),
    "blank columns of a spreadsheet": ("text,label,,\na,1,,\n", "csv"),
}


MORE = {
    "the second of a name": {"text.1": "b"},
    "no name": {"Unnamed: 1": "0"},
    "pandas' index": {"Unnamed: 0": "17"},
    "pandas' index twice": {"Unnamed: 0.1": "0", "Unnamed: 0": "17"},
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_read_as_the_file_is(name, tmp_path):
    text, form = STREAMS[name]
    path = tmp_path / f"rows.{form}"
    path.write_text(text, encoding="utf-8")
    (row,) = read_stream(text, form)
    (other,) = source.from_file(path, Options())
    assert row == other
    assert row == {"text": "a", "label": "1"} | MORE.get(name, {})


def test_lines_of_stdin_with_other_commas_are_told_how_texts_are_read():
    lines = io.StringIO("Good film, really\nBad\n")
    with pytest.raises(MetalrError, match="than the first line: .*say --format tsv"):
        list(source.from_stream(lines, "csv", Options(header=False)))


def test_words_in_a_cell_of_a_table_are_those_that_training_reads():
    task = Task(name="t", kind="tokens", text="tokens", label="tags", hub=("", None))
    for cell in ("['John', 'left']", '["John", "left"]'):
        row = reading.check({"tokens": cell}, task, "row 1")
        assert row == {"tokens": structured.texts(cell)} == {"tokens": ["John", "left"]}


def test_a_table_printed_to_a_stream_is_read_as_it_was_written():
    rows = read_stream('text\tn\n"Great" film\t1\na 5" screen\t2\n', "tsv")
    out = io.StringIO()
    files.print_to(out, "tsv", rows, quoted=False)
    assert read_stream(out.getvalue(), "tsv") == rows
    with pytest.raises(MetalrError, match="holds a tab or a line end.*print jsonl"):
        files.print_to(out, "tsv", [{"text": "a\tb"}], quoted=False)


def test_numbers_that_do_not_fit_into_parquet_are_told(tmp_path):
    out = tmp_path / "out.parquet"
    with pytest.raises(MetalrError, match=r"do not fit into one Parquet.*\.jsonl"):
        files.write(out, "parquet", [{"id": 10**20, "text": "a"}])
    assert not out.exists()


LATE = {
    "a text": (None, "t", "t"),
    "a list": ([], ["a"], ["a"]),
    "a number with a fraction": (1, 0.5, 0.5),
    "another day's time": (datetime.date(2020, 1, 1), None, None),
    "nothing at all": (None, None, None),
    "a field": ({"a": None}, {"a": "x"}, {"a": "x"}),
}


@pytest.mark.parametrize("name", LATE)
def test_column_that_tells_its_type_late_goes_into_parquet(name, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_GROUP", 2)
    first, later, wanted = LATE[name]
    rows = [{"n": i, "x": first if i < 4 else later} for i in range(7)]
    files.write(tmp_path / "out.parquet", "parquet", rows)
    found = read(tmp_path / "out.parquet")
    assert [row["n"] for row in found] == [*range(7)]
    assert [row["x"] for row in found] == [first] * 4 + [wanted] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


UNFIT = {
    "in another group": [1, 1, 1, "t", 2],
    "in one group": [1, 1, "t", 2, 2],
    "a number that is no fraction": [2**60 + 1, 2, 0.5, 3, 3],
    "a text of no UTF-8": ["a", "a", "a", "\ud800", "b"],
}


@pytest.mark.parametrize("name", UNFIT)
def test_rows_that_parquet_cannot_hold_are_kept_all_the_same(
    name, tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "_GROUP", 2)
    (tmp_path / "out.parquet.jsonl").write_text("mine")
    rows = ({"n": i, "x": x} for i, x in enumerate(UNFIT[name]))
    with pytest.raises(MetalrError, match=r"they are kept in .*out.parquet.0.jsonl$"):
        files.write(tmp_path / "out.parquet", "parquet", rows)
    found = read(tmp_path / "out.parquet.0.jsonl")
    assert [row["n"] for row in found] == [*range(5)]
    assert [row["x"] for row in found][:3] == UNFIT[name][:3]
    assert (tmp_path / "out.parquet.jsonl").read_text() == "mine"
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.csv.gz", "out.parquet"])
def test_rows_of_other_columns_are_kept_beside_the_table(name, tmp_path):
    path = tmp_path / name
    rows = [{"a": 1}, {"a": {"x": 2.5}, "b": None}, {"c": "ü"}]
    with pytest.raises(MetalrError, match=f"same columns.* kept in .*{name}.jsonl$"):
        files.write(path, files.format_of(path), iter(rows))
    (kept,) = tmp_path.iterdir()
    assert read(kept) == rows


def test_row_that_is_refused_midway_is_no_fault_of_the_table(tmp_path):
    def rows():
        yield {"n": 1}
        raise MetalrError("row 2 has no text")

    with pytest.raises(MetalrError, match="^row 2 has no text$"):
        files.write(tmp_path / "out.parquet", "parquet", rows())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_a_command_that_is_stopped_leaves_nothing_beside_its_file(
    name, signum, sst2, tmp_path
):
    argv = ("predict", str(sst2), "--file", "-", "--output", str(tmp_path / name))
    with subprocess.Popen(
        [sys.executable, "-m", "metalr", *argv],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path.parent,
    ) as program:
        for _ in range(1200):  # until it waits for the first row
            if any(tmp_path.iterdir()):
                break
            time.sleep(0.1)
        assert any(tmp_path.iterdir())
        program.send_signal(signum)
        said = program.communicate(timeout=60)[1]
    assert (program.returncode, said, [*tmp_path.iterdir()]) == (-signum, b"", [])
