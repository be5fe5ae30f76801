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
from tests.finetune.scheduler_rows import (
    INNERS,
    INNERS_OF,
    OWN_OPTIMIZER,
    OWN_RATE,
    PLAN,
    ROWS,
    SETTING,
    USUAL,
    build,
    quadratic,
    run,
    start_params,
)
from tests.tiers import some


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
