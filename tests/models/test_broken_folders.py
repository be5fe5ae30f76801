"""A folder or config that is no supported model gets one clear line."""

import json

import numpy as np
import pytest

from metalr.errors import MetalrError
from metalr.models import huggingface
from tests.models.exported_models import (
    change_config,
    change_weights,
    load,
    make_tokenizer,
)
from tests.models.small_models import CONFIGS


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
