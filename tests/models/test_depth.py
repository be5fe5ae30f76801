"""Layers scanned or computed again give the gradients of layers one after another."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalr.errors import MetalrError
from metalr.models import heads
from tests.models.small_models import CONFIGS

BATCH = {
    "input_ids": jnp.arange(24, dtype=jnp.int32).reshape(3, 8) % 50,
    "token_type_ids": jnp.zeros((3, 8), jnp.int32),
    "attention_mask": jnp.arange(8)[None] < jnp.array([[8], [5], [3]]),
    "labels": jnp.array([0, 1, 1]),
    "weights": jnp.ones(3),
}


def gradient(depth=2, **how):
    config = dataclasses.replace(CONFIGS["roberta"], num_hidden_layers=depth)
    graphdef, params = heads.build(config, "classification", 2, seed=0)

    def loss(params):
        key = jax.random.key(1)
        logits = heads.apply(graphdef, params, BATCH, dropout_key=key, **how)
        return heads.loss("classification", logits, BATCH)

    return jax.jit(jax.value_and_grad(loss)), params


@pytest.mark.parametrize(
    "how", [{"scan": True}, {"remat": True}, {"scan": True, "remat": True}], ids=str
)
@pytest.mark.thorough
def test_loss_and_gradients_are_those_of_unrolled_layers(how):
    plain, params = gradient()
    other, _ = gradient(**how)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
        other(params),
        plain(params),
    )


def test_scan_compiles_one_layer_and_remat_computes_each_twice():
    def flops(**how):
        function, params = gradient(**how)
        return function.lower(params).cost_analysis()["flops"]

    plain = flops()
    assert flops(scan=True) < 0.7 * plain  # XLA counts what it loops over once
    assert 1.15 * plain < flops(remat=True) < 1.4 * plain


def test_layers_that_are_alike_are_traced_and_lowered_once():
    def products(depth):
        function, params = gradient(depth)
        return function.lower(params).as_text().count("dot_general")

    assert products(5) == products(2)


def test_scan_refuses_layers_that_differ():
    graphdef, params = heads.build(CONFIGS["modernbert"], "classification", 2, seed=0)
    with pytest.raises(MetalrError, match="alike; modernbert has two kinds"):
        heads.apply(graphdef, params, BATCH, scan=True)
