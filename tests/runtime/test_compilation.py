"""The cache of compiled programs stays within its bound."""

import os

import pytest

from metalr.runtime import compilation

pytestmark = pytest.mark.fast


def test_cache_over_its_bound_loses_the_oldest_programs_alone(tmp_path):
    for age in range(5):
        path = tmp_path / f"jit_{age}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    compilation._prune(tmp_path, 250)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["jit_0", "jit_1"]
    compilation._prune(tmp_path, 250)
    compilation._prune(tmp_path / "none", 250)
    assert len(list(tmp_path.iterdir())) == 2
