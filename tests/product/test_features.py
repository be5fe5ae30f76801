"""Observations and features against a float64 reference, and what changes none."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalr import coordinates, features, observe
from metalr.features import FACTS, FEATURES, NAMES
from metalr.observe import Observation
from tests.product.steering import (
    of_a_step,
    opinionated,
    regression,
    summary_of,
    train_step,
)

BOUNDS = np.array([(row.low, row.high) for row in FEATURES], np.float32)
LOG_LEVEL, LOG_M, AREA = -0.5, 0.3, np.log(0.6)


def quadratic(size=6, seed=0):
    """Return a Hessian with eigenvalues 0.1 to 2, a start, and gradient noise."""
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


def observed(path, grads, losses, split=lambda x: x, **settings):
    """Return the observations of a run, [T] each, as the transformation makes them."""
    tree = lambda x: jax.tree.map(lambda y: jnp.asarray(y, jnp.float32), split(x))  # noqa: E731
    where = coordinates.layout(tree(path[0]))
    look = jax.jit(
        lambda grads, state, params, value: observe.observe(
            grads, state, params, where, value=value, **settings
        )
    )
    state, rows = observe.init(tree(path[0]), where), []
    for theta, grad, loss in zip(path, grads, losses, strict=True):
        seen, state = look(tree(grad), state, tree(theta), loss)
        rows.append(seen)
    return jax.tree.map(lambda *x: np.array(x), *rows)


of_trace = jax.jit(features.of_trace)


def run_features(path, grads, losses, total_steps=None, area=0.0, **settings):
    """All features of a run: {name: [steps]}."""
    vectors = of_trace(observed(path, grads, losses, **settings), total_steps, area)
    return dict(zip(NAMES, np.asarray(vectors).T, strict=True))


def window_mean(series, width):
    """Return the mean with weights 1/n until the window is full, exponential after."""
    weights = np.zeros(len(series))
    widths = np.broadcast_to(width, len(series))  # of each step, or of all
    for step in range(len(series)):
        share = 1 / min(step + 1, widths[step])
        weights *= 1 - share
        weights[step] = share
    return weights @ np.asarray(series, np.float64)


def reference(path, grads, losses, t, total_steps):
    """Compute the last row of `run_features` from the formulas, in float64."""
    path, grads, losses = path[: t + 1], grads[: t + 1], np.array(losses[: t + 1])
    fast, slow = (lambda x: window_mean(x, 8)), (lambda x: window_mean(x, 32))
    u, h, size = np.diff(path, axis=0), grads[:-1], np.linalg.norm
    norm = [size(g) for g in grads]
    momentum = [np.zeros_like(path[0])]
    momentum += [fast(np.array(grads[: k + 1])) for k in range(t + 1)]
    pairs = lambda xs, ys: [x @ y for x, y in zip(xs, ys, strict=True)]  # noqa: E731
    sizes = lambda xs, ys: [size(x) * size(y) for x, y in zip(xs, ys, strict=True)]  # noqa: E731
    slope, bound = pairs(grads[1:], u), sizes(grads[1:], u)
    promise = np.abs(pairs(h, u))
    bend = np.array(slope) - pairs(h, u)
    ratio = lambda mean, x, y: mean(x) / mean(y) if len(x) and mean(y) else 0.0  # noqa: E731
    deviation = lambda x: np.sqrt(max(slow(np.square(x)) - slow(x) ** 2, 0))  # noqa: E731
    promised = lambda x: np.arcsinh(x / slow(promise)) if t else 0.0  # noqa: E731
    # The first update is made without a learned factor, in the trace too.
    units = [np.log(size(x) / size(y)) for x, y in zip(u, path[1:], strict=True)]
    levels = np.full(t, LOG_LEVEL)
    relative = (slow(units - levels - LOG_M) + LOG_M) / np.log(2) if t else None
    values = [
        t / total_steps,
        np.log10(1 + t),
        promised(fast(losses) - slow(losses)),
        promised(fast(losses) - window_mean(losses, max(total_steps / 10, 8))),
        promised(fast(losses) - losses[:8].mean()),
        np.log(deviation(losses) / slow(promise)) if t else 0,
        np.log(fast(norm) / slow(norm)),
        deviation(norm) / slow(norm),
        np.log(size(momentum[-1]) ** 2 / fast(np.square(norm))),
        ratio(slow, pairs(grads, momentum[:-1]), sizes(grads, momentum[:-1])),
        ratio(fast, slope, bound),
        ratio(slow, slope, bound),
        ratio(fast, bend, promise),
        ratio(slow, bend, promise),
        promised(slow(-np.diff(losses))) if t else 0.0,
        np.log(size(path[t] - path[0]) ** 2 / sum(size(x) ** 2 for x in u)) if t else 0,
        LOG_LEVEL,
        relative if t else LOG_M / np.log(2),
        0,
        0,
        np.log2(np.mean(abs(u[0])) / np.sqrt(np.mean(u[0] ** 2))) if t else 0,
        1,
        np.log2(total_steps),
        AREA / np.log(2),
    ]
    return np.clip(values, *BOUNDS.T)


@pytest.mark.parametrize("t", [0, 1, 7, 59])
def test_every_feature_equals_its_formula_in_float64(t):
    run = descent(*quadratic())
    ours = run_features(
        *run, total_steps=300.0, area=AREA, log_level=LOG_LEVEL, log_multiplier=LOG_M
    )
    expected = reference(*run, t=t, total_steps=300)
    for name, value in zip(NAMES, expected, strict=True):
        np.testing.assert_allclose(
            ours[name][t], value, rtol=2e-3, atol=2e-3, err_msg=name
        )


@pytest.mark.parametrize("edge", [0.5, 1.0, 1.5, 2.0])
def test_on_a_parabola_the_features_are_those_that_one_computes_by_hand(edge):
    # Rate r and curvature h with r h = edge: theta shrinks by 1 - edge a step.
    run = descent(np.eye(1) * edge, np.ones(1) * 3, np.zeros((12, 1)), rate=1.0)
    ours = run_features(*run, total_steps=12.0)
    np.testing.assert_allclose(ours["curvature"][1], edge, rtol=1e-4)
    np.testing.assert_allclose(ours["slope"][1], np.sign(edge - 1), atol=1e-4)
    np.testing.assert_allclose(
        ours["gain_ratio"][1], np.arcsinh(1 - edge / 2), atol=1e-4
    )
    if edge != 1:
        expected = np.log2(edge / abs(1 - edge))
        np.testing.assert_allclose(ours["relative_rate"][1], expected, atol=1e-4)


def test_facts_of_the_matrices_are_those_of_the_leaves_that_move():
    rng = np.random.default_rng(0)
    start = {
        "stack": rng.normal(size=(3, 8, 32)),  # three layers, of log2 sides 3 and 5
        "map": rng.normal(size=(3, 3, 4, 16)),  # 36 by 16
        "frozen": rng.normal(size=(64, 64)),
        "bias": rng.normal(size=5),
    }
    path = [start, {k: v if k == "frozen" else 2 * v for k, v in start.items()}]
    before, after = (
        {name: float(column[t]) for name, column in zip(FACTS, found, strict=True)}
        for found in [
            np.asarray(of_trace(observed(path, path, [1.0, 1.0]))).T[-len(FACTS) :]
        ]
        for t in (0, 1)
    )
    assert before["matrices"] == pytest.approx(np.log2(1 + 5))  # all that may move
    assert after["matrices"] == pytest.approx(np.log2(1 + 4))
    width = (3 * 4 + (np.log2(36) + 4) / 2) / 4
    assert after["width"] == pytest.approx(width, abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "count", "width"),
    [
        ((5,), 0.0, 0.0),
        ((64, 128, 32), 64.0, 6.0),  # a stack of layers, of log2 sides 7 and 5
        ((65, 128, 32), 1.0, (math.log2(65) + 7 + 5) / 2),  # too long for one
        ((8, 4, 16), 1.0, 4.5),  # 32 by 16
        ((2, 4, 4, 16), 1.0, 4.5),  # a kernel
    ],
)
def test_a_short_first_axis_of_three_is_a_stack(shape, count, width):
    block = coordinates.Block(0, shape, (1,) * len(shape), 1, math.prod(shape))
    assert observe._matrices(block) == pytest.approx((count, width))


def test_the_update_of_a_leaf_is_the_median_over_those_that_moved():
    moved = {"a": 0.001, "b": 0.1, "c": 0.2, "frozen": 0.0}
    start = {name: jnp.ones(3) for name in moved}
    where = coordinates.layout(start)
    past = observe.init(start, where)
    after = {name: jnp.ones(3) * (1 + u) for name, u in moved.items()}
    seen, _ = observe.observe(after, past, after, where, value=1.0)
    assert float(seen.leaf_update) == pytest.approx(math.log(0.1 / 1.1), abs=1e-4)


def test_exact_line_curvature_equals_the_hessian_form():
    hessian, theta, _ = quadratic()
    step = np.random.default_rng(1).normal(size=theta.size)
    expected = step @ hessian @ step / abs(theta @ hessian @ step)
    h = jnp.asarray(hessian, jnp.float32)
    theta, step = (jnp.asarray(x, jnp.float32) for x in (theta, step))
    ours = features.line_curvature(lambda x: h @ x, theta, h @ theta, step)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_exact_curvature_takes_the_place_of_that_of_two_batches():
    params, grads = {"w": jnp.ones(2)}, {"w": jnp.asarray([3.0, 4.0])}
    where = coordinates.layout(params)
    _, past = observe.observe(
        grads, observe.init(params, where), params, where, value=1.0
    )
    moved = {"w": params["w"] - 0.1 * grads["w"]}
    seen, _ = observe.observe(
        grads, past, moved, where, value=1.0, exact_curvature=jnp.float32(3.0)
    )
    # |u| = 0.5, so g.u = -0.1 * 25 changes by 1.5 of its size: half of it is left,
    # behind the minimum of the line.
    assert float(seen.slope_before) == pytest.approx(-2.5, rel=1e-5)
    assert float(seen.slope) == pytest.approx(1.25, rel=1e-5)


@pytest.mark.parametrize("turned", [1.0, 1j, 0.6 + 0.8j])
def test_exact_line_curvature_of_complex_parameters_is_that_of_their_real_parts(turned):
    hessian, theta = jnp.array([1.0, 3.0]), jnp.array([2.0, -1.0])
    grad_fn = lambda params: hessian * params  # noqa: E731
    step = -0.1 * hessian * theta
    expected = features.line_curvature(grad_fn, theta, grad_fn(theta), step)
    theta, step = theta * turned, step * turned
    found = features.line_curvature(grad_fn, theta, grad_fn(theta), step)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def same(one, other, but=()):
    for name in NAMES:
        if name not in but:
            np.testing.assert_allclose(
                one[name], other[name], rtol=2e-3, atol=2e-3, err_msg=name
            )


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e5])
def test_scaling_the_loss_changes_no_feature(scale):
    problem = quadratic()
    plain = run_features(*descent(*problem), total_steps=60.0)
    same(run_features(*descent(*problem, scale=scale), total_steps=60.0), plain)


@pytest.mark.parametrize("offset", [-0.9, 3.0, 10.0])
def test_a_constant_added_to_the_loss_changes_no_feature(offset):
    path, grads, losses = descent(*quadratic())
    plain = run_features(path, grads, losses, total_steps=60.0)
    losses = [x + offset for x in losses]
    same(run_features(path, grads, losses, total_steps=60.0), plain)


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_noise_far_below_the_loss_is_not_lost_to_rounding(offset):
    hessian, theta, noise = quadratic()
    path, grads, losses = descent(hessian, 0.02 * theta, 0.02 * noise)
    losses = [3 + offset + 0.02 * (loss - 1) for loss in losses]
    found = run_features(path, grads, losses, total_steps=60.0)["loss_noise"]
    expected = [reference(path, grads, losses, t, 60) for t in range(60)]
    expected = np.array(expected)[:, NAMES.index("loss_noise")]
    assert np.ptp(losses) < 2e-3 * losses[0]
    np.testing.assert_allclose(found[2:], expected[2:], atol=0.02)


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_scaling_and_rotating_the_parameters_changes_no_feature(scale):
    path, grads, losses = descent(*quadratic())
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))
    plain = run_features(path, grads, losses, total_steps=60.0)
    other = run_features(
        [scale * turn @ theta for theta in path],
        [turn @ grad / scale for grad in grads],
        losses,
        total_steps=60.0,
    )
    same(other, plain, but=("evenness",))  # which is about the axes


def test_the_order_of_the_leaves_changes_no_feature():
    run = descent(*quadratic())
    one = run_features(*run, split=lambda x: {"a": x[:2], "b": x[2:].reshape(2, 2)})
    two = run_features(*run, split=lambda x: [x[2:].reshape(2, 2), (x[:2],)])
    same(one, two)


def test_a_step_before_which_nothing_moved_is_no_evidence():
    path, grads, losses = (list(column) for column in descent(*quadratic()))
    plain = np.asarray(of_trace(observed(path[:20], grads[:20], losses[:20])))
    # Ten steps of other gradients and losses at the parameters of step 12.
    rng = np.random.default_rng(3)
    path[13:13] = [path[12]] * 10
    grads[13:13] = list(rng.normal(size=(10, 6)))
    losses[13:13] = list(rng.normal(size=10))
    found = np.asarray(of_trace(observed(path[:23], grads[:23], losses[:23])))
    for row in found[13:]:
        np.testing.assert_array_equal(row, found[12])
    np.testing.assert_allclose(found[:13], plain[:13], rtol=1e-5, atol=1e-5)


def features_of(steps, total_steps=None):
    summary, found = features.init(), []
    for step, seen in enumerate(steps):
        vector, summary = features.update(
            seen, summary, step=jnp.float32(step), total_steps=total_steps
        )
        found.append(dict(zip(NAMES, np.asarray(vector), strict=True)))
    return found


def test_an_update_is_held_against_the_level_of_the_step_that_made_it():
    start = of_a_step(update_norm=0.0, log_level=math.log(0.5))
    after = of_a_step(update_norm=0.25, param_norm=2.0, log_level=0.0)
    found = features_of([start, after])[1]
    # |u| / |theta| is 1/8, made at a level of a half.
    assert found["relative_rate"] == pytest.approx(-2.0, abs=1e-4)


def test_what_is_gained_is_counted_from_the_loss_of_the_step_before():
    still = {"update_norm": 0.0}
    steps = [
        of_a_step(value=5.0, **still),
        of_a_step(value=4.0),  # gained 1
        of_a_step(value=10.0, **still),  # another micro-batch
        of_a_step(value=9.0),  # gained 1 again
    ]
    found = features_of(steps)[-1]["gain_ratio"]
    assert found == pytest.approx(math.asinh(1.0), abs=1e-4)


def test_the_level_of_a_step_before_which_nothing_moved_is_that_of_the_next_update():
    steps = [
        of_a_step(update_norm=0.0, log_level=0.0),
        of_a_step(update_norm=0.0, log_level=math.log(0.25)),
        of_a_step(update_norm=0.25, log_level=0.0),
    ]
    found = features_of(steps)[-1]["relative_rate"]
    assert found == pytest.approx(0.0, abs=1e-4)  # 1/4 at a level of 1/4


@pytest.mark.parametrize("total_steps", [None, 2000.0, 20.0])
def test_the_third_window_is_a_tenth_of_the_budget_and_eight_at_least(total_steps):
    losses = np.random.default_rng(0).normal(size=200)
    ones = np.ones(200, np.float32)
    rows = {name: ones for name in Observation._fields}
    rows |= {"value": losses.astype(np.float32), "slope": -ones}
    rows |= {"log_level": 0 * ones, "log_multiplier": 0 * ones}
    rows["update_norm"] = np.r_[0, ones[1:]].astype(np.float32)
    found = np.asarray(features.of_trace(Observation(**rows), total_steps))
    budget = np.maximum((total_steps or np.arange(200)) / 10, 8)
    apart = window_mean(losses, 8) - window_mean(losses, budget)
    np.testing.assert_allclose(
        found[-1, NAMES.index("loss_budget")], math.asinh(apart), atol=1e-3
    )


@pytest.mark.parametrize(
    ("value", "steps", "left"),
    [(0.81, 20, False), (0.79, 20, True), (0.5, 7, False), (0.5, 8, True)],
)
def test_the_loss_has_left_its_start_where_it_is_two_deviations_below(
    value, steps, left
):
    assert bool(features.has_left_start(summary_of(value, 1.0, 0.1, steps))) == left


@pytest.mark.parametrize(
    ("value", "start", "spread", "steps", "diverging"),
    [
        (2.49, 2.0, 0.1, 20, False),  # a quarter of the start is more
        (2.51, 2.0, 0.1, 20, True),
        (2.79, 2.0, 0.2, 20, False),  # four deviations are more
        (2.81, 2.0, 0.2, 20, True),
        (-1.51, -2.0, 0.1, 20, False),  # of either sign
        (-1.49, -2.0, 0.1, 20, True),
        (9.0, 2.0, 0.1, 8, False),  # before the mean is of other steps
        (9.0, 2.0, 0.1, 9, True),
    ],
)
def test_the_loss_is_well_above_its_start_by_a_quarter_or_four_deviations(
    value, start, spread, steps, diverging
):
    summary = summary_of(value, start, spread, steps)
    assert bool(features.is_diverging(summary)) == diverging


@pytest.mark.parametrize("total_steps", [12, None])
def test_features_of_a_trace_are_those_that_the_transformation_computed(total_steps):
    import optax

    from metalr import wrap

    schedule = optax.linear_schedule(3e-2, 1e-2, 12)
    tx = wrap(
        optax.adamw(schedule),
        opinionated(push=0.5),
        total_steps=total_steps,
        schedule=schedule,
    )
    params, batch = regression()
    state, rows = tx.init(params), []
    step = jax.jit(lambda params, state, batch: train_step(tx, params, state, batch))
    for number in range(12):
        # The sixth is skipped: it is no evidence in the trace either.
        given_ = (batch[0] * np.nan, batch[1]) if number == 5 else batch
        params, state = step(params, state, given_)
        rows.append((state.lr_observation, state.lr_features))
    assert state.skipped_steps == 1 and state.lr_multiplier != 1
    observations, expected = (np.array(column) for column in zip(*rows, strict=True))
    area = np.log(np.mean(np.linspace(3e-2, 1e-2, 12, endpoint=False)) / 3e-2)
    found = of_trace(
        Observation(*observations.T), total_steps, area if total_steps else 0.0
    )
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


wild = st.floats(width=32, allow_nan=True, allow_infinity=True)
look = jax.jit(observe.observe, static_argnames="where")
update = jax.jit(features.update)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(wild, wild, wild), min_size=3, max_size=3))
def test_no_input_makes_a_feature_that_is_not_finite(steps):
    where = coordinates.layout({"w": jnp.ones(2)})
    past, summary = observe.init({"w": jnp.ones(2)}, where), features.init()
    for step, (grad, theta, value) in enumerate(steps):
        seen, past = look(
            {"w": jnp.array([grad, 1.0], jnp.float32)},
            past,
            {"w": jnp.array([theta, 1.0], jnp.float32)},
            where=where,
            value=np.float32(value),
            log_multiplier=np.float32(value),
        )
        vector, summary = update(seen, summary, step=step)
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
    where = coordinates.layout(tree)
    past, summary = observe.init(tree, where), features.init()
    for step in range(2):
        seen, past = look(tree, past, tree, where=where, value=value)
        vector, summary = update(seen, summary, step=step)
    assert np.all(np.isfinite(vector))
    found = (seen, past, summary)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


MINILM = {
    "words": (30522, 384),
    "positions": (512, 384),
    "layers": [((384, 384),) * 4, (384, 1536), (1536, 384), (1536,), ((384,),) * 9] * 6,
}


def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_state_is_below_two_percent_of_the_parameters(dtype):
    params = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, dtype),
        MINILM,
        is_leaf=lambda x: isinstance(x, tuple) and all(isinstance(n, int) for n in x),
    )
    where = coordinates.layout(params)
    state = jax.eval_shape(lambda params: observe.init(params, where), params)
    assert 0.005 < size(state) / size(params) < 0.02


def test_a_large_tree_is_sampled_at_about_a_million_coordinates():
    params = {"w": jax.ShapeDtypeStruct((40_000, 40_000), jnp.float32)}
    assert 0.8 * 2**20 < coordinates.layout(params).sizes.sum() < 1.2 * 2**20


def test_dot_products_of_samples_estimate_those_of_the_trees():
    rng = np.random.default_rng(0)
    left = {"a": rng.normal(size=(900, 300)), "b": 5 * rng.normal(size=(4, 30, 400))}
    right = jax.tree.map(lambda x: x + 0.5 * rng.normal(size=x.shape), left)
    exact = sum(np.vdot(left[key], right[key]) for key in left)
    where = coordinates.layout(left, 32)
    estimate = jnp.vdot(
        coordinates.sample(left, where), coordinates.sample(right, where)
    )
    np.testing.assert_allclose(estimate, exact, rtol=0.05)


def test_squared_norm_overflows_where_a_gradient_is_too_large():
    squares = lambda tree: coordinates.squared_norms(tree, coordinates.layout(tree))  # noqa: E731
    assert np.isinf(squares({"w": jnp.array([1e30])}))
    halves = {"w": jnp.full((3, 4), 2.0, jnp.bfloat16)}
    np.testing.assert_allclose(squares(halves), [48])
    np.testing.assert_allclose(squares({"z": jnp.array([3 + 4j, 1j])}), [26])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.complex64])
def test_other_types_are_accumulated_in_float32(dtype):
    params = {"w": jnp.ones((8, 8), dtype)}
    with jax.numpy_dtype_promotion("strict"):
        where = coordinates.layout(params)
        seen, past = observe.observe(
            params,
            observe.init(params, where),
            params,
            where,
            value=jnp.ones((), jnp.float32),
        )
        vector, summary = features.update(seen, features.init(), step=jnp.int32(0))
    found = jax.tree.leaves((seen, past, vector, summary))
    assert {leaf.dtype for leaf in found} == {jnp.dtype("float32")}


def test_a_complex_parameter_is_observed_as_its_two_real_parts():
    real, imaginary = np.random.default_rng(0).normal(size=(2, 3, 4))
    path = [1.0, 0.9, 0.7]
    one = [{"z": jnp.asarray(s * (real + 1j * imaginary))} for s in path]
    two = [{"x": jnp.asarray(s * real), "y": jnp.asarray(s * imaginary)} for s in path]
    seen = []
    for trees in (one, two):
        where = coordinates.layout(trees[0])
        past = observe.init(trees[0], where)
        for tree in trees:
            found, past = observe.observe(tree, past, tree, where, value=1.0)
        seen.append(found._replace(leaf_update=0, matrices=0, width=0))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), *seen)


def test_names_are_unique_and_ranges_are_not_empty():
    assert len(set(NAMES)) == len(FEATURES)
    assert all(row.low < row.high for row in FEATURES)
