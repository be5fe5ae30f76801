"""Batches: every entry once, few shapes, an order that seed and step alone decide."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalr.data.batches import TrainBatches, bucket_lengths, eval_batches
from metalr.data.encode import Encoded

PAD = 9

lengths_lists = st.lists(st.integers(1, 70), min_size=1, max_size=60)
sizes = st.integers(1, 17)


def entries(lengths, labels=None) -> Encoded:
    """Make entries that tell by their first id and label which one they are."""
    ids = [np.full(n, i + 100, np.int32) for i, n in enumerate(lengths)]
    types = [(np.arange(n) % 2).astype(np.int32) for n in lengths]
    number = np.arange(len(ids), dtype=np.int32)
    return Encoded(ids, types, number if labels is None else labels, number, None)


def epoch_of(feed: TrainBatches, epoch: int) -> list:
    first = epoch * feed.steps_per_epoch
    return [feed.batch(first + i) for i in range(feed.steps_per_epoch)]


def order_of(feed: TrainBatches, epoch: int) -> list[int]:
    batches = epoch_of(feed, epoch)
    return np.concatenate([b["labels"][b["weights"] > 0] for b in batches]).tolist()


def padded(lengths, buckets) -> int:
    return sum(min(b for b in buckets if b >= n) for n in lengths)


@settings(deadline=None)
@given(lengths_lists, st.integers(1, 5))
def test_buckets_waste_no_more_than_any_other_choice(lengths, max_shapes):
    found = bucket_lengths(lengths, max_shapes)
    possible = sorted({-(-n // 8) * 8 for n in lengths})
    others = (
        (*choice, possible[-1])
        for k in range(max_shapes)
        for choice in itertools.combinations(possible[:-1], k)
    )
    assert padded(lengths, found) == min(padded(lengths, c) for c in others)
    assert len(found) <= max_shapes and list(found) == sorted(set(found))
    assert all(n % 8 == 0 for n in found) and found[-1] == possible[-1]


def test_buckets_are_no_more_than_the_lengths_need():
    assert bucket_lengths([3, 17, 8, 22], max_shapes=4) == (8, 24)
    assert bucket_lengths([5], max_shapes=4, multiple=1) == (5,)


def test_buckets_of_many_rows_follow_from_the_histogram_alone():
    lengths = np.random.default_rng(0).integers(1, 512, 1000)
    # 200,000 rows: a search over rows, not lengths, would not come back.
    assert bucket_lengths(np.tile(lengths, 200)) == bucket_lengths(lengths)


@pytest.mark.parametrize(
    ("lengths", "options"),
    [([], {}), ([1], {"max_shapes": 0}), ([1], {"multiple": 0})],
)
def test_buckets_refuse_what_has_no_answer(lengths, options):
    with pytest.raises(ValueError, match="needs lengths"):
        bucket_lengths(lengths, **options)


@settings(deadline=None)
@given(lengths_lists, sizes, st.integers(0, 2**32), st.integers(1, 4))
def test_each_epoch_holds_every_entry_once(lengths, batch_size, seed, max_shapes):
    feed = TrainBatches(
        entries(lengths), batch_size, seed=seed, pad_token_id=PAD, max_shapes=max_shapes
    )
    assert feed.steps_per_epoch == -(-len(lengths) // batch_size)
    assert 1 <= len(feed.shapes) <= max_shapes
    for epoch in range(3):
        batches = epoch_of(feed, epoch)
        assert sum(b["weights"].sum() for b in batches) == len(lengths)
        assert sum(b["weights"].min() == 0 for b in batches) <= 1
        assert sorted(order_of(feed, epoch)) == list(range(len(lengths)))
        # All shapes in every epoch, so that the first one compiles them all.
        assert {b["input_ids"].shape[1] for b in batches} == set(feed.shapes)


@settings(deadline=None)
@given(lengths_lists, sizes)
def test_rows_are_padded_and_nothing_else(lengths, batch_size):
    encoded = entries(lengths)
    feed = TrainBatches(encoded, batch_size, seed=0, pad_token_id=PAD)
    for batch in epoch_of(feed, 0):
        shape = (batch_size, batch["input_ids"].shape[1])
        for name, dtype in (
            ("input_ids", np.int32),
            ("token_type_ids", np.int32),
            ("attention_mask", np.bool_),
        ):
            assert batch[name].shape == shape and batch[name].dtype == dtype
        assert batch["weights"].dtype == np.float32
        for row in range(batch_size):
            entry, mask = batch["labels"][row], batch["attention_mask"][row]
            assert mask.sum() == lengths[entry] and mask[: lengths[entry]].all()
            assert (batch["input_ids"][row][mask] == encoded.input_ids[entry]).all()
            assert (batch["input_ids"][row][~mask] == PAD).all()
            types = batch["token_type_ids"][row]
            assert (types[mask] == encoded.token_type_ids[entry]).all()
            assert not types[~mask].any()


@settings(deadline=None)
@given(lengths_lists, sizes, st.integers(0, 99), st.integers(0, 200))
def test_a_batch_follows_from_seed_and_step_alone(lengths, batch_size, seed, step):
    def make():
        return TrainBatches(entries(lengths), batch_size, seed=seed, pad_token_id=PAD)

    used = make()
    for other in (0, step + 7, step // 2):
        used.batch(other)
    found, expected = used.batch(step), make().batch(step)
    assert all((found[name] == expected[name]).all() for name in expected)


def test_order_differs_between_epochs_and_seeds():
    def feed(seed):
        return TrainBatches(entries([8] * 64), 8, seed=seed, pad_token_id=PAD)

    orders = [order_of(feed(seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
    orders.append(list(range(64)))
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_short_rows_do_not_come_before_long_ones():
    feed = TrainBatches(
        entries([8] * 160 + [64] * 160), 16, seed=0, pad_token_id=PAD, max_shapes=2
    )
    widths = [batch["input_ids"].shape[1] for batch in epoch_of(feed, 0)]
    assert sorted(widths) == [8] * 10 + [64] * 10
    assert widths != sorted(widths) and widths != sorted(widths)[::-1]


def test_rows_of_a_bucket_meet_others_in_the_next_epoch():
    feed = TrainBatches(entries([8] * 64), 8, seed=0, pad_token_id=PAD)
    groups = [
        {frozenset(batch["labels"].tolist()) for batch in epoch_of(feed, epoch)}
        for epoch in (0, 1)
    ]
    assert not groups[0] & groups[1]


def test_few_tokens_are_padding_on_lengths_like_those_of_text():
    lengths = np.random.default_rng(0).lognormal(3, 0.5, 2000).astype(int).clip(4, 64)
    feed = TrainBatches(entries(lengths), 32, seed=0, pad_token_id=PAD)
    padded_tokens = sum(batch["input_ids"].size for batch in epoch_of(feed, 0))
    in_order = sum(
        32 * max(lengths[i : i + 32]) for i in range(0, len(lengths), 32)
    )  # dynamic padding of rows as they come
    assert padded_tokens < 1.35 * lengths.sum() < 0.75 * in_order


def test_training_compiles_nothing_after_the_first_epoch():
    lengths = np.random.default_rng(1).integers(3, 60, 100)
    feed = TrainBatches(entries(lengths), 16, seed=0, pad_token_id=PAD)
    traced = []

    @jax.jit
    def step(batch):
        traced.append(batch["input_ids"].shape)  # runs when jax traces, not after
        return jnp.sum(batch["input_ids"]) * batch["weights"][0]

    for epoch in range(4):
        for batch in epoch_of(feed, epoch):
            step(batch)
        assert len(traced) == len(feed.shapes) <= 4


def test_filled_rows_are_real_rows_of_weight_zero():
    # A row with nothing to attend to would make NaN, even at weight 0.
    feed = TrainBatches(entries([5, 6, 7]), 8, seed=0, pad_token_id=PAD)
    batch = feed.batch(0)
    assert batch["weights"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert batch["attention_mask"].any(axis=1).all()


@pytest.mark.parametrize(
    "labels", [np.arange(6, dtype=np.float32), np.arange(12, dtype=np.int32)]
)
def test_labels_keep_their_shape_and_dtype(labels):
    labels = labels.reshape(6, -1) if len(labels) == 12 else labels
    feed = TrainBatches(entries([4] * 6, labels), 3, seed=0, pad_token_id=PAD)
    batch = feed.batch(0)
    assert batch["labels"].dtype == labels.dtype
    assert batch["labels"].shape == (3, *labels.shape[1:])


@settings(deadline=None)
@given(lengths_lists, sizes, st.integers(1, 4))
def test_evaluation_sees_every_entry_once(lengths, batch_size, max_shapes):
    encoded = entries(lengths)
    batches = list(
        eval_batches(encoded, batch_size, pad_token_id=PAD, max_shapes=max_shapes)
    )
    index = np.concatenate([index for index, _ in batches])
    assert sorted(index[index >= 0]) == list(range(len(lengths)))
    assert (index[: len(lengths)] >= 0).all()  # fillers only at the end
    assert len({batch["input_ids"].shape for _, batch in batches}) <= max_shapes
    for index, batch in batches:
        assert batch["input_ids"].shape[0] == batch_size
        assert ((index >= 0) == (batch["weights"] == 1)).all()
        assert (batch["labels"][index >= 0] == index[index >= 0]).all()
    widths = [batch["input_ids"].shape[1] for _, batch in batches]
    assert widths == sorted(widths)


def test_nothing_to_evaluate_is_no_batch():
    assert list(eval_batches(entries([]), 4, pad_token_id=PAD)) == []


@pytest.mark.parametrize(("lengths", "batch_size"), [([], 4), ([3], 0)])
def test_nothing_to_train_on_is_refused(lengths, batch_size):
    with pytest.raises(ValueError, match="at least one entry"):
        TrainBatches(entries(lengths), batch_size, seed=0, pad_token_id=PAD)
