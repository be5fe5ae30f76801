"""The predictor's arithmetic, its range, and what a stored one must refuse."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalr import stored_predictor
from metalr.errors import MetalrError
from metalr.features import FEATURES, NAMES
from metalr.predictor import (
    STATIC,
    Density,
    Network,
    distance,
    evidence,
    init_predictor,
    prior,
    usual,
)
from metalr.stored_predictor import load_predictor, read_metadata, save_predictor

SIZE, FEW = len(FEATURES), len(STATIC)


def trained(seed=0, groups=3):
    """Return a predictor with random last layers, scales, ranges and groups."""
    rng = np.random.default_rng(seed)
    predictor = init_predictor(seed)
    float32 = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    last = {"kernel": 0.3 * float32(32, 2), "bias": float32(2)}
    return predictor._replace(
        weights={
            **predictor.weights,
            "last": last,
            "skip": {"kernel": 0.3 * float32(SIZE, 2)},
        },
        mean=float32(SIZE),
        std=rng.uniform(0.5, 2, size=SIZE).astype(np.float32),
        low=np.full(SIZE, -2, np.float32),
        high=np.full(SIZE, 2, np.float32),
        seen=Density(
            float32(groups, SIZE), float32(groups, SIZE, SIZE), np.float32(50)
        ),
        prior_weights=float32(2, FEW),
        prior_bias=np.array([-6, -3], np.float32),
        prior_variance=np.array([2, 1], np.float32),
        prior_seen=Density(float32(2, FEW), float32(2, FEW, FEW), np.float32(1)),
    )


def test_an_untrained_predictor_corrects_nothing_and_finds_nothing_far():
    features = np.random.default_rng(0).normal(size=(9, SIZE)).astype(np.float32)
    blank = init_predictor(3)
    correction, variance = evidence(blank, jnp.asarray(features))
    assert np.all(correction == 0) and np.all(variance == 1)
    assert np.all(distance(blank.seen, jnp.asarray(features)) == 0)
    assert prior(blank, jnp.asarray(features[0]))[1] == np.inf


def far_by_hand(seen, x):
    squares = [
        np.mean((w.astype(np.float64) @ (x - c)) ** 2)
        for c, w in zip(seen.centre, seen.whitening, strict=True)
    ]
    return min(squares) / float(seen.limit)


def test_evidence_equals_the_network_in_float64():
    p = trained()
    x = np.random.default_rng(1).normal(size=(5, SIZE))
    # The range and a quarter of its width.
    h = inputs = (np.clip(x, -3, 3) - p.mean) / p.std
    for name in ("hidden", "deep"):
        layer = p.weights[name]
        h = np.tanh(h @ layer["kernel"].astype(np.float64) + layer["bias"])
    out = h @ p.weights["last"]["kernel"] + p.weights["last"]["bias"]
    correction, log_variance = (out + inputs @ p.weights["skip"]["kernel"]).T
    ours = evidence(p, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(ours[0], correction, rtol=1e-4, atol=1e-4)
    far = np.array([far_by_hand(p.seen, row) for row in x])
    variance = np.exp(np.clip(log_variance, -6, 6)) * np.maximum(far, 1) ** 2
    np.testing.assert_allclose(ours[1], variance, rtol=1e-3)


def test_prior_is_a_mixture_of_linear_maps_and_relative_to_the_rate():
    p = trained()
    x = np.random.default_rng(2).normal(size=SIZE).astype(np.float32)
    facts = np.array([x[NAMES.index(name)] for name in STATIC], np.float64)
    each = p.prior_weights.astype(np.float64) @ facts + p.prior_bias
    white = np.einsum("kij,kj->ki", p.prior_seen.whitening, facts - p.prior_seen.centre)
    share = np.exp(-np.sum(white**2, -1) / 2)
    share /= share.sum()
    best = share @ each
    said, variance = prior(p, jnp.asarray(x))
    np.testing.assert_allclose(said, best - x[NAMES.index("relative_rate")], rtol=1e-4)
    far = far_by_hand(p.prior_seen, facts)
    spread = share @ (p.prior_variance + (each - best) ** 2)
    np.testing.assert_allclose(variance, spread * max(far, 1) ** 2, rtol=1e-3)


def with_own(p, seed=7):
    """Give the second kind of run a network of its own."""
    q = trained(seed)
    own = Network(q.weights, q.mean, q.std, q.low, q.high, np.float32(1))
    return p._replace(own=own)


@pytest.mark.parametrize("kind", [0, 1])
def test_a_network_of_one_kind_answers_where_the_facts_are_nearest_to_its_runs(kind):
    p = trained()
    x = np.random.default_rng(3).normal(size=SIZE).astype(np.float32)
    x[[NAMES.index(name) for name in STATIC]] = p.prior_seen.centre[kind]
    q = trained(7)._replace(seen=p.seen) if kind else p
    ours = jax.jit(evidence)(with_own(p), jnp.asarray(x))
    np.testing.assert_allclose(ours, evidence(q, jnp.asarray(x)), rtol=1e-5)
    np.testing.assert_array_equal(usual(with_own(p), jnp.asarray(x)), q.mean)


def test_an_input_twice_as_far_is_less_sure():
    # A group around 0 with unit scales, whose limit is a mean square of 1.
    p = trained()
    unit = Density(np.zeros((1, SIZE)), np.eye(SIZE)[None], np.float32(1))
    p = p._replace(seen=unit, std=np.full(SIZE, np.inf, np.float32))
    near, twice, four = (
        evidence(p, jnp.full(SIZE, value))[1] for value in (1.0, 2**0.5, 2.0)
    )
    np.testing.assert_allclose([twice / near, four / near], [4, 16], rtol=1e-4)


def test_it_is_an_argument_of_jit_and_can_be_mapped_over():
    x = jnp.ones(SIZE)
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), trained(0), trained(1))
    many, _ = jax.jit(jax.vmap(evidence, in_axes=(0, None)))(stack, x)
    one = jnp.stack([evidence(trained(seed), x)[0] for seed in (0, 1)])
    np.testing.assert_allclose(many, one, rtol=1e-5)


def test_it_has_a_few_thousand_weights():
    assert sum(x.size for x in jax.tree.leaves(init_predictor().weights)) < 5000


def test_an_infinite_scale_hides_a_feature():
    p = trained()
    p = p._replace(std=np.where(np.array(NAMES) == "slope", np.inf, p.std))
    x = jnp.zeros(SIZE)
    assert evidence(p, x)[0] == evidence(p, x.at[NAMES.index("slope")].set(1.0))[0]


def test_beyond_the_trained_range_the_network_is_asked_no_further():
    x = jnp.zeros(SIZE)
    corrections = [
        evidence(trained(), x.at[NAMES.index("horizon")].set(value))[0]
        for value in (3.0, 6.0)
    ]
    assert corrections[0] == corrections[1]


def test_what_is_loaded_is_what_was_saved(tmp_path):
    for groups in (3, 5):  # the second overwrites the first
        save_predictor(tmp_path / "p", trained(groups, groups), {"tasks": ["sst2"]})
    loaded = load_predictor(tmp_path / "p")
    jax.tree.map(np.testing.assert_array_equal, loaded, trained(5, 5))
    save_predictor(tmp_path / "two", with_own(trained()), {})
    two = load_predictor(tmp_path / "two")
    jax.tree.map(np.testing.assert_array_equal, two, with_own(trained()))
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype("float32")}
    assert read_metadata(tmp_path / "p")["provenance"] == {"tasks": ["sst2"]}


def test_another_list_of_features_is_refused_with_the_way_out(tmp_path):
    save_predictor(tmp_path, trained(), {})
    path = tmp_path / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["features"][0] = "phase_of_moon"
    path.write_text(json.dumps(metadata))
    with pytest.raises(MetalrError, match=r"phase_of_moon, progress.*train_meta\.py"):
        load_predictor(tmp_path)


def test_another_feature_version_is_refused(tmp_path):
    save_predictor(tmp_path, trained(), {})
    path = tmp_path / "metadata.json"
    metadata = json.loads(path.read_text()) | {"feature_version": 0}
    path.write_text(json.dumps(metadata))
    with pytest.raises(MetalrError, match="version 0 and differs in the order or"):
        load_predictor(tmp_path)


def test_arrays_that_are_not_those_of_the_metadata_are_refused(tmp_path):
    save_predictor(tmp_path / "a", trained(0), {})
    save_predictor(tmp_path / "b", trained(1), {})
    (tmp_path / "a/metadata.json").replace(tmp_path / "b/metadata.json")
    with pytest.raises(MetalrError, match="sha256"):
        load_predictor(tmp_path / "b")


def lose(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def scribble(path):
    path.write_text("no arrays")


def other(path):
    with np.load(path) as found:
        arrays = dict(found)
    np.savez(path, **arrays | {"mean": np.zeros(3, np.float32)})


def lacking(path):
    with np.load(path) as found:
        arrays = dict(found)
    arrays.pop("seen/centre")
    np.savez(path, **arrays)


def pickled(path):
    with np.load(path) as found:
        arrays = dict(found)
    np.savez(path, **arrays | {"mean": np.array([{}], object)})


@pytest.mark.parametrize("spoil", [lose, cut, scribble, other, lacking, pickled])
def test_arrays_that_are_broken_or_of_something_else_are_reported(tmp_path, spoil):
    save_predictor(tmp_path, trained(), {})
    spoil(tmp_path / "arrays.npz")
    with pytest.raises(MetalrError, match=r"cannot be read.*Copy the whole folder"):
        load_predictor(tmp_path)


def test_arrays_that_would_fill_the_memory_are_refused(tmp_path):
    save_predictor(tmp_path, trained(), {})
    np.savez_compressed(tmp_path / "arrays.npz", bomb=np.zeros(20_000_000, np.float32))
    with pytest.raises(MetalrError, match="unpack to more than"):
        load_predictor(tmp_path)


@pytest.mark.parametrize("content", [None, "{", '{"features": []}'])
def test_a_folder_that_is_no_predictor_is_reported(tmp_path, content):
    if content is not None:
        (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(MetalrError, match="is not one") as fault:
        load_predictor(tmp_path)
    assert "Error" not in str(fault.value)


def test_a_copy_without_the_shipped_predictor_says_so(monkeypatch):
    monkeypatch.setattr(stored_predictor, "_SHIPPED", "checkpoints/not-there")
    with pytest.raises(MetalrError, match=r"train one: train_meta\.py"):
        load_predictor()


def test_the_shipped_predictor_is_found_in_the_package_first(tmp_path, monkeypatch):
    save_predictor(tmp_path / "metalr/checkpoints/predictor", trained(0), {})
    save_predictor(tmp_path / "checkpoints/predictor", trained(1), {})
    there = str(tmp_path / "metalr/stored_predictor.py")
    monkeypatch.setattr(stored_predictor, "__file__", there)
    jax.tree.map(np.testing.assert_array_equal, load_predictor(), trained(0))
