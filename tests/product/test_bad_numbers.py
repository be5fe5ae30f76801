"""Numbers that are not finite are survived and counted, or stop the run in words."""

import numpy as np
import pytest

from metalr.errors import MetalrError
from metalr.finetune import journal
from metalr.finetune.checkpoint import Checkpoints
from tests.finetune import regression_runs
from tests.product.poisoned_runs import is_finite, metalr, poisoned

PACE = regression_runs.PACE


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("loss", np.nan),
        ("gradient", -np.inf),
        ("one coordinate", np.nan),
        ("one coordinate", 1e30),  # finite, and its square is not
    ],
)
def test_bad_step_is_skipped_counted_and_leaves_the_run_finite(where, value):
    share = 0.01 if where == "one coordinate" else 1.0
    tx = poisoned(metalr(), (4, 5, 17), value, loss=where == "loss", share=share)
    outcome = regression_runs.train(PACE, tx=tx)
    assert is_finite(outcome)
    last = [row for row in outcome.history if "loss" in row][-1]
    assert last["skipped_steps"] == 3
    # Each halved the multiplier, and a predictor without evidence lets it stay there.
    assert last["lr_multiplier"] == pytest.approx(1 / 8)


def test_loss_that_is_finite_and_huge_is_taken_as_it_is():
    outcome = regression_runs.train(PACE, tx=poisoned(metalr(), (4,), 1e30, loss=True))
    assert is_finite(outcome)


def test_run_whose_every_step_is_bad_ends_where_it_began():
    outcome = regression_runs.train(PACE, tx=poisoned(metalr(), range(99), np.nan))
    assert is_finite(outcome) and not np.any(outcome.params["w"])


def test_plain_scheduler_stops_with_step_and_advice_and_keeps_what_it_saved(tmp_path):
    keep = Checkpoints(tmp_path)
    pace = PACE._replace(save_every=1, log_every=100, eval_every=100)
    tx = poisoned(regression_runs.transformation(), (13,), np.nan)
    with pytest.raises(journal.Diverged, match="step 15.*smaller --learning-rate"):
        regression_runs.train(pace, tx=tx, checkpoints=keep)
    keep.close()
    saved = sorted(int(path.name) for path in (tmp_path / "last").iterdir())
    assert saved == [13, 14]  # the step that went wrong, and the good one before it


@pytest.mark.parametrize("rate", [1.0, 1e-12])
def test_any_base_rate_ends_finite(rate):
    assert is_finite(regression_runs.train(PACE, tx=metalr(rate)))


def test_base_rate_that_is_no_rate_is_refused():
    with pytest.raises(MetalrError, match="must be positive"):
        metalr(float("nan"))
