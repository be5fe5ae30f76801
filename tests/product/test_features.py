"""Features against a float64 reference, hand values, and what must not change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalr import features
from metalr.features import FEATURES, NAMES

BOUNDS = np.array([(row.low, row.high) for row in FEATURES], np.float32)
update = jax.jit(features.update, static_argnames=("total_steps", "stride"))


def quadratic(size=6, seed=0):
    """A Hessian with eigenvalues 0.1 to 2, a start, and noise on the gradients."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    hessian = basis @ np.diag(np.geomspace(0.1, 2, size)) @ basis.T
    return hessian, rng.normal(size=size), 0.3 * rng.normal(size=(60, size))


def descent(hessian, theta, noise, rate=0.4, scale=1.0):
    """Noisy gradient descent in float64: lists of thetas, gradients and losses."""
    path, grads, losses = [], [], []
    for kick in noise:
        path.append(theta)
        grads.append(scale * (hessian @ theta + kick))
        losses.append(scale * (theta @ hessian @ theta / 2 + 1 + kick[0]))
        theta = theta - rate / scale * grads[-1]
    return path, grads, losses


def observe(path, grads, losses, split=lambda x: x, **kwargs):
    """All feature vectors of a run: {name: [steps]}."""
    tree = lambda x: jax.tree.map(lambda y: jnp.asarray(y, jnp.float32), split(x))  # noqa: E731
    state, vectors = features.init(tree(path[0])), []
    for step, (theta, grad, loss) in enumerate(zip(path, grads, losses, strict=True)):
        vector, state = update(
            tree(grad), state, tree(theta), value=loss, step=step, **kwargs
        )
        vectors.append(np.asarray(vector))
    return dict(zip(NAMES, np.array(vectors).T, strict=True))


def window_mean(series, width):
    """The mean with weights 1/n until the window is full, exponential after."""
    weights = np.zeros(len(series))
    for step in range(len(series)):
        share = 1 / min(step + 1, width)
        weights *= 1 - share
        weights[step] = share
    return weights @ np.asarray(series, np.float64)


def reference(path, grads, losses, t, total_steps):
    """The last row of `observe` from the formulas, in float64 and from all history."""
    path, grads, losses = path[: t + 1], grads[: t + 1], np.array(losses[: t + 1])
    fast, slow = (lambda x: window_mean(x, 8)), (lambda x: window_mean(x, 32))
    u = [np.zeros_like(path[0]), *np.diff(path, axis=0)]
    h = [np.zeros_like(path[0]), *grads[:-1]]
    size = np.linalg.norm
    norm = [size(g) for g in grads]
    momentum = [np.zeros_like(path[0])]
    momentum += [fast(np.array(grads[: k + 1])) for k in range(t + 1)]
    pairs = lambda xs, ys: [x @ y for x, y in zip(xs, ys, strict=True)]  # noqa: E731
    sizes = lambda xs, ys: [size(x) * size(y) for x, y in zip(xs, ys, strict=True)]  # noqa: E731
    slope, bound = pairs(grads, u), sizes(grads, u)
    promise = np.abs(pairs(h, u))
    bend = np.array(slope) - pairs(h, u)
    gain = np.array([0, *-np.diff(losses)])
    ratio = lambda mean, x, y: mean(x) / mean(y) if mean(y) else 0.0  # noqa: E731
    deviation = lambda x: np.sqrt(max(slow(np.square(x)) - slow(x) ** 2, 0))  # noqa: E731
    promised = lambda x: np.arcsinh(x / slow(promise)) if t else 0.0  # noqa: E731
    moved, theta = size(path[t] - path[0]), size(path[t])
    energy = sum(size(x) ** 2 for x in u)
    first = min(t + 1, 8)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = [
            t / total_steps,
            1,
            np.log10(total_steps),
            np.log10(1 + t),
            promised(fast(losses) - slow(losses)),
            promised(fast(losses) - window_mean(losses, max(total_steps / 10, 8))),
            promised(fast(losses) - losses[:first].mean()),
            np.log(deviation(losses) / slow(promise)) if t else 0,
            np.log(fast(norm) / slow(norm)),
            np.log(fast(norm) / np.mean(norm[:first])),
            deviation(norm) / slow(norm),
            np.log(size(momentum[-1]) ** 2 / fast(np.square(norm))),
            ratio(slow, pairs(grads, momentum[:-1]), sizes(grads, momentum[:-1])),
            ratio(fast, slope, bound),
            ratio(slow, slope, bound),
            ratio(fast, bend, promise),
            ratio(slow, bend, promise),
            promised(slow(gain)),
            np.log(size(u[-1]) / theta),
            np.log(moved / theta),
            np.log(moved**2 / energy) if energy else 0,
            0,
            0,
            0,
        ]
    return np.clip(values, *BOUNDS.T)


@pytest.mark.parametrize("t", [0, 1, 7, 59])
def test_every_feature_equals_its_formula_in_float64(t):
    run = descent(*quadratic())
    ours = observe(*run, total_steps=300)
    expected = reference(*run, t=t, total_steps=300)
    for name, value in zip(NAMES, expected, strict=True):
        np.testing.assert_allclose(ours[name][t], value, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("edge", [0.5, 1.0, 1.5, 2.0])
def test_on_a_parabola_the_features_are_those_that_one_computes_by_hand(edge):
    # Rate r and curvature h with r h = edge: theta shrinks by 1 - edge a step.
    run = descent(np.eye(1) * edge, np.ones(1) * 3, np.zeros((12, 1)), rate=1.0)
    ours = observe(*run, total_steps=12)
    np.testing.assert_allclose(ours["curvature"][1], edge, rtol=1e-4)
    np.testing.assert_allclose(ours["slope"][1], np.sign(edge - 1), atol=1e-4)
    np.testing.assert_allclose(
        ours["gain_ratio"][1], np.arcsinh(1 - edge / 2), atol=1e-4
    )
    np.testing.assert_allclose(
        ours["relative_update"][1],
        np.log(edge / max(abs(1 - edge), 1e-30)).clip(-20, 3),
    )


def test_exact_line_curvature_equals_the_hessian_form():
    hessian, theta, _ = quadratic()
    step = np.random.default_rng(1).normal(size=theta.size)
    expected = step @ hessian @ step / abs(theta @ hessian @ step)
    h = jnp.asarray(hessian, jnp.float32)
    theta, step = (jnp.asarray(x, jnp.float32) for x in (theta, step))
    ours = features.line_curvature(lambda x: h @ x, theta, h @ theta, step)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e5])
def test_scaling_the_loss_changes_no_feature(scale):
    problem = quadratic()
    plain = observe(*descent(*problem), total_steps=60)
    scaled = observe(*descent(*problem, scale=scale), total_steps=60)
    for name in NAMES:
        np.testing.assert_allclose(
            scaled[name], plain[name], rtol=2e-3, atol=2e-3, err_msg=name
        )


@pytest.mark.parametrize("offset", [-0.9, 3.0, 10.0])
def test_a_constant_added_to_the_loss_changes_no_feature(offset):
    path, grads, losses = descent(*quadratic())
    plain = observe(path, grads, losses, total_steps=60)
    other = observe(path, grads, [x + offset for x in losses], total_steps=60)
    for name in NAMES:
        np.testing.assert_allclose(
            other[name], plain[name], rtol=2e-3, atol=2e-3, err_msg=name
        )


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_noise_far_below_the_loss_is_not_lost_to_rounding(offset):
    hessian, theta, noise = quadratic()
    path, grads, losses = descent(hessian, 0.02 * theta, 0.02 * noise)
    losses = [3 + offset + 0.02 * (loss - 1) for loss in losses]
    found = observe(path, grads, losses, total_steps=60)["loss_noise"]
    expected = [reference(path, grads, losses, t, 60) for t in range(60)]
    expected = np.array(expected)[:, NAMES.index("loss_noise")]
    assert np.ptp(losses) < 2e-3 * losses[0]
    np.testing.assert_allclose(found[2:], expected[2:], atol=0.02)


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_scaling_and_rotating_the_parameters_changes_no_feature(scale):
    path, grads, losses = descent(*quadratic())
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))
    plain = observe(path, grads, losses, total_steps=60)
    other = observe(
        [scale * turn @ theta for theta in path],
        [turn @ grad / scale for grad in grads],
        losses,
        total_steps=60,
    )
    for name in NAMES:
        np.testing.assert_allclose(
            other[name], plain[name], rtol=2e-3, atol=2e-3, err_msg=name
        )


def test_the_order_of_the_leaves_changes_no_feature():
    run = descent(*quadratic())
    one = observe(*run, split=lambda x: {"a": x[:2], "b": x[2:].reshape(2, 2)})
    two = observe(*run, split=lambda x: [x[2:].reshape(2, 2), (x[:2],)])
    for name in NAMES:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-3, atol=1e-3)


wild = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(wild, wild, wild), min_size=3, max_size=3))
def test_no_input_makes_a_feature_that_is_not_finite(steps):
    state = features.init({"w": jnp.ones(2)})
    for step, (grad, theta, value) in enumerate(steps):
        vector, state = update(
            {"w": jnp.array([grad, 1.0], jnp.float32)},
            state,
            {"w": jnp.array([theta, 1.0], jnp.float32)},
            value=np.float32(value),
            step=step,
            log_multiplier=np.float32(value),
        )
        low, high = BOUNDS.T
        assert np.all((vector >= low) & (vector <= high)), dict(
            zip(NAMES, np.asarray(vector), strict=True)
        )


@pytest.mark.parametrize("value", [0.0, 1e30, np.nan, np.inf])
def test_constant_extremes_give_finite_features(value):
    tree = {
        "w": jnp.full(3, value),
        "empty": jnp.zeros((0, 4)),
        "s": jnp.float32(value),
    }
    state = features.init(tree)
    for step in range(2):
        vector, state = update(tree, state, tree, value=value, step=step)
    assert np.all(np.isfinite(vector))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


MINILM = {
    "words": (30522, 384),
    "positions": (512, 384),
    "layers": [((384, 384),) * 4, (384, 1536), (1536, 384), (1536,), ((384,),) * 9] * 6,
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_state_is_below_two_percent_of_the_parameters(dtype):
    params = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype),
        MINILM,
        is_leaf=lambda x: isinstance(x, tuple) and all(isinstance(n, int) for n in x),
    )
    state = jax.eval_shape(features.init, params)
    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))  # noqa: E731
    assert 0.005 < size(state) / size(params) < 0.02


def test_a_large_tree_is_sampled_at_about_a_million_coordinates():
    params = {"w": jax.ShapeDtypeStruct((40_000, 40_000), jnp.float32)}
    size = jax.eval_shape(features.init, params).sampled_params.size
    assert 0.8 * 2**20 < size < 1.2 * 2**20


def test_dot_products_of_samples_estimate_those_of_the_trees():
    rng = np.random.default_rng(0)
    left = {"a": rng.normal(size=(900, 300)), "b": 5 * rng.normal(size=(4, 30, 400))}
    right = jax.tree.map(lambda x: x + 0.5 * rng.normal(size=x.shape), left)
    exact = sum(np.vdot(left[key], right[key]) for key in left)
    estimate = jnp.vdot(features.sample(left, 32), features.sample(right, 32))
    np.testing.assert_allclose(estimate, exact, rtol=0.05)


def test_squared_norm_overflows_where_a_gradient_is_too_large():
    assert np.isinf(features.squared_norm({"w": jnp.array([1e30])}))
    np.testing.assert_allclose(
        features.squared_norm({"w": jnp.full((3, 4), 2.0, jnp.bfloat16)}), 48
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_accumulated_in_float32(dtype):
    params = {"w": jnp.ones((8, 8), dtype)}
    with jax.numpy_dtype_promotion("strict"):
        vector, state = features.update(
            params,
            features.init(params),
            params,
            value=jnp.ones((), dtype),
            step=jnp.int32(0),
        )
    assert {leaf.dtype for leaf in jax.tree.leaves((vector, state))} == {
        jnp.dtype("float32")
    }


def test_names_are_unique_and_ranges_are_not_empty():
    assert len(set(NAMES)) == len(FEATURES)
    assert all(row.low < row.high for row in FEATURES)
    assert set(features.CLOCK) <= set(NAMES)
