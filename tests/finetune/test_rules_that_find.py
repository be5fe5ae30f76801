"""Rules that find their rate by a probe, and begin anew with it."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr.errors import MetalrError
from metalr.finetune.rules import (
    find,
    lr_find,
)
from metalr.predictor import init_predictor
from tests.finetune.bowl import CURVATURES, PLAN, TRUE, is_adams, take


def fastai_valley(losses):
    """Follow the published procedure, index by index."""
    longest = [1] * len(losses)
    start = end = 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and longest[i] < longest[j] + 1:
                longest[i] = longest[j] + 1
            if longest[end] < longest[i]:
                end = i
                start = end - longest[end]
    third = (end - start) / 3
    return max(0, start + int(third) + int(third / 2))


@pytest.mark.parametrize("seed", range(8))
def test_the_finders_choose_as_published(seed):
    rng = np.random.default_rng(seed)
    size, first, end = 60, 6, 50
    rates = np.linspace(-16, 2, size).astype(np.float32)
    dip = 2 - 1.5 * np.exp(-((np.arange(size) - 35) ** 2) / 200)
    losses = (dip + rng.normal(0, 0.03 * (seed % 4), size)).astype(np.float32)
    used = (np.arange(size) >= first) & (np.arange(size) < end)
    arguments = jnp.array(rates), jnp.array(losses), jnp.array(used)
    expected = first + fastai_valley(losses[first:end])
    assert int(lr_find.valley(*arguments)) == expected
    slopes = np.diff(losses[first:end]) / np.diff(rates[first:end])
    assert int(lr_find.steep(*arguments)) == first + int(np.argmin(slopes))


@pytest.mark.parametrize("pick", [lr_find.valley, lr_find.steep])
def test_a_run_too_short_for_the_finder_is_refused(pick):
    build = lr_find.lr_find(pick)
    with pytest.raises(MetalrError, match="at least 28 steps, got 27"):
        build(optax.adam, PLAN._replace(total_steps=27))
    tx, start = build(optax.adam, PLAN._replace(total_steps=28)), {"w": jnp.ones(2)}
    _, state, _ = take(tx, start, 28)
    assert 1e-7 < float(state.found_rate) < 10


def test_the_finder_begins_anew_and_decays_linearly_over_what_is_left():
    start = {"w": jnp.array([1.0, -0.5])}
    plan = PLAN._replace(warmup_steps=20)
    tx = lr_find.lr_find(lr_find.steep)(optax.adam, plan)
    seen, state, rates = take(tx, start, 200)
    over = 1 + int(np.flatnonzero(np.diff(np.log(rates)) < -1e-4)[0])
    size = 50  # a quarter of the run
    probe = np.geomspace(1e-7, 10, size)[:over]
    np.testing.assert_allclose(rates[:over], probe, rtol=1e-3)
    np.testing.assert_array_equal(seen[over - 1], [1.0, -0.5])
    left = 200 - over
    shape = optax.join_schedules(
        [
            optax.linear_schedule(1 / (left // 10 + 1), 1.0, left // 10),
            optax.linear_schedule(1.0, 0.0, left - left // 10),
        ],
        [left // 10],
    )
    expected = [float(state.found_rate * shape(t)) for t in range(left)]
    np.testing.assert_allclose(rates[over:], expected, rtol=1e-4)
    assert int(optax.tree.get(state, "count", filtering=is_adams)) == left


@pytest.mark.parametrize(("last", "over"), [(5.0, False), (30.0, True)])
def test_the_probe_of_the_finder_ends_at_four_times_its_lowest_loss(last, over):
    state = lr_find.LrFindState(
        step=jnp.int32(0),
        found_rate=jnp.float32(0),
        steps_left=jnp.int32(0),
        losses=jnp.zeros(50, jnp.float32),
        smooth=jnp.float32(0),
        lowest=jnp.float32(np.inf),
        first_params=None,
        inner_state=None,
    )
    smooth, ended, expected = 0.0, False, []
    for count, value in enumerate((1.0, 0.5, last), start=1):
        assert not ended
        state = state._replace(step=jnp.int32(count))
        state, ended = lr_find._smoothed(state, jnp.float32(value), TRUE)
        smooth = 0.98 * smooth + 0.02 * value
        expected.append(smooth / (1 - 0.98**count))  # 1, 0.747, 2.19 or 10.7
    np.testing.assert_allclose(state.losses[:3], expected, rtol=1e-4)
    assert bool(ended) == over == (expected[2] > 4 * expected[1])


@pytest.mark.parametrize("learned", [False, True])
def test_the_probe_begins_anew_at_the_rate_that_it_found(learned):
    knowing = init_predictor()._replace(
        prior_bias=np.full(1, -3.0, np.float32),  # updates of 1/8 of the weights
        prior_variance=np.full(1, 0.01, np.float32),
    )
    plan = PLAN._replace(
        total_steps=80, learning_rate=1e-3, predictor=lambda: knowing, warmup_steps=20
    )
    start = {"w": jnp.array([1.0, -0.5])}
    seen, state, rates = take(find.find(learned=learned)(optax.sgd, plan), start, 80)
    size = 20  # a quarter of the run
    np.testing.assert_array_equal(seen[size - 1], [1.0, -0.5])
    slope = CURVATURES * np.asarray(start["w"])
    first = 2.0**-3 * np.linalg.norm([1.0, -0.5]) / np.linalg.norm(slope)
    # The untrained network asks for no other rate than the one that is there.
    assert float(state.found_rate) == pytest.approx(first, rel=0.05)
    shape = optax.join_schedules(
        [optax.linear_schedule(1 / 7, 1.0, 6), optax.linear_schedule(1.0, 0.0, 54)],
        [6],
    )
    after = rates[size:] / float(state.found_rate)
    if not learned:
        np.testing.assert_allclose(after, [shape(t) for t in range(60)], rtol=1e-4)
    assert after[0] == pytest.approx(1 / 7, rel=1e-3)
    assert int(state.find_step) == 60
    assert float(optax.tree.get(state, "lr_multiplier")) == pytest.approx(1, rel=0.3)
