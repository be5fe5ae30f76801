"""The curves of one run: `curves.png`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metalr.report.style import (
    GUIDE,
    MARKED,
    PALETTE,
    label_powers,
    plot_curve,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NOT_SCORES = {"step", "epoch"}


def draw_curves(result: Mapping[str, Any], path: Path) -> None:
    """Draw loss, scores and learning rate of a run over its steps.

    The logged loss is pale and its moving average strong. Scores have a panel if there
    was an evaluation, and the multiplier if there is one. Dotted lines mark the epochs,
    a circle the step whose weights were kept, crosses the steps whose loss was not
    finite.

    Args:
      result: A `metalr.finetune.result.Result`.
      path: Where the PNG goes.

    Raises:
      MetalrError: The file cannot be written.
    """
    history = result["history"]
    panels = [_draw_loss]
    if _score_names(history):
        panels.append(_draw_scores)
    panels.append(_draw_rate)
    if any("lr_multiplier" in row for row in history):
        panels.append(_draw_multiplier)

    def fill(figure: "Figure") -> None:
        from matplotlib.ticker import MaxNLocator

        axes = list(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0])
        figure.suptitle(_title(result), fontsize=11, x=0.01, ha="left")
        for panel, ax in zip(panels, axes, strict=True):
            panel(ax, result)
            ax.margins(x=0.01)
        _mark_epochs(axes, history)
        axes[-1].set_xlabel("step")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.align_ylabels()

    save_figure(path, (7.2, 0.7 + 1.9 * len(panels)), fill)


def _title(result: Mapping[str, Any]) -> str:
    words = [result["task"], result["model"], result["scheduler"]]
    if result["data"].get("kind") == "toy":
        words[0] += " (toy data)"  # must not be mistaken for the real set
    return "  ·  ".join([*words, f"seed {result['seed']}"])


def series(
    history: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values of the history's rows that have `name`; null as NaN."""
    rows = [row for row in history if name in row]
    steps = np.array([row["step"] for row in rows], float)
    values = [math.nan if row[name] is None else float(row[name]) for row in rows]
    return steps, np.array(values)


def _score_names(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the scores in evaluation rows (those without a training loss)."""
    names: dict[str, None] = {}  # a set that keeps its order
    for row in history:
        if "loss" not in row:
            names.update(dict.fromkeys(row))
    return [name for name in names if name not in _NOT_SCORES and not _is_loss(name)]


def _is_loss(name: str) -> bool:
    return name.endswith("eval_loss")


def smooth(values: np.ndarray) -> np.ndarray:
    """Return the debiased moving average over a twentieth of the run; skip NaN."""
    decay = math.exp(-20 / len(values))
    total = weight = 0.0
    smoothed = []
    for value in values:
        if math.isfinite(value):
            total, weight = decay * total + value, decay * weight + 1.0
        smoothed.append(total / weight if weight else math.nan)
    return np.array(smoothed)


def _draw_loss(ax: "Axes", result: Mapping[str, Any]) -> None:
    history = result["history"]
    steps, values = series(history, "loss")
    if len(steps) > MARKED:
        ax.plot(steps, values, color=PALETTE[0], alpha=0.3, linewidth=0.7)
        smoothed = smooth(np.minimum(values, _upper_limit(values)))
        plot_curve(ax, steps, smoothed, 0, "training, smoothed")
    else:
        plot_curve(ax, steps, values, 0, "training")
    names = dict.fromkeys(name for row in history for name in row if _is_loss(name))
    for index, name in enumerate(names, start=1):
        split = name.removesuffix("eval_loss").rstrip("_") or "validation"
        plot_curve(ax, *series(history, name), index, split, dash=index)
    drawn = np.concatenate([np.asarray(line.get_ydata()) for line in ax.lines])
    if np.max(drawn, where=np.isfinite(drawn), initial=-math.inf) > _upper_limit(drawn):
        ax.set_ylim(top=_upper_limit(drawn))
    lost = steps[~np.isfinite(values)]
    if len(lost):
        at_the_top = ax.get_xaxis_transform()  # x in steps, y in axes heights
        cross = {"marker": "x", "linestyle": "", "color": "#B00000", "clip_on": False}
        heights = np.ones(len(lost))
        ax.plot(lost, heights, transform=at_the_top, label="not finite", **cross)
    ax.set_ylabel("loss")
    _legend(ax)


def _upper_limit(values: np.ndarray) -> float:
    """Return a limit that only a few outliers exceed, which would flatten the rest."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return math.inf
    low, high = np.min(values), np.percentile(values, 98)
    return float(low + 2 * (high - low)) if high > low else math.inf


def _draw_scores(ax: "Axes", result: Mapping[str, Any]) -> None:
    history = result["history"]
    for index, name in enumerate(_score_names(history)):
        plot_curve(ax, *series(history, name), index, name, dash=index)
    best, name = result["best_step"], result["metric"]
    value = result["metrics"].get(name)
    if best is not None and value is not None:
        ring = {"markersize": 8, "markerfacecolor": "none", "color": "#333333"}
        label = f"kept: {name} {value:.4f} at step {best}"
        ax.plot([best], [value], "o", **ring, label=label)
    ax.set_ylabel("score")
    _legend(ax)


def _draw_rate(ax: "Axes", result: Mapping[str, Any]) -> None:
    from matplotlib.ticker import LogFormatter

    steps, values = series(result["history"], "learning_rate")
    # A schedule may begin and end at 0, which a log axis cannot show.
    values = np.where(values > 0, values, math.nan)
    plot_curve(ax, steps, values, 2, "learning rate")
    if np.isfinite(values).any():
        ax.set_yscale("log")
        few = LogFormatter(minor_thresholds=(1.5, 0.6))  # 2e-05, as it is typed
        ax.yaxis.set_major_formatter(few)
        ax.yaxis.set_minor_formatter(few)
        if np.nanmax(values) < 10 * np.nanmin(values):
            middle = np.sqrt(np.nanmax(values) * np.nanmin(values))
            ax.set_ylim(middle / 10**0.6, middle * 10**0.6)  # a decade at least
    ax.set_ylabel("learning rate")


def _draw_multiplier(ax: "Axes", result: Mapping[str, Any]) -> None:
    plot_curve(ax, *series(result["history"], "lr_multiplier"), 3, "multiplier")
    ax.axhline(1.0, **GUIDE)
    label_powers(ax)
    ax.set_ylabel("multiplier")


def _legend(ax: "Axes") -> None:
    # Above the axes: inside, a curve may cross any place.
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.2)


def _mark_epochs(axes: Sequence["Axes"], history: Sequence[Mapping[str, Any]]) -> None:
    last = max(history, key=lambda row: row["step"], default={"epoch": 0})
    epochs = int(last.get("epoch") or 0)
    if epochs == 0:
        return
    steps_per_epoch = last["step"] / last["epoch"]
    every = max(1, epochs // 10)
    for epoch in range(every, epochs + 1, every):
        step = epoch * steps_per_epoch
        for ax in axes:
            ax.axvline(step, color="#BBBBBB", linewidth=0.8, linestyle=":", zorder=0)
        axes[-1].annotate(
            f"epoch {epoch}",
            (step, 1.02),  # above the last panel, which has no legend there
            xycoords=axes[-1].get_xaxis_transform(),
            ha="right",
            fontsize=7,
            color="#777777",
        )
