"""A small encoder of any family and size, made from the texts of tasks."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from metalr.errors import MetalrError
from metalr.meta import pretrain, pretrain_texts
from metalr.meta.pretrain_config import PretrainConfig
from metalr.models import huggingface
from tests.tiers import some

SETTINGS = PretrainConfig(
    width=32,
    layers=1,
    vocabulary=400,
    length=16,
    batch_size=4,
    steps=20,
    learning_rate=3e-3,
    tasks=("sst2",),
    data="toy",
)
TEXTS = ["a bright film , not a bad one", "the plot is awful and the actors dull"] * 20


class Screen:
    logged = evaluated = note = start = lambda self, *args: None


def command(folder, *more):
    flags = {
        "width": 32, "layers": 1, "vocabulary": 400, "length": 16, "batch-size": 4,
        "steps": 20, "learning-rate": 3e-3, "tasks": "sst2", "data": "toy",
    }  # fmt: skip
    argv = [f"--{name}={value}" for name, value in flags.items()]
    return [sys.executable, "-m", "metalr", "pretrain", str(folder), *argv, *more]


@pytest.mark.parametrize("family", some(["bert", "roberta"], "bert"))
def test_transformers_and_metalr_load_what_was_made_and_it_has_learned(
    tmp_path, family
):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    settings = dataclasses.replace(SETTINGS, family=family, steps=60)
    last = pretrain.pretrain(settings, tmp_path, Screen())
    assert last["eval_loss"] < 0.95 * np.log(400)

    theirs, info = transformers.AutoModelForMaskedLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values()), info
    assert theirs.config.hidden_size == 32 and theirs.config.model_type == family
    ours = huggingface.load(str(tmp_path), "classification", ("no", "yes"), seed=0)
    assert ours.config.num_hidden_layers == 1
    assert "classifier" in ours.origin.note  # the encoder came whole, no head did
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("a film")["input_ids"]
    assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
    assert tokenizer.pad_token_id == ours.config.pad_token_id


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_hidden_words_are_those_of_bert_15_in_100_and_8_of_10_masked(tmp_path, family):
    settings = dataclasses.replace(SETTINGS, family=family, length=40)
    tokenizer = pretrain_texts.kept_tokenizer(settings, tmp_path, TEXTS)
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, len(tokenizer), (64, 40)).astype(np.int32)
    batches = pretrain_texts.MaskedBatches(
        blocks, batch_size=64, tokenizer=tokenizer, seed=3
    )
    masked, same, seen = 0, 0, 0
    for step in range(20):
        batch = batches.batch(step)
        places, labels = batch["places"], batch["labels"]
        shown = np.take_along_axis(batch["input_ids"], places, axis=1)
        assert places.shape == (64, 6) and np.all(np.diff(places) > 0)
        assert np.all(labels >= 5), "a special token is to be guessed"
        restored = batch["input_ids"].copy()
        np.put_along_axis(restored, places, labels, axis=1)
        assert {*map(bytes, restored)} == {*map(bytes, blocks)}
        masked += np.sum(shown == tokenizer.mask_token_id)
        same += np.sum(shown == labels)
        seen += labels.size
    # Of 7,680 draws; a standard error is 0.5 %.
    np.testing.assert_allclose([masked / seen, same / seen], [0.8, 0.1], atol=0.02)
    again = batches.batch(7)
    np.testing.assert_array_equal(again["input_ids"], batches.batch(7)["input_ids"])


def test_blocks_hold_every_text_once_between_their_special_tokens(tmp_path):
    texts = [f"{text} {i}" for i, text in enumerate(TEXTS)]
    tokenizer = pretrain_texts.kept_tokenizer(SETTINGS, tmp_path, texts)
    blocks = pretrain_texts.cut_blocks(tokenizer, texts, 16)
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert np.all(blocks[:, 0] == first) and np.all(blocks[:, -1] == last)
    said = tokenizer.decode(blocks[:, 1:-1].ravel()).replace("[SEP]", "|")
    numbers = [text.split()[-1] for text in said.split(" | ")[:-1]]
    assert len(set(numbers)) == len(numbers) > 35
    assert not any("[UNK]" in number for number in numbers)


@pytest.mark.robust
def test_killed_and_started_again_it_makes_the_same_bits(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    # Of RoBERTa, whose tokenizer is the same whenever it is made.
    settings = dataclasses.replace(SETTINGS, family="roberta")
    pretrain.pretrain(settings, whole, Screen())
    argv = command(cut, "--family", "roberta")
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (cut / "checkpoints/last/4").exists() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    pretrain.pretrain(settings, cut, Screen())
    ours, theirs = (load_file(f / "model.safetensors") for f in (cut, whole))
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_stopped_it_saves_and_says_so(tmp_path):
    steps = iter(range(100))
    stop = lambda: next(steps) > 5  # noqa: E731
    assert pretrain.pretrain(SETTINGS, tmp_path, Screen(), stop=stop) is None
    assert not (tmp_path / "model.safetensors").exists()
    other = dataclasses.replace(SETTINGS, layers=2)
    with pytest.raises(MetalrError, match=r"other settings \(layers\)"):
        pretrain.pretrain(other, tmp_path, Screen())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": ("sst22",)}, "did you mean 'sst2'"),
        ({"width": 100}, "multiple of 32, got 100"),
        ({"layers": 0}, "--layers must be a finite number, 1 to 256; got 0"),
        ({"length": 1000}, "--length must be a finite number, 16 to 512; got 1000"),
        ({"learning_rate": float("nan")}, "--learning-rate must be a finite number"),
    ],
)
def test_what_no_encoder_can_be_is_refused_before_anything_is_written(
    tmp_path, change, said
):
    with pytest.raises(MetalrError, match=said):
        pretrain.pretrain(
            dataclasses.replace(SETTINGS, **change), tmp_path / "new", Screen()
        )
    assert not (tmp_path / "new").exists()


def test_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(MetalrError, match="something else"):
        pretrain.pretrain(SETTINGS, tmp_path, Screen())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_half_a_surrogate_pair_is_a_sign_like_any_other(tmp_path):
    (tmp_path / "sst2").mkdir()
    rows = [{"sentence": "so \ud83d many", "label": 1}]
    for split in ("train", "validation"):
        (tmp_path / "sst2" / f"{split}.jsonl").write_text(json.dumps(rows[0]))
    settings = dataclasses.replace(SETTINGS, data=str(tmp_path))
    texts, *_ = pretrain_texts.read_texts(settings)
    assert texts == ["so \ufffd many"]
    assert pretrain_texts.make_tokenizer(settings, texts * 20).encode(texts[0]).ids


def test_too_little_text_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(
        pretrain_texts, "read_texts", lambda settings: (TEXTS[:2], "toy", [])
    )
    with pytest.raises(MetalrError, match="10 are the least"):
        pretrain.pretrain(SETTINGS, tmp_path, Screen())


def test_command_says_in_one_line_what_is_wrong(tmp_path):
    done = subprocess.run(
        command(tmp_path / "new", "--width", "33"), capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "multiple of 32, got 33" in done.stderr
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir())) == "[]"
