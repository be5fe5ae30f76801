"""Random models with every head, read back from folders whose files a test changes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from safetensors.numpy import load_file, save_file
from tokenizers import models, pre_tokenizers

from metalr.models import heads, huggingface
from metalr.runtime.origin import Origin
from tests.models.small_models import CONFIGS

LABELS = {
    "classification": ("no", "yes", "maybe"),
    "regression": (),
    "qa": (),
    "mlm": (),
    "tokens": ("O", "B-PER", "I-PER"),
    "multilabel": ("joy", "fear"),
    "choice": (),
}


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
    origin = Origin("folder", "")
    return huggingface.Pretrained(config, graphdef, params, make_tokenizer(), origin)


def make_batch() -> dict[str, np.ndarray]:
    """Return two rows of tokens, the second padded."""
    ids = np.random.default_rng(0).integers(2, 50, (2, 7)).astype(np.int32)
    mask = np.arange(7) < np.array([[7], [4]])
    return {
        "input_ids": ids,
        "token_type_ids": np.zeros_like(ids),
        "attention_mask": mask,
    }


def change_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_weights(folder, change):
    file = folder / "model.safetensors"
    # Copies: the file is written over while it is mapped.
    tensors = {name: np.array(value) for name, value in load_file(file).items()}
    save_file(change(tensors), file, metadata={"format": "pt"})


def load(place, kind="classification", labels=None, seed=0, **options):
    labels = LABELS[kind] if labels is None else labels
    return huggingface.load(str(place), kind, labels, seed=seed, **options)


def assert_same(ours, wanted):
    jax.tree.map(np.testing.assert_array_equal, ours, wanted)
