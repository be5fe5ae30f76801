"""The costs on paper are those that XLA counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalr.compare import roofline
from metalr.models import heads

# Wide enough that products are nearly all there is.
CONFIG = dataclasses.replace(
    roofline.MODELS["MiniLM-6"],
    vocab_size=100,
    hidden_size=128,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=4,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


@pytest.mark.parametrize("name", roofline.MODELS)
def test_parameters_are_those_of_the_model(name):
    _, shapes = heads.outline(roofline.MODELS[name], "classification", 2, "float32")
    assert roofline.parameters(roofline.MODELS[name]) == sum(
        leaf.size for leaf in jax.tree.leaves(shapes)
    )


def counted(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("length", [32, 128])
def test_flops_of_a_step_are_those_that_xla_counts(length):
    rows = 4
    graphdef, params = heads.build(CONFIG, "classification", 2, seed=0)
    batch = {
        "input_ids": jnp.ones((rows, length), jnp.int32),
        "token_type_ids": jnp.zeros((rows, length), jnp.int32),
        "attention_mask": jnp.ones((rows, length), bool),
        "labels": jnp.zeros(rows, jnp.int32),
        "weights": jnp.ones(rows),
    }

    def loss(params):
        return heads.loss("classification", heads.apply(graphdef, params, batch), batch)

    forward = roofline.forward_flops(CONFIG, rows, length)
    # XLA counts elementwise work too: some percent at this width.
    assert 1 < counted(loss, params) / forward < 1.1
    whole = roofline.step(CONFIG, rows, length)
    assert 0.95 < counted(jax.value_and_grad(loss), params) / whole.flops < 1.1


def test_floor_is_the_slower_of_products_and_memory():
    base = roofline.MODELS["BERT-base"]
    small, large = roofline.step(base, 1, 16), roofline.step(base, 256, 128)
    assert (
        roofline.least_seconds(small, roofline.H100)
        == small.bytes / roofline.H100.bandwidth
    )
    assert (
        roofline.least_seconds(large, roofline.H100)
        == large.flops / roofline.H100.flops
    )
    assert roofline.step(base, 8, 128, remat=True).activation_bytes < 0.2 * (
        roofline.step(base, 8, 128).activation_bytes
    )


def test_collection_grows_with_each_factor_and_more_devices_than_banks_gain_nothing():
    one = roofline.Collection(tasks=2, models=1, seeds=3, schedules=9)
    assert one.runs == 54
    hours = [
        roofline.collection_hours(one, roofline.MODELS["MiniLM-6"], 32, 128, n)
        for n in (1, 6, 64)
    ]
    np.testing.assert_allclose(hours[0], 6 * hours[1])
    assert hours[1] == hours[2]
    more = one._replace(seeds=6)
    assert roofline.collection_hours(
        more, roofline.MODELS["MiniLM-6"], 32, 128, 1
    ) == pytest.approx(2 * hours[0])


def test_tables_name_every_model_and_device():
    text = roofline.tables()
    assert all(name in text for name in roofline.MODELS)
    assert all(device.name in text for device in roofline.DEVICES)
