"""The card of a model: read by the hub's own library, and free of this machine."""

import ast
import copy
import re

import pytest
from huggingface_hub import ModelCard

from metalr.report import model_card

RESULT = {
    "task": "sst2",
    "model": "bert-base-uncased",
    "data": {"kind": "hub", "where": "nyu-mll/glue sst2", "note": ""},
    "weights": {"kind": "hub", "where": "bert-base-uncased", "revision": "0" * 40},
    "reading": {
        "kind": "classification",
        "columns": ["sentence", "label"],
        "classes": {"negative": 30, "positive": 70},
        "left_out": {"without gold label": 3},
    },
    "scheduler": "metalr",
    "seed": 1,
    "settings": {"scheduler": "metalr", "learning_rate": 2e-5, "max_steps": None},
    "versions": {"python": "3.11", "jax": "0.10.2"},
    "metric": "accuracy",
    "metrics": {"accuracy": 0.9375, "eval_loss": 0.25},
    "last_metrics": {"accuracy": 0.9, "eval_loss": 0.5},
    "chance": {"accuracy": 0.7},
    "best_step": 30,
    "steps": 40,
    "seconds": 1.0,
    "notes": ["rows were drawn"],
    "history": [
        {"step": i, "loss": 1 / i, "learning_rate": i * 1e-6, "lr_multiplier": 2.0}
        for i in range(1, 41)
    ],
}


def changed(**changes):
    return {**copy.deepcopy(RESULT), **changes}


def read(text: str) -> ModelCard:
    return ModelCard(text)


def test_hubs_library_reads_data_base_model_and_scores():
    found = read(model_card.card(RESULT)).data
    assert found.base_model == "bert-base-uncased"
    assert found.datasets == "nyu-mll/glue"
    assert found.pipeline_tag == "text-classification"
    assert found.library_name == "transformers"
    (score,) = found.eval_results
    assert (score.metric_type, score.metric_value) == ("accuracy", 0.9375)


def test_card_has_data_scores_rates_and_versions():
    text = model_card.card(RESULT, picture=True)
    assert "| accuracy | 0.9375 | 0.9 | 0.7 |" in text
    assert "negative 30, positive 70" in text and "3 without gold label" in text
    assert (
        "step 30 of 40" in text and "jax 0.10.2" in text and "rows were drawn" in text
    )
    assert f"]({model_card.PICTURE})" in text
    rates = re.findall(r"^\| (\d+) \| (\S+) \| 2 \|", text, re.M)
    assert len(rates) == 10 and rates[0] == ("1", "1e-06") and rates[-1][0] == "40"
    for step, rate in rates:
        assert float(rate) == pytest.approx(int(step) * 1e-6, rel=1e-3)


def test_card_names_no_folder_of_this_machine(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "averysecretword")
    text = model_card.card(
        changed(
            data={"kind": "file", "where": "/home/me/secret/mine.csv", "note": ""},
            weights={"kind": "folder", "where": "/home/me/secret/my-bert"},
            notes=["with averysecretword"],
        )
    )
    assert "/home" not in text and "averysecretword" not in text
    assert "mine.csv" in text and "my-bert" in text
    assert read(text).data.base_model is None


@pytest.mark.parametrize("kind", ["tokens", "choice"])
def test_names_of_columns_in_code_are_no_markup(kind):
    hostile = "```\n<script>"
    reading = {"kind": kind, "columns": [hostile, "b", "c"]}
    text = model_card.card(changed(reading=reading))
    (code,) = re.findall("```python\\n(.*?)\\n```\\n", text, re.DOTALL)
    assert "`" not in code and "<" not in code
    call = code.splitlines()[-1].removeprefix("model(").removesuffix(")")
    assert next(iter(ast.literal_eval(call))) == hostile


def test_names_of_files_and_classes_are_text_and_no_markup():
    hostile = "<script>\n# [x](http://y)|\x1b[31m\u202e"
    reading = {**RESULT["reading"], "classes": {hostile: 3}, "columns": [hostile, "b"]}
    text = model_card.card(changed(task=hostile, reading=reading, notes=[hostile]))
    assert "\x1b" not in text and "\u202e" not in text
    body = text.split("\n---\n", 1)[1]
    assert not re.search(r"(?<!\\)<script|\n# \[x|(?<!\\)\[x\]", body)
    read(text)


@pytest.mark.parametrize("missing", ["reading", "chance"])
def test_results_of_older_versions_have_a_card_too(missing):
    result = changed()
    del result[missing]
    read(model_card.card(result))


def test_write_puts_card_and_picture_beside_the_model(tmp_path):
    (tmp_path / "curves.png").write_bytes(b"png")
    (tmp_path / "model").mkdir()
    model_card.write(RESULT, tmp_path / "model", tmp_path / "curves.png")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        model_card.FILE,
        model_card.PICTURE,
    }
