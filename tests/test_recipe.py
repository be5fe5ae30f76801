"""The cache of compiled steps keeps within its bound, oldest out first."""

import os

import pytest

from metalr import recipe

pytestmark = pytest.mark.fast


def test_cache_over_its_bound_loses_the_oldest_programs_alone(tmp_path):
    for age in range(5):
        path = tmp_path / f"jit_{age}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    recipe._prune(tmp_path, 250)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["jit_0", "jit_1"]
    recipe._prune(tmp_path, 250)
    recipe._prune(tmp_path / "none", 250)
    assert len(list(tmp_path.iterdir())) == 2
