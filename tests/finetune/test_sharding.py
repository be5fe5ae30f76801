"""A run is the same on one device and on many, by mesh and by pmap."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalr.errors import MetalrError
from metalr.finetune import loop, preparation, sharding
from metalr.finetune.checkpoint import Checkpoints
from metalr.finetune.config import RunConfig
from metalr.finetune.display import Together


def laid(name):
    """Return a layout: kind, number of devices, and s: sharded or m: two a copy."""
    kind, count, how = name.split("-")
    return sharding.create_layout(
        kind,
        shard_params="s" in how,
        model=2 if "m" in how else 1,
        devices=jax.devices()[: int(count)],
    )


@pytest.fixture(scope="module")
def outcome(tiny):
    """Return `name of a layout, parts -> the run`; neither 6 nor 22 divides by 8."""
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
                made.problem, made.tx, made.pace, display=Together(), layout=made.layout
            )
        return found[name, parts]

    return outcome


def columns(run, *names):
    return [[row[name] for row in run.history if name in row] for name in names]


NAMES = ("loss", "lr_multiplier", "eval_loss", "accuracy")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        pytest.param("jit-2-", 1, marks=pytest.mark.thorough),
        ("jit-8-sm", 2),
        ("pmap-8-", 2),
    ],
)
def test_losses_multipliers_and_scores_are_those_of_one_device(name, parts, outcome):
    one, many = outcome("one-1-", parts), outcome(name, parts)
    cut = [x for x in jax.tree.leaves(many.params) if not x.is_fully_replicated]
    assert bool(cut) == ("s" in name)
    for ours, theirs in zip(columns(many, *NAMES), columns(one, *NAMES), strict=True):
        assert len(ours) > 0
        np.testing.assert_allclose(ours, theirs, rtol=2e-4)
    assert np.ptp(columns(one, "lr_multiplier")[0]) > 0.01, "metalr did nothing"
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
        jax.device_get(many.params),
        jax.device_get(one.params),
    )


def test_run_on_as_many_devices_again_has_equal_bits(outcome):
    first, second = (outcome("jit-8-sm", 2, again=again) for again in (False, True))
    assert first.history == second.history
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


# ------------------------------------------------------------------ where it lies


@given(
    rows=st.integers(1, 40),
    parts=st.sampled_from([1, 2, 4]),
    name=st.sampled_from(["jit-2-", "jit-8-", "jit-8-m", "pmap-8-"]),
)
def test_every_row_has_one_place_and_each_device_a_share_of_every_part(
    rows, parts, name
):
    layout, rows = laid(name), rows * parts
    places = layout.places(rows, parts)
    assert sorted(places[places >= 0]) == list(range(rows))
    each = -(-(rows // parts) // layout.pieces)
    pieces = places.reshape(layout.pieces, parts, each)
    for part in range(parts):
        within = pieces[:, part] - part * (rows // parts)
        expected = np.arange(layout.pieces * each).reshape(layout.pieces, each)
        expected[expected >= rows // parts] = -1 - part * (rows // parts)
        np.testing.assert_array_equal(within, expected)


def test_state_is_cut_by_rows_axis_and_kernels_by_model_axis():
    layer = {"query": {"kernel": np.zeros((128, 256))}, "bias": np.zeros(256)}
    params = {"output": {"kernel": np.zeros((256, 128))}, **layer}

    def specs(name):
        placed = laid(name).put_state(params)
        return (
            placed["query"]["kernel"].sharding.spec,
            placed["output"]["kernel"].sharding.spec,
            placed["bias"].sharding.spec,
        )

    spec = jax.sharding.PartitionSpec
    assert specs("jit-8-") == (spec(None, None), spec(None, None), spec())
    assert specs("jit-8-s") == (spec(None, "data"), spec("data", None), spec())
    assert specs("jit-8-m") == (spec(None, "model"), spec("model", None), spec())
    both = (spec("data", "model"), spec("model", "data"), spec())
    assert specs("jit-8-sm") == both


def test_cut_state_takes_an_eighth_of_the_memory_of_a_device():
    params = {"kernel": np.zeros((512, 512), np.float32)}
    layout = laid("jit-8-s")
    state = layout.init(optax.adam(1e-3).init, layout.put_state(params))
    here = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(state)
        for shard in leaf.addressable_shards[:1]
    )
    assert here == pytest.approx(2 * params["kernel"].nbytes / 8, rel=1e-3)


@pytest.mark.parametrize(
    ("first", "second"), [("jit-8-s", "one-1-"), ("one-1-", "jit-8-s")]
)
def test_checkpoint_of_many_devices_is_read_by_one_and_the_other_way(
    first, second, tmp_path
):
    params = {"kernel": np.arange(2.0**16, dtype=np.float32).reshape(256, 256)}
    keep = Checkpoints(tmp_path)
    keep.save(3, laid(first).put_state(params), {"a": 1})
    found = keep.latest(
        loop.abstract(
            laid(second).put_state(jax.tree.map(jax.numpy.zeros_like, params))
        )
    )
    keep.close()
    assert len(found.state["kernel"].sharding.device_set) == int(second.split("-")[1])
    np.testing.assert_array_equal(found.state["kernel"], params["kernel"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"parallel": "jit", "model": 3}, "--model-shards must divide .* got 3 and 8"),
        ({"parallel": "pmap", "shard_params": True}, "take jit"),
        ({"parallel": "one", "shard_params": True}, "takes all 8"),
    ],
)
def test_layout_that_devices_do_not_allow_is_refused(flags, message):
    with pytest.raises(MetalrError, match=message):
        sharding.create_layout(**flags)
