"""The full plan, rehearsed: its models by name and its sets from a hub that is here."""

import dataclasses
import itertools

import pytest

from metalr import cli
from metalr.compare import store
from metalr.models import heads, huggingface
from tests.data import small_tokenizers
from tests.models.small_models import CONFIGS
from tests.runtime import hub_server

TASKS = ("sst2", "imdb", "ag_news", "squad")
MODELS = ("bert-base-uncased", "roberta-base")


def save(folder, family: str, tokenizer) -> None:
    """Write a random encoder of one narrow layer, without a head."""
    config = dataclasses.replace(
        CONFIGS[family],
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_attention_heads=2,
        max_position_embeddings=66,
    )
    graphdef, params = heads.build(config, "mlm", 0, seed=0)
    model = huggingface.Pretrained(config, graphdef, params, tokenizer, {})
    huggingface.export(folder, model, "mlm", ())


@pytest.fixture
def served(monkeypatch, tmp_path):
    makers = {
        "bert": small_tokenizers.word_piece,
        "roberta": small_tokenizers.byte_level,
    }
    with hub_server.here(monkeypatch, tmp_path / "home", patience="300") as here:
        for name, (family, make) in zip(MODELS, makers.items(), strict=True):
            save(tmp_path / family, family, make())
            here.add(name, tmp_path / family)
        hub_server.add_tasks(here, train=24, validation=6)
        yield here


@pytest.mark.parametrize(
    ("tasks", "schedulers"),
    [
        (["sst2"], ["metalr"]),
        pytest.param(TASKS, ["linear", "metalr"], marks=pytest.mark.slow),
    ],
    ids=["a corner", "all tasks"],
)
@pytest.mark.thorough
def test_full_plan_goes_from_the_hub_to_the_report(
    served, tmp_path, capfd, tasks, schedulers
):
    out = tmp_path / "out"
    command = ["compare", "--plan", "full", "--output", str(out), "--seeds", "1"]
    command += ["--tasks", *tasks, "--schedulers", *schedulers]
    command += ["--steps", "2", "--workers", "1", "--pairs", "0"]
    assert cli.main(command) == 0
    lines = store.read_lines(out / "runs.jsonl")
    assert {(line["task"], line["model"], line["scheduler"]) for line in lines} == {
        *itertools.product(tasks, MODELS, schedulers)
    }
    for line in lines:
        assert line["steps"] == 2 and line["failed"] is None
        assert line["data"]["kind"] == "hub" and line["settings"]["batch_size"] == 32
        sha = served.repositories["models", line["model"]].sha
        assert line["weights"]["revision"] == sha
    report = (out / "report.html").read_text()
    assert all(name in report for name in (*tasks, *MODELS))

    # Once more: nothing is run again, and a hub that has gone is not missed.
    served.misbehave(".", hub_server.busy(503))
    capfd.readouterr()
    assert cli.main([*command, "--data", "hub"]) == 0
    assert capfd.readouterr().err == ""
    assert len(store.read_lines(out / "runs.jsonl")) == len(lines)
