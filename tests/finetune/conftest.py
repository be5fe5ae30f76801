"""A small model as a folder, and finetune.py on it from a folder of the test's own."""

import pytest

from tests.finetune.commands import call
from tests.models import small_models


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return small_models.save_bert(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """Return `flags, model -> the exit status`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METALR_CACHE", str(tmp_path.parent / "cache"))

    def run(*argv, model=tiny):
        return call("--model", model, *argv, monkeypatch=monkeypatch)

    return run
