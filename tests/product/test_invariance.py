"""Units of loss and parameters, order of leaves and idle steps change no feature."""

import numpy as np
import pytest

from metalr.features import NAMES
from tests.product.descents import descent, observed, of_trace, quadratic, run_features


def same(one, other, but=()):
    for name in NAMES:
        if name not in but:
            np.testing.assert_allclose(
                one[name], other[name], rtol=2e-3, atol=2e-3, err_msg=name
            )


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e5])
def test_scaling_the_loss_changes_no_feature(scale):
    problem = quadratic()
    plain = run_features(*descent(*problem), total_steps=60.0)
    same(run_features(*descent(*problem, scale=scale), total_steps=60.0), plain)


@pytest.mark.parametrize("offset", [-0.9, 3.0, 10.0])
def test_a_constant_added_to_the_loss_changes_no_feature(offset):
    path, grads, losses = descent(*quadratic())
    plain = run_features(path, grads, losses, total_steps=60.0)
    losses = [x + offset for x in losses]
    same(run_features(path, grads, losses, total_steps=60.0), plain)


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_scaling_and_rotating_the_parameters_changes_no_feature(scale):
    path, grads, losses = descent(*quadratic())
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))
    plain = run_features(path, grads, losses, total_steps=60.0)
    other = run_features(
        [scale * turn @ theta for theta in path],
        [turn @ grad / scale for grad in grads],
        losses,
        total_steps=60.0,
    )
    same(other, plain, but=("evenness",))  # which is about the axes


def test_the_order_of_the_leaves_changes_no_feature():
    run = descent(*quadratic())
    one = run_features(*run, split=lambda x: {"a": x[:2], "b": x[2:].reshape(2, 2)})
    two = run_features(*run, split=lambda x: [x[2:].reshape(2, 2), (x[:2],)])
    same(one, two)


def test_a_step_before_which_nothing_moved_is_no_evidence():
    path, grads, losses = (list(column) for column in descent(*quadratic()))
    plain = np.asarray(of_trace(observed(path[:20], grads[:20], losses[:20])))
    # Ten steps of other gradients and losses at the parameters of step 12.
    rng = np.random.default_rng(3)
    path[13:13] = [path[12]] * 10
    grads[13:13] = list(rng.normal(size=(10, 6)))
    losses[13:13] = list(rng.normal(size=10))
    found = np.asarray(of_trace(observed(path[:23], grads[:23], losses[:23])))
    for row in found[13:]:
        np.testing.assert_array_equal(row, found[12])
    np.testing.assert_allclose(found[:13], plain[:13], rtol=1e-5, atol=1e-5)
