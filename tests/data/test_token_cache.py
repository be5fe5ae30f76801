"""Tokens that are kept: the same as new ones, and never those of other rows."""

import dataclasses
import json

import numpy as np
import pytest

from metalr.data import token_cache
from metalr.data.columns import Rows
from metalr.data.encode import encode
from tests.data.small_tokenizers import CORPUS, QA, each_tokenizer, question_row, task


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the tokens of any number of rows, in a folder of the test."""
    monkeypatch.setenv("METALR_CACHE", str(tmp_path))
    monkeypatch.setattr(token_cache, "_LEAST", 1)
    return tmp_path / "tokens"


def rows_of(kind):
    if kind == "qa":
        contexts = [" ".join(CORPUS), CORPUS[1]]
        return Rows.of([question_row("When?", c, "1990") for c in contexts])
    row = {"text": CORPUS[0], "other": CORPUS[1]}
    if kind == "tokens":
        row = {"text": CORPUS[0].split(), "label": [0] * len(CORPUS[0].split())}
        return Rows.of([row, row])
    label = {"multilabel": [0, 1], "regression": 0.5}.get(kind, 1)
    return Rows.of([row | {"label": label}, row | {"text": "ink", "label": label}])


TASKS = {
    "classification": task("classification", None, ("no", "yes")),
    "pairs": task("classification", "other", ("no", "yes")),
    "regression": task("regression"),
    "multilabel": task("multilabel", None, ("a", "b")),
    "tokens": task("tokens", None, ("O", "B-x")),
    "qa": QA,
}


def same(a, b):
    for name, one, other in zip(a._fields, a, b, strict=True):
        if one is None or isinstance(one, int | tuple):
            assert one == other, name
        else:
            for x, y in zip(one, other, strict=True):
                np.testing.assert_array_equal(x, y, err_msg=name)
                assert np.asarray(x).dtype == np.asarray(y).dtype


@each_tokenizer
@pytest.mark.parametrize("kind", TASKS)
def test_kept_tokens_are_those_that_would_be_made(tokenizer, kind):
    arguments = (rows_of(kind), TASKS[kind], tokenizer, 24)
    made, none = token_cache.encoded(*arguments, stride=4)
    kept, entry = token_cache.encoded(*arguments, stride=4)
    assert none is None and entry is not None and entry.is_dir()
    same(made, encode(*arguments, stride=4))
    same(kept, made)


@each_tokenizer
def test_what_decides_the_tokens_decides_the_entry(tokenizer, cache):
    rows, kind = rows_of("classification"), TASKS["classification"]
    arguments = {"rows": rows, "task": kind, "tokenizer": tokenizer, "max_length": 24}
    others = [
        {},
        {"rows": Rows.of([dict(row, text=row["text"] + "!") for row in rows])},
        {"rows": rows.select([1, 0])},
        {"rows": rows[:1]},
        {"task": dataclasses.replace(kind, labels=("yes", "no"))},
        {"task": TASKS["pairs"]},
        {"max_length": 16},
        {"stride": 8},
    ]
    for number, change in enumerate(others, start=1):
        _, entry = token_cache.encoded(**(arguments | {"stride": 4} | change))
        assert entry is None and len(list(cache.iterdir())) == number


@each_tokenizer
@pytest.mark.parametrize("hurt", ["flipped", "cut", "missing", "no entry", "pickle"])
def test_damaged_entry_is_made_anew(tokenizer, hurt, cache):
    arguments = (rows_of("classification"), TASKS["classification"], tokenizer, 24)
    made, _ = token_cache.encoded(*arguments, stride=4)
    (entry,) = cache.iterdir()
    path = entry / "input_ids.flat.npy"
    content = path.read_bytes()
    if hurt == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif hurt == "cut":
        path.write_bytes(content[:-4])
    elif hurt == "missing":
        path.unlink()
    elif hurt == "no entry":
        (entry / "entry.json").write_text('{"sha256": {}}')
    else:
        np.save(path, np.array([print], object), allow_pickle=True)
        about = json.loads((entry / "entry.json").read_text())
        about["sha256"]["input_ids.flat"] = token_cache._sha256(path)
        (entry / "entry.json").write_text(json.dumps(about))
    again, found = token_cache.encoded(*arguments, stride=4)
    assert found is None
    same(again, made)
    assert token_cache.encoded(*arguments, stride=4)[1] == entry


@each_tokenizer
def test_folder_that_cannot_be_written_costs_nothing(tokenizer, cache):
    cache.write_text("a file in its place")
    arguments = (rows_of("classification"), TASKS["classification"], tokenizer, 24)
    same(token_cache.encoded(*arguments, stride=4)[0], encode(*arguments, stride=4))
    assert cache.read_text() == "a file in its place"
