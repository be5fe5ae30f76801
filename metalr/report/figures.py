"""Plots of a comparison, in the style of every plot that metalr draws."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metalr.compare import measures, statistics
from metalr.compare.comparison import Comparison, difference
from metalr.compare.measures import Problem, Run
from metalr.report.curves import DASHES, PALETTE, STYLE
from metalr.runtime.files import replace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#BBBBBB"
ASKED_FOR = ("static 2e-5", "linear 2e-5")  # what most readers do today
SHOWN = 6  # rows told apart by colour and dash; more than the eye follows are grey


class Look:
    """Which rows are drawn strong, and how: the same in all plots of a report."""

    def __init__(self, found: Comparison):
        mean = {
            name: np.mean(found.values(row.runs, "share of the best"))
            for name, row in found.rows.items()
        }
        by_score = sorted(found.rows, key=lambda name: -mean[name])
        asked = [name for name in ASKED_FOR if name in found.rows]
        order = dict.fromkeys([found.subject, found.baseline, *asked, *by_score])
        self.names = [*order][:SHOWN]

    def style(self, name: str) -> dict:
        """Returns the keywords of a row's line."""
        if name not in self.names:
            return {"color": GREY, "linewidth": 0.8, "zorder": 1}
        index = self.names.index(name)
        width = 2.2 if index == 0 else 1.5
        dash = DASHES[index % len(DASHES)]
        return {
            "color": PALETTE[index % len(PALETTE)],
            "linestyle": dash,
            "linewidth": width,
            "label": name,
            "zorder": 4 if index == 0 else 3,
        }


def draw(
    path: Path, size: tuple[float, float], fill: Callable[["Figure"], None]
) -> None:
    """Writes the PNG of a figure that `fill` draws into, leaving matplotlib as it was.

    Raises:
      MetalrError: The file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        fill(figure)
        replace(path, lambda draft: canvas.print_figure(draft, format="png"))


def band(runs: Sequence[Run], name: str) -> tuple[np.ndarray, ...]:
    """Returns steps with the lowest, middle and highest value of a column over runs.

    Seeds are joined at the steps of any of them; one that ended earlier counts up to
    its end, and a value that was not finite leaves its seed out there.
    """
    courses = []
    for run in runs:
        rows = [row for row in run["history"] if row.get(name) is not None]
        if rows:
            courses.append(
                np.array([(row["step"], float(row[name])) for row in rows]).T
            )
    if not courses:
        return (np.array([]),) * 4
    steps = np.unique(np.concatenate([course[0] for course in courses]))
    values = np.array(
        [np.interp(steps, *course, left=math.nan, right=math.nan) for course in courses]
    )
    known = np.isfinite(values).any(axis=0)
    steps, values = steps[known], values[:, known]
    stack = (np.nanmin, np.nanmedian, np.nanmax)
    return (steps, *(statistic(values, axis=0) for statistic in stack))


def problem(found: Comparison, look: Look, place: Problem, path: Path) -> None:
    """Draws a task and model: score, rate, multiplier over steps; score over rate.

    Lines are medians over seeds and bands their whole range. Grey lines are the other
    rows.
    """
    every = [run for run in found.runs if measures.problem(run) == place]
    metric = every[0]["metric"]
    multiplied = any("lr_multiplier" in row for r in every for row in r["history"])

    def fill(figure: "Figure") -> None:
        ((score, rates), (rate, multiplier)) = figure.subplots(
            2, 2, width_ratios=(3, 2), height_ratios=(3, 2)
        )
        _courses(score, found, look, place, metric)
        _courses(rate, found, look, place, "learning_rate")
        _log_rate(rate)
        _score_over_rate(rates, found, look, place)
        if multiplied:
            _courses(multiplier, found, look, place, "lr_multiplier")
            multiplier.axhline(1.0, color="#999999", linewidth=0.8)
            multiplier.set_yscale("log", base=2)
            multiplier.yaxis.set_major_formatter("{x:g}")
        else:
            multiplier.set_axis_off()
        _targets(score, found.bars[place])
        score.set(ylabel=metric)
        rate.set(ylabel="learning rate", xlabel="step")
        multiplier.set(ylabel="multiplier", xlabel="step")
        rates.set(ylabel=f"final {metric}", xlabel="base rate")
        figure.legend(loc="outside upper left", ncols=6, handles=_handles(score, look))

    draw(path, (9.0, 5.6), fill)


def _handles(ax: "Axes", look: Look) -> list:
    """Returns the handles of the rows that are drawn strong, the subject first."""
    handles, labels = ax.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    return [found[name] for name in look.names if name in found]


def _courses(
    ax: "Axes", found: Comparison, look: Look, place: Problem, column: str
) -> None:
    for name in found.rows:
        steps, low, middle, high = band(found.of(name, place), column)
        if column == "learning_rate":  # a schedule may end at 0: no place on a log axis
            low, middle, high = (
                np.where(x > 0, x, math.nan) for x in (low, middle, high)
            )
        if not np.isfinite(middle).any():
            continue
        style = look.style(name)
        ax.plot(steps, middle, **style)
        if name in look.names:
            ax.fill_between(
                steps, low, high, color=style["color"], alpha=0.15, linewidth=0
            )
    ax.margins(x=0.01)


def _log_rate(ax: "Axes") -> None:
    if any(np.isfinite(line.get_ydata()).any() for line in ax.lines):
        ax.set_yscale("log")


def _targets(ax: "Axes", bar: measures.Bar) -> None:
    for share, side in ((0.95, "top"), (0.99, "bottom")):
        height = bar.target(share)
        if math.isfinite(height):
            ax.axhline(height, color="#777777", linewidth=0.8, linestyle=":")
            style = {"fontsize": 7, "color": "#555555", "va": side}
            across = ax.get_yaxis_transform()  # x in axes widths, y in scores
            ax.text(0.01, height, f"{share:.0%} of the best", transform=across, **style)


def _score_over_rate(ax: "Axes", found: Comparison, look: Look, place: Problem) -> None:
    """Draws the final score of each scheduler over the base rates that it ran at.

    One whose single rate lies outside of those that others were tuned over (1 for
    Prodigy) has no place on that axis and is a level line.
    """
    own = [run for run in found.runs if measures.problem(run) == place]
    scores = statistics.sensitivity(own)
    tuned = [value for at in scores.values() if len(at) > 1 for value in at]
    for scheduler, at in scores.items():
        names = [name for name, row in found.rows.items() if row.scheduler == scheduler]
        strong = [name for name in look.names if name in names]
        style = look.style(strong[0] if strong else names[0])
        middle = np.array([np.median(values) for values in at.values()])
        if tuned and len(at) == 1 and not min(tuned) <= [*at][0] <= max(tuned):
            ax.axhline(middle[0], **style)
            continue
        low = middle - [values.min() for values in at.values()]
        high = [values.max() for values in at.values()] - middle
        mark = {"marker": "o", "capsize": 2, "elinewidth": 0.8}
        ax.errorbar([*at], middle, yerr=[low, high], **style, **mark)
    if any(value > 0 for at in scores.values() for value in at):
        ax.set_xscale("log")


def sensitivity(found: Comparison, look: Look, path: Path) -> None:
    """Draws the final score over the base rate: a panel for each task and model."""
    places = list(found.bars)
    columns = min(3, len(places))
    lines = -(-len(places) // columns)

    def fill(figure: "Figure") -> None:
        from matplotlib.lines import Line2D

        axes = figure.subplots(lines, columns, squeeze=False)
        for ax, place in zip(axes.flat, places, strict=False):
            _score_over_rate(ax, found, look, place)
            (metric,) = {
                r["metric"] for r in found.runs if measures.problem(r) == place
            }
            ax.set(title=", ".join(place), xlabel="base rate", ylabel=f"final {metric}")
        for ax in axes.flat[len(places) :]:
            ax.set_axis_off()
        drawn = {n for ax in axes.flat for n in ax.get_legend_handles_labels()[1]}
        names = [name for name in look.names if name in drawn]
        handles = [Line2D([], [], **look.style(name)) for name in names]
        figure.legend(loc="outside upper left", ncols=6, handles=handles)

    draw(path, (9.0, 0.5 + 2.3 * lines), fill)


def profiles(found: Comparison, look: Look, path: Path) -> None:
    """Draws the share of problems within a factor of the fastest, for 95 and 99 %."""

    def fill(figure: "Figure") -> None:
        axes = figure.subplots(1, 2, sharey=True)
        for ax, share in zip(axes, (0.95, 0.99), strict=True):
            _profile(ax, found, look, share)
        axes[0].set_ylabel("share of tasks and models")
        figure.legend(
            loc="outside upper left", ncols=6, handles=_handles(axes[0], look)
        )

    draw(path, (9.0, 3.4), fill)


def _profile(ax: "Axes", found: Comparison, look: Look, share: float) -> None:
    taus = np.linspace(1, statistics.MAX_FACTOR, 301)
    for name, factors in statistics.factors(found.rows, share, found.bars).items():
        shares = statistics.profile(factors, taus)
        ax.plot(taus, shares, drawstyle="steps-post", **look.style(name))
    ax.set(xlabel=f"steps to {share:.0%}, as a factor of the fastest", ylim=(0, 1.03))
    ax.margins(x=0.01)


def summary(found: Comparison, look: Look, path: Path) -> None:
    """Draws all rows by final score with intervals, and the profile of the shown."""

    def fill(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        score = {}
        for name, row in found.rows.items():
            score[name] = np.array(found.values(row.runs, "share of the best"))
        names = sorted(score, key=lambda name: score[name].mean())
        for height, name in enumerate(names):
            interval = statistics.bootstrap(score[name])
            colour = look.style(name)["color"]
            ends = [[interval.middle - interval.low], [interval.high - interval.middle]]
            left.errorbar(interval.middle, height, xerr=ends, fmt="o", color=colour)
        left.set_yticks(range(len(names)), names)
        left.set_xlabel("final score above chance, share of the best")
        left.grid(axis="y", visible=False)
        _profile(right, found, look, 0.95)
        right.set_ylabel("share of tasks and models")
        right.legend(loc="best", handles=_handles(right, look), frameon=True)

    draw(path, (9.0, max(3.4, 1.0 + 0.22 * len(found.rows))), fill)


def differences(found: Comparison, path: Path) -> None:
    """Draws each row's paired difference to the baseline with its interval."""

    def fill(figure: "Figure") -> None:
        ax = figure.subplots()
        gaps = {name: difference(found, name) for name in found.rows}
        names = [n for n, gap in gaps.items() if gap.pairs and n != found.baseline]
        names.sort(key=lambda name: gaps[name].middle)
        for height, name in enumerate(names):
            gap = gaps[name]
            ends = [[gap.middle - gap.low], [gap.high - gap.middle]]
            colour = PALETTE[0] if name == found.subject else "#555555"
            ax.errorbar(gap.middle, height, xerr=ends, fmt="o", color=colour)
        ax.axvline(0, color="#999999", linewidth=0.8)
        ax.set_yticks(range(len(names)), names)
        ax.set_xlabel(f"share of the best, difference to {found.baseline}")
        ax.grid(axis="y", visible=False)

    draw(path, (9.0, 1.0 + 0.24 * len(found.rows)), fill)
