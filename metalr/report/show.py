"""Runs side by side: in the terminal as small curves and a table, or as a PNG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metalr.compare import criteria
from metalr.errors import MetalrError, printable
from metalr.finetune.result import read_result
from metalr.report.curves import series, smooth
from metalr.report.style import label_powers, plot_curve, save_figure
from metalr.runtime.files import is_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

Result = Mapping[str, Any]

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*#@"  # the same eight heights where the terminal has no blocks
CELLS = 48  # characters of a curve; with a name it fits 80 columns


def read_runs(paths: Sequence[Path]) -> dict[str, Result]:
    """Read finished runs, and give them short names that differ.

    Args:
      paths: Folders of runs, or their result.json.

    Raises:
      MetalrError: One of them is not a finished run.
    """
    found: dict[str, Result] = {}
    for path in map(Path, paths):
        file = path / "result.json" if path.is_dir() else path
        if path.is_dir() and not file.is_file():
            raise MetalrError(
                f"{path} holds no finished run: {file} is missing; finish it with "
                "finetune.py --resume"
            )
        folder = file.parent if file.name == "result.json" else file
        names = (folder.name, str(folder), str(folder.absolute()))
        name = next((n for n in names if n and n not in found), names[-1])
        found[printable(name)] = read_result(file)
    return found


def spark(
    steps: np.ndarray,
    values: np.ndarray,
    last_step: float,
    low: float,
    high: float,
    levels: str = BLOCKS,
) -> str:
    """Return a curve as one line of `CELLS` characters.

    A cell shows the value at its middle step, interpolated between the finite values;
    cells before the first and after the last of them are blank.

    Args:
      steps: Steps of the values, ascending.
      values: The curve; values that are not finite are left out.
      last_step: The step at the right end.
      low: Value of the lowest level.
      high: Value of the highest level.
      levels: Characters from low to high.

    >>> spark(np.array([0, 240.0]), np.array([0.0, 1.0]), 240, 0, 1)
    '▁▁▁▁▁▁▂▂▂▂▂▂▃▃▃▃▃▃▄▄▄▄▄▄▅▅▅▅▅▅▆▆▆▆▆▆▇▇▇▇▇▇██████'
    """
    known = np.isfinite(values)
    if not known.any():
        return " " * CELLS
    steps, values = steps[known], values[known]
    width = last_step / CELLS
    middles = (np.arange(CELLS) + 0.5) * width
    heights = np.interp(middles, steps, values)
    share = (heights - low) / (high - low) if high > low else np.zeros(CELLS)
    index = np.clip((share * len(levels)).astype(int), 0, len(levels) - 1)
    half = width / 2
    seen = (middles >= steps[0] - half) & (middles <= steps[-1] + half)
    return "".join(levels[i] if s else " " for i, s in zip(index, seen, strict=True))


def print_runs(runs: Mapping[str, Result], console: "Console | None" = None) -> None:
    """Print a table of the runs, and their curves on shared scales.

    Args:
      runs: Results by name.
      console: Where to print; stdout if it is None.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)  # a file has none
    facts = Table("run", "task", "model", "scheduler", "rate", box=box.SIMPLE_HEAD)
    for title in ("seed", "steps", "metric", "last", "best", "at step"):
        facts.add_column(title, justify="right")
    for name, result in runs.items():
        facts.add_row(*map(Text, (name, *_facts(result))))
    console.print(facts)

    levels = BLOCKS if console.encoding.lower().startswith("utf") else ASCII
    # Below each other: four curves side by side do not fit a usual terminal.
    for title, lines in _sparks(runs, levels).items():
        table = Table("run", box=box.SIMPLE_HEAD)
        table.add_column(Text(title), no_wrap=True, min_width=CELLS)
        for name, line in lines.items():
            table.add_row(Text(name), line)
        console.print(table)


def _panels(runs: Mapping[str, Result]) -> dict[str, str]:
    """Return the columns that the histories have, by title: one a panel."""
    rows = [row for result in runs.values() for row in result["history"]]
    metrics = dict.fromkeys(result["metric"] for result in runs.values())
    wanted = {"loss": "loss", **{metric: metric for metric in metrics}}
    wanted |= {"learning rate": "learning_rate", "multiplier": "lr_multiplier"}
    return {
        title: name for title, name in wanted.items() if any(name in r for r in rows)
    }


def _facts(result: Result) -> list[str]:
    metric = result["metric"]
    number = lambda value: "-" if value is None else f"{value:.4f}"  # noqa: E731
    rate = result["settings"].get("learning_rate")
    return [
        result["task"] + (" (toy)" if result["data"].get("kind") == "toy" else ""),
        result["model"],
        result["scheduler"],
        criteria.format_rate(rate) if is_number(rate) and rate > 0 else "-",
        str(result["seed"]),
        str(result["steps"]),
        metric,
        number(result["last_metrics"].get(metric)),
        number(result["metrics"].get(metric)),
        "-" if result["best_step"] is None else str(result["best_step"]),
    ]


def _sparks(runs: Mapping[str, Result], levels: str) -> dict[str, dict[str, str]]:
    """Return each quantity's curves by name of the run, under a title with its scale.

    Rate and multiplier are drawn by their logarithm.
    """
    last = max((row["step"] for r in runs.values() for row in r["history"]), default=1)
    found = {}
    for title, column in _panels(runs).items():
        drawn = {
            name: series(result["history"], column) for name, result in runs.items()
        }
        log = title in ("learning rate", "multiplier")
        if log:
            drawn = {
                name: (x, np.log2(y, out=np.full_like(y, math.nan), where=y > 0))
                for name, (x, y) in drawn.items()
            }
        every = np.concatenate([y[np.isfinite(y)] for _, y in drawn.values()])
        if not len(every):
            continue
        low, high = float(every.min()), float(every.max())
        ends = [2.0**end if log else end for end in (low, high)]
        found[f"{title}, {ends[0]:.3g} to {ends[1]:.3g}"] = {
            name: spark(x, y, last, low, high, levels)
            for name, (x, y) in drawn.items()
            if np.isfinite(y).any()
        }
    return found


def draw_runs(runs: Mapping[str, Result], path: Path) -> None:
    """Draw the curves of the runs over each other, a panel for each quantity.

    Raises:
      MetalrError: The file cannot be written.
    """
    panels = _panels(runs) or {"loss": "loss"}

    def fill(figure: "Figure") -> None:
        axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for ax, (title, name) in zip(axes, panels.items(), strict=True):
            for index, (label, result) in enumerate(runs.items()):
                steps, values = series(result["history"], name)
                if name == "loss" and len(steps):
                    values = smooth(values)
                plot_curve(ax, steps, values, index, label, dash=index)
            drawn = [np.asarray(line.get_ydata()) for line in ax.lines]
            if any((values > 0).any() for values in drawn):
                if name == "learning_rate":
                    ax.set_yscale("log")
                elif name == "lr_multiplier":
                    label_powers(ax)
            ax.set_ylabel(f"{title}, smoothed" if name == "loss" else title)
            ax.margins(x=0.01)
        axes[-1].set_xlabel("step")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3)
        figure.align_ylabels()

    rows = -(-len(runs) // 3)
    save_figure(path, (8.0, 0.6 + 0.2 * rows + 1.9 * len(panels)), fill)
