"""The predictor's arithmetic, its range, and what a stored one must refuse."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalr import predictor as predictors
from metalr.errors import MetalrError
from metalr.features import FEATURES, NAMES
from metalr.predictor import (
    apply,
    init_predictor,
    load_predictor,
    read_metadata,
    save_predictor,
    unusual,
)

SIZE = len(FEATURES)


def trained(seed=0):
    """A predictor with an opinion: random last layer, scales and ranges."""
    rng = np.random.default_rng(seed)
    predictor = init_predictor(seed)
    last = {
        "kernel": rng.normal(size=(32, 2)).astype(np.float32),
        "bias": rng.normal(size=2).astype(np.float32),
    }
    return predictor._replace(
        weights={**predictor.weights, "last": last},
        mean=rng.normal(size=SIZE).astype(np.float32),
        std=rng.uniform(0.5, 2, size=SIZE).astype(np.float32),
        low=np.full(SIZE, -2, np.float32),
        high=np.full(SIZE, 2, np.float32),
    )


def test_an_untrained_predictor_corrects_nothing():
    features = np.random.default_rng(0).normal(size=(9, SIZE)).astype(np.float32)
    correction, confidence = apply(init_predictor(3), jnp.asarray(features))
    assert np.all(correction == 0) and np.all(confidence == 0.5)


def test_apply_equals_the_network_in_float64():
    p = trained()
    x = np.random.default_rng(1).normal(size=(5, SIZE))
    h = (np.clip(x, -3, 3) - p.mean) / p.std  # the range and a quarter of its width
    for name in ("hidden", "deep"):
        layer = p.weights[name]
        h = np.tanh(h @ layer["kernel"].astype(np.float64) + layer["bias"])
    correction, logit = (h @ p.weights["last"]["kernel"] + p.weights["last"]["bias"]).T
    ours = apply(p, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(ours[0], correction, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours[1], 1 / (1 + np.exp(-logit)), rtol=1e-4)


def test_it_is_an_argument_of_jit_and_can_be_mapped_over():
    x = jnp.ones(SIZE)
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), trained(0), trained(1))
    many, _ = jax.jit(jax.vmap(apply, in_axes=(0, None)))(stack, x)
    one = jnp.stack([apply(trained(seed), x)[0] for seed in (0, 1)])
    np.testing.assert_allclose(many, one, rtol=1e-5)


def test_it_has_a_few_thousand_weights():
    assert sum(x.size for x in jax.tree.leaves(init_predictor().weights)) < 5000


def test_an_infinite_scale_hides_a_feature():
    p = trained()
    p = p._replace(std=np.where(np.array(NAMES) == "slope", np.inf, p.std))
    x = jnp.zeros(SIZE)
    assert apply(p, x)[0] == apply(p, x.at[NAMES.index("slope")].set(1.0))[0]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("slope", 5.9, False),
        ("slope", 6.1, True),
        ("slope", -6.1, True),
        ("horizon", 6.0, False),
    ],
)
def test_only_a_strange_answer_is_unusual_and_a_longer_run_is_not(
    name, value, expected
):
    x = jnp.zeros(SIZE).at[NAMES.index(name)].set(value)
    assert unusual(trained(), x) == expected


def test_a_longer_run_is_taken_for_the_longest_in_training():
    x = jnp.zeros(SIZE)
    corrections = [
        apply(trained(), x.at[NAMES.index("horizon")].set(value))[0]
        for value in (3.0, 6.0)
    ]
    assert corrections[0] == corrections[1]


def test_what_is_loaded_is_what_was_saved(tmp_path):
    for seed in (0, 1):  # the second overwrites the first
        save_predictor(tmp_path / "p", trained(seed), {"tasks": ["sst2"]})
    loaded = load_predictor(tmp_path / "p")
    jax.tree.map(np.testing.assert_array_equal, loaded, trained(1))
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


def test_missing_arrays_are_reported(tmp_path):
    save_predictor(tmp_path, trained(), {})
    (tmp_path / "arrays").rename(tmp_path / "elsewhere")
    with pytest.raises(MetalrError, match="cannot be read"):
        load_predictor(tmp_path)


@pytest.mark.parametrize("content", [None, "{", '{"features": []}'])
def test_a_folder_that_is_no_predictor_is_reported(tmp_path, content):
    if content is not None:
        (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(MetalrError, match="is not one"):
        load_predictor(tmp_path)


def test_a_copy_without_the_shipped_predictor_says_so(monkeypatch):
    monkeypatch.setattr(predictors, "_SHIPPED", "checkpoints/not-there")
    with pytest.raises(MetalrError, match=r"train one: train_meta\.py"):
        load_predictor()


def test_the_shipped_predictor_is_found_in_the_package_first(tmp_path, monkeypatch):
    save_predictor(tmp_path / "metalr/checkpoints/predictor", trained(0), {})
    save_predictor(tmp_path / "checkpoints/predictor", trained(1), {})
    monkeypatch.setattr(predictors, "__file__", str(tmp_path / "metalr/predictor.py"))
    jax.tree.map(np.testing.assert_array_equal, load_predictor(), trained(0))
