"""The controller: bounded, braked, and still where a step says nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import metalr
from metalr import brake, controller, features
from metalr.errors import MetalrError
from metalr.features import NAMES
from metalr.meta.sweeps import constant_predictor
from metalr.observe import Observation
from metalr.predictor import init_predictor
from tests.product.steering import (
    SURE,
    UNSURE,
    constant,
    drive,
    falling,
    knowing,
    of_a_step,
    opinionated,
)

DOORS = ("inject", "wrap")


# All but the tests of trust itself are of the filter behind it.
wrap = functools.partial(metalr.wrap, trust=0.0)
inject = functools.partial(metalr.inject, trust=0.0)


def multipliers(history):
    return np.array([float(state.lr_multiplier) for *_, state in history])


def test_the_multiplier_is_that_of_a_kalman_filter_by_hand():
    # Each step says 0.3 octaves more, with variance 4; the loss falls from the start.
    said, noise, tau, width, drift = 0.3, 4.0, 10.0, 16.0, 1e-3
    predictor = constant(said, np.log(noise))._replace(
        correlation=np.float32(tau), aim=np.float32(0.5)
    )
    tx = wrap(optax.sgd(0.01), predictor, total_steps=60)
    found = np.log2(multipliers(drive(tx, falling(60))))
    log2_m, mean, variance, expected = 0.0, 0.0, width, [0.0]
    for step in range(1, 60):
        grown = variance + drift
        gain = grown / (grown + tau * noise)
        mean, variance = mean + gain * (log2_m + said - mean), (1 - gain) * grown
        target = mean - 0.5 * np.sqrt(variance) * (1 - variance / width)
        move = target - log2_m
        log2_m += move if step == 1 else np.clip(move, -0.5, 0.5)
        expected.append(log2_m)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_prior_sets_the_rate_at_the_first_update():
    # |u| = rate * |g|, |theta| is that after the step: both by hand.
    rate, params = 0.01, {"w": jnp.ones(3)}
    relative = np.log2(rate / (1 - rate))
    tx = wrap(optax.sgd(rate), knowing(relative + 3, variance=4.0), total_steps=30)
    history = drive(tx, falling(12), params)
    found = np.log2(multipliers(history))
    assert found[0] == 0  # nothing has moved yet
    # The user's own rate is a guess with a variance of 16: 16 / (16 + 4) of the way.
    np.testing.assert_allclose(found[1:], 3 * 0.8, atol=1e-3)
    np.testing.assert_allclose(history[-1][2].lr_prior, 3 * 0.8, atol=1e-3)
    np.testing.assert_allclose(history[-1][2].lr_variance, 16 * 0.2, rtol=1e-3)


def test_before_the_loss_has_left_its_start_m_stays_within_an_octave_of_the_prior():
    tx = wrap(optax.sgd(1e-4), constant(4.0), total_steps=60)
    flat = [(1.0, 1.0 + 0.01 * (-1) ** step) for step in range(12)]
    history = drive(tx, [*flat, *falling(6, end=0.2)])
    found = np.log2(multipliers(history))
    np.testing.assert_allclose(found[1:12], 1, atol=1e-5)
    assert found[-1] > 2


def test_no_step_moves_the_rate_by_more_than_its_limit():
    tx = wrap(optax.sgd(1e-3), constant(6.0), total_steps=60)
    found = np.log2(multipliers(drive(tx, falling(30))))
    assert np.max(np.diff(found)[1:]) <= 0.5 + 1e-5


@pytest.mark.parametrize("sign", [1, -1])
def test_the_multiplier_never_leaves_its_bounds(sign):
    tx = wrap(optax.sgd(1e-3), constant(sign * 100.0), total_steps=30, max_multiplier=8)
    *_, (_, _, state) = drive(tx, [(1.0, 1.0)] * 9 + [(1.0, 0.5)] * 9)
    np.testing.assert_allclose(state.lr_multiplier, 8.0**sign, rtol=1e-5)


@pytest.mark.parametrize("trust", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("shown", [-5.0, -0.4, 1.5, 4.0])
def test_the_probability_of_a_tuned_rate_is_that_of_bayes(trust, shown):
    """Of a measurement with variance 2 under N(0, 0.25) and under N(0, 16)."""
    noise, wide, narrow = 2.0, 16.0, 0.25
    variance = 1 / (1 / noise + 1 / wide)
    state = (
        wrap(optax.sgd(0.1), init_predictor())
        .init({"w": jnp.ones(3)})
        ._replace(
            lr_mean=jnp.float32(variance * shown / noise),
            lr_variance=jnp.float32(variance),
        )
    )
    found = controller._tuned(trust, wide, state)
    likely = [stats.norm.pdf(shown, scale=np.sqrt(noise + x)) for x in (narrow, wide)]
    expected = trust * likely[0] / (trust * likely[0] + (1 - trust) * likely[1])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("octaves", [1.0, 4.0])
def test_trusted_rate_is_left_where_the_run_shows_that_it_is_far_off(octaves):
    rate, params = 0.01, {"w": jnp.ones(3)}
    knows = knowing(np.log2(rate / (1 - rate)) + octaves, variance=0.5)
    found = {}
    for trust in (0.0, 0.8):
        tx = metalr.wrap(optax.sgd(rate), knows, total_steps=30, trust=trust)
        found[trust] = np.log2(multipliers(drive(tx, falling(12), params))[-1])
    if octaves == 1:
        assert 0 <= found[0.8] < 0.2 * found[0.0]
    else:
        assert found[0.8] > 0.9 * found[0.0]


def test_trust_does_not_bring_back_what_was_cut():
    silent = init_predictor()._replace(correlation=np.float32(np.inf))
    tx = metalr.wrap(optax.sgd(0.01), silent, total_steps=30, trust=0.9)
    steps = falling(20)
    steps[10] = (float("nan"), 1.0)
    found = np.log2(multipliers(drive(tx, steps)))
    np.testing.assert_allclose(found, np.where(np.arange(20) < 10, 0, -1), atol=1e-6)


def test_trust_is_a_probability():
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(MetalrError, match="`trust` must be a probability"):
            metalr.wrap(optax.sgd(0.1), init_predictor(), trust=wrong)


# --- What is no evidence --------------------------------------------------------------


STILL = {
    "a rate of 0": lambda: optax.sgd(lambda t: 0.1 * (t >= 40)),
    "micro-batches": lambda: optax.MultiSteps(optax.sgd(0.1), 50),
    "set_to_zero": optax.set_to_zero,
    "all frozen": lambda: optax.chain(
        optax.sgd(0.1), optax.masked(optax.set_to_zero(), {"w": True})
    ),
}


@pytest.mark.parametrize("push", [4.0, -4.0])
@pytest.mark.parametrize("still", STILL)
def test_where_nothing_moves_the_multiplier_stays(still, push):
    schedule = optax.constant_schedule(1.0)
    tx = wrap(STILL[still](), constant(push), total_steps=60, schedule=schedule)
    # Whatever the loss does: a rise is no sign of a rate that is too high.
    history = drive(tx, [(1.0, 1.0 + 0.1 * step) for step in range(40)])
    np.testing.assert_array_equal(multipliers(history), 1)
    state = history[-1][2]
    assert (state.braked_steps, state.out_of_range_steps) == (0, 0)
    assert state.lr_variance == 16 and state.summary.counted_steps == 1


def test_frozen_leaves_are_no_part_of_what_is_observed():
    def run(params, inner):
        tx = wrap(inner, init_predictor(), total_steps=30)
        state, found = tx.init(params), []
        update = jax.jit(tx.update)
        for value in np.geomspace(1, 0.5, 12):
            grads = jax.tree.map(lambda x: 0.1 * x, params)
            updates, state = update(grads, state, params, value=value)
            params = optax.apply_updates(params, updates)
            found.append(state.lr_observation)
        return np.array(found[1:])  # at the first step it is not known what moves

    own = {"w": jnp.arange(1.0, 7.0).reshape(2, 3)}
    plain = run(own, optax.sgd(0.1))
    labels = {"w": "train", "other": "freeze"}
    groups = {"train": optax.sgd(0.1), "freeze": optax.set_to_zero()}
    both = run(own | {"other": 7 * jnp.ones((4, 4))}, optax.partition(groups, labels))
    np.testing.assert_allclose(both, plain, rtol=1e-5, atol=1e-6)


# --- What is bad ----------------------------------------------------------------------

BAD = [(np.nan, 1.0), (np.inf, 1.0), (1e30, 1.0), (1.0, np.nan), (1.0, np.inf)]


@pytest.mark.parametrize("door", DOORS)
def test_a_step_that_is_not_finite_moves_nothing_and_halves_the_rate(door):
    settings = {"predictor": init_predictor(), "total_steps": 30}
    if door == "wrap":
        tx = wrap(optax.adamw(1e-2), **settings)
    else:
        tx = inject(optax.adamw, 1e-2, **settings)
    good = (1.0, 1.0)
    history = drive(tx, [good, *BAD, good])
    for (_, before, earlier), (updates, after, state) in zip(
        history, history[1:-1], strict=False
    ):
        assert not np.any(updates["w"])
        np.testing.assert_array_equal(after["w"], before["w"])
        np.testing.assert_allclose(state.lr_multiplier, earlier.lr_multiplier / 2)
        kept = (earlier.observer, earlier.summary, earlier.lr_features)
        now = (state.observer, state.summary, state.lr_features)
        jax.tree.map(np.testing.assert_array_equal, now, kept)
    _, params, state = history[-1]
    assert state.skipped_steps == 5 and state.lr_step == 7
    assert np.all(params["w"] < history[-2][1]["w"])  # it goes on
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


def test_steps_unlike_those_of_training_are_counted():
    predictor = constant(0.5)
    row = np.zeros((len(NAMES), len(NAMES)), np.float32)
    row[0, NAMES.index("slope")] = np.sqrt(len(NAMES))
    centre = np.where(np.array(NAMES) == "slope", -1, 0).astype(np.float32)
    seen = predictor.seen._replace(centre=centre[None], whitening=row[None])
    usual = [(1.0, 1.0)] * 6  # the slope is -1
    strange = [((-1.0) ** step, 1.0) for step in range(1, 26)]  # now it is +1
    tx = wrap(optax.sgd(1e-3), predictor._replace(seen=seen))
    history = drive(tx, usual + strange)
    assert history[5][2].out_of_range_steps == 0
    assert history[-1][2].out_of_range_steps >= 15


@pytest.mark.parametrize(("push", "start"), [(5.0, 2.0), (-0.2, 0.5)])
def test_while_the_loss_is_above_its_start_the_rate_is_cut_at_every_step(push, start):
    tx = wrap(optax.sgd(1e-6), constant(push), total_steps=30)
    calm = [(1.0, 1.0)] * 8
    diverging = [(1.0, 10.0 + step) for step in range(8)]
    history = drive(tx, calm + diverging)
    log2_m = np.log2(multipliers(history))
    assert log2_m[7] * np.log2(start) > 0
    assert np.all(np.diff(log2_m[8:]) <= -0.25 + 1e-5)  # also below 1
    assert history[-1][2].braked_steps >= 7


def test_a_first_step_that_is_skipped_is_no_evidence_in_a_trace_either():
    steps = [(np.nan, np.nan), (1.0, np.nan), *falling(14)]
    history = drive(wrap(optax.sgd(0.01), init_predictor(), total_steps=16), steps)
    rows = np.array([state.lr_observation for *_, state in history])
    seen = Observation(*rows.T)
    assert not np.any(seen.update_norm[:2]) and np.all(seen.param_norm[:2] > 1)
    found = features.of_trace(seen, total_steps=16)
    expected = [state.lr_features for *_, state in history]
    np.testing.assert_allclose(found[2:], expected[2:], rtol=1e-4, atol=1e-4)


def far_from(predictor, of="seen"):
    """Move all that a predictor has seen far away."""
    seen = getattr(predictor, of)
    size = seen.centre.shape[1]
    moved = seen._replace(
        centre=np.full((1, size), 50.0, np.float32),
        whitening=np.eye(size, dtype=np.float32)[None],
    )
    return predictor._replace(**{of: moved})


@pytest.mark.parametrize("sign", [1, -1])
def test_a_run_unlike_those_of_training_stays_at_the_rate_of_the_user(sign):
    predictor = far_from(knowing(-10.0)._replace(weights=constant(3.0 * sign).weights))
    predictor = predictor._replace(correlation=np.float32(1))
    state = drive(wrap(optax.sgd(1e-3), predictor), falling(60))[-1][2]
    assert state.out_of_range_steps == 59
    np.testing.assert_allclose(state.lr_multiplier, 1, atol=1e-6)
    assert state.lr_variance > 15.9


@pytest.mark.parametrize("trust", [0.0, 0.7])
def test_a_run_unlike_those_of_training_does_not_go_back_to_what_was_cut(trust):
    tx = metalr.wrap(optax.sgd(1e-3), far_from(knowing(-10.0)), trust=trust)
    steps = falling(12)
    steps[4:7] = [(float("nan"), 1.0)] * 3
    found = np.log2(multipliers(drive(tx, steps)))
    np.testing.assert_allclose(found, [0, 0, 0, 0, -1, -2, *[-3] * 6], atol=1e-6)


def test_the_prior_enters_once_however_long_a_run_is_out_of_range():
    row = np.zeros((len(NAMES), len(NAMES)), np.float32)
    row[0, NAMES.index("level")] = 10 * np.sqrt(len(NAMES))
    known = knowing(-3.0)  # within range at the peak
    known = known._replace(
        seen=known.seen._replace(whitening=row[None]),
        drift=np.float32(0.5),  # so that all that was known has faded in the end
    )
    level = lambda step: jnp.where(step < 20, 1.0, 0.5)  # noqa: E731
    tx = wrap(
        optax.sgd(lambda step: 1e-3 * level(step)),
        known,
        schedule=level,
        total_steps=90,
    )
    history = drive(tx, falling(90))
    state, found = history[-1][2], np.log2(multipliers(history))
    np.testing.assert_allclose(state.lr_variance, 16)
    np.testing.assert_allclose(state.lr_prior, history[1][2].lr_prior)
    assert found[19] > 3 and np.abs(np.diff(found[1:])).max() < 0.1


@pytest.mark.parametrize("skipped", [0, 1, 4])
def test_an_update_is_held_against_the_rate_that_it_was_taken_with(skipped):
    rate, share = 0.01, 16 / (16 + 4)  # of the prior beside the user's own rate
    relative = np.log2(rate / (1 - rate))
    tx = wrap(optax.sgd(rate), knowing(relative + 3, variance=4.0), total_steps=30)
    bad = [(float("nan"), 1.0)] * skipped
    state = drive(tx, [(1.0, 1.0), *bad, *falling(3)])[-1][2]
    # What was skipped cuts the user's rate, and not what the update says.
    expected = share * 3 + (1 - share) * -skipped
    np.testing.assert_allclose(state.lr_prior, expected, atol=1e-3)


def test_a_prior_of_facts_unlike_those_of_training_abstains():
    near, far = (
        drive(wrap(optax.sgd(1e-3), predictor), falling(9))[-1][2].lr_log2_multiplier
        for predictor in (knowing(-3.0), far_from(knowing(-3.0), "prior_seen"))
    )
    assert near > 3 and far == 0


def test_a_few_steps_within_range_do_not_speak_for_the_run():
    predictor = constant(4.0, UNSURE)._replace(correlation=np.float32(20))
    row = np.zeros((len(NAMES), len(NAMES)), np.float32)
    row[0, NAMES.index("level")] = 10 * np.sqrt(len(NAMES))
    seen = predictor.seen._replace(whitening=row[None])  # within range at the peak
    found = {}
    for every in (1, 20):
        level = lambda step, n=every: jnp.where((step + 1) % n == 0, 1.0, 0.5)  # noqa: E731
        tx = wrap(
            optax.sgd(lambda step, f=level: 1e-3 * f(step)),
            predictor._replace(seen=seen),
            schedule=level,
            total_steps=200,
        )
        state = drive(tx, falling(200))[-1][2]
        found[every] = float(state.lr_log2_multiplier), int(state.out_of_range_steps)
    assert found[1][0] > 3 and found[1][1] == 0
    assert 0 <= found[20][0] < 0.25 and found[20][1] > 180


@pytest.mark.parametrize("far", [6.9, 1.2, 1.1])  # half of the way out as well
@pytest.mark.parametrize("out", [[1], [5], [1, 2, 3]])
def test_one_step_out_of_range_costs_a_run_no_prior_wherever_it_stands(out, far):
    predictor = knowing(-3.0)
    row = np.zeros((len(NAMES), len(NAMES)), np.float32)
    row[0, NAMES.index("level")] = far / np.log(2) * np.sqrt(len(NAMES))
    seen = predictor.seen._replace(whitening=row[None])  # within range at the peak
    level = lambda step: jnp.where(jnp.isin(step, jnp.array(out)), 0.5, 1.0)  # noqa: E731
    found = []
    for given in (predictor, predictor._replace(seen=seen)):
        tx = wrap(
            optax.sgd(lambda step: 1e-3 * level(step)),
            given,
            schedule=level,
            total_steps=60,
        )
        found.append(drive(tx, falling(60))[-1][2])
    whole, cut = found
    assert whole.lr_prior > 3 and cut.out_of_range_steps == len(out)
    if len(out) == 1:
        np.testing.assert_allclose(cut.lr_prior, whole.lr_prior, rtol=0.05)
        np.testing.assert_allclose(
            cut.lr_log2_multiplier, whole.lr_log2_multiplier, rtol=0.05
        )
    else:  # it enters at the first step within range, by what is known of the run
        assert 0 < cut.lr_prior < whole.lr_prior / 2


def quadratic(excess, hessian, noise=0.0, steps=60, **settings):
    """Return losses and states of sgd at `excess` times one coordinate's best rate."""
    tx = wrap(optax.sgd(excess), opinionated(push=0.5), total_steps=steps, **settings)

    @jax.jit
    def run(params):
        def step(carry, key):
            params, state = carry
            value, grads = jax.value_and_grad(lambda p: jnp.sum(hessian * p**2) / 2)(
                params
            )
            grads += noise * jax.random.normal(key, grads.shape)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), (value, state)

        keys = jax.random.split(jax.random.key(0), steps)
        start = params, tx.init(params)
        return jax.lax.scan(step, start, keys)[1]

    return run(jnp.ones(len(hessian)))


def test_slopes_that_lie_along_no_gradient_are_noise_however_much_they_grow():
    # From a fine-tune in batches of 8 that did well until it was cut by 11 octaves.
    size = {"update_norm": 0.03, "mean_norm_before": 0.4}
    last = of_a_step(value=0.847, slope=6e-3, slope_before=1e-4, **size)
    seen = of_a_step(value=1.192, slope=4e-3, slope_before=1.5e-6, **size)
    summary = features.init()._replace(initial_value=jnp.float32(0.69))
    assert brake.octaves(seen, last, summary, summary) == 0
    # The same growth of a slope that the update lay along is a run that explodes.
    last = last._replace(slope=6e-1, slope_before=-6e-3)
    seen = seen._replace(slope=8 * 6e-1, slope_before=-6e-1)
    np.testing.assert_allclose(brake.octaves(seen, last, summary, summary), 3)


@pytest.mark.parametrize("excess", [5.5, 41.0, 1001.0])
def test_a_run_that_explodes_is_cut_before_it_overflows(excess):
    hessian = jnp.geomspace(1.0, 0.01, 6)
    values, states = quadratic(excess, hessian, steps=300, max_multiplier=1024)
    first = int(np.argmax(states.braked_steps > 0))
    assert first <= 9 and states.skipped_steps[-1] == 0
    assert np.all(np.isfinite(values)) and values[-1] < values[0]
    if excess > 40:  # two updates show it, and the third is already right
        assert first == 2 and values[3] < values[2]
        np.testing.assert_allclose(states.lr_multiplier[2] * excess, 1, rtol=0.3)


@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_run_of_micro_batches_that_explodes_is_cut_as_any_other(every):
    hessian = jnp.array([1.0, 10.0, 100.0])
    inner = optax.MultiSteps(optax.sgd(1.0), every)
    tx = wrap(inner, constant(0.0), total_steps=200 * every, max_multiplier=1024)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            value = jnp.sum(hessian * params**2) / 2
            updates, state = tx.update(hessian * params, state, params, value=value)
            return (optax.apply_updates(params, updates), state), value

        steps = 200 * every
        (_, state), values = jax.lax.scan(step, (params, tx.init(params)), None, steps)
        return values, state

    values, state = run(jnp.ones(3))
    assert state.braked_steps > 0 and state.skipped_steps == 0
    assert values[-1] < values[0]


def test_noise_in_the_first_steps_is_no_divergence():
    rng = np.random.default_rng(0)
    tx = wrap(optax.sgd(1e-3), constant(0.0), total_steps=30)
    for _ in range(40):  # gradients and losses of heavy tails, of either sign
        sizes = np.exp(1.5 * rng.normal(size=(9, 2))) * rng.choice([1, -1], (9, 2))
        state = drive(tx, [tuple(row) for row in sizes])[-1][2]
        assert state.braked_steps == 0


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("excess", [2.5, 4.0])
def test_a_run_that_diverges_is_cut_until_its_loss_is_back(door, excess):
    hessian = jnp.array([1.0, 0.3])
    rate = excess  # 2 is the edge of stability
    predictor = opinionated(push=0.5)
    if door == "wrap":
        tx = wrap(optax.sgd(rate), predictor, total_steps=700)
    else:
        one = optax.constant_schedule(1.0)
        tx = inject(optax.sgd, rate, predictor, total_steps=700, schedule=one)

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(lambda p: jnp.sum(hessian * p**2) / 2)(
                params
            )
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), value

        (_, state), values = jax.lax.scan(step, (params, tx.init(params)), None, 700)
        return values, state

    values, state = run(jnp.array([1.0, 1.0]))
    assert max(values) > 2 * values[0] and state.braked_steps > 0
    assert np.all(np.isfinite(values)) and min(values[100:]) < values[0]
    assert values[-1] < 0.1 * max(values)


@pytest.mark.parametrize(("start", "end"), [(-0.01, 0.02), (-10.0, -0.1), (0.5, -0.5)])
def test_the_brake_is_of_a_rise_and_not_of_a_sign(start, end):
    tx = wrap(optax.sgd(1e-6), constant(0.0), total_steps=30)
    history = drive(tx, [(1.0, value) for value in np.linspace(start, end, 24)])
    assert (history[-1][2].braked_steps > 0) == (end > start)


@pytest.mark.parametrize("door", DOORS)
def test_a_first_step_that_is_skipped_tells_the_inner_optimizer_no_loss(door):
    plateau = optax.contrib.reduce_on_plateau(patience=3)
    make = lambda learning_rate: optax.chain(optax.adam(learning_rate), plateau)  # noqa: E731
    if door == "wrap":
        tx = wrap(make(1e-2), init_predictor(), total_steps=30)
    else:
        tx = inject(make, 1e-2, init_predictor(), total_steps=30)
    down = [(1.0, 3.0 - 0.1 * step) for step in range(20)]
    first, *_, (_, _, last) = drive(tx, [(1.0, np.nan), *down])
    assert (
        not np.any(first[0]["w"]) and optax.tree.get(first[2], "best_value") == np.inf
    )
    assert optax.tree.get(last, "best_value") == np.float32(1.1)
    assert optax.tree.get(last, "scale") == 1


# --- Other ways to move it ------------------------------------------------------------


def test_constant_predictor_needs_no_predictor_and_exploring_is_bounded():
    forced = optax.linear_schedule(0.0, 1.0, 4)
    tx = wrap(optax.sgd(0.1), log_multiplier=forced)
    for step, (_, _, state) in enumerate(drive(tx, [(1.0, 1.0)] * 4)):
        np.testing.assert_allclose(state.lr_multiplier, np.exp(step / 4), rtol=1e-6)
    tx = wrap(
        optax.sgd(1e-3),
        constant_predictor(),
        explore=lambda step: 9.0 * step,
        max_multiplier=1024,
    )
    *_, (_, _, state) = drive(tx, [(1.0, 1.0)] * 3)
    np.testing.assert_allclose(state.lr_multiplier, 1024, rtol=1e-5)
    assert state.lr_log2_multiplier == 0


def test_what_exploration_added_is_taken_off_the_evidence():
    # The correction is of the rate as it was explored: the mean is where it would be.
    predictor = constant(0.0, SURE)
    tx = wrap(optax.sgd(1e-3), predictor, explore=lambda step: jnp.log(4.0))
    _, (_, _, state) = drive(tx, falling(2))
    np.testing.assert_allclose(state.lr_mean, 2.0, atol=0.1)  # log2 of 4, it says


def test_exact_curvature_is_that_of_a_step_that_was_taken():
    tx = wrap(optax.sgd(0.3), init_predictor(), curvature_every=2)
    grad_fn = lambda params: jnp.array([1.0, 4.0]) * params  # noqa: E731
    params = jnp.array([1.0, 1.0])
    state, found = tx.init(params), []
    for value in (1.0, 1.0, np.nan, 1.0, 1.0):
        g = grad_fn(params)
        updates, state = tx.update(g, state, params, value=value, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
        found.append(float(state.observer[1]))
    first, made_up = found[0], found[3]
    assert first > 0 and found[1:3] == [first, first]  # kept where a step is skipped
    assert made_up > 0 and made_up != first and found[4] == made_up


@pytest.mark.parametrize("every", [0, 1])
def test_curvature_is_of_what_moves_wherever_the_rate_stands(every):
    settings: dict = {"log_multiplier": 0.0, "curvature_every": every}
    flat = optax.constant_schedule(1.0)
    whole = wrap(optax.sgd(1e-3), schedule=flat, **settings)
    link = optax.chain(metalr.scale_by_metalr(**settings), optax.scale(-1e-3))
    grad_fn = lambda params: jnp.array([1.0, 3.0]) * params  # noqa: E731
    seen = []
    for tx in (whole, link):
        params = jnp.array([1.0, 1.0])
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(
                grad_fn(params), state, params, value=1.0, grad_fn=grad_fn
            )
            params = optax.apply_updates(params, updates)
        seen.append(optax.tree.get(state, "lr_features"))
    np.testing.assert_allclose(*seen, rtol=1e-3, atol=1e-6)


def test_exact_curvature_is_that_of_the_applied_step():
    hessian, rate = jnp.array([1.0, 4.0]), 0.3
    tx = wrap(optax.sgd(rate), init_predictor(), curvature_every=2)
    grad_fn = lambda params: hessian * params  # noqa: E731
    params = jnp.array([1.0, 1.0])
    state, curvatures = tx.init(params), []
    for _ in range(4):
        g = grad_fn(params)
        # For each unit of the update's norm, which is rate * |g|.
        norm = jnp.linalg.norm(g)
        curvatures.append(jnp.vdot(g, hessian * g) / jnp.vdot(g, g) / norm)
        updates, state = tx.update(g, state, params, value=1.0, grad_fn=grad_fn)
        params = optax.apply_updates(params, updates)
    _, exact = state.observer
    np.testing.assert_allclose(exact, curvatures[2], rtol=1e-4)
