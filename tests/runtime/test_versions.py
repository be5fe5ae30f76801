"""Versions are known, and their lack ends no run."""

from importlib import metadata

import jax
import pytest

from metalr.runtime.versions import versions

pytestmark = pytest.mark.fast


def test_copy_that_was_never_installed_does_not_fail_when_its_run_ends(monkeypatch):
    of_others = metadata.version

    def version(name):
        if name == "metalr":
            raise metadata.PackageNotFoundError(name)
        return of_others(name)

    monkeypatch.setattr(metadata, "version", version)
    found = versions()
    assert (found["metalr"], found["jax"]) == ("not installed", jax.__version__)
