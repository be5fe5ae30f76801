"""A fine-tuned model in use says what its run and transformers say of the same rows."""

import csv
import datetime
import io
import json
import shutil
import sys

import numpy as np
import pyarrow.parquet
import pytest

import metalr
from metalr import cli
from metalr.data import loading, structured
from metalr.data.formats.table import Options
from metalr.data.schema import Task
from metalr.errors import MetalrError
from metalr.finetune import metrics, usage
from metalr.finetune.config import RunConfig
from metalr.finetune.display import Together
from metalr.finetune.run import run
from metalr.predict import command, files, reading, source
from metalr.predict import model as predicting
from metalr.runtime.files import write_json
from tests.models import small_models
from tests.tiers import some

TASKS = ("sst2", "mnli", "stsb", "squad")
ROWS = {"train_rows": 48, "validation_rows": 41}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folders of a short run of each task."""
    place = tmp_path_factory.mktemp("runs")
    model = small_models.save_bert(place / "tiny", scale=10)
    for task in TASKS:
        config = RunConfig(
            task=task,
            data="toy",
            model=str(model),
            scheduler="linear",
            learning_rate=3e-3,
            max_steps=2,
            max_length=64,
            batch_size=16,
            **({"stride": 16} if task == "squad" else {}),
            **ROWS,
        )
        found = run(config, Together(), folder=place / task)
        (place / task / "metrics.json").write_text(json.dumps(found["metrics"]))
        write_json(place / task / "result.json", found)
    return place


@pytest.fixture(scope="session")
def rows():
    """Return the validation rows of each task, by task."""
    return {
        task: next(iter(loading.load(task, "toy", **ROWS).validation.values()))
        for task in TASKS
    }


def said(task, predictions):
    if task == "squad":
        return [p["predicted_answer"] for p in predictions]
    if task == "stsb":
        return [p["predicted_score"] for p in predictions]
    names = loading.TASKS[task].labels
    return [names.index(p["predicted_label"]) for p in predictions]


@pytest.mark.parametrize("task", TASKS)
def test_predictions_score_as_the_run_did(task, runs, rows):
    model = metalr.load(runs / task, batch_size=16)
    predictions = said(task, model(rows[task]))
    label = model.usage.task.label
    gold = [row[label] for row in rows[task]]
    gold = [g["text"] for g in gold] if task == "squad" else gold
    score = metrics.score(loading.TASKS[task].metrics, predictions, gold)
    kept = json.loads((runs / task / "metrics.json").read_text())
    assert score == pytest.approx({k: kept[k] for k in score}, abs=1e-3)


def test_probabilities_are_those_of_transformers(runs, rows):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = runs / "mnli/model"
    tokenizer = AutoTokenizer.from_pretrained(place)
    theirs = AutoModelForSequenceClassification.from_pretrained(place)
    pairs = [(row["premise"], row["hypothesis"]) for row in rows["mnli"]]
    batch = tokenizer(
        [a for a, _ in pairs],
        [b for _, b in pairs],
        padding=True,
        truncation=True,
        max_length=64,
        return_tensors="pt",
    )
    with torch.no_grad():
        wanted = torch.softmax(theirs(**batch).logits, dim=-1).numpy()
    found = metalr.load(place, batch_size=16)(pairs)
    ours = [[*p["predicted_probabilities"].values()] for p in found]
    assert list(found[0]["predicted_probabilities"]) == list(
        theirs.config.id2label.values()
    )
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


def test_answer_stands_where_it_is_said_to_stand(runs, rows):
    model = metalr.load(runs / "squad")
    for row, found in zip(rows["squad"], model(rows["squad"]), strict=True):
        place = slice(found["predicted_start"], found["predicted_end"])
        assert row["context"][place] == found["predicted_answer"] != ""


def test_prediction_does_not_depend_on_its_neighbours(runs, rows, monkeypatch):
    texts = [row["sentence"] for row in rows["sst2"]]
    model = metalr.load(runs / "sst2", batch_size=16)
    together = model(texts)
    monkeypatch.setattr(predicting, "CHUNK", 7)
    names = ["negative", "positive"]
    numbers = lambda found: [  # noqa: E731
        [p["predicted_probabilities"][name] for name in names] for p in found
    ]
    np.testing.assert_allclose(numbers(model(texts)), numbers(together), atol=2e-6)
    alone = [model(text) for text in texts[:9]]
    np.testing.assert_allclose(numbers(alone), numbers(together[:9]), atol=2e-6)


def test_stream_reads_no_further_than_it_must(runs):
    read = []

    def endless():
        while True:
            read.append(1)
            yield {"sentence": "a good film"}

    stream = metalr.load(runs / "sst2").stream(endless())
    assert next(stream)["predicted_label"] in ("negative", "positive")
    assert len(read) == predicting.CHUNK


# ------------------------------------------------------------------ the command


def call(*argv, capsys):
    status = cli.main(["predict", *map(str, argv)])
    return status, capsys.readouterr()


def write(path, rows):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0].keys())
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("source", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("target", [".csv", ".jsonl", ".parquet"])
def test_rows_come_out_as_they_went_in_with_predictions_beside_them(
    source, target, runs, rows, tmp_path, capsys
):
    given = [{"number": str(i), **row} for i, row in enumerate(rows["sst2"])]
    file = write(tmp_path / f"rows{source}", given)
    out = tmp_path / f"out{target}"
    status, told = call(
        runs / "sst2", "--file", file, "--output", out, "--quiet", capsys=capsys
    )
    assert status == 0, told.err
    wanted = metalr.load(runs / "sst2")(given)
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
def test_stdin_to_stdout(form, runs, rows, monkeypatch, capsys):
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
        runs / "sst2", "--file", "-", "--format", form, "--text-column", "text",
        capsys=capsys,
    )  # fmt: skip
    assert status == 0
    assert f"{len(lines)} rows" in told.err
    out = told.out.splitlines()
    found = list(csv.DictReader(out)) if form == "csv" else [*map(json.loads, out)]
    assert [line["text"] for line in found] == [line["text"] for line in lines]


def read_stream(text, form):
    return list(source.from_stream(io.StringIO(text), form))


def test_lines_of_stdin_with_other_commas_are_told_how_texts_are_read():
    lines = io.StringIO("Good film, really\nBad\n")
    with pytest.raises(MetalrError, match="than the first line: .*say --format tsv"):
        list(source.from_stream(lines, "csv", Options(header=False)))


def test_a_table_printed_to_a_stream_is_read_as_it_was_written():
    rows = read_stream('text\tn\n"Great" film\t1\na 5" screen\t2\n', "tsv")
    out = io.StringIO()
    files.print_to(out, "tsv", rows, quoted=False)
    assert read_stream(out.getvalue(), "tsv") == rows
    with pytest.raises(MetalrError, match="holds a tab or a line end.*print jsonl"):
        files.print_to(out, "tsv", [{"text": "a\tb"}], quoted=False)


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


def test_stdin_is_read_in_its_encoding_and_without_a_header(runs, monkeypatch, capsys):
    def say(written, *flags):
        stream = io.TextIOWrapper(io.BytesIO(written), errors="surrogateescape")
        monkeypatch.setattr(sys, "stdin", stream)
        argv = (runs / "sst2", "--file", "-", "--quiet", "--text-column", *flags)
        return call(*argv, capsys=capsys)

    coded = "text\ncafé noir\n".encode("cp1252")
    status, told = say(coded, "text", "--format", "csv", "--encoding", "cp1252")
    assert status == 0 and "café noir" in told.out
    status, told = say(coded, "text", "--format", "csv")
    assert status == 2 and "stdin is not UTF-8 after row 0" in told.err
    status, told = say(b"fine\ndull\n", "1", "--format", "csv", "--no-header")
    assert status == 0 and len(told.out.splitlines()) == 3
    status, told = say(b"{}", "1", "--no-header")
    assert status == 2 and "--no-header is of CSV and TSV" in told.err


def test_blank_rows_of_a_table_are_left_out_and_counted(runs, tmp_path, capsys):
    (tmp_path / "x.csv").write_text("sentence,n\nfine,1\n,\ndull,2\n , \n")
    numbered = "".join(f"{i},{x}\n" for i, x in enumerate(["fine,1", ",", "dull,2"]))
    (tmp_path / "pandas.csv").write_text(f",sentence,n\n{numbered}")
    for name, blank in (("x.csv", 2), ("pandas.csv", 1)):
        status, told = call(runs / "sst2", "--file", tmp_path / name, capsys=capsys)
        assert status == 0 and len(told.out.splitlines()) == 2
        assert f"blank rows left out: {blank}" in told.err
    (tmp_path / "x.csv").write_text("sentence,n\n,\n,\n")
    flags = ("--output", tmp_path / "x.parquet")
    status, told = call(
        runs / "sst2", "--file", tmp_path / "x.csv", *flags, capsys=capsys
    )
    assert status == 2 and "all 2 rows are blank" in told.err


NOTES = {
    "semicolons": ("text;n\na, b;1\n", [], "read with semicolons between the fields"),
    "encoding": ("text\ncafé\n", ["--encoding", "cp1252"], "is the --encoding right?"),
}


@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["", "quiet"])
@pytest.mark.parametrize("name", NOTES)
def test_notes_on_how_a_file_is_read_are_said(name, quiet, runs, tmp_path, capsys):
    text, flags, note = NOTES[name]
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    flags = ["--file", tmp_path / "x.csv", "--text-column", "text", *flags, *quiet]
    status, told = call(runs / "sst2", *flags, capsys=capsys)
    assert status == 0
    assert (note in told.err) == (not quiet)


@pytest.mark.parametrize("flags", [["--no-header"], ["--encoding", "cp1252"]])
def test_flags_of_text_files_beside_parquet_are_refused(runs, flags, tmp_path, capsys):
    files.write(tmp_path / "x.parquet", "parquet", [{"sentence": "fine"}])
    status, told = call(
        runs / "sst2", "--file", tmp_path / "x.parquet", *flags, capsys=capsys
    )
    assert status == 2 and "leave it out" in told.err


def test_words_in_a_cell_of_a_table_are_those_that_training_reads():
    task = Task(name="t", kind="tokens", text="tokens", label="tags", hub=("", None))
    for cell in ("['John', 'left']", '["John", "left"]'):
        row = reading.check({"tokens": cell}, task, "row 1")
        assert row == {"tokens": structured.texts(cell)} == {"tokens": ["John", "left"]}


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


def test_row_that_is_refused_midway_is_no_fault_of_the_table(tmp_path):
    def rows():
        yield {"n": 1}
        raise MetalrError("row 2 has no text")

    with pytest.raises(MetalrError, match="^row 2 has no text$"):
        files.write(tmp_path / "out.parquet", "parquet", rows())
    assert list(tmp_path.iterdir()) == []


def test_exported_folder_answers_as_the_run_does(runs, tmp_path, capsys):
    assert cli.main(["export", str(runs / "sst2"), str(tmp_path / "mine")]) == 0
    texts = ["a good film", "it was dull"]
    assert metalr.load(tmp_path / "mine")(texts) == metalr.load(runs / "sst2")(texts)
    capsys.readouterr()


@pytest.mark.parametrize("task", some(TASKS, "sst2"))
def test_model_of_transformers_is_used_by_what_its_config_says(task, runs, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(runs / task / "model", place)
    (place / usage.FILE).unlink()
    guessed = metalr.load(place).usage.task
    told = metalr.load(runs / task).usage.task
    assert (guessed.kind, guessed.labels) == (told.kind, told.labels)


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
def test_rows_that_do_not_fit_are_refused_and_leave_no_file(name, runs, tmp_path):
    given, message = BAD_ROWS[name]
    file, out = write(tmp_path / "rows.jsonl", given), tmp_path / "out.jsonl"
    argv = ["predict", str(runs / "sst2"), "--file", str(file), "--output", str(out)]
    with pytest.raises(MetalrError, match=message):
        command.carry_out(parsed(argv))
    assert not out.exists()


def parsed(argv):
    parser = cli.Parser()
    command.add(parser.add_subparsers(parser_class=cli.Parser))
    return parser.parse_args(argv)


BAD_FLAGS = {
    "no such folder": (["nowhere", "--file", "-"], "is not a folder"),
    "format": (["RUN", "--file", "-", "--format", "jsno"], "did you mean 'jsonl'"),
    "output": (["RUN", "--file", "-", "--output", "out.xlsx"], "format of an output"),
    "pair": (["RUN", "--file", "-", "--pair-column", "b"], "reads one text a row"),
    "batch": (["RUN", "--file", "-", "--batch-size", "0"], "at least 1"),
    "folder": (["RUN", "--file", "-", "--output", "no/out.csv"], "no folder"),
}


@pytest.mark.parametrize("name", BAD_FLAGS)
def test_wrong_flags_are_told_in_one_line(name, runs, monkeypatch, capsys):
    argv, message = BAD_FLAGS[name]
    argv = [str(runs / "sst2") if word == "RUN" else word for word in argv]
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"sentence": "a"}\n'))
    assert cli.main(["predict", *argv]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


BROKEN = {
    "format": ({"format": 99}, "another version"),
    "kind": ({"task": {"kind": "poetry"}}, "not a kind of task"),
    "labels": ({"task": {"labels": [1]}}, "'task' must have"),
    "length": ({"max_length": -1}, "max_length must be"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metalr_json_is_told(name, runs, tmp_path):
    change, message = BROKEN[name]
    place = tmp_path / "model"
    shutil.copytree(runs / "sst2/model", place)
    content = json.loads((place / usage.FILE).read_text())
    if "task" in change:
        change = {"task": content["task"] | change["task"]}
    (place / usage.FILE).write_text(json.dumps(content | change))
    with pytest.raises(MetalrError, match=message):
        metalr.load(place)


def test_model_without_a_head_is_refused(runs, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(runs / "sst2/model", place)
    config = json.loads((place / "config.json").read_text())
    config["architectures"] = ["BertForQuestionAnswering"]
    (place / "config.json").write_text(json.dumps(config))
    (place / usage.FILE).unlink()
    with pytest.raises(MetalrError, match="was not fine-tuned for qa"):
        metalr.load(place)


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.csv.gz", "out.parquet"])
def test_rows_of_other_columns_are_kept_beside_the_table(name, tmp_path):
    path = tmp_path / name
    rows = [{"a": 1}, {"a": {"x": 2.5}, "b": None}, {"c": "ü"}]
    with pytest.raises(MetalrError, match=f"same columns.* kept in .*{name}.jsonl$"):
        files.write(path, files.format_of(path), iter(rows))
    (kept,) = tmp_path.iterdir()
    assert read(kept) == rows
