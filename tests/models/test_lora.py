"""LoRA's folders are PEFT's: it loads them, and gives the merged model's logits."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import metalr
from metalr.errors import MetalrError
from metalr.finetune import run_folder
from metalr.finetune.config import RunConfig
from metalr.finetune.display import Together
from metalr.finetune.run import run
from metalr.models import heads, huggingface, locate, lora
from metalr.runtime.origin import Origin
from tests.models import small_models
from tests.models.small_models import BERT, CONFIGS

LABELS = ("no", "yes", "maybe")
DEEP = dataclasses.replace(BERT, num_hidden_layers=2)


def changed(config, kind, chosen):
    """Return a model with a trained head and pairs that change something."""
    graphdef, params = heads.build(config, kind, len(LABELS), seed=1)
    base = jax.tree.map(lambda x: 5 * x, params)
    params = lora.add(base, chosen, seed=0)
    b = jax.random.normal(jax.random.key(0), (1000,))
    params[lora.KEY] = jax.tree.map(
        lambda x: x if x.any() else b[: x.size].reshape(x.shape), params[lora.KEY]
    )
    head = {n: v for n, v in params.items() if n not in ("encoder", lora.KEY)}
    return graphdef, base, {**params, **jax.tree.map(lambda x: x + 0.5, head)}


# PEFT asks transformers by a name that is on its way out.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(
    ("family", "kind", "targets"),
    [
        ("bert", "classification", None),
        ("bert", "classification", "query,dense"),  # its pooler ends so too
        ("roberta", "classification", None),
        ("distilbert", "tokens", "q_lin,lin1"),
        ("albert", "regression", None),
        ("modernbert", "qa", None),
        ("mpnet", "choice", "q,k,v,o"),
    ],
)
@pytest.mark.thorough
def test_peft_loads_an_adapter_and_gives_the_logits_of_the_merged_model(
    tmp_path, family, kind, targets
):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    import transformers

    config = CONFIGS[family]
    chosen = lora.choose(config, 2, None, targets)
    graphdef, base, params = changed(config, kind, chosen)
    named = kind not in ("regression", "qa", "choice")
    labels = LABELS if named else ()
    model = huggingface.Pretrained(config, graphdef, base, None, {}, ())
    huggingface.export(tmp_path / "base", model, kind, labels)
    lora.export(tmp_path / "adapter", params, chosen, config, kind, "base")

    auto = huggingface.config_json(config, kind, labels)["architectures"][0]
    theirs = getattr(transformers, auto).from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    ids = np.random.default_rng(0).integers(2, 50, (2, 3, 7)).astype(np.int32)
    ids = ids if kind == "choice" else ids[:, 0]
    batch = {
        "input_ids": ids,
        "token_type_ids": np.zeros_like(ids),
        "attention_mask": np.ones(ids.shape, bool),
    }
    given = {name: batch[name] for name in config.differences.inputs}
    out = theirs(**{name: torch.tensor(v).long() for name, v in given.items()})
    wanted = out.logits if kind != "qa" else torch.stack(list(out.values()), -1)
    ours = heads.apply(graphdef, lora.merged(params, chosen), batch)
    np.testing.assert_allclose(ours, wanted.detach(), atol=1e-4, rtol=0)
    plain = heads.apply(graphdef, {**base, **_head(params)}, batch)
    assert np.abs(np.asarray(ours - plain)).max() > 1e-2  # the pairs have a part in it


@pytest.mark.parametrize("part", ["all", "first layer", "another file"])
def test_base_that_an_adapter_names_is_the_model_that_was_changed(
    part, tmp_path, monkeypatch
):
    """The weights of the base plus the pairs are those of the run's whole model."""
    folder = small_models.save_bert(tmp_path / "tiny", layers=2)
    source = locate.Source(folder, Origin("folder", str(folder)))
    if part == "first layer":
        source = source._replace(layers=1)
    if part == "another file":
        source = source._replace(file=folder / "mine.safetensors")
        tensors = load_file(folder / "model.safetensors")
        save_file({k: 2 * v for k, v in tensors.items()}, folder / "mine.safetensors")
    monkeypatch.setattr(locate, "find", lambda name: source)
    settings = {"data": "toy", "train_rows": 16, "validation_rows": 8, "max_steps": 2}
    settings |= {"scheduler": "linear", "learning_rate": 1e-2, "max_length": 16}
    config = RunConfig(task="sst2", model=str(folder), lora=2, **settings)
    run(config, Together(), folder=tmp_path / "run")
    adapter = tmp_path / "run" / run_folder.ADAPTER
    said = json.loads((adapter / "adapter_config.json").read_text())
    base = Path(said["base_model_name_or_path"])
    assert (base != folder.absolute()) == (part != "all")
    assert not lacks(base / "model.safetensors", adapter, tmp_path / "run" / "model")
    monkeypatch.undo()
    assert metalr.load(tmp_path / "run")("a good film")["predicted_label"]


def lacks(base, adapter, model):
    """Return the weights of a model that its base and the adapter do not make."""
    pairs = load_file(adapter / "adapter_model.safetensors")
    pairs = {key.removeprefix("base_model.model."): x for key, x in pairs.items()}
    begun, ended = load_file(base), load_file(model / "model.safetensors")
    odd = begun.keys() ^ ended.keys()
    for key in begun.keys() & ended.keys():
        module = key.removesuffix(".weight")
        made = pairs.get(key, begun[key])
        if f"{module}.lora_A.weight" in pairs:
            a, b = (pairs[f"{module}.lora_{side}.weight"] for side in "AB")
            made = made + 2 * b @ a  # alpha is twice the rank
        if not np.allclose(made, ended[key], atol=1e-6):
            odd.add(key)
    return odd


def _head(params):
    return {n: v for n, v in params.items() if n not in ("encoder", lora.KEY)}


@pytest.mark.fast
def test_fresh_pairs_change_no_bit():
    chosen = lora.choose(DEEP, 4, 16.0, "query,value,intermediate.dense")
    assert chosen.scale == 4.0 and len(chosen.modules) == 6
    _, params = heads.build(DEEP, "classification", 2, seed=0)
    found = lora.merged(lora.add(params, chosen, seed=3), chosen)
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.fast
@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_has_queries_and_values_to_change(family):
    chosen = lora.choose(CONFIGS[family], 2, None, None)
    assert len(chosen.names) == (1 if family == "modernbert" else 2)
    assert len(chosen.modules) == len(chosen.names) * CONFIGS[family].stored_layers


@pytest.mark.fast
def test_what_cannot_be_changed_is_refused():
    with pytest.raises(MetalrError, match="unknown --lora-targets 'qery'.*query"):
        lora.choose(BERT, 2, None, "qery")
    with pytest.raises(MetalrError, match="at most the width, 16; got 17"):
        lora.choose(BERT, 17, None, None)
