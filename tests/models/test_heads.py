"""Heads, losses and their gradients against PyTorch transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalr.errors import MetalrError
from metalr.models import heads, weights
from metalr.models.encoder import EncoderConfig
from tests.models import small_models
from tests.models.small_models import BERT, CONFIGS
from tests.tiers import some

LABELS = {
    "classification": ("a", "b", "c"),
    "regression": (),
    "qa": (),
    "mlm": (),
    "tokens": ("O", "B-PER", "I-PER", "B-LOC"),
    "multilabel": ("joy", "fear", "grief"),
    "choice": (),
}
loss = jax.jit(heads.loss, static_argnums=0)


def make_batch(config: EncoderConfig, kind: str) -> dict[str, np.ndarray]:
    """Return three rows of different lengths, padded, with their labels."""
    rng = np.random.default_rng(0)
    ids = rng.integers(2, config.vocab_size, (3, 9))
    mask = np.arange(9) < np.array([[9], [6], [3]])
    labels = {
        "classification": np.array([2, 0, 1], np.int32),
        "regression": np.array([0.5, -1.0, 3.0], np.float32),
        "qa": np.array([[1, 4], [0, 0], [2, 2]], np.int32),
        "mlm": np.array([[7, 11], [49, 7], [2, 0]], np.int32),
        "tokens": np.where(mask, rng.integers(-1, 4, (3, 9)), -1).astype(np.int32),
        "multilabel": np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.int32),
        "choice": np.array([1, 0, 1], np.int32),
    }
    if kind == "choice":
        ids, mask = np.stack([ids, ids[::-1]], 1), np.stack([mask, mask[::-1]], 1)
    places = {"places": np.array([[0, 8], [2, 1], [1, 0]], np.int32)}
    return {
        "input_ids": np.where(mask, ids, config.pad_token_id).astype(np.int32),
        "token_type_ids": np.zeros(mask.shape, np.int32),
        "attention_mask": mask,
        "labels": labels[kind],
        # A token weighs the same in a long row and in a short one.
        "weights": (labels[kind] >= 0).sum(1).astype(np.float32)
        if kind == "tokens"
        else np.ones(3, np.float32),
        **(places if kind == "mlm" else {}),
    }


def value_and_grad(graphdef, kind, batch, params):
    def value(params):
        logits = heads.apply(graphdef, params, batch)
        return heads.loss(kind, logits, batch), logits

    return jax.jit(jax.value_and_grad(value, has_aux=True))(params)


@pytest.mark.parametrize("kind", heads.KINDS)
@pytest.mark.parametrize("family", some(CONFIGS, "bert", "roberta"))
def test_logits_loss_and_gradients_are_those_of_pytorch(family, kind):
    torch = pytest.importorskip("torch")
    config, labels = CONFIGS[family], LABELS[kind]
    model = small_models.oracle(config, kind, labels)
    graphdef, params = small_models.taken_over(model, config, kind, len(labels))
    batch = make_batch(config, kind)
    if kind == "qa":  # theirs does not mask the loss
        batch["attention_mask"] = np.ones_like(batch["attention_mask"])
        batch["input_ids"] = np.maximum(batch["input_ids"], 2)
    (loss, logits), grads = value_and_grad(graphdef, kind, batch, params)
    inputs = config.differences.inputs
    given = {name: torch.tensor(batch[name]).long() for name in inputs}
    answer = torch.tensor(batch["labels"])
    if kind == "tokens":
        answer = torch.where(answer < 0, -100, answer)
    floats = kind in ("regression", "multilabel")
    answer = answer.float() if floats else answer.long()
    if kind == "qa":
        out = model(**given, start_positions=answer[:, 0], end_positions=answer[:, 1])
        theirs = torch.stack([out.start_logits, out.end_logits], -1)
    elif kind == "mlm":
        places = torch.tensor(batch["places"]).long()
        words = torch.full((3, 9), -100).scatter(1, places, answer)
        out = model(**given, labels=words)
        theirs = out.logits[torch.arange(3)[:, None], places]
    else:
        out = model(**given, labels=answer)
        theirs = out.logits
    out.loss.backward()
    if kind == "tokens":  # what a token of padding gives is read by nobody
        logits, theirs = (x[batch["attention_mask"]] for x in (logits, theirs))
    np.testing.assert_allclose(logits, theirs.detach(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(loss, out.loss.detach(), atol=1e-4, rtol=1e-5)
    named = dict(model.named_parameters())
    for there, path, transposed in weights.weight_map(config, kind):
        if named[there].grad is None:
            continue
        wanted = named[there].grad.numpy()
        wanted = wanted.T if transposed else wanted
        if path[-2:] in (("words", "embedding"), ("positions", "embedding")):
            ours = np.asarray(weights.leaf(grads, path)).copy()
            # PyTorch gives the padding row no gradient; nothing reads it but padding.
            ours[config.pad_token_id] = wanted[config.pad_token_id]
        else:
            ours = weights.leaf(grads, path)
        np.testing.assert_allclose(ours, wanted, atol=1e-4, rtol=1e-3, err_msg=there)


@pytest.mark.fast
@pytest.mark.parametrize("kind", heads.KINDS)
def test_rows_of_weight_zero_do_not_count(kind):
    rng = np.random.default_rng(0)
    batch = make_batch(BERT, kind)
    tokens = {
        "qa": (3, 9, 2),
        "mlm": (3, 2, BERT.vocab_size),
        "tokens": (3, 9, 4),
        "choice": (3, 2),
    }
    shape = tokens.get(kind, (3, heads.labels_of(kind, 3)))
    logits = jnp.asarray(rng.normal(size=shape), jnp.float32)
    batch["weights"] = np.array([1, 1, 0], np.float32)
    two = {name: value[:2] for name, value in batch.items()}
    np.testing.assert_allclose(
        loss(kind, logits, batch), loss(kind, logits[:2], two), rtol=1e-6
    )
    batch["weights"] = np.zeros(3, np.float32)
    value, grad = jax.jit(jax.value_and_grad(loss, 1), static_argnums=0)(
        kind, logits, batch
    )
    assert value == 0 and (grad == 0).all()


@pytest.mark.fast
def test_padding_has_no_part_in_the_loss_of_answers():
    batch = make_batch(BERT, "qa")
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 9, 2)), jnp.float32)
    loud = jnp.where(batch["attention_mask"][:, :, None], logits, 50.0)
    np.testing.assert_allclose(loss("qa", logits, batch), loss("qa", loud, batch))


@pytest.mark.fast
@pytest.mark.parametrize("kind", heads.KINDS)
def test_a_built_model_is_a_plain_dict_of_float32_and_its_seed_decides(kind):
    def build(seed):
        return heads.build(BERT, kind, 3, seed=seed)

    graphdef, params = build(0)
    leaves = jax.tree.leaves(params)
    assert type(params) is dict and {leaf.dtype.name for leaf in leaves} == {"float32"}
    jax.tree.map(np.testing.assert_array_equal, params, build(0)[1])
    kernel = params["encoder"]["layers"]["0"]["up"]["kernel"]
    other = build(1)[1]["encoder"]["layers"]["0"]["up"]["kernel"]
    assert (kernel != other).all()
    np.testing.assert_allclose(np.std(kernel), 0.02, rtol=0.15)
    # The same graph again must not make jit trace anew.
    assert graphdef == build(1)[0] and hash(graphdef) == hash(build(1)[0])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kind", "labels", "dtype", "says"),
    [
        ("classifcation", 2, "float32", "did you mean 'classification'"),
        ("classification", 1, "float32", "at least 2 labels, got 1"),
        ("qa", 2, "float16", "unknown dtype 'float16'"),
    ],
)
def test_a_model_that_cannot_be_is_refused(kind, labels, dtype, says):
    with pytest.raises(MetalrError, match=says):
        heads.build(BERT, kind, labels, seed=0, dtype=dtype)


SMOOTHED = {"classification": ((3, 5), 5), "tokens": ((3, 9, 4), 4)}


@pytest.mark.parametrize("kind", SMOOTHED)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_and_smoothing_are_those_of_pytorch(kind, smoothing):
    torch = pytest.importorskip("torch")
    shape, classes = SMOOTHED[kind]
    rng = np.random.default_rng(0)
    logits = rng.normal(size=shape).astype(np.float32)
    batch = make_batch(BERT, kind)
    labels = batch["labels"]
    # PyTorch spreads a smoothed label by the classes' weights too, so that the two
    # agree where one of them is at work.
    weights = np.ones(classes) if smoothing else rng.uniform(0.5, 2.0, classes)
    weights = weights.astype(np.float32)
    share = np.where(labels >= 0, weights[np.maximum(labels, 0)], 0.0)
    batch["weights"] = share if kind == "classification" else share.sum(1)
    found = heads.loss(
        kind, jnp.asarray(logits), batch, smoothing=smoothing, class_weights=weights
    )
    theirs = torch.nn.CrossEntropyLoss(
        weight=torch.tensor(weights), label_smoothing=smoothing, ignore_index=-1
    )
    flat = torch.tensor(logits).reshape(-1, classes)
    wanted = theirs(flat, torch.tensor(labels).long().reshape(-1))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_weights_of_several_labels_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    batch = make_batch(BERT, "multilabel")
    logits = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    weights = np.array([3.0, 0.5, 1.0], np.float32)
    theirs = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weights))
    wanted = theirs(torch.tensor(logits), torch.tensor(batch["labels"]).float())
    found = heads.loss("multilabel", jnp.asarray(logits), batch, class_weights=weights)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
