"""Tags, several labels, missing answers and choices, from rows to scores."""

import json

import numpy as np
import pytest

import metalr
from metalr.data import loading
from metalr.errors import MetalrError
from metalr.finetune import run as running
from metalr.finetune import usage
from metalr.finetune.config import RunConfig
from metalr.finetune.display import Together
from metalr.finetune.preparation import prepare
from tests.models import small_models

LISTS = ("conll2003", "go_emotions", "swag", "squad_v2")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return str(small_models.save_bert(tmp_path_factory.mktemp("models") / "tiny"))


def config(model, task=None, **more):
    settings = {
        "model": model,
        "task": task,
        "scheduler": "linear",
        "learning_rate": 3e-3,
        "max_length": 64,
        "batch_size": 16,
        "max_steps": 2,
        "train_rows": 48,
        "validation_rows": 24,
    }
    data = {} if "train_file" in more else {"data": "toy"}
    if task == "squad_v2":
        settings["stride"] = 16
    return RunConfig(**(settings | data | more))


SAID = {
    "conll2003": "predicted_tags",
    "go_emotions": "predicted_labels",
    "swag": "predicted_choice",
    "squad_v2": "predicted_answer",
}


@pytest.mark.parametrize("task", LISTS)
def test_run_of_each_kind_is_scored_exported_and_used(task, model, tmp_path):
    tuned = task in ("go_emotions", "squad_v2")
    settings = config(model, task, tune_thresholds=tuned)
    result = running.run(settings, Together(), folder=tmp_path / "run")
    assert {*result["chance"]} <= {*result["metrics"]}
    assert np.isfinite([*result["metrics"].values()]).all()
    rows = next(iter(loading.load(task, "toy", validation_rows=24).validation.values()))
    loaded = metalr.load(tmp_path / "run", batch_size=8)
    found = loaded(rows)
    assert len(found) == 24 and SAID[task] in found[0]
    scores = loaded.evaluate(rows).scores
    if not tuned:
        kept = {name: result["metrics"][name] for name in scores}
        assert scores == pytest.approx(kept, abs=1e-6)
    elif task == "squad_v2":  # its thresholds were tuned on these very rows
        assert scores["f1"] == pytest.approx(scores["best_f1"])
    else:
        assert scores["macro_f1"] >= result["metrics"]["macro_f1"]
    if task == "conll2003":
        for row, said in zip(rows, found, strict=True):
            assert len(said["predicted_tags"]) == len(row["tokens"])
    if task == "swag":
        gold = [row["label"] for row in rows]
        right = [said["predicted_choice"] for said in found]
        assert np.mean(np.equal(gold, right)) == pytest.approx(
            result["metrics"]["accuracy"]
        )
    if tuned:
        read = usage.read(tmp_path / "run/model")
        assert read.thresholds != (0.5,) or read.null_threshold != 0.0


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rare_class_counts_more_by_its_weight(model, tmp_path):
    rows = [{"text": f"good {i}", "label": "ok"} for i in range(36)]
    rows += [{"text": f"bad {i}", "label": "rare"} for i in range(12)]
    file = write(tmp_path / "rows.jsonl", rows)
    own = {"train_file": file, "validation_file": file}
    plain = prepare(config(model, **own)).problem
    even = prepare(config(model, **own, class_weights="balanced")).problem
    batch = even.batches.batch(0)
    # scikit-learn's rule: n / (C n_c) = 48 / (2 * 36) and 48 / (2 * 12).
    wanted = np.where(batch["labels"] == 0, 48 / 72, 48 / 24)
    np.testing.assert_allclose(batch["weights"], wanted, rtol=1e-6)
    assert (plain.batches.batch(0)["weights"] == 1).all()
    (tmp_path / "weights.json").write_text('{"ok": 1, "rare": 5}')
    by_file = config(model, **own, class_weights=str(tmp_path / "weights.json"))
    batch = prepare(by_file).problem.batches.batch(0)
    np.testing.assert_allclose(batch["weights"], np.where(batch["labels"] == 0, 1, 5))


def test_balanced_sampling_draws_classes_equally(model, tmp_path):
    rows = [{"text": f"good {i}", "label": "ok"} for i in range(180)]
    rows += [{"text": f"bad {i}", "label": "rare"} for i in range(20)]
    file = write(tmp_path / "rows.jsonl", rows)
    settings = config(
        model,
        train_file=file,
        validation_file=file,
        train_rows=None,
        balanced_sampling=True,
    )
    feed = prepare(settings).problem.batches
    drawn = [feed.batch(step) for step in range(5 * feed.steps_per_epoch)]
    real = np.concatenate([b["labels"][b["weights"] > 0] for b in drawn])
    assert 0.4 < np.mean(real == 1) < 0.6
    assert {b["input_ids"].shape[1] for b in drawn} <= {*feed.shapes}


REFUSED = {
    "class weights": (("stsb", {"class_weights": "balanced"}), "leave them out"),
    "smoothing": (("squad", {"label_smoothing": 0.1}), "leave it out"),
    "sampling": (("conll2003", {"balanced_sampling": True}), "leave it out"),
    "thresholds": (("sst2", {"tune_thresholds": True}), "leave it out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_a_kind_cannot_follow_are_refused(name, model):
    (task, more), message = REFUSED[name]
    with pytest.raises(MetalrError, match=message):
        prepare(config(model, task, **more))


def test_weights_of_other_classes_are_refused(model, tmp_path):
    (tmp_path / "weights.json").write_text('{"positive": 1, "neutral": 2}')
    weights = str(tmp_path / "weights.json")
    with pytest.raises(MetalrError, match="negative, neutral"):
        prepare(config(model, "sst2", class_weights=weights))
