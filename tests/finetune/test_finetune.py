"""What finetune.py leaves: a result, curves, a model that loads, and no secret."""

import json

import numpy as np
import pytest

from metalr import cli
from metalr.runtime import hub
from tests.finetune.commands import FAST, SMALL
from tests.tiers import some


@pytest.mark.parametrize("task", some(["sst2", "mnli", "stsb", "squad"], "sst2"))
def test_run_leaves_result_curves_and_a_model_that_transformers_loads(
    task, run, tmp_path, capsys
):
    if task == "squad":
        more = ("--max-length", 64, "--stride", 16)
    else:
        more = ()
    assert run("--task", task, *SMALL, *FAST, *more, "--output", "out") == 0
    assert "sst2" in capsys.readouterr().out or task != "sst2"
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["task"] == task and result["data"]["kind"] == "toy"
    rows = [row for row in result["history"] if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, result["steps"] + 1))
    assert np.isfinite([row["loss"] for row in rows]).all()
    assert result["best_step"] in {row["step"] for row in result["history"]}
    assert (tmp_path / "out/curves.png").stat().st_size > 10_000

    pytest.importorskip("torch")
    from transformers import (
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
    )

    qa = task == "squad"
    auto = AutoModelForQuestionAnswering if qa else AutoModelForSequenceClassification
    model, info = auto.from_pretrained(tmp_path / "out/model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    names = {"sst2": "negative", "mnli": "entailment"}
    assert names.get(task, model.config.id2label[0]) == model.config.id2label[0]


def test_loss_falls_and_score_beats_chance_on_real_language(run, tmp_path):
    rows = [
        {"sentence": f"{'the film is' if i % 2 else 'it was'} {word}", "label": label}
        for i in range(40)
        for word, label in (("great", 1), ("good", 1), ("bad", 0), ("awful", 0))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    more = ("--epochs", 20, "--learning-rate", "1e-2", "--dropout", 0)
    more += ("--scheduler", "linear")
    status = run("--train-file", "rows.jsonl", *more, "--output", "out")
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert status == 0
    assert result["metrics"]["accuracy"] == 1.0


FREQUENT = [
    {"text": f"{word} {n}", "label": label}
    for n in range(12)
    for word, label in [("good", "ok")] * 19 + [("bad", "fault")]
]


def test_where_one_class_is_frequent_the_kept_step_is_the_trained_one_and_said(
    run, tmp_path, capsys
):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, FREQUENT)))
    more = ("--learning-rate", "1e-3", "--scheduler", "linear", "--output", "out")
    files = ("--train-file", "rows.jsonl", "--validation-file", "rows.jsonl")
    assert run(*files, *more, "--epochs", 4, "--early-stopping", 3) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "95% of the training rows are 'ok': kept is the step with the best accuracy"
        in said
    )
    result = json.loads((tmp_path / "out/result.json").read_text())
    rows = [row for row in result["history"] if "accuracy" in row]
    assert {"accuracy", "macro_f1", "matthews", "eval_loss"} <= rows[0].keys()
    best = max(rows, key=lambda row: (row["accuracy"], -row["eval_loss"]))
    assert result["best_step"] == best["step"] > rows[0]["step"]
    assert result["stopped"] is None


def test_metric_is_one_of_the_task_or_the_loss(run, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, FREQUENT)))
    argv = ("--train-file", "rows.jsonl", "--epochs", 1, *FAST, "--metric")
    assert run(*argv, "f1_macro") == 2
    said = capsys.readouterr().err
    assert "did you mean 'macro_f1'" in said and "eval_loss" in said
    for metric in ("macro_f1", "eval_loss"):
        assert run(*argv, metric, "--output", metric) == 0
        result = json.loads((tmp_path / metric / "result.json").read_text())
        assert result["metric"] == metric and result["metrics"][metric] is not None
        assert "as --metric says" in " ".join(result["notes"])


def test_rate_that_is_far_too_high_is_told_with_the_way_out(run, capsys):
    argv = ("--learning-rate", "1e30", "--scheduler", "static", "--task", "sst2")
    assert run(*argv, *SMALL) == 2
    said = capsys.readouterr().err
    assert "take a smaller --learning-rate, or --scheduler metalr" in said


def test_metalr_export_copies_the_best_model(run, tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), str(tmp_path / "x")]) == 2
    assert "no finished run" in capsys.readouterr().err
    assert run("--task", "sst2", *SMALL, *FAST, "--output", "out") == 0
    left = tmp_path / "out/model/.files.draft-1"  # by a kill
    left.mkdir()
    (left / ".tmpAbC").touch()
    (tmp_path / "out/model/link").symlink_to(tmp_path / "nowhere")
    assert cli.main(["export", str(tmp_path / "out"), str(tmp_path / "x")]) == 0
    names = {path.name for path in (tmp_path / "x").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if "link" in name or name[0] == "."]
    assert len({path.stat().st_mode for path in (tmp_path / "x").iterdir()}) == 1
    written = [p for p in (tmp_path / "out/model").iterdir() if p.is_file()]
    assert len({path.stat().st_mode for path in written}) == 1
    assert cli.main(["export", str(tmp_path / "out"), str(tmp_path / "x")]) == 2


def test_token_of_the_hub_is_in_no_file_and_no_line(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_averysecretword")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:averysecretword@127.0.0.1:1")
    monkeypatch.setattr(hub, "answers", lambda *a, **k: False)
    auto = [x for x in SMALL if x not in ("--data", "toy")]
    assert run("--task", "sst2", *auto, *FAST, "--output", "out") == 0
    assert run("--task", "sst2", model="bert-base-uncased") == 2
    told = capsys.readouterr()
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any(p.name == "result.json" for p in files)
    assert all(b"averysecretword" not in p.read_bytes() for p in files)
    assert "averysecretword" not in told.out + told.err
