"""The cache of compiled programs stays within its bound."""

import os
import time

import jax
import pytest

from metalr.runtime import caches, compilation

pytestmark = pytest.mark.fast


def test_cache_over_its_bound_loses_the_oldest_programs_alone(tmp_path):
    for age in range(5):
        path = tmp_path / f"jit_{age}"
        if age % 2:  # an entry of tokens is a folder
            path.mkdir()
            (path / "ids").write_bytes(b"x" * 100)
        else:
            path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    caches.prune(tmp_path, 250)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["jit_0", "jit_1"]
    caches.prune(tmp_path, 250)
    caches.prune(tmp_path / "none", 250)
    assert len(list(tmp_path.iterdir())) == 2


def test_draft_of_a_killed_process_goes_and_one_in_work_stays(tmp_path):
    for name, age in ((".old.draft-1", 7200), (".new.draft-2", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ids").write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    caches.prune(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".new.draft-2"]


def test_account_without_a_home_keeps_no_compilations(monkeypatch):
    kept = jax.config.jax_compilation_cache_dir
    for name in ("HOME", "XDG_CACHE_HOME", "METALR_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    compilation.use_cache()
    assert jax.config.jax_compilation_cache_dir == kept


def test_an_empty_name_of_the_users_caches_is_none(monkeypatch):
    monkeypatch.delenv("METALR_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert str(caches.folder("jax")) == "/home/one/.cache/metalr/jax"
