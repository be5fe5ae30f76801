"""Rates by depth, frozen leaves and averages, against optax and plain arithmetic."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import controller
from metalr.errors import MetalrError
from metalr.finetune import groups, schedulers, trained
from metalr.finetune.config import RunConfig
from metalr.finetune.config_rules import check
from metalr.finetune.rules import find, lr_find
from metalr.finetune.rules.plan import RunPlan
from metalr.models import heads, huggingface, lora
from metalr.predictor import init_predictor
from tests.models.small_models import BERT

pytestmark = pytest.mark.fast
LAYERS = 2
CONFIG = dataclasses.replace(BERT, num_hidden_layers=LAYERS)
GRAPHDEF, PARAMS = heads.build(CONFIG, "classification", 2, seed=0)
MODEL = huggingface.Pretrained(CONFIG, GRAPHDEF, PARAMS, None, {}, ())
GRADS = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), PARAMS)
FOUND = {0: "embeddings", 1: "layer 0", 2: "layer 1", 3: "head"}


def by_depth(tree):
    """Return the leaves of each depth, in one array."""
    found = {depth: [] for depth in FOUND}
    depths = jax.tree.leaves(groups.depths(PARAMS, LAYERS))
    for depth, leaf in zip(depths, jax.tree.leaves(tree), strict=True):
        found[depth].append(np.ravel(leaf))
    return {depth: np.concatenate(leaves) for depth, leaves in found.items()}


def updates(tx, params=PARAMS, grads=GRADS, steps=2):
    """Return the updates of the last of some steps."""
    state, change = tx.init(params), None
    for _ in range(steps):
        change, state = jax.jit(tx.update)(grads, state, params, value=1.0)
    return change, state


def row(name="linear", inner=None):
    plan = schedulers.RunPlan(1e-3, total_steps=10, warmup_steps=0)
    inner = inner or schedulers.adamw(0.01, 1.0)
    return schedulers.at_a_rate(schedulers.get(name).build, inner, plan)


def test_each_depth_has_its_share_of_the_rate():
    inner = groups.scaled(schedulers.adamw(0.01, 1.0), LAYERS, 0.5, 10.0)
    ours = by_depth(updates(row(inner=inner), steps=1)[0])
    plain = by_depth(updates(row(), steps=1)[0])
    shares = {0: 0.125, 1: 0.25, 2: 0.5, 3: 10.0}
    for depth, share in shares.items():
        np.testing.assert_allclose(
            ours[depth], share * plain[depth], rtol=1e-5, err_msg=FOUND[depth]
        )


@pytest.mark.parametrize("name", ["linear", "schedule_free"])
def test_frozen_leaves_stay_and_others_train_as_if_they_were_alone(name):
    mask = groups.trained(PARAMS, LAYERS, groups.frozen("embeddings,0", LAYERS))
    kept = by_depth(mask)
    assert not kept[0].any() and not kept[1].any()
    assert kept[2].all() and kept[3].all()
    change, state = updates(groups.only(row(name), mask))
    found = by_depth(change)
    assert not found[0].any() and not found[1].any() and found[2].any()

    some = {k: PARAMS[k] for k in ("dense", "out")}
    some["top"] = PARAMS["encoder"]["layers"]["1"]
    slopes = {k: GRADS[k] for k in ("dense", "out")}
    slopes["top"] = GRADS["encoder"]["layers"]["1"]
    alone, _ = updates(row(name), some, slopes)
    np.testing.assert_allclose(
        change["out"]["kernel"], alone["out"]["kernel"], rtol=1e-5
    )
    assert optax.tree.get(state, "learning_rate", filtering=_arrays) is not None
    frozen = sum(x.size for x in jax.tree.leaves(groups.part(PARAMS, mask)))
    held = sum(x.size for x in jax.tree.leaves(state))
    assert held < 3.5 * frozen + 20_000  # no moments of what is frozen


def _arrays(path, value):
    return isinstance(value, jax.Array)


def test_metalr_wraps_all_of_it_and_sees_no_frozen_leaf():
    config = RunConfig(lora=2, freeze="0", layer_decay=0.9, head_rate=5.0, ema=0.9)
    of = trained.choose(config, MODEL)
    inner = trained.inner(config, schedulers.adamw(0.01, 1.0), of.layers)
    tx = trained.wrapped(config, row("metalr", inner), of)
    state = jax.eval_shape(tx.init, of.params)
    change, after = jax.eval_shape(
        lambda state: tx.update(of.params, state, of.params, value=jnp.float32(1.0)),
        state,
    )
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    assert shapes(change) == shapes(of.params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    is_own = lambda x: isinstance(x, controller.MetalrState)  # noqa: E731
    held = [x for x in jax.tree.leaves(after, is_leaf=is_own) if is_own(x)]
    assert len(held) == 1
    assert sum(x.size for x in jax.tree.leaves(held)) < 4 * of.size + 20_000


def test_functions_of_the_parameters_are_those_of_what_is_trained():
    mask = groups.trained(PARAMS, LAYERS, {0, 1, 2})
    square = lambda params: sum(jnp.sum(x**2) for x in jax.tree.leaves(params))  # noqa: E731

    def update(grads, state, params, *, value_fn, grad_fn):
        assert jax.tree.structure(grad_fn(params)) == jax.tree.structure(params)
        ratio = value_fn(optax.tree.scale(2.0, params)) / value_fn(params)
        return jax.tree.map(lambda x: ratio * jnp.ones_like(x), params), state

    tx = groups.only(
        optax.GradientTransformationExtraArgs(lambda p: optax.EmptyState(), update),
        mask,
    )
    found, _ = tx.update(
        GRADS, tx.init(PARAMS), PARAMS, value_fn=square, grad_fn=jax.grad(square)
    )
    some = groups.part(PARAMS, mask)
    rest = square(PARAMS) - square(some)
    wanted = (4 * square(some) + rest) / square(PARAMS)
    np.testing.assert_allclose(found["out"]["bias"], wanted, rtol=1e-5)


def test_average_is_the_recursion_and_keeps_what_stays():
    tx = groups.averaged(optax.sgd(0.1), 0.9)
    params, grads = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, 0.0])}
    state, average, x = tx.init(params), 1.0, 1.0
    for step in range(1, 200):
        change, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, change)
        x -= 0.1
        average += max(0.1, 9 / (step + 9)) * (x - average)
    np.testing.assert_allclose(state.averaged_params["w"][0], average, rtol=1e-5)
    assert state.averaged_params["w"][1] == 2.0


@pytest.mark.parametrize(
    "build",
    [find.find(learned=False), lr_find.lr_find(lr_find.steep)],
    ids=["find", "lr_find"],
)
def test_an_average_knows_nothing_of_the_probe(build):
    plan = RunPlan(0.1, total_steps=80, warmup_steps=0, predictor=init_predictor)
    tx = groups.averaged(build(optax.sgd, plan), 0.9)
    params = {"w": jnp.array([1.0, -0.5])}
    state, update = tx.init(params), jax.jit(tx.update)
    seen = []
    for _ in range(80):
        grads = {"w": jnp.array([1.0, 4.0]) * params["w"]}
        value = 0.5 * jnp.sum(grads["w"] * params["w"])
        changes, state = update(grads, state, params, value=value)
        params = optax.apply_updates(params, changes)
        seen.append((np.asarray(params["w"]), np.asarray(state.averaged_params["w"])))
    ended = next(t for t, (x, _) in enumerate(seen) if t and (x == [1.0, -0.5]).all())
    np.testing.assert_array_equal(seen[ended][1], [1.0, -0.5])
    average = np.array([1.0, -0.5])
    for step, (x, _) in enumerate(seen[ended + 1 :], 1):
        average = average + max(0.1, 9 / (step + 9)) * (x - average)
    np.testing.assert_allclose(seen[-1][1], average, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0-2", "layers 0 to 1"),
        ("1-0", "layers 0 to 1"),
        ("head", "takes embeddings, encoder"),
        ("", "takes embeddings, encoder"),
    ],
)
def test_layers_that_are_not_there_are_not_frozen(text, says):
    with pytest.raises(MetalrError, match=says):
        groups.frozen(text, LAYERS)


def test_top_layers_are_drawn_and_the_others_kept():
    other = groups.reinitialised(PARAMS, LAYERS, 1, seed=5)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), other, PARAMS)
    kept = by_depth(same)
    assert kept[0].all() and kept[1].all() and kept[3].all() and not kept[2].all()
    wanted = heads.build(CONFIG, "classification", 2, seed=5)[1]
    jax.tree.map(
        np.testing.assert_array_equal,
        other["encoder"]["layers"]["1"],
        wanted["encoder"]["layers"]["1"],
    )
    with pytest.raises(MetalrError, match="at most 2, got 3"):
        groups.reinitialised(PARAMS, LAYERS, 3, seed=5)


def test_lora_trains_its_pairs_and_the_head_alone():
    of = trained.choose(RunConfig(lora=2), MODEL)
    pairs = 2 * LAYERS * 2 * (16 + 16)  # two kernels a layer, two factors each
    head = sum(x.size for k in ("dense", "out") for x in jax.tree.leaves(PARAMS[k]))
    assert of.size == pairs + head
    jax.tree.map(np.testing.assert_array_equal, of.model(of.params), PARAMS)
    loss = of.loss(
        lambda params: jnp.sum(params["encoder"]["layers"]["0"]["up"]["bias"])
    )
    grads = jax.grad(loss)(jax.tree.map(lambda x: x + 1, of.params))
    assert not any(x.any() for x in jax.tree.leaves(grads["encoder"]))
    assert lora.KEY in grads


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scheduler": "prodigy", "layer_decay": 0.9}, "an optimizer of its own"),
        ({"scheduler": "schedule_free", "head_rate": 5.0}, "an optimizer of its own"),
        ({"scheduler": "schedule_free", "ema": 0.9}, "an average of its own"),
    ],
)
def test_rows_that_bring_their_own_say_so(settings, says):
    config = RunConfig(**settings)
    of = trained.choose(config, MODEL)
    inner = trained.inner(config, schedulers.adamw(0.01, 1.0), of.layers)
    with pytest.raises(MetalrError, match=says):
        trained.wrapped(config, row(config.scheduler, inner), of)
        trained.served(config, schedulers.get(config.scheduler), of)


@pytest.mark.parametrize("settings", [{"lora_alpha": 4.0}, {"lora_targets": "query"}])
def test_settings_of_lora_need_its_rank(settings):
    with pytest.raises(MetalrError, match="need --lora RANK"):
        check(RunConfig(**settings))
