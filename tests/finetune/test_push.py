"""finetune.py leaves a card beside its model and takes both to a hub."""

import pytest
from huggingface_hub import ModelCard

from metalr.models import huggingface
from tests.finetune.commands import call
from tests.models import small_models
from tests.runtime import hub_server


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a call of finetune.py in this process."""
    model = small_models.save_bert(tmp_path / "tiny")
    monkeypatch.setenv("METALR_CACHE", str(tmp_path / "cache"))
    flags = ["--task", "sst2", "--data", "toy", "--train-rows", "32", "--quiet"]
    flags += ["--validation-rows", "16", "--max-steps", "2", "--model", str(model)]
    flags += ["--scheduler", "linear", "--output", str(tmp_path / "out")]

    def run(*more: str) -> int:
        return call(*flags, *more, monkeypatch=monkeypatch)

    return run


def test_a_run_is_pushed_with_its_card_and_loads_from_there(
    run, tmp_path, monkeypatch, capsys
):
    with hub_server.here(monkeypatch, tmp_path / "home") as here:
        monkeypatch.setenv("HF_TOKEN", "hf_anothertoken")
        assert run("--push-to-hub", "mine") == 2  # at once: nothing was run
        assert "does not accept the token" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        assert run("--push-to-hub", "mine") == 0
        assert f"{here.address}/me/mine/commit/" in capsys.readouterr().out
        pushed = here.repositories["models", "me/mine"].files
        local = {p.name: p.read_bytes() for p in (tmp_path / "out/model").iterdir()}
        assert pushed == local and {"README.md", "curves.png"} <= pushed.keys()
        card = ModelCard(pushed["README.md"].decode())
        assert card.data.pipeline_tag == "text-classification"
        assert str(tmp_path) not in card.content

        model = huggingface.load(
            "me/mine", "classification", ("negative", "positive"), seed=0
        )
        assert model.origin.kind == "hub" and not model.origin.note

        # A finished run can be pushed later.
        assert run("--push-to-hub", "other/name", "--private") == 0
        assert here.repositories["models", "other/name"].files == local
