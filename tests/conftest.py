"""What all tests share: cheap compilation, eight CPU devices, no silent change of rank.

Compiling is most of a test's time, and fast code is nothing to models of this size.
XLA reads its flags when jax starts, here and in the processes that tests start.
"""

import os
import tempfile
from importlib import metadata

import pytest
from hypothesis import HealthCheck, settings

flags = ["--xla_backend_optimization_level=0"]
if metadata.version("jax").startswith("0.10."):  # later ones do not know it
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


@pytest.fixture
def ray_folder():
    """Return a folder for Ray's sessions: tests side by side share none, nor its links.

    Its name is short, since the paths of sockets have to be.
    """
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as name:
        yield name
