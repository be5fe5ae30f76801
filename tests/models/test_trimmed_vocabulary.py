"""A model without the words that no row uses trains as the whole one."""

import jax
import numpy as np
import pytest

from metalr.models import heads, huggingface, weights
from tests.models.exported_models import assert_same, make_batch, make_model


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
