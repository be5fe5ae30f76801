"""The style of every plot that metalr draws, and how a plot becomes a file."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metalr.runtime.files import replace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every kind of colour vision. Black and
# yellow are left out: black is for text, and yellow too pale for a line in print.
PALETTE = (
    "#0072B2",  # blue
    "#D55E00",  # vermillion
    "#009E73",  # green
    "#CC79A7",  # purple
    "#E69F00",  # orange
    "#56B4E9",  # sky
)
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1)), (0, (5, 2, 1, 2)))  # for grey print
GUIDE = {"color": "#999999", "linewidth": 0.8}  # of a line at 0 or 1

# matplotlib settings of every plot.
SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 160,
    "savefig.facecolor": "white",
}

MARKED = 40  # points; a curve with more has no markers, and its loss is smoothed


def save_figure(
    path: Path, size: tuple[float, float], fill: Callable[["Figure"], None]
) -> None:
    """Write the PNG of a figure, and leave matplotlib's own settings as they were.

    Args:
      path: The PNG.
      size: Width and height in inches.
      fill: Called with the figure to draw into.

    Raises:
      MetalrError: The file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        # Not pyplot: nothing global is left, and an open window is not disturbed.
        figure = Figure(figsize=size, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        fill(figure)
        replace(path, lambda draft: canvas.print_figure(draft, format="png"))


def plot_curve(
    ax: "Axes",
    steps: np.ndarray,
    values: np.ndarray,
    colour: int,
    label: str,
    dash: int = 0,
) -> None:
    """Plot a curve in a colour and dash of the tables, with markers if it is short."""
    ax.plot(
        steps,
        values,
        color=PALETTE[colour % len(PALETTE)],
        linestyle=DASHES[dash % len(DASHES)],
        marker="o" if len(steps) <= MARKED else "",
        label=label,
    )


def label_powers(ax: "Axes") -> None:
    """Give the y axis of multipliers a scale by powers of two, in plain numbers."""
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")
