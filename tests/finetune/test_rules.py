"""Rules of others against their published formulas, computed by hand or in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr.finetune.rules import (
    gala,
    gen,
    recipes,
    schedule_free_plus,
)
from tests.finetune.bowl import CURVATURES, PLAN, bowl, take


def test_gen_goes_a_tenth_of_the_way_to_the_lowest_point_of_the_parabola():
    start = {"w": jnp.array([1.0, 0.0])}  # along the first axis: best rate 1
    _, _, rates = take(gen.gen(optax.sgd, PLAN), start, 16)
    np.testing.assert_allclose(rates[:7], 0.1, rtol=1e-6)
    # 1 / 0.1 = 10 times is more than twice the rate, which is the most it looks at.
    np.testing.assert_allclose(rates[7:15], 0.1 * (0.9 + 0.1 * 2), rtol=1e-5)
    plan = PLAN._replace(learning_rate=0.8)
    _, _, rates = take(gen.gen(optax.sgd, plan), start, 8)
    np.testing.assert_allclose(rates[7], 0.8 * 0.9 + 0.1 * 1.0, rtol=1e-4)


def test_gen_goes_no_further_down_than_to_half_the_rate():
    start = {"w": jnp.array([1.0, 0.0])}  # best rate 1: an eighth of this one
    plan = PLAN._replace(learning_rate=8.0)
    _, _, rates = take(gen.gen(optax.sgd, plan), start, 8)
    np.testing.assert_allclose(rates[7], 8.0 * (0.9 + 0.1 * 0.5), rtol=1e-4)


def test_gen_keeps_its_rate_where_the_parabola_opens_downward():
    tx = gen.gen(optax.sgd, PLAN)
    params = {"w": jnp.array([1.0])}
    hill = lambda p: -jnp.sum(p["w"] ** 2)  # noqa: E731
    state = tx.init(params)
    for _ in range(8):
        grads = jax.grad(hill)(params)
        _, state = tx.update(grads, state, params, value=hill(params), value_fn=hill)
    assert float(state.rate) == pytest.approx(0.1)


def test_gala_takes_the_rates_of_its_formula():
    start = np.array([1.0, -0.5], np.float32)
    _, _, rates = take(gala.gala(optax.sgd, PLAN), {"w": jnp.array(start)}, 6)
    w, rate, alignment, curvature, expected = start, 0.1, 0.0, 0.0, []
    for _ in range(6):
        expected.append(rate)
        direction = CURVATURES * w
        after = w - rate * direction
        moved = after - w
        steepness = np.linalg.norm(CURVATURES * moved) / np.linalg.norm(moved)
        alignment += float(CURVATURES * after @ direction)
        curvature += float(steepness * direction @ direction)
        rate, w = alignment / curvature, after
    np.testing.assert_allclose(rates, expected, rtol=1e-4)


def test_schedule_free_plus_follows_its_equations():
    params = {"w": jnp.array([1.0, -0.5])}
    tx = schedule_free_plus.schedule_free_plus(1.0)
    state = tx.init(params)
    y = z = x = np.array([1.0, -0.5])
    m = v = np.zeros(2)
    largest, total = 1e-8, 0.0
    for step in range(1, 6):
        grads = jax.grad(bowl)(params)
        updates, state = tx.update(grads, state, params, value=bowl(params))
        params = optax.apply_updates(params, updates)

        g = CURVATURES * y
        loss = 0.5 * np.sum(CURVATURES * y**2)
        norm = math.sqrt(math.pi / 2) * np.abs(g).sum()
        rate = max(0.0, loss + 0.9 * g @ (z - x)) / norm
        largest = max(largest, rate)
        total += largest**2
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        z = z - rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.95**step)) + 1e-8)
        x = x + largest**2 / total * (z - x)
        y = 0.9 * x + 0.1 * z
        np.testing.assert_allclose(params["w"], y, rtol=1e-4)
        np.testing.assert_allclose(
            schedule_free_plus.averaged(state, params)["w"], x, rtol=1e-4
        )


def test_autogluons_rates_fall_with_the_layers_above():
    leaf = jnp.ones((2, 2))
    tree = {
        "encoder": {
            "embeddings": {"words": leaf},
            "relative": leaf,  # MPNet's, below all layers
            "layers": {"0": {"up": leaf}, "1": {"up": leaf}},
            "final_norm": leaf,
        },
        "out": {"kernel": leaf},
    }
    expected = {
        "encoder": {
            "embeddings": {"words": 0.729},
            "relative": 0.729,
            "layers": {"0": {"up": 0.81}, "1": {"up": 0.9}},
            "final_norm": 0.9,
        },
        "out": {"kernel": 1.0},
    }
    tx = recipes.by_layer(2)
    scaled, _ = tx.update(tree, tx.init(tree))
    check = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6)  # noqa: E731
    jax.tree.map(check, scaled, expected)
    del tree["encoder"]["layers"]["1"], expected["encoder"]["layers"]["1"]  # frozen
    jax.tree.map(check, tx.update(tree, tx.init(tree))[0], expected)


def test_kerashub_is_plain_adam_at_a_constant_rate():
    params = {"w": jnp.array([1.0, -0.5])}
    tx = recipes.kerashub(optax.sgd, PLAN._replace(learning_rate=5e-5))
    seen, _, _ = take(tx, params, 5)
    expected, _, _ = take(
        optax.inject_hyperparams(optax.adam)(learning_rate=5e-5), params, 5
    )
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
