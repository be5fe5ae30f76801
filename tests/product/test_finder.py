"""A probe finds what the predictor knows, and leaves everything as it was."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import metalr
from metalr.errors import MetalrError
from tests.product.probed_problems import (
    STEPS,
    TABLE,
    Batch,
    digest,
    knowing,
    loss_fn,
    problem,
)


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
