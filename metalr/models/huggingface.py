"""Hugging Face folders of BERT and its relatives, in and out.

`load` reads a model by its name and gives it the head of a task; `export` writes a
folder that transformers loads. `locate` knows where a name leads, and `weights` has the
table of names between the two.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from metalr.errors import MetalrError
from metalr.models import disentangled, heads, locate, modern, tokenizer, weights
from metalr.models.config import EncoderConfig
from metalr.models.encoder import Params
from metalr.models.families import FAMILIES
from metalr.models.family import Family
from metalr.runtime import files
from metalr.runtime.origin import Origin

# Ten times what any BERT has. The weights have to have these sizes too.
LARGEST = 2**20
MOST_LAYERS = 256
CHOICES = {"hidden_act": ("gelu", "gelu_new"), "classifier_pooling": ("cls", "mean")}
_LEAST_LENGTH = 8  # of --max-length as well
WORDS = ("encoder", "embeddings", "words", "embedding")

DRAWN = "drawn at random"  # said of a head that the files lack
# What the classes of transformers are called after "For", by kind of task.
SORTS = {
    "classification": "SequenceClassification",  # and of kinds that are not here
    "qa": "QuestionAnswering",
    "mlm": "MaskedLM",
    "tokens": "TokenClassification",
    "choice": "MultipleChoice",
}


class Pretrained(NamedTuple):
    """A model that is ready to train."""

    config: EncoderConfig
    graphdef: Any  # for heads.apply
    params: Params
    tokenizer: Any  # a fast tokenizer of transformers
    origin: Origin
    files: tuple[
        Path, ...
    ] = ()  # config.json, which lies beside the tokenizer; weights
    whole: bool = True  # whether transformers loads this model from their folder


def load(
    name: str,
    kind: str,
    labels: tuple[str, ...],
    *,
    seed: int,
    dtype: str = "float32",
    dropout: float | None = None,
) -> Pretrained:
    """Load an encoder by name and put the head of a task on it.

    A head in the files is taken over if it has as many outputs, its rows in the order
    of `labels` where the names are the same; whatever is missing is drawn from `seed`.

    Args:
      name: A hub id, a folder, a .safetensors file beside a config.json, `minilm`, or
        `minilm:N` for its first N layers.
      kind: A row of `heads.KINDS`.
      labels: Names by id; () where the task has none.
      seed: Of the weights that the files lack.
      dtype: What the matrix products run in.
      dropout: Replaces both rates of the files if given.

    Raises:
      MetalrError: The name leads nowhere, or the files don't fit.
    """
    heads.labels_of(kind, len(labels))
    source = locate.find(name)
    raw = weights.read_json(source.folder / "config.json")
    config = read_config(raw, source.folder / "config.json")
    if source.layers is not None:
        config = dataclasses.replace(config, num_hidden_layers=source.layers)
    if dropout is not None:
        if not 0.0 <= dropout < 1.0:
            raise MetalrError(f"dropout must lie in [0, 1), got {dropout}")
        config = dataclasses.replace(
            config,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            classifier_dropout=None if config.classifier_dropout is None else dropout,
        )
    stored = [source.file] if source.file else weights.files_of(source.folder)
    tensors = weights.read(stored, config, kind)
    weights.check_depth(tensors, config)  # or a config.json alone takes minutes
    graphdef, shapes = heads.outline(config, kind, len(labels), dtype)
    params, drawn = weights.assemble(tensors, shapes, config, kind, seed)
    if labels and "classifier" not in " ".join(drawn):
        params["out"] = _in_order(params["out"], raw.get("id2label"), labels)
    words, note = tokenizer.load(source.folder, config)
    notes = [source.origin.note, note]
    if drawn:
        notes.append(f"no fitting weights for {' and '.join(drawn)}: {DRAWN}")
    origin = source.origin._replace(note="; ".join(filter(None, notes)))
    read = (source.folder / "config.json", *stored)
    own_file = source.file is None or source.file.name == "model.safetensors"
    whole = source.layers is None and own_file
    return Pretrained(config, graphdef, params, words, origin, read, whole)


def read_config(raw: dict[str, Any], where: Path | str) -> EncoderConfig:
    """Read an encoder's sizes from what config.json says.

    Args:
      raw: The content of config.json.
      where: Its name, for errors.

    Raises:
      MetalrError: It is not an encoder as this package knows them.
    """
    name = raw.get("model_type")
    if name not in FAMILIES:
        raise MetalrError(
            f"{where}: model_type is {repr(name)[:60]}; supported are "
            f"{', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    if family.layer_sort == "modern":
        raw = modern.plain_settings(raw)
    if family.layer_sort == "disentangled":
        raw = disentangled.plain_settings(raw)
    faults = [
        f"{name} must be {only!r}, got {repr(raw[name])[:60]}"
        for name, only in family.only.items()
        if raw.get(name, only) != only
    ]
    values: dict[str, Any] = {"family": name, **family.fixed}
    for field in _fields(family):
        key = family.names.get(field.name, field.name)
        value: Any = raw.get(key, family.defaults.get(field.name))
        if fault := _fault(family, field, value):
            faults.append(f"{key} must be {fault}, got {repr(value)[:60]}")
        values[field.name] = value
    if not faults and values["hidden_size"] % values["num_attention_heads"]:
        faults.append("hidden_size must be a multiple of num_attention_heads")
    if not faults and values["pad_token_id"] >= values["vocab_size"]:
        faults.append("pad_token_id must be below vocab_size")
    if not faults and EncoderConfig(**values).max_length < _LEAST_LENGTH:
        faults.append("max_position_embeddings must leave room for a text")
    if faults:
        raise MetalrError(f"{where}: {'; '.join(faults)}")
    return EncoderConfig(**values)


def _fields(family: Family) -> list[dataclasses.Field]:
    """Return the settings that a family's config.json has."""
    return [
        field
        for field in dataclasses.fields(EncoderConfig)[1:]
        if field.name not in family.fixed
        and (field.default is dataclasses.MISSING or field.name in family.names)
    ]


def _fault(family: Family, field: dataclasses.Field, value: Any) -> str | None:
    """Return what a setting has to be, if it is not."""
    if field.name in CHOICES:
        known = CHOICES[field.name]
        return None if value in known else f"one of {', '.join(known)}"
    if value is None and field.default is None:
        return None
    number = int if field.type is int else (int, float)
    least = 0 if field.name in family.defaults else 1
    least = 0 if field.name == "classifier_dropout" else least
    most = MOST_LAYERS if field.name == "num_hidden_layers" else LARGEST
    most = 0.999 if field.name.endswith(("_prob", "_dropout")) else most
    if isinstance(value, bool) or not isinstance(value, number):
        return f"a number from {least} to {most}"
    good = least <= value <= most  # NaN is in no range
    return None if good else f"a number from {least} to {most}"


def _in_order(out: Params, id2label: Any, labels: tuple[str, ...]) -> Params:
    """Return a classifier's outputs in the order of `labels`, where it names them."""
    named = id2label if isinstance(id2label, dict) else {}
    names = [str(named.get(str(i))) for i in range(len(labels))]
    asked = list(labels)
    if sorted(names) != sorted(asked):  # "positive" is BERT's POSITIVE as well
        names, asked = ([x.lower() for x in column] for column in (names, asked))
    if sorted(names) != sorted(asked) or len({*asked}) < len(asked):
        return out
    order = np.array([names.index(label) for label in asked])
    return {"bias": out["bias"][order], "kernel": out["kernel"][:, order]}


def export(
    folder: Path | str, model: Pretrained, kind: str, labels: Sequence[str]
) -> None:
    """Write config.json, model.safetensors and the tokenizer for transformers.

    `AutoModelForSequenceClassification` loads classification, of one label or several,
    and regression, `AutoModelForQuestionAnswering` answer spans,
    `AutoModelForTokenClassification` tags, `AutoModelForMultipleChoice` the choice of a
    text and `AutoModelForMaskedLM` masked words, without a missing or unexpected key.

    Args:
      folder: Made if it is not there; files of the same names are replaced.
      model: The trained parameters in `params`; a tokenizer of None is left out.
      kind: A row of `heads.KINDS`.
      labels: Names by id; () where the task has none.

    Raises:
      MetalrError: The files cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    folder = Path(folder)
    rows = len(weights.leaf(model.params, WORDS))
    if rows != model.config.vocab_size:
        raise ValueError(
            f"{rows} of {model.config.vocab_size} words: restore them first"
        )
    tensors = weights.to_files(model.params, model.config, kind)
    config = config_json(model.config, kind, labels)

    def write(draft: Path) -> None:
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        (draft / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(draft)

    try:
        files.fill(folder, write)
    except (OSError, SafetensorError) as fault:
        raise MetalrError(
            f"cannot write the model to {folder}: {fault}; make room on the disk; "
            "the same command then resumes"
        ) from fault


def config_json(
    config: EncoderConfig, kind: str, labels: Sequence[str]
) -> dict[str, Any]:
    """Return what config.json says of a model with a head.

    Args:
      config: The encoder.
      kind: A row of `heads.KINDS`.
      labels: Names by id; () where the task has none.
    """
    outputs = heads.labels_of(kind, len(labels))
    names = list(labels) if labels else [f"LABEL_{i}" for i in range(outputs)]
    family = config.differences
    values = {
        family.names.get(field.name, field.name): value
        for field in _fields(family)
        if (value := getattr(config, field.name)) is not None
    }
    sort = SORTS.get(kind, SORTS["classification"])
    values |= {
        **family.only,
        **family.written,
        "model_type": config.family,
        "architectures": [f"{family.name}For{sort}"],
        "dtype": "float32",
    }
    if kind != "mlm":
        values["id2label"] = {str(i): label for i, label in enumerate(names)}
        values["label2id"] = {label: i for i, label in enumerate(names)}
    problem = {
        "classification": "single_label_classification",
        "multilabel": "multi_label_classification",
        "regression": "regression",
    }
    if kind in problem:
        values["problem_type"] = problem[kind]
    return values


def trim_vocabulary(
    params: Params, used_ids: np.ndarray
) -> tuple[Params, Callable[[Params], Params]]:
    """Keep the rows of the word table that a task uses; outputs don't change.

    Rows without a token have no gradient, so the training of the others is the same
    too; only weight decay, if it acts on tables, no longer reaches them.

    Args:
      params: Of a model.
      used_ids: Sorted and without repeats, the padding's among them. The batches'
        ids become `np.searchsorted(used_ids, ids)`.

    Returns:
      The small parameters, and a function that puts small parameters back into a
      table of full size, whose other rows are as before.

    Raises:
      ValueError: The ids are not sorted, repeat, or leave the table.
    """
    table = np.array(weights.leaf(params, WORDS))  # outlives a donated original
    used = np.asarray(used_ids)
    if used.size == 0 or (np.diff(used) <= 0).any():
        raise ValueError("used_ids must be sorted, without repeats and not empty")
    if used[0] < 0 or used[-1] >= len(table):
        raise ValueError(f"used_ids must lie in [0, {len(table)})")

    def restore(small: Params) -> Params:
        full = table.copy()
        full[used] = np.asarray(weights.leaf(small, WORDS))
        return weights.with_leaf(small, WORDS, jnp.array(full))

    return weights.with_leaf(params, WORDS, jnp.array(table[used])), restore
