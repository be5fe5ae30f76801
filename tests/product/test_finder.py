"""A probe finds what the predictor knows, and leaves everything as it was."""

import hashlib
import random
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metalr
from metalr.errors import MetalrError
from metalr.finding import experience, finder, probe
from metalr.predictor import Density, init_predictor

STEPS = 60


class Batch(NamedTuple):
    inputs: Any
    labels: Any


TABLE = experience.Experience(0.8, 1.28, 1.0, 1.0, {}, {})


def loss_fn(params, batch):
    prediction = jnp.tanh(batch["x"] @ params["w"]) @ params["v"]
    return jnp.mean((prediction - batch["y"]) ** 2)


def problem(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"w": (4, 8), "v": (8,)}
    params = {
        k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()
    }
    x = rng.normal(size=(7, 16, 4)).astype(np.float32)
    batches = [{"x": rows, "y": np.sin(rows.sum(1))} for rows in x]
    return params, batches


def knowing(relative=-7.0, variance=1.0, far=False):
    """Make a predictor that knows the best update beside the weights alone."""
    blank = init_predictor()
    size = len(blank.mean)
    seen = Density(
        np.full((1, size), 30, np.float32), np.eye(size)[None], np.float32(1)
    )
    return blank._replace(
        prior_bias=np.full(1, relative, np.float32),
        prior_variance=np.full(1, variance, np.float32),
        seen=seen if far else blank.seen,
    )


def digest(tree):
    hashed = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        hashed.update(jax.tree_util.keystr(path).encode())
        hashed.update(np.asarray(leaf).tobytes())
    return hashed.hexdigest()


class Loader:
    """Shuffles with the global generators each time that it is iterated."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        order = random.sample(range(len(self.batches)), len(self.batches))
        return (self.batches[order[k]] for k in np.random.permutation(len(order)))


# ------------------------------------------------------------ what it leaves alone


@pytest.mark.parametrize("far", [False, True], ids=["probe", "range test"])
def test_parameters_state_batches_and_keys_are_bit_for_bit_what_they_were(far):
    params, batches = problem()
    tx = optax.adamw(metalr.default_schedule(1e-3, 100))
    mine = {
        "params": params,
        "opt_state": tx.init(params),
        "key": jax.random.key(7),
        "batches": batches,
    }
    loader = Loader(batches)
    before = digest(mine), random.getstate(), np.random.get_state()[1].tobytes()
    found = metalr.find(
        lambda params, batch, key: loss_fn(params, batch) + 0 * jax.random.uniform(key),
        params,
        tx,
        loader,
        steps=100,
        key=mine["key"],
        predictor=knowing(far=far),
        experience=TABLE,
        on_end=lambda copy: digest(copy),
    )
    after = digest(mine), random.getstate(), np.random.get_state()[1].tobytes()
    assert after == before
    assert found.score != digest(params)  # the copy has moved
    assert found.known != far and bool(found.curve) == far


# ------------------------------------------------------------------- what it finds


def test_facts_of_micro_batches_are_those_of_the_update_that_moves():
    found = []
    for every in (1, 4):
        tx = optax.adam(1e-2)
        tx = tx if every == 1 else optax.MultiSteps(tx, every)
        params, batches = problem()
        given = {"steps": STEPS, "predictor": knowing(), "experience": TABLE}
        found.append(metalr.suggest(loss_fn, params, tx, batches, **given))
    assert found[0].known and found[1].known
    np.testing.assert_allclose(found[1].rate, found[0].rate, rtol=0.05)


def test_an_optimizer_that_moves_nothing_is_said():
    params, batches = problem()
    given = {"steps": STEPS, "schedule": lambda step: 1.0, "predictor": knowing()}
    with pytest.raises(MetalrError, match="needs an optimizer that moves the param"):
        metalr.suggest(loss_fn, params, optax.set_to_zero(), batches, **given)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_suggested_rate_makes_the_update_that_the_prior_asks_for(scale):
    params, batches = problem()
    params = jax.tree.map(lambda x: x * scale, params)
    grads = jax.grad(loss_fn)(params, batches[0])
    norm = lambda tree: float(optax.tree.norm(tree))  # noqa: E731
    expected = 2.0**-7 * norm(params) / norm(grads)
    found = metalr.suggest(
        loss_fn,
        params,
        optax.sgd,
        batches,
        steps=STEPS,
        predictor=knowing(),
        experience=TABLE,
    )
    assert found.rate == pytest.approx(expected, rel=1e-2)
    assert np.log2(found.high / found.rate) == pytest.approx(1.28, rel=1e-3)
    assert found.known and not found.relative


def test_the_rate_does_not_depend_on_the_one_that_the_user_had():
    params, batches = problem()
    known = {"steps": STEPS, "predictor": knowing(), "experience": TABLE}
    tx = lambda peak: optax.adam(metalr.default_schedule(peak, STEPS))  # noqa: E731
    suggest = lambda tx, **more: metalr.suggest(  # noqa: E731
        loss_fn, params, tx, batches, **known, **more
    )
    rate = suggest(optax.adam).rate
    for peak in (1e-5, 0.1):
        assert suggest(tx(peak), learning_rate=peak).rate == pytest.approx(rate, 1e-3)
    for own in (suggest(tx(1e-2)), suggest(optax.MultiSteps(tx(1e-2), 1))):
        assert own.relative and own.rate * 1e-2 == pytest.approx(rate, rel=1e-3)
        assert "x the optimizer's own" in own.text


@pytest.mark.parametrize("unit", [3e-4, -1.0])
def test_the_rate_is_the_peak_whatever_the_unit_of_a_given_schedule(unit):
    params, batches = problem()
    shape = metalr.default_schedule(1.0, STEPS)
    finished = {
        "learning_rate": 1e-2,
        "optimizer": optax.adam(lambda k: shape(k) / 100),
    }
    for given in ({"optimizer": optax.adam}, finished):
        rates = [
            metalr.suggest(
                loss_fn, params, batches=batches, steps=STEPS, schedule=schedule,
                predictor=knowing(), experience=TABLE, **given,
            ).rate
            for schedule in (shape, lambda step: unit * shape(step))
        ]  # fmt: skip
        assert rates[1] == pytest.approx(rates[0], rel=1e-3)


def test_a_probe_ends_when_it_is_sure_where_the_evidence_agrees_with_the_prior():
    params, batches = problem()
    found = metalr.find(
        loss_fn, params, optax.sgd, batches, steps=400,
        predictor=knowing(variance=0.01), experience=TABLE,
    )  # fmt: skip
    assert found.steps == finder.LEAST_STEPS
    # An untrained network asks for no correction, so that the rate stays the prior's.
    np.testing.assert_allclose([found.rate, *found.rates], found.prior, rtol=0.02)
    assert f"rate {found.rate:.2g}, between {found.low:.2g} and" in found.text


def test_an_unknown_kind_gets_the_curve_of_a_range_test_and_no_rate():
    params, batches = problem()
    shape = optax.linear_schedule(0.0, 1.0, 5)
    found = metalr.find(
        loss_fn, params, optax.sgd(shape), batches, steps=400, learning_rate=1.0,
        predictor=knowing(far=True), experience=TABLE,
    )  # fmt: skip
    assert found.rate is None and found.low is None and not found.costs
    assert found.distance > 1 and "no rate" in found.text
    rates, losses = map(np.array, zip(*found.curve, strict=True))
    assert len(rates) > 20 and np.all(np.diff(np.log(rates)) > 0)
    state, expected = params, []
    for step, rate in enumerate(rates):
        grads = jax.grad(loss_fn)(state, batches[step % 7])
        moves = step > 0  # at a schedule's zero nothing can be raised
        state = jax.tree.map(lambda p, g, r=rate * moves: p - r * g, state, grads)
        expected.append(float(loss_fn(state, batches[(step + 1) % 7])))
    np.testing.assert_allclose(losses, expected, rtol=0.02)


def test_a_run_that_is_too_short_for_a_range_test_says_so():
    params, batches = problem()
    short = {"steps": 30, "predictor": knowing(far=True), "experience": TABLE}
    found = metalr.find(loss_fn, params, optax.adam, batches, **short)
    assert found.curve == () and "no range test: too few steps" in found.text
    long = {**short, "steps": 80}
    assert metalr.find(loss_fn, params, optax.adam, batches, **long).curve


def test_a_range_test_of_losses_that_are_not_finite_has_no_points():
    params, batches = problem()
    broken = {k: np.full_like(v, np.nan) for k, v in batches[0].items()}
    found = metalr.find(
        loss_fn, params, optax.adam, lambda step: broken if step else batches[0],
        steps=STEPS, predictor=knowing(far=True), experience=TABLE,
    )  # fmt: skip
    assert not found.known and found.text.startswith("no rate")
    assert "nan" not in found.text


def test_a_loader_of_pytorch_is_put_back_where_its_own_generator_was():
    torch = pytest.importorskip("torch")
    params, batches = problem()

    def loader():
        rows = [jax.tree.map(torch.tensor, batch) for batch in batches]
        generator = torch.Generator().manual_seed(0)
        return torch.utils.data.DataLoader(
            rows, batch_size=None, shuffle=True, generator=generator,
            collate_fn=lambda batch: jax.tree.map(np.asarray, batch),
        )  # fmt: skip

    fresh, used = loader(), loader()
    metalr.find(
        loss_fn, params, optax.adam, used,
        steps=STEPS, predictor=knowing(), experience=TABLE,
    )  # fmt: skip
    for one, other in zip(fresh, used, strict=True):
        assert digest(one) == digest(other)


def test_a_schedule_that_branches_in_python_is_read_step_by_step():
    params, batches = problem()
    rates = [
        metalr.find(
            loss_fn, params, optax.adam(1e-3), batches, steps=STEPS,
            schedule=schedule, predictor=knowing(), experience=TABLE,
        ).rate
        for schedule in (
            lambda step: 1.0 if step < 30 else 0.5,
            lambda step: jnp.where(step < 30, 1.0, 0.5),
        )
    ]  # fmt: skip
    assert rates[0] == rates[1]


def test_weights_of_zero_give_no_rate_since_every_update_is_as_large_beside_them():
    params, batches = problem()
    params = {"w": params["w"] * 0}
    found = metalr.find(
        lambda p, batch: jnp.mean((batch["x"] @ p["w"] - 1) ** 2),
        params, optax.adam, batches, steps=200, predictor=knowing(), experience=TABLE,
    )  # fmt: skip
    assert found.rate is None and "weights are zero at the start" in found.text
    losses = np.array(found.curve)[:, 1]
    assert losses.min() < 0.9 * losses[0] and losses.max() > losses[0]


# -------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batches": iter([1])}, "iterator is not"),
        ({"batches": {"x": np.ones(3)}}, "got one dict"),
        ({"batches": []}, "at least one batch"),
        ({"batches": (np.ones(3), np.ones(3))}, "got one tuple"),
        ({"batches": Batch({"x": np.ones(3)}, np.ones(3))}, "got one Batch"),
        ({"most_steps": 2.5}, "`most_steps` must be a whole number"),
        ({"kind": "encoders"}, "encoder"),
        ({"steps": 1}, "at least 2, got 1"),
        ({"steps": 100.0}, "`steps` must be a whole number of at least 2, got 100.0"),
        ({"learning_rate": -1.0}, "must be positive, got -1.0"),
        ({"learning_rate": "2e-5"}, "must be a number, got the text '2e-5'"),
        ({"optimizer": "adam"}, "a function of the learning rate"),
        ({"schedule": 3e-4}, "must be a function of the step, got a float"),
        ({"schedule": lambda step: 0.0}, "other than 0 at one, got 0 to 0"),
        ({"loss_fn": lambda params, batch: jnp.nan * params["v"][0]}, "finite loss"),
        ({"loss_fn": lambda params, batch: 0 * params["v"][0]}, "other than 0 at th"),
    ],
)  # fmt: skip
def test_what_cannot_be_probed_is_refused_with_the_way_out(change, said):
    params, batches = problem()
    given = {
        "loss_fn": loss_fn,
        "params": params,
        "optimizer": optax.sgd,
        "batches": batches,
        "steps": STEPS,
    } | change
    with pytest.raises(MetalrError, match=said):
        metalr.find(**given, predictor=knowing(), experience=TABLE)


@pytest.mark.parametrize("ask", [metalr.find, metalr.suggest])
def test_a_rule_that_estimates_its_own_rate_is_refused_by_both(ask):
    params, batches = problem()
    prodigy = optax.contrib.prodigy(1.0)
    with pytest.raises(MetalrError, match="Use the optimizer alone"):
        ask(loss_fn, params, prodigy, batches, steps=STEPS, predictor=knowing())


# ------------------------------------------------------------------------- its parts


def test_the_probe_rises_fast_and_then_follows_the_schedule():
    levels = np.array([metalr.default_schedule(1.0, 600, 60)(k) for k in range(600)])
    own = probe.probe_levels(levels)
    assert own[9] == pytest.approx(10 / 11) and np.all(own[10:61] == levels.max())
    np.testing.assert_array_equal(own[60:], levels[60:].astype(np.float32))
