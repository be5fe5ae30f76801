"""curves.png is drawn for every course a run can take."""

import math
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from metalr.errors import MetalrError
from metalr.report import curves
from tests.report.png import size

pytestmark = pytest.mark.fast


def a_result(rows=60, evaluations=4, multiplier=False, **fields):
    history = []
    for step in range(1, rows + 1):
        row = {"step": step, "epoch": 3 * step / rows, "loss": 1 / step}
        row["learning_rate"] = 2e-5 * (1 - step / rows)  # 0 at the end
        if multiplier:
            row["lr_multiplier"] = 2.0 ** (step % 5)
        history.append(row)
        if evaluations and step % (rows // evaluations) == 0:
            scores = {"accuracy": step / rows, "f1": 0.5, "eval_loss": 0.7}
            scores |= {"mismatched_accuracy": 0.4, "mismatched_eval_loss": 0.8}
            history.append({"step": step, "epoch": 3 * step / rows, **scores})
    result = {
        "task": "mnli",
        "model": "minilm",
        "data": {"kind": "toy"},
        "scheduler": "linear",
        "seed": 0,
        "metric": "accuracy",
        "metrics": {"accuracy": 1.0, "f1": 0.5} if evaluations else {},
        "best_step": rows if evaluations else None,
        "history": history,
    }
    return result | fields


@pytest.fixture
def drawn(monkeypatch):
    """Collect the figures that `draw` makes."""
    figures = []
    subplots = Figure.subplots

    def spy(self, *args, **kwargs):
        figures.append(self)
        return subplots(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "subplots", spy)
    return figures


@pytest.mark.parametrize(
    ("case", "panels"),
    [
        ({}, ["loss", "score", "learning rate"]),
        ({"multiplier": True}, ["loss", "score", "learning rate", "multiplier"]),
        ({"evaluations": 0}, ["loss", "learning rate"]),
        ({"rows": 1, "evaluations": 0}, ["loss", "learning rate"]),
        ({"rows": 1, "evaluations": 1}, ["loss", "score", "learning rate"]),
        ({"history": [], "best_step": None}, ["loss", "learning rate"]),
    ],
)
def test_one_panel_for_each_thing_there_is(tmp_path, drawn, case, panels):
    path = tmp_path / "curves.png"
    curves.draw_curves(a_result(**case), path)
    width, height = size(path)
    assert width > 1000
    assert height > 200 * len(panels)
    assert np.ptp(imread(path)) > 0.5  # something is on the paper
    assert [ax.get_ylabel() for ax in drawn[0].axes] == panels
    assert [entry.name for entry in tmp_path.iterdir()] == ["curves.png"]


def test_curves_show_the_numbers_of_the_history(tmp_path, drawn):
    result = a_result(rows=20)
    curves.draw_curves(result, tmp_path / "curves.png")
    loss, score, rate = drawn[0].axes
    lines = {line.get_label(): line for ax in (loss, score) for line in ax.lines}
    expected = [row["loss"] for row in result["history"] if "loss" in row]
    np.testing.assert_array_equal(lines["training"].get_ydata(), expected)
    np.testing.assert_array_equal(lines["accuracy"].get_xdata(), [5, 10, 15, 20])
    assert {"validation", "mismatched", "f1", "mismatched_accuracy"} <= lines.keys()
    assert "kept: accuracy 1.0000 at step 20" in lines
    assert rate.get_yscale() == "log"
    assert "toy data" in drawn[0].get_suptitle()


def test_steps_without_a_finite_loss_are_marked(tmp_path, drawn):
    result = a_result()
    lost = result["history"][10:13]
    for row, value in zip(lost, (math.nan, None, math.inf), strict=True):
        row["loss"] = value
    curves.draw_curves(result, tmp_path / "curves.png")
    (marks,) = [x for x in drawn[0].axes[0].lines if x.get_label() == "not finite"]
    assert list(marks.get_xdata()) == [row["step"] for row in lost]


def test_a_run_that_never_had_a_finite_number_is_drawn(tmp_path):
    result = a_result(evaluations=0)
    for row in result["history"]:
        row["loss"] = row["learning_rate"] = None
    curves.draw_curves(result, tmp_path / "curves.png")
    assert size(tmp_path / "curves.png")[0] > 1000


def test_one_spike_does_not_flatten_the_loss(tmp_path, drawn):
    result = a_result(rows=200)
    result["history"][150]["loss"] = 1e9
    curves.draw_curves(result, tmp_path / "curves.png")
    assert drawn[0].axes[0].get_ylim()[1] < 10


def test_smoothed_loss_is_the_debiased_average():
    constant = curves.smooth(np.array([2.0] * 5 + [math.nan] + [2.0] * 50))
    np.testing.assert_allclose(constant, 2.0)
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    decay = math.exp(-20 / 5)
    weights = decay ** np.arange(4, -1, -1)
    expected = np.average(values, weights=weights)
    np.testing.assert_allclose(curves.smooth(values)[-1], expected)


def test_drawing_leaves_matplotlib_as_it_was(tmp_path, monkeypatch):
    # pyplot would choose a backend, and may fail without a screen.
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    names = [name for name in matplotlib.rcParams if name != "backend"]
    before = {name: matplotlib.rcParams[name] for name in names}
    curves.draw_curves(a_result(rows=2, evaluations=1), tmp_path / "curves.png")
    assert {name: matplotlib.rcParams[name] for name in names} == before


def test_an_unwritable_target_is_one_clear_line(tmp_path):
    with pytest.raises(MetalrError, match="cannot write .*curves.png: No such file"):
        curves.draw_curves(a_result(evaluations=0), tmp_path / "none" / "curves.png")
