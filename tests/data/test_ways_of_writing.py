"""Rows are the same however a spreadsheet, pandas, an API or a person wrote them."""

import gzip
import json

import pandas
import pytest

from metalr.data.loading import load
from tests.data.rows_of_files import (
    DICTS,
    FRAME,
    LABELS,
    PLAIN,
    TEXTS,
    read_rows,
    rows_of,
    write,
)

SAME = {
    "blank columns": ("x.csv", PLAIN.replace("\n", ",,\n")),
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


def test_one_row_of_lists_is_a_row_where_a_file_has_one_a_line(tmp_path):
    row = {"tokens": ["John", "lives", "in", "Paris"]}
    write(tmp_path / "one.jsonl", json.dumps(row))
    assert read_rows(tmp_path / "one.jsonl") == [row]
    write(tmp_path / "columns.json", {"text": TEXTS, "label": LABELS})
    assert len(read_rows(tmp_path / "columns.json")) == len(TEXTS)


WRITTEN = ["café", "b\nc", "it's", 'a "b"', "c:\\d"]


@pytest.mark.parametrize("write_list", [json.dumps, repr], ids=["json", "python"])
def test_a_list_that_a_cell_holds_as_text_keeps_its_signs(tmp_path, write_list):
    rows = [{"text": "a film", "labels": write_list(WRITTEN)}] * 4
    pandas.DataFrame(rows).to_csv(tmp_path / "x.csv", index=False)
    data = load("file", train_file=tmp_path / "x.csv", kind="multilabel")
    assert {*data.task.labels} == {*WRITTEN}


@pytest.mark.parametrize("squads", [True, False], ids=["list", "dict"])
def test_answers_in_a_cell_of_a_table_are_read(squads, tmp_path):
    answers = {"text": ["so"], "answer_start": [0]}
    cell = [{"text": "so", "answer_start": 0}] if squads else answers
    row = {"context": "so bad", "question": "how?", "answers": json.dumps(cell)}
    pandas.DataFrame([row] * 4).to_csv(tmp_path / "x.csv", index=False)
    data = load("file", train_file=tmp_path / "x.csv")
    assert data.task.kind == "qa" and data.train[0]["answers"] == answers


@pytest.mark.parametrize("value", [True, "True", "true", "TRUE"])
def test_true_is_one_class_in_every_format(tmp_path, value):
    train = write(
        tmp_path / "x.json", [{"text": "a", "label": v} for v in (True, False)]
    )
    other = write(tmp_path / "y.json", [{"text": "a", "label": value}])
    data = load("file", train_file=train, validation_file=other)
    assert data.task.labels == ("false", "true")
    assert data.validation["validation"][0]["label"] == 1


def test_many_columns_are_read_in_no_time_and_unread(tmp_path):
    names = [f"c{n}" for n in range(30_000)]
    rows = [["text", "label", *names]]
    rows += [[f"t{n}", str(n % 2), *("1" * len(names))] for n in range(3)]
    path = write(tmp_path / "x.csv", "\n".join(",".join(row) for row in rows))
    texts, _, said = rows_of(path)
    assert texts == ["t0", "t1", "t2"] and "not read: c0" in said
