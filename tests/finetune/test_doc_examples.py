"""The commands of docs/fine-tuning.md do what stands there, on toy rows, in few steps.

What a command says of task, rows, rates and layers stays; model, length and number of
rows are made small. All are prepared up to their first step; some run to their end.
"""

import contextlib
import io
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import finetune
import metalr
from metalr import cli
from metalr.finetune import preparation, settings
from metalr.finetune.config_rules import from_flags
from tests.models import small_models

DOCUMENT = (Path(__file__).parents[2] / "docs/fine-tuning.md").read_text()
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", DOCUMENT, flags=re.DOTALL)
LINES = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("python finetune.py")]
EXPORTS = [line for line in LINES if line.startswith("metalr export")]
SMALL = ["--train-rows", "16", "--validation-rows", "8", "--max-steps", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Make a model with as many layers as the examples name."""
    return small_models.save_bert(tmp_path_factory.mktemp("models") / "tiny", layers=3)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Make a folder with the files that the examples name."""
    rows = [{"text": f"a good film {n}", "label": n % 2} for n in range(16)]
    for split in ("train", "validation"):
        path = tmp_path / f"FOLDER/imdb/{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, rows)))
    stars = "".join(f"it was good {n},{n % 5}\n" for n in range(60))
    (tmp_path / "mine.csv").write_text(f"review,stars\n{stars}")
    (tmp_path / "run.toml").write_text('task = "rte"\nlora = 8\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METALR_CACHE", str(tmp_path.parent / "cache"))


def small(line, model):
    """Return the flags of a command of the document, of a small run."""
    words = shlex.split(line.partition(" > ")[0], comments=True)[2:]
    if "--model" in words:
        del words[(at := words.index("--model")) : at + 2]
    if not {"--data", "--train-file"} & {*words}:
        words += ["--data", "toy"]
    length = ("64", "16") if "squad" in words else ("32", None)
    words += ["--max-length", length[0], *(["--stride", length[1]] * bool(length[1]))]
    return [*words, *SMALL, "--model", str(model)]


def test_document_has_examples():
    assert len(COMMANDS) >= 10 and len(EXPORTS) == 2
    assert [kind for kind, _ in BLOCKS].count("python") == 1


@pytest.mark.parametrize("line", COMMANDS)
def test_command_is_ready_for_its_first_step(line, model, place):
    words = small(line, model)
    parser = finetune.command_line()
    config = from_flags(settings.from_command_line(parser, words))
    prepared = preparation.prepare(config)
    assert prepared.pace.total_steps == 1
    batch = prepared.problem.batches.batch(0)
    assert batch["input_ids"].shape[0] == config.batch_size
    prepared.tx.init(prepared.problem.params)


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["finetune.py", *words])
    monkeypatch.setattr(cli, "Stop", lambda: lambda: False)  # no handlers of signals
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.guarded(finetune.main) == 0
    return out.getvalue()


def test_printed_file_the_adapter_and_the_merged_model_are_what_stands_there(
    model, place, monkeypatch
):
    printing = next(
        line for line in COMMANDS if line.endswith("the settings as a file")
    )
    text = run(monkeypatch, *small(printing, model))
    Path("run.toml").write_text(text)
    assert settings.read_toml(Path("run.toml"))["lora"] == 8
    soon = ("--scheduler", "linear", "--quiet")  # which compiles sooner
    run(monkeypatch, "--config", "run.toml", *soon, "--output", "runs/RUN")
    for line in EXPORTS:
        assert cli.main(shlex.split(line, comments=True)[1:]) == 0
    assert Path("adapter/adapter_config.json").is_file()
    assert Path("model/model.safetensors").is_file()


def test_python_example_runs(model, place, monkeypatch):
    (block,) = [block for kind, block in BLOCKS if kind == "python"]
    flags = {"data": "toy", "train_rows": 16, "validation_rows": 8, "max_length": 32}
    flags |= {"scheduler": "linear", "max_steps": 1}  # which compiles sooner
    whole = metalr.fine_tune
    monkeypatch.setattr(
        metalr,
        "fine_tune",
        lambda **given: whole(**{**given, **flags, "model": model, "quiet": True}),
        raising=False,
    )
    names = {}
    exec(block, names)
    assert names["run"].folder.is_dir() and names["run"].score >= 0
    assert callable(names["classify"])
