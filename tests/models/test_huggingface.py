"""Hugging Face folders: transformers reads what we write, we read what it writes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file
from tokenizers import models, pre_tokenizers

from metalr.data import encode
from metalr.errors import MetalrError
from metalr.models import heads, huggingface, tokenizer, weights
from tests.data import small_tokenizers
from tests.models.small_models import CONFIGS
from tests.tiers import some

LABELS = {
    "classification": ("no", "yes", "maybe"),
    "regression": (),
    "qa": (),
    "mlm": (),
    "tokens": ("O", "B-PER", "I-PER"),
    "multilabel": ("joy", "fear"),
    "choice": (),
}
apply = jax.jit(heads.apply, static_argnums=0)


def make_tokenizer(words: int = 50):
    from transformers import PreTrainedTokenizerFast

    vocab = {"[PAD]": 0, "[UNK]": 1} | {f"w{i}": i for i in range(2, words)}
    core = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]"
    )


def make_model(kind: str, family: str = "bert") -> huggingface.Pretrained:
    """Return a random model whose outputs are of the order of one."""
    config = CONFIGS[family]
    graphdef, params = heads.build(config, kind, len(LABELS[kind]), seed=1)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + jnp.asarray(rng.normal(scale=0.3, size=x.shape), x.dtype), params
    )
    return huggingface.Pretrained(config, graphdef, params, make_tokenizer(), {})


@pytest.fixture
def folder(tmp_path):
    """Yield the folder of a small BERT with a classifier for three labels."""
    huggingface.export(
        tmp_path,
        make_model("classification"),
        "classification",
        LABELS["classification"],
    )
    return tmp_path


def change_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_weights(folder, change):
    file = folder / "model.safetensors"
    # Copies: the file is written over while it is mapped.
    tensors = {name: np.array(value) for name, value in load_file(file).items()}
    save_file(change(tensors), file, metadata={"format": "pt"})


def load(place, kind="classification", labels=None, **options):
    labels = LABELS[kind] if labels is None else labels
    return huggingface.load(str(place), kind, labels, **({"seed": 0} | options))


def assert_same(ours, wanted):
    jax.tree.map(np.testing.assert_array_equal, ours, wanted)


def make_batch() -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(2, 50, (2, 7)).astype(np.int32)
    mask = np.arange(7) < np.array([[7], [4]])
    return {
        "input_ids": ids,
        "token_type_ids": np.zeros_like(ids),
        "attention_mask": mask,
    }


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


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_tokenizer_of_a_general_class_tells_bert_its_segments(family, tmp_path):
    made = small_tokenizers.word_piece()
    made.model_input_names = ["input_ids", "attention_mask"]
    made.save_pretrained(tmp_path)
    config = dataclasses.replace(CONFIGS[family], vocab_size=200)
    loaded, _ = tokenizer.load(tmp_path, config)
    task = small_tokenizers.task("classification", "pair", ("no", "yes"))
    rows = [{"text": "who said why", "pair": "the film", "label": 0}]
    (types,) = encode.encode(rows, task, loaded, 64).token_type_ids
    assert sorted({*types.tolist()}) == ([0, 1] if family == "bert" else [0])


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


def test_export_changes_nothing_that_it_was_given(tmp_path):
    model = make_model("classification")
    before = jax.tree.map(np.array, model.params)
    huggingface.export(tmp_path, model, "classification", LABELS["classification"])
    assert_same(model.params, before)
    tensors = weights.to_files(model.params, model.config, "classification")
    held = {name: value.copy() for name, value in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert_same(tensors, held)


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def put_foreign_bytes(folder):
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04 no tensors" * 50)


def pickle_only(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def lose_a_shard(folder):
    index = {"weight_map": {"bert.x": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def lose_two_weights_and_bend_one(folder):
    def change(tensors):
        del tensors["bert.embeddings.word_embeddings.weight"]
        del tensors["bert.encoder.layer.0.output.dense.bias"]
        name = "bert.encoder.layer.0.intermediate.dense.weight"
        return tensors | {name: np.zeros((3, 3), np.float32)}

    change_weights(folder, change)


def break_config(folder):
    (folder / "config.json").write_text('{"model_type": ')


def break_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")


def larger_tokenizer(folder):
    make_tokenizer(60).save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"conv_kernel_size": 3}, "conv_kernel_size must be 0, got 3"),
        ({"pos_att_type": ["c2p"]}, r"pos_att_type must be \['p2c', 'c2p'\]"),
        ({"share_att_key": None}, "share_att_key must be True, got False"),
        ({"relative_attention": None}, "relative_attention must be True, got False"),
        ({"position_buckets": -1}, "position_buckets must be a number from 1"),
    ],
)
def test_other_debertas_than_version_three_are_refused(change, says):
    raw = huggingface.config_json(CONFIGS["deberta-v2"], "qa", ())
    raw = {k: v for k, v in (raw | change).items() if v is not None}
    with pytest.raises(MetalrError, match=says):
        huggingface.read_config(raw, "config.json")


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


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, r"model\.safetensors is not a complete safetensors file"),
        (put_foreign_bytes, r"model\.safetensors is not a complete safetensors file"),
        (pickle_only, "pickled weights only.*save_pretrained"),
        (no_weights, r"holds no model\.safetensors"),
        (lose_a_shard, "model-00001-of-00002.safetensors is not a complete"),
        (
            lose_two_weights_and_bend_one,
            "2 missing: bert.embeddings.word_embeddings.weight, "
            "bert.encoder.layer.0.output.dense.bias; 1 misshapen: "
            "bert.encoder.layer.0.intermediate.dense.weight",
        ),
        (break_config, r"config\.json is not JSON"),
        (lambda f: (f / "config.json").unlink(), r"holds no config\.json"),
        (break_tokenizer, "tokenizer in .* can't be read"),
        (larger_tokenizer, "at most the model's 50 tokens; it has 60"),
        (
            lambda f: change_config(f, model_type="gpt2"),
            "model_type is 'gpt2'; supported are bert, roberta, xlm-roberta",
        ),
        (
            lambda f: change_config(f, hidden_act="relu", hidden_size="16"),
            "hidden_act must be 'gelu', got 'relu'; hidden_size must be a number",
        ),
        (lambda f: change_config(f, num_attention_heads=3), "multiple of num_att"),
        (
            lambda f: change_config(f, num_hidden_layers=256),
            r"num_hidden_layers is 256, but they have no bert\.encoder\.layer\.255",
        ),
        (
            lambda f: change_config(f, position_embedding_type="relative_key"),
            "position_embedding_type must be 'absolute'",
        ),
    ],
)
def test_a_broken_folder_gets_one_clear_line(folder, damage, says):
    damage(folder)
    with pytest.raises(MetalrError, match=says) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.fast
def test_a_trimmed_vocabulary_gives_the_same_logits_and_gradients():
    model, batch = make_model("classification"), make_batch()
    used = np.unique(np.append(batch["input_ids"], 0))
    small, restore = huggingface.trim_vocabulary(model.params, used)
    mapped = np.searchsorted(used, batch["input_ids"]).astype(np.int32)
    labels = {"labels": np.array([0, 2], np.int32), "weights": np.ones(2, np.float32)}

    def run(params, batch):
        logits = heads.apply(model.graphdef, params, batch)
        return heads.loss("classification", logits, batch | labels), logits

    step = jax.jit(jax.value_and_grad(run, has_aux=True))
    (_, whole), wanted = step(model.params, batch)
    (_, logits), grads = step(small, batch | {"input_ids": mapped})
    assert_same(logits, whole)
    table = np.array(weights.leaf(wanted, huggingface.WORDS))
    np.testing.assert_array_equal(weights.leaf(grads, huggingface.WORDS), table[used])
    assert not np.delete(table, used, axis=0).any()
    for name in ("dense", "out"):
        assert_same(grads[name], wanted[name])

    # Back in place, the trained rows are new and all others as before.
    assert_same(restore(small), model.params)
    trained = restore(jax.tree.map(lambda x: x + 1, small))
    change = np.array(weights.leaf(trained, huggingface.WORDS)) - np.array(
        weights.leaf(model.params, huggingface.WORDS)
    )
    np.testing.assert_allclose(change[used], 1, rtol=1e-5)
    assert not np.delete(change, used, axis=0).any()


@pytest.mark.fast
@pytest.mark.parametrize("ids", [[], [3, 2], [2, 2], [-1, 4], [4, 50]])
def test_ids_that_are_no_rows_of_the_table_are_refused(ids):
    params = make_model("qa").params
    with pytest.raises(ValueError, match="used_ids must"):
        huggingface.trim_vocabulary(params, np.array(ids))


@pytest.mark.fast
def test_a_trimmed_model_is_not_exported(tmp_path):
    model = make_model("qa")
    small, _ = huggingface.trim_vocabulary(model.params, np.array([0, 5]))
    with pytest.raises(ValueError, match="2 of 50 words"):
        huggingface.export(tmp_path, model._replace(params=small), "qa", ())
