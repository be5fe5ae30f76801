"""Hugging Face folders: transformers reads what we write, we read what it writes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from metalr.errors import MetalrError
from metalr.models import heads, huggingface, weights
from tests.models.exported_models import (
    LABELS,
    assert_same,
    change_weights,
    load,
    make_batch,
    make_model,
)
from tests.models.small_models import CONFIGS
from tests.tiers import some

apply = jax.jit(heads.apply, static_argnums=0)


@pytest.mark.parametrize("kind", heads.KINDS)
@pytest.mark.parametrize("family", some(CONFIGS, "bert", "roberta"))
def test_transformers_loads_an_export_whole_and_gives_its_logits(
    tmp_path, family, kind
):
    torch = pytest.importorskip("torch")
    import transformers

    model, batch = make_model(kind, family), make_batch()
    if kind == "choice":
        batch = {name: np.stack([x, x[:, ::-1]], 1) for name, x in batch.items()}
        batch["attention_mask"] = batch["attention_mask"][:, :1].repeat(2, axis=1)
    batch["input_ids"] = np.where(
        batch["attention_mask"], batch["input_ids"], model.config.pad_token_id
    )
    huggingface.export(tmp_path, model, kind, LABELS[kind])
    sort = {
        "qa": "QuestionAnswering",
        "mlm": "MaskedLM",
        "tokens": "TokenClassification",
        "choice": "MultipleChoice",
    }
    auto = "AutoModelFor" + sort.get(kind, "SequenceClassification")
    auto = getattr(transformers, auto)
    theirs, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    given = {name: batch[name] for name in model.config.differences.inputs}
    out = theirs(**{name: torch.tensor(v).long() for name, v in given.items()})
    wanted = out.logits if kind != "qa" else torch.stack(list(out.values()), -1)
    logits = np.asarray(apply(model.graphdef, model.params, batch))
    if logits.ndim == 3:  # what a token of padding gives is read by nobody
        logits, wanted = (x[batch["attention_mask"]] for x in (logits, wanted))
    np.testing.assert_allclose(logits, wanted.detach(), atol=1e-4, rtol=0)
    assert np.abs(logits).max() > 0.1  # weights that tell, not the small initial ones

    # And what transformers saves, in pieces, comes back the same.
    theirs.save_pretrained(tmp_path / "again", max_shard_size="2KB")
    model.tokenizer.save_pretrained(tmp_path / "again")
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 1
    again = load(tmp_path / "again", kind)
    assert_same(again.params, model.params)
    assert again.config == model.config and again.graphdef == model.graphdef
    if kind == "classification":
        assert theirs.config.id2label == dict(enumerate(LABELS[kind]))
        assert theirs.config.num_labels == 3
    elif kind == "regression":
        assert theirs.config.problem_type == "regression"


def test_export_changes_nothing_that_it_was_given(tmp_path):
    model = make_model("classification")
    before = jax.tree.map(np.array, model.params)
    huggingface.export(tmp_path, model, "classification", LABELS["classification"])
    assert_same(model.params, before)
    tensors = weights.to_files(model.params, model.config, "classification")
    held = {name: value.copy() for name, value in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert_same(tensors, held)


def test_a_folder_or_file_comes_back_without_a_word(folder, capfd):
    model = make_model("classification")
    for place in (folder, folder / "model.safetensors"):
        loaded = load(place)
        assert_same(loaded.params, model.params)
        assert loaded.origin == ("folder", str(place), "", "")
    assert loaded.tokenizer("w3 w9")["input_ids"] == [3, 9]
    assert capfd.readouterr() == ("", "")


def old_names(tensors):
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in tensors.items()
    }


def bare_names(tensors):
    return {name.removeprefix("bert."): value for name, value in tensors.items()}


def with_strangers(tensors):
    return tensors | {
        "bert.embeddings.position_ids": np.arange(20)[None],
        "cls.predictions.bias": np.zeros(50, np.float32),
    }


@pytest.mark.parametrize("change", [old_names, bare_names, with_strangers])
def test_names_of_older_and_other_files_are_understood(folder, change):
    change_weights(folder, change)
    assert_same(load(folder).params, make_model("classification").params)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_become_float32(folder, dtype):
    change_weights(folder, lambda t: {k: v.astype(dtype) for k, v in t.items()})
    wanted = make_model("classification").params
    wanted = jax.tree.map(lambda x: x.astype(dtype).astype(jnp.float32), wanted)
    loaded = load(folder).params
    assert {x.dtype.name for x in jax.tree.leaves(loaded)} == {"float32"}
    assert_same(loaded, wanted)


def test_a_missing_pooler_is_drawn_from_the_seed_and_said(folder):
    change_weights(folder, lambda t: {k: v for k, v in t.items() if "pooler" not in k})
    first, again, other = (load(folder, seed=seed) for seed in (4, 4, 5))
    assert "bert.pooler.dense" in first.origin.note
    assert "classifier" not in first.origin.note
    assert_same(first.params, again.params)
    assert (first.params["dense"]["kernel"] != other.params["dense"]["kernel"]).all()
    assert_same(first.params["out"], make_model("classification").params["out"])


def test_a_head_of_another_task_is_drawn_anew(folder):
    loaded = load(folder, labels=("a", "b"))
    assert loaded.params["out"]["kernel"].shape == (16, 2)
    assert "classifier" in loaded.origin.note
    assert "pooler" not in loaded.origin.note
    assert "qa_outputs" in load(folder, "qa").origin.note


def test_a_head_is_put_in_the_order_of_the_labels(folder):
    loaded = load(folder, labels=("YES", "maybe", "no")).params["out"]
    order = np.array([1, 2, 0])
    wanted = make_model("classification").params["out"]
    assert_same(loaded["kernel"], wanted["kernel"][:, order])
    assert_same(loaded["bias"], wanted["bias"][order])


@pytest.mark.parametrize("labels", [("A", "a", "b"), ("a", "b", "A")])
def test_labels_that_differ_in_case_keep_their_own_outputs(labels, tmp_path):
    model = make_model("classification")
    huggingface.export(tmp_path, model, "classification", ("A", "a", "b"))
    order = np.array([("A", "a", "b").index(label) for label in labels])
    found = load(tmp_path, labels=labels).params["out"]["kernel"]
    assert_same(found, model.params["out"]["kernel"][:, order])


def test_options_of_load_reach_the_encoder(folder):
    loaded = load(folder, dropout=0.0, dtype="bfloat16")
    assert loaded.config.hidden_dropout_prob == 0.0
    assert loaded.config.attention_probs_dropout_prob == 0.0
    key = jax.random.key(0)
    assert_same(
        apply(loaded.graphdef, loaded.params, make_batch(), dropout_key=key),
        apply(loaded.graphdef, loaded.params, make_batch()),
    )
    with pytest.raises(MetalrError, match=r"\[0, 1\), got 1.0"):
        load(folder, dropout=1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"pos_att_type": "p2c|c2p"},
        {"pos_att_type": ["c2p", "p2c"]},
        {"max_relative_positions": -1},
        {"embedding_size": 16},
    ],
)
def test_settings_of_a_deberta_may_be_said_in_several_ways(change):
    config = CONFIGS["deberta-v2"]
    raw = huggingface.config_json(config, "qa", ()) | change
    assert huggingface.read_config(raw, "config.json") == config
