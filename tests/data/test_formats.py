"""Readers of files: what they return, and every way they refuse."""

import base64
import csv
import dataclasses
import gzip
import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metalr.data.formats import opening, text
from metalr.data.formats.table import ENDINGS
from metalr.data.loading import load
from metalr.errors import MetalrError
from metalr.finetune.config import RunConfig
from tests.data.rows_of_files import read_rows

ROOT = Path(__file__).parents[2]
ROWS = [{"sentence": 'a "good", long\nfilm', "label": 1}, {"sentence": "é", "label": 0}]
SQUAD = {
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "It was blue.",
                    "qas": [
                        {
                            "id": "q1",
                            "question": "Which colour?",
                            "answers": [{"text": "blue", "answer_start": 7}],
                        }
                    ],
                }
            ],
        }
    ]
}

# Files are written over and over in one folder, which is what hypothesis warns of.
many = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tables = st.lists(
    st.fixed_dictionaries({"a": texts, "b": texts}), min_size=1, max_size=5
)


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# ------------------------------------------------------------ what is read


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.json", "x.JSONL"])
def test_json_lines_come_back_as_written(tmp_path, name):
    assert read_rows(write(tmp_path / name, lines(ROWS))) == ROWS


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    path = write(tmp_path / "x.jsonl", "\ufeff" + lines(ROWS) + "\n  \n")
    assert read_rows(path) == ROWS


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_may_be_one_list(tmp_path, indent):
    path = write(tmp_path / "x.json", json.dumps(ROWS, indent=indent))
    assert read_rows(path) == ROWS


@pytest.mark.parametrize("indent", [None, 2])
def test_squads_nested_file_comes_out_flat_as_on_the_hub(tmp_path, indent):
    path = write(tmp_path / "dev-v1.1.json", json.dumps(SQUAD, indent=indent))
    assert read_rows(path) == [
        {
            "id": "q1",
            "title": "T",
            "context": "It was blue.",
            "question": "Which colour?",
            "answers": {"text": ["blue"], "answer_start": [7]},
        }
    ]


@pytest.mark.parametrize("said", [{}, {"answers": None}], ids=["left out", "null"])
def test_a_question_of_squad_without_answers_is_a_row_to_predict(said, tmp_path):
    asked = {"id": "q2", "question": "When?"} | said
    squad = json.loads(json.dumps(SQUAD))
    squad["data"][0]["paragraphs"][0]["qas"].append(asked)
    path = write(tmp_path / "x.json", json.dumps(squad))
    answered, open_one = read_rows(path)
    assert "answers" in answered and "answers" not in open_one
    assert (open_one["question"], open_one["context"]) == ("When?", "It was blue.")
    for task in ("file", "squad"):
        with pytest.raises(MetalrError, match="row 2: column 'answers' is missing"):
            load(task, train_file=path)


def test_parquet_comes_back_as_written(tmp_path):
    rows = [{**row, "answers": {"text": ["x"], "answer_start": [1]}} for row in ROWS]
    # A folder name that pyarrow could take for a column.
    (tmp_path / "label=7").mkdir()
    path = tmp_path / "label=7" / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert read_rows(path) == rows


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_a_text_of_a_book_s_length_is_read(name, tmp_path):
    text = "word " * 200_000
    path = write(tmp_path / name, f"text\n{text}\n")
    assert read_rows(path) == [{"text": text}]


@many
@given(tables)
def test_csv_reads_what_the_csv_module_writes(tmp_path, rows):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["a", "b"])
    writer.writeheader()
    writer.writerows(rows)
    assert read_rows(write(tmp_path / "x.csv", out.getvalue())) == rows


@many
@given(tables)
def test_json_lines_read_what_the_json_module_writes(tmp_path, rows):
    assert read_rows(write(tmp_path / "x.jsonl", lines(rows))) == rows


def test_a_quote_in_a_tsv_file_is_a_character_of_the_text(tmp_path):
    path = write(tmp_path / "x.tsv", 'sentence\tlabel\n"so" he said\t1\n"open\t0\n')
    assert [row["sentence"] for row in read_rows(path)] == [
        '"so" he said',
        '"open',
    ]


# ------------------------------------------------------------ what is refused


@many
@given(st.binary(max_size=200), st.sampled_from(opening.SUFFIXES))
def test_garbage_is_refused_without_a_traceback(tmp_path, raw, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(raw)
    try:
        rows = read_rows(path)
    except MetalrError as fault:
        assert str(path) in str(fault)
    else:
        assert all(isinstance(row, dict) for row in rows)


BAD = {
    "broken line": ("x.jsonl", '{"a": 1}\n{"a": \n', "x.jsonl line 2 is not JSON"),
    "no object": ("x.jsonl", '{"a": 1}\n\n[1]\n', "line 3 is not a JSON obj.*\\[1\\]"),
    "deep": ("x.jsonl", "[" * 200_000, "line 1 is not usable JSON: nested too deeply"),
    "long number": ("x.jsonl", '{"a": ' + "9" * 5000 + "}", "line 1 is not usable"),
    "not UTF-8": ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "line 2 is not UTF-8: .*ff"),
    "empty": ("x.jsonl", "", "is empty"),
    "blank": ("x.json", "\n\n", "is empty"),
    "broken json": ("x.json", '[\n{"a": 1},\n{"a" 2}]', "x.json line 3 is not JSON"),
    "json of no rows": ("x.json", "{\n}", "holds none of what is read"),
    "list of numbers": ("x.json", "[1, 2]", "holds none of what is read"),
    "bad squad": ("x.json", '{"data": [{"paragraphs": [{}]}]}', "article 1 .* 'qas'"),
    "ragged": ("x.csv", "a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, the header has 2"),
    "open quote": ("x.csv", 'a,b\n1,"2\n', "line 2 breaks the format"),
    "header only": ("x.csv", "a,b\n", "is empty"),
    "csv not UTF-8": ("x.csv", b"a\n\xe9t\xe9\n", "line 2 is not UTF-8"),
    "ragged tsv": ("x.tsv", "a\tb\n1\n", "line 2 has 1 fields"),
    "foreign parquet": ("x.parquet", "PAR1 no", "not a readable Parquet file"),
    "foreign ending": ("x.xlsx", "", f"ends in {', '.join(ENDINGS)}, not in '.xlsx'"),
    "no ending": ("rows", "", "not in ''"),
}


@pytest.mark.parametrize("name, content, message", BAD.values(), ids=BAD)
def test_a_bad_file_gets_a_line_that_says_where(tmp_path, name, content, message):
    with pytest.raises(MetalrError, match=message) as fault:
        read_rows(write(tmp_path / name, content))
    assert "\n" not in str(fault.value)


def test_a_truncated_gzip_file_is_refused(tmp_path):
    whole = gzip.compress(lines(ROWS).encode())
    (tmp_path / "x.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(MetalrError, match="not a complete gzip file"):
        read_rows(tmp_path / "x.jsonl.gz")


def test_an_endless_line_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MAX_LINE", 1000)
    path = write(tmp_path / "x.jsonl.gz", b'{"' + b"x" * 5000)
    with pytest.raises(MetalrError, match="line 1 is longer than 1000 bytes"):
        read_rows(path)


def test_a_missing_file_names_its_neighbours(tmp_path):
    write(tmp_path / "train.csv", "a\n1\n")
    with pytest.raises(MetalrError, match="the nearest there: train.csv"):
        read_rows(tmp_path / "trian.csv")
    with pytest.raises(MetalrError, match="there is no folder"):
        read_rows(tmp_path / "none" / "x.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(MetalrError, match="is not a folder that Dataset.save") as said:
        read_rows(tmp_path / "folder.csv")
    assert ", ".join(ENDINGS) in str(said.value)


def test_every_ending_that_users_are_told_of_has_a_reader():
    assert {*ENDINGS} <= {*opening._READERS}
    assert {ending.removesuffix(".gz") for ending in opening.SUFFIXES} <= {*ENDINGS}
    fields = {f.name: f.metadata for f in dataclasses.fields(RunConfig)}
    assert ", ".join(ENDINGS) in fields["train_file"]["help"]


# Parquet of which the metadata of a column is hurt, found by mutating a good file:
# pyarrow's own look at that metadata ends the process.
HURT = (
    "eNqVU0+L01AQn8QYwjaHVPaFBHp4FBsqdHe7ldZFdg8vtcXVrm4LS3FPpmk2Zum2Na02eFLwEywI"
    "CoI3T171KMKCRz+AH8KzF8F5SdMK9qBDkvnzZub3yzDvkHW2iUROSNQiMoErAMWPW7/o9TcCZADA"
    "of5o1KcnweBsHd1gSidO0Kf5ntPPl+h0FriegnE/vPh08c4LCZAyqZVIRDTsJudqUFxfVWNk/mic"
    "zcIc1XgF8FBELxLE7NX9cxAg/JZBepTkW6gW9LQGgCbgceWLiJiUVJaYhiJAIoYyN0CH4oroElh7"
    "AZDgCtlzBMZHIpK5WwVDnriPvDOHSEDUwpqhTLzh1Bu6XgFaOawgUkE0Lg+cnjcAPTJzZsmCHFHN"
    "Ksiaucwmqh7p70X9s2i9FSzlnwdjlvhvExHwo6Ha1V+rpmxaECE2R5LmSAmFGOa7oP8QrJeXrK/i"
    "/w3jL7BrKZL+XNIjS9E/SGDmDJV1Ove7N5PBGD+FLS43GJc2S+QuYzNm+6zJmM/qfhyzbcYOuFFn"
    "bD8OLDVLTLu98A9OsekOGo16Y17EHbaQI545edC9M+jFvs9uxU3ceSqXZlp0xM+Rz23OK+ZppzmN"
    "5ur+nLT97LhbLeN7etxOz9PSvT0w6NgJHz/xphvueLzhhOFoRp964SQYDWmltlne3DZLuCR8T+7h"
    "eh3iXfsNhY63MA=="
)


def test_hurt_metadata_of_a_column_end_in_a_line_and_not_the_process(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(zlib.decompress(base64.b64decode(HURT)))
    command = [sys.executable, ROOT / "finetune.py", "--train-file", path]
    found = subprocess.run(
        [*command, "--output", tmp_path / "run"], capture_output=True, text=True
    )
    assert found.returncode == 2 and found.stderr.count("\n") == 1
    assert "is not a readable Parquet file" in found.stderr
