"""The versions of what a number may depend on."""

import contextlib
import platform
from importlib import metadata

LIBRARIES = ("metalr", "jax", "flax", "optax", "transformers", "orbax-checkpoint")


def versions() -> dict[str, str]:
    """Return the versions of Python and of `LIBRARIES`.

    A copy of metalr that is only on the path has none: it is then "not installed".
    """
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        found[name] = "not installed"
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
