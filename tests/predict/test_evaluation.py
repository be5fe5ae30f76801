"""`metalr evaluate` scores a model as its run did, and says where it is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest
import scipy.stats
import sklearn.metrics

import metalr
from metalr import cli
from metalr.data.tasks import TASKS as TASKS_OF_TABLE
from metalr.errors import MetalrError
from metalr.finetune import usage
from metalr.predict import evaluate_command, evaluation, folder
from metalr.runtime import progress
from tests.models import small_models
from tests.predict.short_runs import TASKS, write


def call(*argv, capsys):
    status = cli.main(["evaluate", *map(str, argv)])
    return status, capsys.readouterr()


@pytest.mark.parametrize("task", TASKS)
def test_scores_of_the_validation_rows_are_those_of_the_run(task, run_of, rows):
    model = metalr.load(run_of(task), batch_size=16)
    found = model.evaluate(list(rows[task]))  # as mappings, to be checked again
    kept = json.loads((run_of(task) / "metrics.json").read_text())
    assert found.chance.keys() == found.scores.keys() >= {*model.usage.task.metrics}
    said = {name: found.scores[name] for name in TASKS_OF_TABLE[task].metrics}
    assert said == pytest.approx({name: kept[name] for name in said}, abs=1e-3)
    assert found.rows == len(rows[task])


def test_classes_and_confusions_are_those_of_the_predictions(run_of, rows):
    model = metalr.load(run_of("mnli"), batch_size=16)
    names = model.usage.task.labels
    gold = [names[row["label"]] for row in rows["mnli"]]
    said = [p["predicted_label"] for p in model(rows["mnli"])]
    found = model.evaluate(rows["mnli"])
    for name in names:
        right = sum(g == s == name for g, s in zip(gold, said, strict=True))
        of = found.classes[name]
        assert of["rows"] == gold.count(name)
        assert of["recall"] == pytest.approx(right / max(1, gold.count(name)))
        assert of["precision"] == pytest.approx(right / max(1, said.count(name)))
    wrong = [pair for pair in zip(gold, said, strict=True) if pair[0] != pair[1]]
    assert wrong
    counts = {(x.label, x.predicted): x.rows for x in found.confusions}
    assert counts == {pair: wrong.count(pair) for pair in wrong}
    assert [*counts.values()] == sorted(counts.values(), reverse=True)


def test_a_table_of_many_classes_holds_those_that_are_worst():
    def of(count):
        named = {
            f"{n:03}": {"precision": 1.0, "recall": 1.0, "f1": 1 - n / count, "rows": n}
            for n in range(count)
        }
        found = evaluation.Evaluation(9, {}, {}, named, ())
        ((head, rows),) = evaluation.tables(found)
        return head[0], [row[0] for row in rows]

    assert of(40) == ("class", [f"{n:03}" for n in range(40)])
    worst = [f"{n:03}" for n in range(149, 109, -1)]
    assert of(150) == ("class (40 of 150, lowest F1 first)", worst)


@pytest.mark.parametrize("rows", [0, 3])
def test_a_class_without_rows_is_not_the_worst_of_many(rows):
    one = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "rows": 2}
    named = {f"{n}": one for n in range(40)} | {"odd": one | {"f1": 0.0, "rows": rows}}
    ((_, shown),) = evaluation.tables(evaluation.Evaluation(9, {}, {}, named, ()))
    assert ("odd" in [row[0] for row in shown]) is bool(rows)


def test_errors_of_a_regression_are_in_the_unit_of_its_labels(run_of, rows):
    model = metalr.load(run_of("stsb"), batch_size=16)
    off = np.array([p["predicted_score"] for p in model(rows["stsb"])])
    off -= [row["label"] for row in rows["stsb"]]
    found = model.evaluate(rows["stsb"]).scores
    assert found["mean_absolute_error"] == pytest.approx(np.abs(off).mean(), rel=1e-4)
    squared = np.sqrt((off**2).mean())
    assert found["root_mean_square_error"] == pytest.approx(squared, rel=1e-4)


def test_chance_of_a_regression_is_the_error_of_the_best_constant(run_of, rows):
    chance = metalr.load(run_of("stsb")).evaluate(rows["stsb"]).chance
    labels = np.array([row["label"] for row in rows["stsb"]])
    off = np.linspace(labels.min(), labels.max(), 2001)[:, None] - labels
    least = np.abs(off).mean(1).min(), np.sqrt((off**2).mean(1)).min()
    found = chance["mean_absolute_error"], chance["root_mean_square_error"]
    assert found == pytest.approx(least, rel=1e-3)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_file_is_scored_and_what_has_no_label_left_out(
    ending, sst2, rows, tmp_path, capsys
):
    names = ("negative", "positive")
    given = [
        {"review": row["sentence"], "stars": names[row["label"]]}
        for row in rows["sst2"]
    ]
    more = [{"review": "what a day", "stars": "-"}]
    file = write(tmp_path / f"test{ending}", given + more)
    out = tmp_path / "scores.json"
    status, said = call(
        sst2, "--file", file, "--text-column", "review", "--label-column", "stars",
        "--output", out, capsys=capsys,
    )  # fmt: skip
    assert status == 0, said.err
    found = json.loads(out.read_text())
    wanted = metalr.load(sst2).evaluate(rows["sst2"])
    assert found["scores"] == pytest.approx(wanted.scores)
    assert found["classes"] == wanted.to_json()["classes"]
    assert found["left_out"] == {"no gold label (-)": 1}
    assert f"{len(given)} rows; left out: 1 no gold label (-)" in said.out
    for word in ("accuracy", "chance", "precision", *names):
        assert word in said.out


REFUSED = {
    "another label": ({"sentence": "x", "label": "odd"}, [], "sst2 knows 0, 1"),
    "no label": ({"sentence": "x"}, [], "column 'label' is missing"),
    "one text": (
        {"sentence": "x", "label": 1}, ["--pair-column", "b"], "reads one text a row"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_not_of_the_model_is_refused(name, sst2, tmp_path, capsys):
    row, more, message = REFUSED[name]
    file = write(tmp_path / "test.jsonl", [row])
    status, said = call(sst2, "--file", file, *more, capsys=capsys)
    assert status == 2 and message in said.err


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_progress_is_on_stderr_and_the_result_alone_on_stdout(
    quiet, sst2, rows, tmp_path, capsys, monkeypatch
):
    file = write(tmp_path / "test.jsonl", [*rows["sst2"]])
    _, plain = call(sst2, "--file", file, capsys=capsys)
    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", -1.0)
    status, said = call(sst2, "--file", file, *quiet, capsys=capsys)
    assert status == 0 and said.out == plain.out
    for word in ("reading", "tokenizing", "scoring"):
        assert (word in said.err) != bool(quiet)


REFUSED_QUESTIONS = {
    "another name": (
        ["--label-column", "gold"], "context and, to score, answers; rename the column"
    ),
    "no answer": ([], "leave the row out, or train with --task squad_v2"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_QUESTIONS)
def test_questions_that_are_not_of_the_model_are_refused(
    name, run_of, tmp_path, capsys
):
    more, message = REFUSED_QUESTIONS[name]
    none = {"text": [], "answer_start": []}
    row = {"id": "1", "question": "who", "context": "a man", "answers": none}
    file = write(tmp_path / "test.jsonl", [row])
    status, said = call(run_of("squad"), "--file", file, *more, capsys=capsys)
    assert status == 2 and message in said.err


def test_columns_of_questions_may_be_given_by_their_own_names(run_of, rows):
    names = {"text": "question", "pair": "context", "label": "answers"}
    model = metalr.load(run_of("squad"), columns=names)
    assert model.evaluate(rows["squad"]).rows == len(rows["squad"])


def test_rows_of_stdin_are_refused_in_words(sst2, capsys):
    status, said = call(sst2, "--file", "-", capsys=capsys)
    assert status == 2 and "reads a file" in said.err


def test_a_file_of_scores_is_not_written_over(sst2, tmp_path, capsys):
    (tmp_path / "scores.json").write_text("mine")
    status, said = call(
        sst2, "--file", "none.csv", "--output", tmp_path / "scores.json", capsys=capsys
    )
    assert status == 2 and "exists; name a new file" in said.err
    assert (tmp_path / "scores.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["scores.csv", "scores", "scores.json.gz"])
def test_scores_are_not_written_under_the_name_of_another_format(
    name, sst2, tmp_path, capsys
):
    status, said = call(
        sst2, "--file", "none.csv", "--output", tmp_path / name, capsys=capsys
    )
    assert status == 2 and "--output must end in .json" in said.err


def test_a_folder_that_is_not_there_is_refused_before_rows_are_read(sst2, capsys):
    status, said = call(
        sst2, "--file", "none.csv", "--output", "none/scores.json", capsys=capsys
    )
    assert status == 2 and "there is no folder none" in said.err


def test_a_full_disk_leaves_the_scores_and_a_closed_pipe_the_file(
    sst2, rows, tmp_path, capsys, monkeypatch
):
    file, out = write(tmp_path / "test.jsonl", [*rows["sst2"]]), tmp_path / "a.json"

    def full(path, content):
        raise MetalrError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_command, "write_json", full)
        status, said = call(sst2, "--file", file, "--output", out, capsys=capsys)
        assert status == 2 and "no space left" in said.err and "accuracy" in said.out

    def closed(head, rows):
        raise RuntimeError

    monkeypatch.setattr(evaluate_command, "print_table", closed)
    with pytest.raises(RuntimeError):
        call(sst2, "--file", file, "--output", out, capsys=capsys)
    assert json.loads(out.read_text())["rows"] == len(rows["sst2"])


def without_metalr_json(folder, place):
    shutil.copytree(folder / "model", place)
    (place / usage.FILE).unlink()
    return metalr.load(place, batch_size=16)


def test_a_model_of_transformers_is_scored_by_ids_and_by_names(sst2, rows, tmp_path):
    model = without_metalr_json(sst2, tmp_path / "model")
    names = model.usage.task.labels
    said = [p["predicted_label"] for p in model([r["sentence"] for r in rows["sst2"]])]
    gold = [names[row["label"]] for row in rows["sst2"]]
    for labels in ([row["label"] for row in rows["sst2"]], gold):
        given = [
            {"text": row["sentence"], "label": label}
            for row, label in zip(rows["sst2"], labels, strict=True)
        ]
        found = model.evaluate(given).scores
        macro = sklearn.metrics.f1_score(gold, said, average="macro")
        assert found == {
            "accuracy": pytest.approx(sklearn.metrics.accuracy_score(gold, said)),
            "matthews": pytest.approx(sklearn.metrics.matthews_corrcoef(gold, said)),
            "macro_f1": pytest.approx(macro),
        }


def test_other_models_of_transformers_are_scored_as_their_kind_is(
    run_of, rows, tmp_path
):
    model = without_metalr_json(run_of("stsb"), tmp_path / "stsb")
    given = [
        {"text": f"{row['sentence1']} {row['sentence2']}", "label": row["label"]}
        for row in rows["stsb"]
    ]
    said = [p["predicted_score"] for p in model([row["text"] for row in given])]
    found = model.evaluate(given).scores
    wanted = scipy.stats.pearsonr(said, [row["label"] for row in given]).statistic
    assert found["pearson"] == pytest.approx(wanted, abs=1e-4)
    model = without_metalr_json(run_of("squad"), tmp_path / "squad")
    found = model.evaluate(rows["squad"]).scores
    assert found.keys() == {"exact_match", "f1"}


@pytest.mark.parametrize(("names", "reads"), [(("1", "2"), "file"), (("a", "b"), None)])
def test_ids_of_a_model_whose_names_are_numbers_are_not_taken_for_names(names, reads):
    config = small_models.huggingface.config_json(
        small_models.BERT, "classification", names
    )
    task = folder.guess(config, Path("model")).task
    assert (task.labels, task.name == "file") == (names, reads == "file")


def test_a_label_that_a_model_does_not_know_is_refused_in_python(sst2):
    with pytest.raises(MetalrError, match="row 2: column 'label' holds 'odd'"):
        metalr.load(sst2).evaluate(
            [{"sentence": "x", "label": 0}, {"sentence": "y", "label": "odd"}]
        )


NO_ROWS = {
    "frame": (
        pandas.DataFrame({"sentence": ["x"]}),
        "got a DataFrame, which is a table",
    ),
    "table": (pyarrow.table({"sentence": ["x"]}), "got a Table, which is a table"),
    "path": (Path("test.csv"), "metalr evaluate read files"),
    "nothing": (None, "must be a list of rows, got None"),
}


@pytest.mark.parametrize("name", NO_ROWS)
def test_what_holds_no_rows_is_refused_in_words(name, sst2):
    rows, message = NO_ROWS[name]
    model = metalr.load(sst2)
    for use in (model, model.evaluate):
        with pytest.raises(MetalrError, match=message):
            use(rows)


@pytest.mark.parametrize("rows", ["test.csv", {"sentence": "x", "label": 1}])
def test_one_row_is_no_list_to_score(rows, sst2):
    with pytest.raises(MetalrError, match="put one row into a list"):
        metalr.load(sst2).evaluate(rows)


@pytest.mark.parametrize("rows", [["a good film"], [("a", 1)], [None]])
def test_rows_without_columns_are_refused_in_words(rows, sst2):
    with pytest.raises(MetalrError, match="row 1 .*'sentence' and 'label'"):
        metalr.load(sst2).evaluate(rows)


@pytest.mark.parametrize(
    ("task", "scores"),
    [
        # As a run on rows of a file has them, which may have rare classes.
        ({"name": "mrpc", "pair": "b"}, ("accuracy", "f1", "macro_f1", "matthews")),
        ({"name": "file"}, ("accuracy", "matthews", "macro_f1")),
        ({"name": "sst2", "kind": "regression"}, ("pearson", "spearman")),
        ({"name": "file", "kind": "choice", "pair": "b"}, ("accuracy",)),
    ],
)
def test_a_stored_model_is_scored_by_what_its_task_is(task, scores, tmp_path):
    fields = {"text": "a", "kind": "classification", "told_by": "letter"} | task
    stored = usage.Task(labels=("no", "yes"), hub=("", None), **fields)
    usage.write(tmp_path, usage.Usage(task=stored, max_length=64))
    read = usage.read(tmp_path).task
    assert (read.metrics, read.told_by) == (scores, "letter")
