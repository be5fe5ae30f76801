"""Rows that the memory does not hold: on the disk, and the same to the last bit."""

import json
from pathlib import Path

import numpy as np
import pytest

from metalr.data import loading
from metalr.data.encode import encode, remap_ids, used_ids
from metalr.errors import MetalrError
from metalr.finetune import display, run
from metalr.finetune.config import RunConfig
from metalr.runtime import spill
from tests.data.small_tokenizers import word_piece
from tests.models import small_models


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """Make every spill a file, in a folder of the test."""
    monkeypatch.setenv("METALR_CACHE", str(tmp_path / "cache"))

    def begin():
        monkeypatch.setattr(spill, "MOST_IN_MEMORY", 0)

    begin.folder = tmp_path / "cache" / "rows"
    return begin


def taken(name, tokenizer):
    data = loading.load(name, "toy", train_rows=40, validation_rows=10)
    found = encode(data.train, data.task, tokenizer, 24, stride=4)
    return data, remap_ids(found, used_ids([found]))


def arrays(value):
    several = isinstance(value, (list, tuple)) or hasattr(value, "bounds")
    return [np.asarray(x) for x in value] if several else [np.asarray(value)]


@pytest.mark.parametrize("name", sorted(loading.toy.GENERATORS))
def test_rows_and_tokens_from_the_disk_are_those_of_the_memory(name, on_disk):
    tokenizer = word_piece()
    data, tokens = taken(name, tokenizer)
    on_disk()
    other_data, other = taken(name, tokenizer)
    assert other_data.train == data.train
    assert loading.fingerprint(other_data) == loading.fingerprint(data)
    for field, one, two in zip(tokens._fields, tokens, other, strict=True):
        for x, y in zip(arrays(one), arrays(two), strict=True):
            assert np.array_equal(x, y) and x.dtype == y.dtype, field
    assert on_disk.folder.is_dir() and not list(on_disk.folder.iterdir())


def test_a_drawn_order_of_rows_on_the_disk(on_disk, tmp_path):
    texts = [f"naïve 😀 {i} " + "word " * (i % 7) for i in range(9000)]
    lines = [json.dumps({"text": t, "label": i % 3}) for i, t in enumerate(texts)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    on_disk()
    found = loading.load("file", train_file=file)
    rows = [*found.train, *next(iter(found.validation.values()))]
    assert sorted(row["text"] for row in rows) == sorted(texts)
    drawn = np.random.default_rng(0).permutation(len(found.train))
    picked = found.train.select(drawn)
    assert [row["text"] for row in picked[5:50]] == [
        found.train[int(i)]["text"] for i in drawn[5:50]
    ]


def test_a_fine_tune_from_the_disk_is_the_one_from_the_memory(on_disk, tmp_path):
    model = str(small_models.save_bert(tmp_path / "model"))
    config = RunConfig(
        task="sst2",
        model=model,
        data="toy",
        train_rows=64,
        validation_rows=16,
        max_length=16,
        max_steps=6,
        eval_every=3,
    )
    found = []
    for begin in (lambda: None, on_disk):
        begin()
        history = run.run(config, display.Together())["history"]
        clocks = ("seconds", "steps_per_second")
        found.append(
            [{k: v for k, v in row.items() if k not in clocks} for row in history]
        )
    assert found[0] == found[1]


def test_what_was_written_is_read_alone(on_disk):
    on_disk()
    for pieces in ([b""], [b"ab", b"", np.arange(3, dtype=np.int16)]):
        made = spill.Spill()
        for piece in pieces:
            made.write(piece)
        view = made.finish()
        assert bytes(view) == b"".join(map(bytes, pieces)) and view.readonly
        assert made.size == len(view)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is full")
@pytest.mark.parametrize("size", [1, 2**20])  # full when it is flushed, and before
def test_a_full_disk_is_said_with_a_way_out(size, on_disk, monkeypatch):
    def full(**how):
        return Path("/dev/full").open("wb+")

    on_disk()
    monkeypatch.setattr(spill.tempfile, "TemporaryFile", full)
    with pytest.raises(MetalrError, match="No space left.*METALR_CACHE"):
        made = spill.Spill()
        made.write(bytes(size))
        made.finish()
