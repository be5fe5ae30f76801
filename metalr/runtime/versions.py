"""The versions of what a number may depend on."""

import contextlib
import platform
from importlib import metadata

LIBRARIES = ("metalr", "jax", "flax", "optax", "transformers", "orbax-checkpoint")


def versions() -> dict[str, str]:
    """Return the versions of Python and of `LIBRARIES`."""
    found = {"python": platform.python_version()}
    return found | {name: _version(name) for name in LIBRARIES}


def of_metalr() -> str:
    """Return the version of metalr."""
    return _version("metalr")


def _version(name: str) -> str:
    """Return the version of a library; a copy that is only on the path has none."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return "not installed"
