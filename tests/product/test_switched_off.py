"""Switched off, metalr is the optimizer that it wraps, bit for bit."""

import functools

import jax
import numpy as np
import optax
import pytest

from metalr import inject, wrap
from metalr.optax_schedule import default_schedule
from metalr.predictor import init_predictor
from tests.product.steering import DOORS, INNERS, opinionated, train

# What `optax.inject_hyperparams` is told to leave alone: all but the learning rate.
STATIC = {
    "adamw": "b1 b2 eps eps_root weight_decay",
    "sgd": "momentum",
    "lion": "b1 b2 weight_decay",
    "adafactor": "min_dim_size_to_factor factored dtype_momentum decay_rate eps "
    "decay_offset clipping_threshold multiply_by_parameter_scale",
}


@functools.cache
def injected(name):
    factory, kwargs = INNERS[name]
    make = optax.inject_hyperparams(factory, STATIC[name].split())
    return make(learning_rate=default_schedule(3e-3, 100), **kwargs)


@functools.cache
def injected_run(name):
    tx = optax.with_extra_args_support(injected(name))
    return train(tx)


def switched_off(door, name, settings):
    factory, kwargs = INNERS[name]
    settings = {"total_steps": 100, **settings}
    if door == "wrap":
        return wrap(injected(name), **settings)
    return inject(factory, 3e-3, **settings, **kwargs)


@pytest.mark.parametrize(
    ("door", "name", "settings"),
    [
        *((d, n, {"predictor": init_predictor()}) for d in DOORS for n in INNERS),
        *(
            (d, "adamw", {"predictor": opinionated(), "max_multiplier": 1})
            for d in DOORS
        ),
        ("inject", "adamw", {"log_multiplier": 0.0}),  # the recording mode
    ],
)
def test_switched_off_it_is_the_injected_optimizer_bit_for_bit(door, name, settings):
    (params, state), (expected, plain) = (
        train(switched_off(door, name, settings)),
        injected_run(name),
    )
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert state.lr_multiplier == 1
    rate = state.hyperparams["learning_rate"]
    assert rate == plain.hyperparams["learning_rate"]
