"""What `explain` says is what the state holds and what the predictor answers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import explain, inject, wrap
from metalr.errors import MetalrError
from metalr.predictor import evidence
from tests.product.steering import drive, falling, opinionated

PREDICTOR = opinionated(push=0.3)


@pytest.mark.parametrize("door", ["inject", "wrap"])
def test_it_says_what_the_state_holds(door):
    if door == "wrap":
        tx = wrap(optax.sgd(0.01), PREDICTOR, total_steps=30)
    else:
        tx = inject(optax.sgd, 0.01, PREDICTOR, total_steps=30)
    tx = optax.chain(optax.clip(1.0), tx)
    steps = [*falling(12), (np.nan, 1.0), *[(1.0, 9.0)] * 9]
    state = drive(tx, steps)[-1][2]
    found = explain(state, PREDICTOR)
    get = lambda name: optax.tree.get(state, name)  # noqa: E731
    assert found["multiplier"] == get("lr_multiplier")
    assert (found["step"], found["skipped"]) == (22, 1)
    assert found["braked"] == get("braked_steps") > 0
    rate = get("learning_rate") if door == "inject" else None
    assert found["learning_rate"] == rate
    middle = np.sqrt(found["low"] * found["high"])
    np.testing.assert_allclose(
        [found["best"], middle], 2.0 ** get("lr_mean"), rtol=1e-5
    )
    correction, _ = evidence(PREDICTOR, get("lr_features"))
    np.testing.assert_allclose(found["correction"], correction, rtol=1e-5)
    line = found["text"]
    assert "\n" not in line and line.startswith("step 22: rate x")
    assert "1 steps not finite" in line and "steps loss above its start" in line


def test_the_drivers_are_slope_times_distance_from_the_mean():
    state = drive(wrap(optax.sgd(0.01), PREDICTOR), falling(12))[-1][2]
    drivers = explain(state, PREDICTOR)["drivers"]
    sizes = [abs(share) for share in drivers.values()]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 0
    # By a difference along the way from the mean, for a step that is small.
    x, mean = state.lr_features, jnp.asarray(PREDICTOR.mean)
    answer = lambda scale: evidence(PREDICTOR, x + scale * (x - mean))[0]  # noqa: E731
    expected = (answer(1e-2) - answer(-1e-2)) / 2e-2
    np.testing.assert_allclose(sum(drivers.values()), expected, atol=0.02)


def test_a_state_without_metalr_or_with_two_is_refused():
    params = {"w": jnp.ones(2)}
    plain = optax.adam(0.1).init(params)
    one = wrap(optax.sgd(0.1), PREDICTOR)
    with pytest.raises(MetalrError, match="found it 0 times"):
        explain(plain, PREDICTOR)
    with pytest.raises(MetalrError, match="found it 2 times"):
        explain(jax.tree.map(jnp.asarray, (one.init(params),) * 2), PREDICTOR)


def test_states_of_several_runs_are_refused_with_the_way_to_one():
    tx = wrap(optax.sgd(0.1), PREDICTOR)
    states = jax.vmap(lambda w: tx.init({"w": w}))(jnp.ones((3, 2)))
    with pytest.raises(MetalrError, match="this one holds 3; take one of them"):
        explain(states, PREDICTOR)
    assert explain(jax.tree.map(lambda x: x[0], states), PREDICTOR)["step"] == 0
