"""A model goes to a hub and comes back, or the reason stands in one line."""

import pytest

from metalr.errors import MetalrError
from metalr.models import locate
from metalr.runtime import hub, hub_upload
from tests.runtime import hub_server


@pytest.fixture
def served(monkeypatch, tmp_path):
    with hub_server.here(monkeypatch, tmp_path / "home") as here:
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield here


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


FILES = {
    "README.md": b"---\ntags:\n- metalr\n---\n# A model\n",
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 4000,  # by another way than small ones
}


def test_what_is_pushed_is_what_comes_back(served, folder, capfd):
    (folder / ".model.safetensors.draft-1").write_bytes(b"left by a kill")
    name = hub_upload.check("mine")
    assert name == "me/mine"
    url = hub_upload.push(folder, name)
    assert url.startswith(f"{served.address}/me/mine/commit/")
    found = served.repositories["models", "me/mine"].files
    assert found == FILES
    again = locate.find("me/mine").folder
    assert (again / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    hub_upload.push(folder, name)  # onto the old one
    assert [commit["repository"] for commit in served.commits] == ["me/mine"] * 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "a b", "x/", "/x", "a--b", "-x"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(MetalrError, match="OWNER/NAME"):
        hub_upload.check(name)


def test_without_a_token_it_is_said_before_the_run(served, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(MetalrError, match="hf auth login"):
        hub_upload.check("me/mine")


def test_a_token_that_the_hub_does_not_take_is_said_before_the_run(served, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_anothertoken")
    with pytest.raises(MetalrError, match="does not accept the token") as told:
        hub_upload.check("me/mine")
    assert "hf_anothertoken" not in str(told.value)


def test_without_a_hub_it_is_said_before_the_run(monkeypatch):
    monkeypatch.setattr(hub, "answers", lambda: False)
    with pytest.raises(MetalrError, match="does not answer"):
        hub_upload.check("me/mine")


@pytest.mark.parametrize(
    ("pattern", "answer"),
    [
        ("PUT /upload", hub_server.hang),
        ("POST .*/commit/", hub_server.hang),
        ("POST .*/preupload", hub_server.busy(429)),
        ("POST /api/repos/create", hub_server.busy(503)),
    ],
)
def test_a_push_that_fails_says_where_the_model_is(
    served, folder, monkeypatch, pattern, answer
):
    monkeypatch.setenv(hub.PATIENCE, "1")
    served.misbehave(pattern, answer)
    with pytest.raises(MetalrError, match="cannot push to me/mine: .*lies in") as told:
        hub_upload.push(folder, "me/mine")
    assert str(folder) in str(told.value)
