"""Eight CPU devices for the tests of sharding, and no silent change of rank."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
