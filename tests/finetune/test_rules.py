"""Rules of others against their published formulas, computed by hand or in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr.errors import MetalrError
from metalr.finetune.rules import (
    adalrs,
    find,
    gala,
    gen,
    lr_find,
    recipes,
    schedule_free_plus,
)
from metalr.finetune.rules.plan import RunPlan
from metalr.predictor import init_predictor

PLAN = RunPlan(learning_rate=0.1, total_steps=200, warmup_steps=0)
CURVATURES = np.array([1.0, 4.0], np.float32)
TRUE, FALSE = jnp.asarray(True), jnp.asarray(False)


def bowl(params):
    return 0.5 * jnp.sum(CURVATURES * params["w"] ** 2)


def take(tx, params, steps, values=None):
    """Take steps on the bowl; return parameters, state and rates by step."""

    @jax.jit
    def step(params, state, value):
        updates, state = tx.update(
            jax.grad(bowl)(params),
            state,
            params,
            value=value,
            value_fn=bowl,
            grad_fn=jax.grad(bowl),
        )
        return optax.apply_updates(params, updates), state

    state, seen, rates = tx.init(params), [], []
    for index in range(steps):
        value = bowl(params) if values is None else jnp.float32(values[index])
        params, state = step(params, state, value)
        seen.append(np.asarray(params["w"]))
        hyperparams = optax.tree.get(state, "hyperparams")
        rates.append(float(hyperparams["learning_rate"]))
    return np.array(seen), state, np.array(rates)


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


def is_adams(path, value):
    del value
    return "Adam" in str(path[-1])


def losses_of(slopes, size=10):
    """Return a loss that falls at these speeds, `size` steps each."""
    falls = np.repeat(slopes, size)
    return 5 - np.r_[0, np.cumsum(falls)[:-1]]


def test_adalrs_keeps_a_trial_that_falls_faster_and_undoes_one_that_falls_slower():
    plan = PLAN._replace(total_steps=200)
    tx = adalrs.adalrs(optax.sgd, plan)
    shape = np.linspace(1, 0, 200, endpoint=False)
    start = {"w": jnp.array([1.0, -0.5])}
    # Windows of ten: before the search, then a trial that is faster, and one slower.
    losses = losses_of([0.01, 0.01, 0.01, 0.02, 0.005, 0.02, 0.02])
    seen, _, rates = take(tx, start, 70, losses)
    factors = rates / (0.1 * shape[:70])
    np.testing.assert_allclose(factors[:30], 1.0, rtol=1e-4)
    np.testing.assert_allclose(factors[30:40], 3.0, rtol=1e-4)
    np.testing.assert_allclose(factors[40:50], 3 * 3 * 0.99, rtol=1e-4)
    np.testing.assert_allclose(factors[50:60], 3 / (2 * 0.99), rtol=1e-4)
    # Back to before the trial, but for the rounding of a difference.
    np.testing.assert_allclose(seen[49], seen[39], rtol=1e-4)
    assert not np.allclose(seen[48], seen[39], rtol=0.1)


def test_adalrs_searches_in_its_part_of_the_run_alone():
    tx = adalrs.adalrs(optax.sgd, PLAN)
    losses = losses_of([0.01] * 20)
    _, _, rates = take(tx, {"w": jnp.array([1.0, -0.5])}, 200, losses)
    factors = rates[:-1] / (0.1 * np.linspace(1, 0, 200, endpoint=False)[:-1])
    np.testing.assert_allclose(factors[:20], 1.0, rtol=1e-4)
    assert factors[20:90].max() > 2
    np.testing.assert_allclose(factors[90:], factors[90], rtol=1e-3)


def of_adalrs(window, **numbers):
    numbers = {"filled": len(window), "trial": False, "factor": 1.0} | numbers
    return adalrs.AdalrsState(
        step=jnp.int32(50),
        factor=jnp.float32(numbers["factor"]),
        changes=jnp.int32(numbers.get("changes", 0)),
        window=jnp.asarray(window, jnp.float32),
        filled=jnp.int32(numbers["filled"]),
        trial=jnp.asarray(numbers["trial"]),
        velocity=jnp.float32(numbers.get("velocity", np.nan)),
        highest=jnp.float32(9.0),
        saved=None,
        inner_state=None,
    )


def test_adalrs_lowers_the_rate_where_the_loss_rises_over_two_windows():
    window = np.linspace(0, 1, 10)  # without noise: e is 0
    state = of_adalrs(window, velocity=-0.1)
    after, back, begun = adalrs._decided(state, TRUE, FALSE, 10)
    assert float(after.factor) == pytest.approx(1 / 2) and int(after.changes) == 1
    assert not back and not begun and not after.trial
    # After a window that fell it rises in one alone, and a trial begins.
    state = of_adalrs(window, velocity=0.1)
    after, back, begun = adalrs._decided(state, TRUE, FALSE, 10)
    assert float(after.factor) == pytest.approx(3) and begun and not back


def test_adalrs_ends_a_trial_whose_loss_is_above_all_before_it():
    state = of_adalrs(np.ones(10), filled=4, trial=True, factor=3.0, velocity=0.1)
    after, back, begun = adalrs._decided(state, TRUE, TRUE, 10)
    assert back and not begun and not after.trial and int(after.filled) == 0
    assert float(after.factor) == pytest.approx(1 / 2)
    after, back, _ = adalrs._decided(state, TRUE, FALSE, 10)
    assert not back and after.trial and int(after.filled) == 4


def test_adalrs_measures_a_slope_and_its_standard_error():
    losses = jnp.asarray([2.0, 1.6, 1.2, 0.8, 0.4], jnp.float32)
    velocity, error = adalrs._velocity(losses)
    assert float(velocity) == pytest.approx(0.4) and float(error) < 1e-6
    bent = jnp.asarray([1.0, 0.0, 1.0, 0.0, 1.0], jnp.float32)
    velocity, error = adalrs._velocity(bent)
    assert float(velocity) == pytest.approx(0, abs=1e-6)
    # Squares of the rests add up to 1.2, those of the steps to 10; 5 - 2 are free.
    assert float(error) == pytest.approx((1.2 / 3 / 10) ** 0.5, rel=1e-5)


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
