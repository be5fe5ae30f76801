"""A fine-tuned model in use says what its run and transformers say of the same rows."""

import json
import re
import shutil

import numpy as np
import pytest

import metalr
from metalr import cli
from metalr.data import loading
from metalr.errors import MetalrError
from metalr.finetune import metrics, usage
from metalr.predict import model as predicting
from metalr.report import model_card
from tests.predict.short_runs import TASKS
from tests.tiers import some


def said(task, predictions):
    if task == "squad":
        return [p["predicted_answer"] for p in predictions]
    if task == "stsb":
        return [p["predicted_score"] for p in predictions]
    names = loading.TASKS[task].labels
    return [names.index(p["predicted_label"]) for p in predictions]


@pytest.mark.parametrize("task", TASKS)
def test_predictions_score_as_the_run_did(task, run_of, rows):
    model = metalr.load(run_of(task), batch_size=16)
    predictions = said(task, model(rows[task]))
    label = model.usage.task.label
    gold = [row[label] for row in rows[task]]
    gold = [g["text"] for g in gold] if task == "squad" else gold
    score = metrics.score(loading.TASKS[task].metrics, predictions, gold)
    kept = json.loads((run_of(task) / "metrics.json").read_text())
    assert score == pytest.approx({k: kept[k] for k in score}, abs=1e-3)


def test_probabilities_are_those_of_transformers(run_of, rows):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = run_of("mnli") / "model"
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


def test_answer_stands_where_it_is_said_to_stand(run_of, rows):
    model = metalr.load(run_of("squad"))
    for row, found in zip(rows["squad"], model(rows["squad"]), strict=True):
        place = slice(found["predicted_start"], found["predicted_end"])
        assert row["context"][place] == found["predicted_answer"] != ""


def test_prediction_does_not_depend_on_its_neighbours(sst2, rows, monkeypatch):
    texts = [row["sentence"] for row in rows["sst2"]]
    model = metalr.load(sst2, batch_size=16)
    together = model(texts)
    monkeypatch.setattr(predicting, "CHUNK", 7)
    names = ["negative", "positive"]
    numbers = lambda found: [  # noqa: E731
        [p["predicted_probabilities"][name] for name in names] for p in found
    ]
    np.testing.assert_allclose(numbers(model(texts)), numbers(together), atol=2e-6)
    alone = [model(text) for text in texts[:9]]
    np.testing.assert_allclose(numbers(alone), numbers(together[:9]), atol=2e-6)


def test_stream_reads_no_further_than_it_must(sst2):
    read = []

    def endless():
        while True:
            read.append(1)
            yield {"sentence": "a good film"}

    stream = metalr.load(sst2).stream(endless())
    assert next(stream)["predicted_label"] in ("negative", "positive")
    assert len(read) == predicting.CHUNK


def test_exported_folder_answers_as_the_run_does(sst2, tmp_path, capsys):
    assert cli.main(["export", str(sst2), str(tmp_path / "mine")]) == 0
    texts = ["a good film", "it was dull"]
    assert metalr.load(tmp_path / "mine")(texts) == metalr.load(sst2)(texts)
    capsys.readouterr()


@pytest.mark.parametrize("task", some(TASKS, "sst2"))
def test_model_of_transformers_is_used_by_what_its_config_says(task, run_of, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(run_of(task) / "model", place)
    (place / usage.FILE).unlink()
    guessed = metalr.load(place).usage.task
    told = metalr.load(run_of(task)).usage.task
    assert (guessed.kind, guessed.labels) == (told.kind, told.labels)


BROKEN = {
    "format": ({"format": 99}, "another version"),
    "kind": ({"task": {"kind": "poetry"}}, "not a kind of task"),
    "labels": ({"task": {"labels": [1]}}, "'task' must have"),
    "length": ({"max_length": -1}, "max_length must be"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metalr_json_is_told(name, sst2, tmp_path):
    change, message = BROKEN[name]
    place = tmp_path / "model"
    shutil.copytree(sst2 / "model", place)
    content = json.loads((place / usage.FILE).read_text())
    if "task" in change:
        change = {"task": content["task"] | change["task"]}
    (place / usage.FILE).write_text(json.dumps(content | change))
    with pytest.raises(MetalrError, match=message):
        metalr.load(place)


def test_model_without_a_head_is_refused(sst2, tmp_path):
    place = tmp_path / "model"
    shutil.copytree(sst2 / "model", place)
    config = json.loads((place / "config.json").read_text())
    config["architectures"] = ["BertForQuestionAnswering"]
    (place / "config.json").write_text(json.dumps(config))
    (place / usage.FILE).unlink()
    with pytest.raises(MetalrError, match="was not fine-tuned for qa"):
        metalr.load(place)


@pytest.mark.parametrize("task", TASKS)
def test_the_lines_of_the_model_card_call_the_model(task, run_of):
    result = json.loads((run_of(task) / "result.json").read_text())
    text = model_card.card(result)
    (code,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    *lines, call = code.replace("FOLDER", str(run_of(task) / "model")).splitlines()
    names = {}
    exec("\n".join(lines), names)
    found = eval(call, names)
    assert any(name.startswith("predicted_") for name in found)
    (made_as,) = json.loads((run_of(task) / "model/config.json").read_text())[
        "architectures"
    ]
    assert made_as.endswith(re.search(r"`AutoModel(For\w+)`", text)[1])
