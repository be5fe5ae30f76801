"""The cache of compiled programs, so that a second start begins at once."""

import jax

from metalr.runtime import caches


def use_cache() -> None:
    """Cache compiled programs; without a folder for them each start compiles."""
    folder = caches.folder("jax")
    if folder is None:
        return
    # jax can bound its cache too, but then keeps two files of each program, and a kill
    # between them ends all caching there.
    caches.prune(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
