"""Every feature is what its formula gives in float64, or a hand on a simple run."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalr import features
from metalr.features import FEATURES, NAMES
from metalr.observe import Observation
from tests.product.descents import (
    BOUNDS,
    descent,
    of_trace,
    quadratic,
    run_features,
    window_mean,
)
from tests.product.steering import (
    of_a_step,
    opinionated,
    regression,
    summary_of,
    train_step,
)

LOG_LEVEL, LOG_M, AREA = -0.5, 0.3, np.log(0.6)


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
    decrease = np.abs(pairs(h, u))
    bend = np.array(slope) - pairs(h, u)
    ratio = lambda mean, x, y: mean(x) / mean(y) if len(x) and mean(y) else 0.0  # noqa: E731
    deviation = lambda x: np.sqrt(max(slow(np.square(x)) - slow(x) ** 2, 0))  # noqa: E731
    in_decreases = lambda x: np.arcsinh(x / slow(decrease)) if t else 0.0  # noqa: E731
    # The first update is made without a learned factor, in the trace too.
    units = [np.log(size(x) / size(y)) for x, y in zip(u, path[1:], strict=True)]
    levels = np.full(t, LOG_LEVEL)
    relative = (slow(units - levels - LOG_M) + LOG_M) / np.log(2) if t else None
    values = [
        t / total_steps,
        np.log10(1 + t),
        in_decreases(fast(losses) - slow(losses)),
        in_decreases(fast(losses) - window_mean(losses, max(total_steps / 10, 8))),
        in_decreases(fast(losses) - losses[:8].mean()),
        np.log(deviation(losses) / slow(decrease)) if t else 0,
        np.log(fast(norm) / slow(norm)),
        deviation(norm) / slow(norm),
        np.log(size(momentum[-1]) ** 2 / fast(np.square(norm))),
        ratio(slow, pairs(grads, momentum[:-1]), sizes(grads, momentum[:-1])),
        ratio(fast, slope, bound),
        ratio(slow, slope, bound),
        ratio(fast, bend, decrease),
        ratio(slow, bend, decrease),
        in_decreases(slow(-np.diff(losses))) if t else 0.0,
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


def test_names_are_unique_and_ranges_are_not_empty():
    assert len(set(NAMES)) == len(FEATURES)
    assert all(row.low < row.high for row in FEATURES)
