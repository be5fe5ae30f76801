"""The picture of a learned predictor's check: last loss by base rate."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metalr.report.style import plot_curve, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_check(found: Any, path: Path) -> None:
    """Draw the mean last validation loss by base rate, a line a row.

    Args:
      found: A `metalr.meta.zoo.check.Check`.
      path: Where the PNG goes.

    Raises:
      MetalrError: The file cannot be written.
    """

    def fill(figure: "Figure") -> None:
        axes = figure.subplots()
        for number, (name, losses) in enumerate(found.losses.items()):
            # A run that diverged is at the upper edge, not out of the picture.
            mean = np.where(np.isfinite(losses), losses, np.inf).mean(0)
            shown = np.minimum(mean, 1.2 * found.initial)
            plot_curve(axes, found.rates, shown, number, name, number)
        axes.axhline(found.initial, color="#999999", linestyle=":", linewidth=0.8)
        axes.annotate(
            "before the first step",
            (found.rates[0], found.initial),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=7,
            color="#666666",
        )
        axes.set_xscale("log")
        axes.set_xlabel("base rate; the tuned one is in the middle")
        axes.set_ylabel("last validation loss")
        sweep = found.sweep
        axes.set_title(f"{sweep.kind}, in no trace: {sweep.horizon} steps of AdamW")
        axes.legend(loc="best")

    save_figure(path, (6.4, 3.6), fill)
