"""The figures of a comparison."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metalr.compare import aggregates, criteria
from metalr.compare.comparison import Comparison
from metalr.compare.criteria import Reference, Run, Workload
from metalr.compare.paired import score_difference
from metalr.report.style import DASHES, GUIDE, PALETTE, label_powers, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#BBBBBB"
FAMILIAR = ("static 2e-5", "linear 2e-5")  # what most readers use today
MOST_STYLES = 6  # methods in colour; a reader cannot follow more, the rest are grey


class LineStyles:
    """Which methods are drawn in colour, and how: the same in all plots of a report."""

    def __init__(self, comparison: Comparison):
        mean = {
            name: np.mean(comparison.values(method.runs, "share of the best"))
            for name, method in comparison.averaged.items()
        }
        by_score = sorted(mean, key=lambda name: -mean[name])
        familiar = [name for name in FAMILIAR if name in mean]
        order = [comparison.subject, comparison.baseline, *familiar, *by_score]
        self.names = [*dict.fromkeys(order)][:MOST_STYLES]

    def style(self, name: str) -> dict:
        """Return matplotlib's keywords for the line of a method."""
        if name not in self.names:
            return {"color": GREY, "linewidth": 0.8, "zorder": 1}
        index = self.names.index(name)
        return {
            "color": PALETTE[index % len(PALETTE)],
            "linestyle": DASHES[index % len(DASHES)],
            "linewidth": 2.2 if index == 0 else 1.5,
            "label": name,
            "zorder": 4 if index == 0 else 3,
        }


def band(runs: Sequence[Run], name: str) -> tuple[np.ndarray, ...]:
    """Return steps with the lowest, median and highest value of a column over runs.

    Runs are interpolated to the steps of any of them. A run that ended earlier counts
    up to its end; a value that is not finite is left out.
    """
    curves = []
    for run in runs:
        rows = [row for row in run["history"] if row.get(name) is not None]
        if rows:
            curves.append(np.array([(row["step"], float(row[name])) for row in rows]).T)
    if not curves:
        return (np.array([]),) * 4
    steps = np.unique(np.concatenate([curve[0] for curve in curves]))
    values = np.array(
        [np.interp(steps, *curve, left=math.nan, right=math.nan) for curve in curves]
    )
    known = np.isfinite(values).any(axis=0)
    steps, values = steps[known], values[:, known]
    statistics = (np.nanmin, np.nanmedian, np.nanmax)
    return (steps, *(statistic(values, axis=0) for statistic in statistics))


def draw_workload(
    comparison: Comparison, styles: LineStyles, workload: Workload, path: Path
) -> None:
    """Draw score, rate and multiplier over steps, and the score over the base rate.

    Lines are medians over seeds and bands their whole range.
    """
    runs = [run for run in comparison.runs if criteria.workload(run) == workload]
    metric = runs[0]["metric"]
    multiplied = any("lr_multiplier" in row for r in runs for row in r["history"])

    def fill(figure: "Figure") -> None:
        ((score, rates), (rate, multiplier)) = figure.subplots(
            2, 2, width_ratios=(3, 2), height_ratios=(3, 2)
        )
        _plot_bands(score, comparison, styles, workload, metric)
        _plot_bands(rate, comparison, styles, workload, "learning_rate")
        if any(np.isfinite(line.get_ydata()).any() for line in rate.lines):
            rate.set_yscale("log")
        _plot_score_over_rate(rates, comparison, styles, workload)
        if multiplied:
            _plot_bands(multiplier, comparison, styles, workload, "lr_multiplier")
            multiplier.axhline(1.0, **GUIDE)
            label_powers(multiplier)
        else:
            multiplier.set_axis_off()
        _plot_targets(score, comparison.references[workload])
        score.set(ylabel=metric)
        rate.set(ylabel="learning rate", xlabel="step")
        multiplier.set(ylabel="multiplier", xlabel="step")
        rates.set(ylabel=f"final {metric}", xlabel="base rate")
        _legend(figure, score, styles)

    save_figure(path, (9.0, 5.6), fill)


def _legend(figure: "Figure", ax: "Axes", styles: LineStyles) -> None:
    handles = _handles(ax, styles)
    figure.legend(loc="outside upper left", ncols=6, handles=handles)


def _handles(ax: "Axes", styles: LineStyles) -> list:
    """Return the legend's handles of the methods in colour, the subject first."""
    handles, labels = ax.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    return [found[name] for name in styles.names if name in found]


def _plot_bands(
    ax: "Axes",
    comparison: Comparison,
    styles: LineStyles,
    workload: Workload,
    column: str,
) -> None:
    for name in comparison.methods:
        steps, *values = band(comparison.runs_of(name, workload), column)
        if column == "learning_rate":  # it may end at 0, which a log axis cannot show
            values = [np.where(x > 0, x, math.nan) for x in values]
        low, middle, high = values
        if not np.isfinite(middle).any():
            continue
        style = styles.style(name)
        ax.plot(steps, middle, **style)
        if name in styles.names:
            shade = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
            ax.fill_between(steps, low, high, **shade)
    ax.margins(x=0.01)


def _plot_targets(ax: "Axes", reference: Reference) -> None:
    for share, side in ((0.95, "top"), (0.99, "bottom")):
        height = reference.target(share)
        if math.isfinite(height):
            ax.axhline(height, color="#777777", linewidth=0.8, linestyle=":")
            style = {"fontsize": 7, "color": "#555555", "va": side}
            across = ax.get_yaxis_transform()  # x in axes widths, y in scores
            ax.text(
                0.01, height, f"{share:.0%} of the target", transform=across, **style
            )


def _plot_score_over_rate(
    ax: "Axes", comparison: Comparison, styles: LineStyles, workload: Workload
) -> None:
    """Plot the final score of each scheduler over the base rates that it ran at.

    A scheduler with one rate outside of the range that others were tuned over (1 for
    Prodigy) is drawn as a horizontal line.
    """
    own = [run for run in comparison.runs if criteria.workload(run) == workload]
    scores = aggregates.final_scores_by_rate(own)
    tuned = [
        rate for by_rate in scores.values() if len(by_rate) > 1 for rate in by_rate
    ]
    for scheduler, by_rate in scores.items():
        names = [n for n, m in comparison.methods.items() if m.scheduler == scheduler]
        coloured = [name for name in styles.names if name in names]
        style = styles.style(coloured[0] if coloured else names[0])
        rates = [*by_rate]
        middle = np.array([np.median(values) for values in by_rate.values()])
        if tuned and len(rates) == 1 and not min(tuned) <= rates[0] <= max(tuned):
            ax.axhline(middle[0], **style)
            continue
        low = middle - [values.min() for values in by_rate.values()]
        high = [values.max() for values in by_rate.values()] - middle
        marks = {"marker": "o", "capsize": 2, "elinewidth": 0.8}
        ax.errorbar(rates, middle, yerr=[low, high], **style, **marks)
    if any(rate > 0 for by_rate in scores.values() for rate in by_rate):
        ax.set_xscale("log")


def draw_sensitivity(comparison: Comparison, styles: LineStyles, path: Path) -> None:
    """Draw the final score over the base rate: a panel for each task and model."""
    workloads = list(comparison.references)
    columns = min(3, len(workloads))
    lines = -(-len(workloads) // columns)

    def fill(figure: "Figure") -> None:
        from matplotlib.lines import Line2D

        axes = figure.subplots(lines, columns, squeeze=False)
        for ax, workload in zip(axes.flat, workloads, strict=False):
            _plot_score_over_rate(ax, comparison, styles, workload)
            (metric,) = {
                run["metric"]
                for run in comparison.runs
                if criteria.workload(run) == workload
            }
            title = ", ".join(workload)
            ax.set(title=title, xlabel="base rate", ylabel=f"final {metric}")
        for ax in axes.flat[len(workloads) :]:
            ax.set_axis_off()
        drawn = {n for ax in axes.flat for n in ax.get_legend_handles_labels()[1]}
        names = [name for name in styles.names if name in drawn]
        handles = [Line2D([], [], **styles.style(name)) for name in names]
        figure.legend(loc="outside upper left", ncols=6, handles=handles)

    save_figure(path, (9.0, 0.5 + 2.3 * lines), fill)


def draw_profiles(comparison: Comparison, styles: LineStyles, path: Path) -> None:
    """Draw the share of workloads within a factor of the fastest, for 95 and 99 %."""

    def fill(figure: "Figure") -> None:
        axes = figure.subplots(1, 2, sharey=True)
        for ax, share in zip(axes, (0.95, 0.99), strict=True):
            _plot_profile(ax, comparison, styles, share)
        axes[0].set_ylabel("share of tasks and models")
        _legend(figure, axes[0], styles)

    save_figure(path, (9.0, 3.4), fill)


def _plot_profile(
    ax: "Axes", comparison: Comparison, styles: LineStyles, share: float
) -> None:
    taus = np.linspace(1, aggregates.MAX_FACTOR, 301)
    found = aggregates.slowdowns(comparison.averaged, share, comparison.learned)
    for name, slowdowns in found.items():
        shares = aggregates.profile(slowdowns, taus)
        ax.plot(taus, shares, drawstyle="steps-post", **styles.style(name))
    ax.set(xlabel=f"steps to {share:.0%}, as a factor of the fastest", ylim=(0, 1.03))
    ax.margins(x=0.01)


def draw_summary(comparison: Comparison, styles: LineStyles, path: Path) -> None:
    """Draw all methods by final score with intervals, and the profile for 95 %."""

    def fill(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        shares = {
            name: [
                comparison.values(
                    comparison.runs_of(name, workload), "share of the best"
                )
                for workload in comparison.learned
            ]
            for name in comparison.averaged
        }
        intervals = {
            name: aggregates.hierarchical_bootstrap(groups)
            for name, groups in shares.items()
        }
        names = sorted(intervals, key=lambda name: intervals[name].estimate)
        intervals = {name: intervals[name] for name in names}
        colours = {name: styles.style(name)["color"] for name in names}
        _plot_intervals(left, intervals, colours)
        left.set_xlabel("final score above chance, share of the best")
        _plot_profile(right, comparison, styles, 0.95)
        right.set_ylabel("share of tasks and models")
        right.legend(loc="best", handles=_handles(right, styles), frameon=True)

    save_figure(path, (9.0, max(3.4, 1.0 + 0.22 * len(comparison.methods))), fill)


def _plot_intervals(
    ax: "Axes", intervals: dict[str, aggregates.Interval], colours: dict[str, str]
) -> None:
    """Plot one interval a line, from the bottom up, with its name at the axis."""
    for height, (name, of) in enumerate(intervals.items()):
        ends = [[of.estimate - of.low], [of.high - of.estimate]]
        ax.errorbar(of.estimate, height, xerr=ends, fmt="o", color=colours[name])
    ax.set_yticks(range(len(intervals)), [*intervals])
    ax.grid(axis="y", visible=False)


def draw_differences(comparison: Comparison, path: Path) -> None:
    """Draw each method's paired difference to the baseline with its interval."""

    def fill(figure: "Figure") -> None:
        ax = figure.subplots()
        names = comparison.averaged
        gaps = {name: score_difference(comparison, name) for name in names}
        names = [n for n, gap in gaps.items() if gap.pairs and n != comparison.baseline]
        names.sort(key=lambda name: gaps[name].estimate)
        colours = dict.fromkeys(names, "#555555") | {comparison.subject: PALETTE[0]}
        _plot_intervals(ax, {name: gaps[name] for name in names}, colours)
        ax.axvline(0, **GUIDE)
        ax.set_xlabel(f"share of the best, difference to {comparison.baseline}")

    save_figure(path, (9.0, 1.0 + 0.24 * len(comparison.methods)), fill)
