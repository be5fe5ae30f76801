"""The cache of compiled programs, so that a second start begins at once."""

import contextlib
import os
from pathlib import Path

import jax

_MOST_BYTES = 2 * 2**30


def use_cache() -> None:
    """Cache compiled programs in `METALR_CACHE`, or in the user's cache folder.

    An account without a home has none, and its programs are compiled at each start.
    """
    home = os.path.expanduser("~")  # as it is where there is none
    caches = os.environ.get("XDG_CACHE_HOME", os.path.join(home, ".cache"))
    folder = os.environ.get("METALR_CACHE", os.path.join(caches, "metalr", "jax"))
    if folder.startswith("~"):
        return
    _prune(Path(folder))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _prune(folder: Path, most: int = _MOST_BYTES) -> None:
    """Remove the oldest compiled programs until the rest has at most `most` bytes.

    jax can bound its cache too, but then keeps two files of each program, and a kill
    between them ends all caching there.
    """
    sizes: list[tuple[float, int, Path]] = []
    with contextlib.suppress(OSError):  # another process may prune, or there is none
        for path in folder.iterdir():
            found = path.stat()
            sizes.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in sizes)
        for _, size, path in sorted(sizes):
            if total <= most:
                return
            path.unlink(missing_ok=True)
            total -= size
