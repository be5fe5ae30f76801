"""Parameters of every kind pass as in plain optax, wherever metalr stands."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import inject, wrap
from metalr.predictor import init_predictor
from tests.product.steering import constant, opinionated

SGD = optax.sgd(0.1)


def squares(params):
    leaves = [x for x in jax.tree.leaves(params) if is_float(x)]
    return sum((jnp.sum(jnp.abs(x) ** 2) for x in leaves), jnp.zeros(())) / 2


def is_float(leaf):
    return (
        isinstance(leaf, float)
        or hasattr(leaf, "dtype")
        and jnp.issubdtype(leaf.dtype, jnp.inexact)
    )


def gradients(params):
    return jax.tree.map(lambda x: jnp.conj(x) if is_float(x) else None, params)


W = jnp.arange(1.0, 7.0).reshape(2, 3)
TREES = {
    "None": {"w": W, "none": None},
    "integers": {"w": W, "n": jnp.arange(3), "flag": jnp.array(True)},
    "random keys": {"w": W, "key": jax.random.key(0)},
    "zero size": {"w": W, "empty": jnp.zeros((0, 4))},
    "scalars": {"w": W, "s": jnp.float32(2)},
    "Python's numbers": {"w": 1.5, "v": 2.0},
    "all zero": {"w": jnp.zeros((2, 3))},
    "empty": {},
    "nothing but integers": {"n": jnp.arange(3)},
    "bfloat16": {"w": W.astype(jnp.bfloat16)},
    "float16": {"w": W.astype(jnp.float16)},
    "mixed": {"w": W, "half": W.astype(jnp.bfloat16)},
    "complex64": {"w": W + 1j * W[::-1]},
    "tuple": (W, [W]),
}


@pytest.mark.parametrize(
    "strict",
    [False, pytest.param(True, marks=pytest.mark.thorough)],
    ids=["", "strict"],
)
@pytest.mark.parametrize("name", TREES)
def test_every_kind_of_tree_passes_as_in_plain_optax(name, strict):
    params = TREES[name]
    grads = gradients(params)
    tx = wrap(SGD, init_predictor(), total_steps=5)
    with jax.numpy_dtype_promotion("strict" if strict else "standard"):
        expected, _ = SGD.update(grads, SGD.init(params), params)
        state = tx.init(params)
        update = jax.jit(tx.update)
        for _ in range(3):
            updates, state = update(grads, state, params, value=jnp.float32(1))
    kind = lambda x: (x.shape, x.dtype)  # noqa: E731
    assert jax.tree.map(kind, updates) == jax.tree.map(kind, expected)
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    found = [x for x in jax.tree.leaves(state) if is_float(x)]
    assert all(np.all(np.isfinite(x)) for x in found)


def test_a_gradient_of_an_integer_that_has_none_is_passed_on():
    params = {"w": W, "n": jnp.arange(3)}
    loss = lambda p: jnp.sum(p["w"] ** 2) + p["n"][0]  # noqa: E731
    grads = jax.grad(loss, allow_int=True)(params)
    assert grads["n"].dtype == jax.dtypes.float0
    inner = optax.partition(
        {"train": SGD, "leave": optax.identity()}, {"w": "train", "n": "leave"}
    )
    tx = wrap(inner, init_predictor(), total_steps=5)
    updates, state = tx.update(grads, tx.init(params), params, value=1.0)
    np.testing.assert_allclose(updates["w"], -0.1 * 2 * W)
    assert updates["n"].dtype == jax.dtypes.float0 and state.skipped_steps == 0


def test_a_module_that_nobody_filtered_is_trained():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))  # holds functions
    x = jnp.ones((5, 3))
    loss, grads = eqx.filter_value_and_grad(
        lambda m: jnp.mean((jax.vmap(m)(x) - 1) ** 2)
    )(model)
    tx = wrap(SGD, init_predictor(), total_steps=5, schedule=lambda t: 1.0 + 0.0 * t)
    state = tx.init(model)
    updates, state = tx.update(grads, state, model, value=loss)
    expected, _ = SGD.update(grads, SGD.init(model), model)
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    assert state.lr_observation[0] == loss


def test_a_complex_gradient_that_is_not_finite_in_its_imaginary_part_is_skipped():
    params = {"w": jnp.ones(2, jnp.complex64)}
    tx = wrap(SGD, init_predictor())
    bad = {"w": jnp.array([1, complex(1, np.nan)], jnp.complex64)}
    updates, state = tx.update(bad, tx.init(params), params, value=1.0)
    assert state.skipped_steps == 1 and not np.any(updates["w"])


@pytest.mark.parametrize("name", ["None", "integers", "complex64"])
def test_inject_and_exact_curvature_take_what_wrap_takes(name):
    params = TREES[name]
    grads = gradients(params)
    expected, _ = SGD.update(grads, SGD.init(params), params)
    flat = lambda t: 1.0 + 0.0 * t  # noqa: E731
    for tx in (
        inject(optax.sgd, 0.1, log_multiplier=0.0, schedule=flat),
        wrap(SGD, log_multiplier=0.0, schedule=flat, curvature_every=1),
    ):
        updates, _ = tx.update(
            grads, tx.init(params), params, value=1.0, grad_fn=gradients
        )
        jax.tree.map(np.testing.assert_array_equal, updates, expected)


def test_an_eager_step_makes_no_nan_that_jax_would_stop_at():
    tx = wrap(SGD, log_multiplier=0.0, schedule=lambda t: 1.0 + 0.0 * t)
    params = {"w": W, "still": jnp.zeros(3)}
    state = tx.init(params)
    with jax.debug_nans(True):
        for _ in range(2):
            grads = {"w": W, "still": jnp.zeros(3)}
            updates, state = tx.update(grads, state, params, value=1.0)
            params = optax.apply_updates(params, updates)
    assert state.lr_step == 2 and np.all(np.isfinite(state.lr_observation))


@pytest.mark.parametrize("name", ["all zero", "empty", "nothing but integers"])
def test_where_there_is_nothing_to_see_the_multiplier_is_not_driven(name):
    params, tx = TREES[name], wrap(optax.sgd(0.0), constant(-8.0), total_steps=60)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for step in range(12):
        _, state = update(gradients(params), state, params, value=1.0 + step)
    assert state.lr_multiplier == 1


# --- Where it stands ------------------------------------------------------------------

LORA = {
    "base": {"w": jnp.ones((8, 8)), "b": jnp.ones(8)},
    "a": 0.1 * jnp.arange(1.0, 17.0).reshape(8, 2),
    "b": 0.01 * jnp.ones((2, 8)),
}
LABELS = {"base": {"w": "freeze", "b": "freeze"}, "a": "train", "b": "train"}
MASK = jax.tree.map(lambda label: label == "train", LABELS)


def lora_loss(params):
    x = jnp.linspace(-1, 1, 32).reshape(4, 8)
    out = x @ params["base"]["w"] + params["base"]["b"][None]
    return jnp.mean((out + x @ params["a"] @ params["b"] - 1) ** 2)


def place(how, tx):
    freeze = optax.set_to_zero()
    return {
        "alone": lambda: tx,
        "inside partition": lambda: optax.partition(
            {"train": tx, "freeze": freeze}, LABELS
        ),
        "inside masked": lambda: optax.chain(
            optax.masked(tx, MASK),
            optax.masked(freeze, jax.tree.map(lambda keep: not keep, MASK)),
        ),
    }[how]()


def lora_run(how, predictor):
    settings = {"total_steps": 20, "schedule": optax.constant_schedule(1.0)}
    settings["trust"] = 0.0
    if how.startswith("around"):
        inner = place(how.replace("around", "inside"), optax.adam(3e-2))
        tx = wrap(inner, predictor, **settings)
    else:
        tx = place(how, wrap(optax.adam(3e-2), predictor, **settings))
    params = LORA if how != "alone" else {k: LORA[k] for k in "ab"}

    @jax.jit
    def step(params, state):
        whole = {"base": LORA["base"]} | params
        loss, grads = jax.value_and_grad(lora_loss)(whole)
        grads = {k: grads[k] for k in params}
        updates, state = tx.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    state, found = tx.init(params), []
    for _ in range(14):
        params, state = step(params, state)
        found.append(float(optax.tree.get(state, "lr_multiplier")))
    get = lambda name: optax.tree.get(state, name)  # noqa: E731
    return np.log2(found), get("lr_features"), get("lr_observation")


@pytest.mark.parametrize("how", ["inside partition", "inside masked"])
def test_the_features_are_the_same_inside_as_alone(how):
    predictor = opinionated(push=0.3)
    expected, features, _ = lora_run("alone", predictor)
    found, its_features, _ = lora_run(how, predictor)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(its_features, features, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", ["around partition", "around masked"])
def test_around_a_group_what_is_observed_is_of_what_is_trained(how):
    *_, expected = lora_run("alone", init_predictor())
    *_, found = lora_run(how, init_predictor())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
