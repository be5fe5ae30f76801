"""Each row of the scheduler table keeps optax's contract and its own formula."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from metalr import optax_schedule
from metalr.errors import MetalrError
from metalr.finetune import schedulers
from metalr.finetune.rules import shapes
from tests.tiers import some

PLAN = schedulers.RunPlan(learning_rate=0.1, total_steps=100, warmup_steps=9)
ROWS = schedulers.SCHEDULERS
OWN_OPTIMIZER = [  # which leave the given one aside
    name for name, row in ROWS.items() if row.learning_rate != 2e-5
]
SETTING = [name for name in ROWS if name not in OWN_OPTIMIZER]
# Recipes have an ordinary base rate; 0.1 fits the parabola as it fits any.
OWN_RATE = [name for name in OWN_OPTIMIZER if name not in ("autogluon", "kerashub")]

USUAL = ("linear", "metalr", "prodigy")  # rows that are tested whole each time


# They bring programs of their own, whose compilation is most of a test.
INNERS_OF = dict.fromkeys(
    ("adalrs", "gala", "gen", "lr_find_valley", "lr_find_steep"),
    ("adamw", "adafactor"),
) | dict.fromkeys(("find_linear", "find_metalr"), ("adamw",))


def build(name, inner="adamw", plan=PLAN):
    row = ROWS[name]
    if name in OWN_RATE:
        plan = plan._replace(learning_rate=row.learning_rate)
    return row.build(INNERS[inner], plan)


INNERS = {
    "adamw": lambda learning_rate: optax.adamw(learning_rate, weight_decay=0.01),
    "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
    "lion": optax.lion,
    "adafactor": lambda learning_rate: optax.adafactor(
        learning_rate, multiply_by_parameter_scale=False
    ),
}


def quadratic(params):
    return 0.5 * sum(jnp.sum(p.astype(jnp.float32) ** 2) for p in params.values())


def is_array(path, value):
    del path
    return isinstance(value, jax.Array)


def start_params(dtype=jnp.float32):
    return {"w": jnp.linspace(-1, 1, 12, dtype=dtype).reshape(3, 4), "b": jnp.ones(3)}


def run(tx, params, steps, losses=None):
    """Take steps on the parabola; return parameters, state and the rates used."""
    state = tx.init(params)

    @jax.jit
    def step(params, state, value):
        grads = jax.grad(quadratic)(params)
        updates, state = tx.update(
            grads,
            state,
            params,
            value=value,
            value_fn=quadratic,
            grad_fn=jax.grad(quadratic),
            unknown=1,
        )
        rate = optax.tree.get(state, "learning_rate", filtering=is_array)
        return optax.apply_updates(params, updates), state, rate

    rates = []
    for index in range(steps):
        value = quadratic(params) if losses is None else jnp.float32(losses[index])
        params, state, rate = step(params, state, value)
        rates.append(float(rate))
    assert step._cache_size() == 1, "retraced"
    return params, state, np.array(rates)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "inner", "steps"),
    [(name, inner, 100) for name in SETTING for inner in INNERS_OF.get(name, INNERS)]
    # They begin at an estimate of 1e-6, which takes its time to grow.
    + [(name, "adamw", 1000) for name in OWN_OPTIMIZER],
)
def test_row_converges_keeps_types_and_does_not_retrace(name, inner, steps):
    tx = build(name, inner, PLAN._replace(total_steps=steps))
    params = start_params()
    before = jax.tree.map(jax.typeof, tx.init(params))
    after_params, state, _ = run(tx, params, steps)
    assert jax.tree.map(jax.typeof, state) == before
    # Without noise fastai's valley begins where the loss first falls, far too low; 15
    # coordinates are few for metalr, which finds a rate that is low as well.
    share = 0.99 if name in ("lr_find_valley", "find_metalr") else 0.2
    assert quadratic(after_params) < share * quadratic(params)


@pytest.mark.parametrize("name", some(schedulers.SCHEDULERS, *USUAL))
@pytest.mark.parametrize("around", ["chain", "MultiSteps", "apply_if_finite"])
def test_row_shows_its_rate_inside_of_other_transformations(name, around):
    tx = build(name)
    wrapped = {
        "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), tx),
        "MultiSteps": lambda: optax.MultiSteps(tx, 2),
        "apply_if_finite": lambda: optax.apply_if_finite(tx, 3),
    }[around]()
    _, _, rates = run(wrapped, start_params(), 4)
    base = ROWS[name].learning_rate if name in OWN_RATE else 0.1
    assert np.all(rates > 0) and (
        np.all(rates < 1.001 * base) or name == "gala" or ROWS[name].learned
    )


@pytest.mark.parametrize("name", some(schedulers.SCHEDULERS, *USUAL))
def test_row_goes_on_after_save_and_restore_to_equal_bits(name, tmp_path):
    tx = build(name)
    params, state, _ = run(tx, start_params(), 5)
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "state", state)
        saver.wait_until_finished()
        restored = saver.restore(tmp_path / "state", jax.eval_shape(lambda: state))
    grads = jax.grad(quadratic)(params)
    value = quadratic(params)
    more = {"value_fn": quadratic, "grad_fn": jax.grad(quadratic)}
    expected = tx.update(grads, state, params, value=value, **more)
    found = tx.update(grads, restored, params, value=value, **more)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)


def optax_shape(name):
    """Compose the same rates from optax's own schedules."""
    peak, steps, w = PLAN.learning_rate, PLAN.total_steps, PLAN.warmup_steps
    ramp = optax.linear_schedule(peak / (w + 1), peak, w)
    fifth = steps // 5
    cooldown = optax.linear_schedule(peak, 0.0, fifth)
    hold = optax.join_schedules([optax.constant_schedule(peak), cooldown], [71])
    tail = {
        "static": lambda: optax.constant_schedule(peak),
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, steps - w),
        "cosine": lambda: optax.cosine_decay_schedule(peak, steps - w),
        "wsd": lambda: hold,
        "rex": lambda: lambda t: peak * (91 - t) / (45.5 + (91 - t) / 2),
    }[name]()
    return tail if name == "static" else optax.join_schedules([ramp, tail], [w])


@pytest.mark.parametrize(
    "name", ["static", "constant", "linear", "cosine", "wsd", "rex"]
)
def test_rates_are_those_of_optax_composition(name):
    _, _, rates = run(build(name), start_params(), PLAN.total_steps)
    expected = [float(optax_shape(name)(t)) for t in range(PLAN.total_steps)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-8)


def test_plateau_cuts_the_rate_when_100_steps_bring_less_than_one_percent():
    plan = schedulers.RunPlan(learning_rate=2e-5, total_steps=400, warmup_steps=0)
    tx = schedulers.SCHEDULERS["plateau"].build(INNERS["adamw"], plan)
    # Windows of 100 steps: first, 2 % lower (kept), 0.5 % lower (cut after it).
    losses = np.repeat([1.0, 0.98, 0.9751, 0.9], 100)
    _, _, rates = run(tx, start_params(), 400, losses)
    np.testing.assert_allclose(rates[:300], 2e-5, rtol=1e-6)
    np.testing.assert_allclose(rates[300:], 2e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["plateau", "greedylr"])
def test_a_loss_that_is_not_finite_does_not_reach_the_rate(name):
    losses = np.linspace(2, 1, 30)
    _, _, expected = run(build(name), start_params(), 30, losses)
    _, _, rates = run(
        build(name), start_params(), 32, np.insert(losses, 3, [np.nan, np.inf])
    )
    assert np.isfinite(rates).all()
    ramp = shapes.ramp(PLAN)
    factors = lambda n: np.array([float(ramp(t)) for t in range(n)])  # noqa: E731
    np.testing.assert_allclose(
        np.delete(rates / factors(32), [4, 5]), expected / factors(30), rtol=1e-6
    )


def test_greedylr_takes_the_rates_of_transformers():
    torch = pytest.importorskip("torch")
    from transformers.optimization import GreedyLR

    losses = np.concatenate(
        [np.linspace(3, 2, 40), np.linspace(2, 3, 160), np.linspace(3, 0.5, 60)]
    )
    losses += np.random.default_rng(0).normal(0, 0.02, len(losses))
    oracle_optimizer = torch.optim.SGD([torch.zeros(1)], lr=2e-5)
    # Their eps forbids steps below 1e-8, which only changes rates below 2e-7.
    oracle = GreedyLR(oracle_optimizer, smooth=True, min_lr=1e-7, eps=0.0)
    expected = []
    for loss in losses:
        expected.append(oracle_optimizer.param_groups[0]["lr"])
        oracle.step(float(np.float32(loss)))
    plan = schedulers.RunPlan(learning_rate=2e-5, total_steps=260, warmup_steps=0)
    _, _, rates = run(build("greedylr", plan=plan), start_params(), 260, losses)
    assert np.diff(expected).max() > 0 > np.diff(expected).min()  # up and down
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_control_with_the_multiplier_bound_to_1_is_the_shape_that_metalr_rides_on():
    held, _, _ = run(build("wsd"), start_params(), 50)
    fixed, _, _ = run(build("metalr_fixed"), start_params(), 50)
    for a, b in zip(jax.tree.leaves(held), jax.tree.leaves(fixed), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rate", [1e-4, 3e-2])
def test_wrap_row_has_the_rates_of_the_defaults_of_the_transformation(rate):
    plan = PLAN._replace(learning_rate=rate)
    held = shapes.hold_then_decay(plan)
    mine = optax_schedule.inject(
        optax.adamw, rate, total_steps=100, schedule=held, weight_decay=0.01
    )
    _, _, rates = run(build("metalr_wrap", plan=plan), start_params(), 50)
    _, _, expected = run(mine, start_params(), 50)
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    _, _, trusting_nobody = run(build("metalr", plan=plan), start_params(), 50)
    assert not np.allclose(rates, trusting_nobody, rtol=0.01)


def test_control_with_shuffled_features_takes_other_rates_from_the_same_numbers():
    _, _, rates = run(build("metalr"), start_params(), 50)
    _, _, shuffled = run(build("metalr_shuffled"), start_params(), 50)
    assert not np.allclose(rates[10:], shuffled[10:], rtol=0.01)


def test_schedule_free_is_scored_on_its_average_and_others_as_they_are():
    params, state, _ = run(build("schedule_free"), start_params(), 20)
    served = schedulers.SCHEDULERS["schedule_free"].served(state, params)
    # y = 0.1 z + 0.9 x by definition: gradients at y, steps of z, scores at x.
    trees = (served, params, optax.tree.get(state, "z"))
    for x, y, z in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(0.9 * x + 0.1 * z, y, rtol=1e-5)
    assert not np.allclose(served["w"], params["w"], atol=1e-6)
    assert schedulers.SCHEDULERS["linear"].served(None, params) is params


@pytest.mark.parametrize(
    ("total", "asked", "expected"), [(10_000, 500, 500), (300, 500, 30), (5, 500, 0)]
)
def test_warmup_takes_at_most_a_tenth_of_the_run(total, asked, expected):
    assert optax_schedule.warmup_of(total, asked) == expected


class Watched:
    """A plan that notes what is read of it."""

    def __init__(self, plan, read, replaced=()):
        self._all = plan, read, {*replaced}

    def __getattr__(self, name):
        plan, read, replaced = self._all
        if name not in replaced:
            read.add(name)
        return getattr(plan, name)

    def _replace(self, **values):
        plan, read, replaced = self._all
        return Watched(plan._replace(**values), read, replaced | {*values})


@pytest.mark.parametrize("name", schedulers.SCHEDULERS)
def test_row_reads_each_setting_but_those_that_it_says_it_ignores(name):
    read = set()

    def inner(learning_rate):
        read.update(("weight_decay", "clip_norm"))  # that it is made with
        return optax.adamw(learning_rate)

    tx, params = ROWS[name].build(inner, Watched(PLAN, read)), start_params()

    def step(params):
        more = {"value_fn": quadratic, "grad_fn": jax.grad(quadratic)}
        tx_ = optax.with_extra_args_support(tx)
        value = quadratic(params)
        return tx_.update(params, tx.init(params), params, value=value, **more)

    jax.eval_shape(step, params)
    settings = {"learning_rate", "warmup_steps", "weight_decay", "clip_norm"}
    assert settings - read == {*ROWS[name].ignores}


def test_unknown_scheduler_is_answered_with_the_nearest():
    with pytest.raises(MetalrError, match="did you mean 'linear'"):
        schedulers.get("linaer")


def test_decay_leaves_biases_and_layernorm_alone():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)}
    tx = schedulers.adamw(weight_decay=0.5, clip_norm=0.0)(1.0)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.5 * np.ones((2, 2)))
    np.testing.assert_array_equal(updates["bias"], np.zeros(2))
    np.testing.assert_array_equal(updates["scale"], np.zeros(2))


@pytest.mark.parametrize("name", some(schedulers.SCHEDULERS, *USUAL))
def test_runs_that_differ_in_their_base_rate_are_one_program_and_the_same_run(name):
    row, params = schedulers.SCHEDULERS[name], start_params()
    programs = []
    for rate in (row.learning_rate, 3 * row.learning_rate):
        plan = PLAN._replace(learning_rate=rate)
        tx = schedulers.at_a_rate(row.build, INNERS["adamw"], plan)
        more = {"value_fn": quadratic, "grad_fn": jax.grad(quadratic)}
        update = jax.jit(
            lambda g, s, p, v, tx=tx, more=more: tx.update(g, s, p, value=v, **more)
        )
        lowered = update.lower(params, tx.init(params), params, 1.0)
        programs.append(lowered.as_text())
    assert programs[0] == programs[1]
    found, _, rates = run(tx, params, 15)
    expected, _, baked = run(row.build(INNERS["adamw"], plan), params, 15)
    np.testing.assert_allclose(rates, baked, rtol=1e-5)
    for name in params:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-7)
