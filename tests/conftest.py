"""What all tests share: cheap compilation, eight CPU devices, no silent change of rank.

Compiling is most of a test's time, and fast code is nothing to models of this size.
XLA reads its flags when jax starts, here and in the processes that tests start.
"""

import os
from importlib import metadata

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
