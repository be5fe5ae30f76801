"""Which parameters of a test run each time, and which where everything is run."""

from collections.abc import Iterable
from typing import Any

import pytest


def some(names: Iterable[str], *always: str) -> list[Any]:
    """Return parameters; those that are not in `always` are marked as thorough."""
    names = list(names)
    assert set(always) <= set(names), "a name that no parameter has"
    thorough = pytest.mark.thorough
    return [n if n in always else pytest.param(n, marks=thorough) for n in names]
