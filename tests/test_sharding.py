"""A run is the same on one device and on many, by mesh and by pmap."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from test_finetune import tiny  # noqa: F401

from metalr import loop, preparation, sharding
from metalr.config import RunConfig

ROOT = Path(__file__).parents[1]


class Silent:
    logged = evaluated = note = lambda self, *args: None


def laid(name):
    """Returns a layout: kind, number of devices, and s: sharded or m: two a copy."""
    kind, count, how = name.split("-")
    return sharding.make(
        kind,
        shard_params="s" in how,
        model=2 if "m" in how else 1,
        devices=jax.devices()[: int(count)],
    )


@pytest.fixture(scope="module")
def outcome(tiny):  # noqa: F811
    """Returns `name of a layout, parts -> the run`; neither 6 nor 22 divides by 8."""
    config = RunConfig(
        task="sst2",
        data="toy",
        model=str(tiny),
        train_rows=22,
        validation_rows=27,
        batch_size=6,
        epochs=2.0,
        learning_rate=3e-3,
        log_every=1,
        warmup_steps=0,
    )
    found = {}

    def outcome(name, parts=1, again=False):
        if (name, parts) not in found or again:
            made = preparation.prepare(
                dataclasses.replace(config, accumulate=parts),
                layout=laid(name),
                max_shapes=1,
            )
            found[name, parts] = loop.train(
                made.problem, made.tx, made.pace, display=Silent(), layout=made.layout
            )
        return found[name, parts]

    return outcome


def columns(run, *names):
    return [[row[name] for row in run.history if name in row] for name in names]


NAMES = ("loss", "lr_multiplier", "eval_loss", "accuracy")


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    "name", ["jit-2-", "jit-8-", "jit-8-s", "jit-8-m", "jit-8-sm", "pmap-2-", "pmap-8-"]
)
def test_losses_multipliers_and_scores_are_those_of_one_device(name, parts, outcome):
    if parts == 2 and name in ("jit-2-", "jit-8-m", "pmap-2-"):
        pytest.skip("costs a compilation and says what the others say")
    one, many = outcome("one-1-", parts), outcome(name, parts)
    for ours, theirs in zip(columns(many, *NAMES), columns(one, *NAMES), strict=True):
        assert len(ours) > 0
        np.testing.assert_allclose(ours, theirs, rtol=2e-4)
    assert np.ptp(columns(one, "lr_multiplier")[0]) > 0.01, "metalr did nothing"
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
        jax.device_get(many.params),
        jax.device_get(one.params),
    )


@pytest.mark.parametrize("name", ["jit-8-s", "pmap-8-"])
def test_run_on_as_many_devices_again_has_equal_bits(name, outcome):
    first, second = outcome(name), outcome(name, again=True)
    assert first.history == second.history
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
