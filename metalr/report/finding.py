"""The picture of a probe: what it took for the best rate, and how its loss fell."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metalr.report.style import PALETTE, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_finding(found: Any, path: Path) -> None:
    """Draw a finding: estimate and loss by step, or a range test's loss by rate.

    Args:
      found: A `metalr.finding.findings.Finding`.
      path: Where the PNG goes.

    Raises:
      MetalrError: The file cannot be written.
    """
    known = found.known or not found.curve
    save_figure(path, (6.4, 4.8), _probe(found) if known else _range_test(found))


def _probe(found: Any) -> Any:
    def fill(figure: "Figure") -> None:
        rates, losses = figure.subplots(2, sharex=True)
        step = np.arange(1, len(found.means) + 1)
        rates.plot(step, found.means, color=PALETTE[0], label="estimate of the best")
        rates.plot(step, found.rates, color=PALETTE[1], label="rate of the probe")
        if found.low is not None:
            rates.axhspan(found.low, found.high, color=PALETTE[0], alpha=0.15)
        rates.axhline(found.prior, color="#999999", linestyle=":", label="before it")
        rates.set_yscale("log")
        unit = "multiple of the optimizer's rate" if found.relative else "learning rate"
        rates.set_ylabel(unit)
        rates.legend(loc="best")
        losses.plot(step, found.losses, color=PALETTE[2])
        losses.set_ylabel("loss")
        losses.set_xlabel("step of the probe")
        rate = "no rate" if found.rate is None else f"{found.rate:.2g}"
        rates.set_title(f"{rate}, for {found.total_steps} steps")

    return fill


def _range_test(found: Any) -> Any:
    def fill(figure: "Figure") -> None:
        axes = figure.subplots()
        rates, losses = np.array(found.curve).T
        axes.plot(rates, losses, color=PALETTE[0])
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss of the next step")
        axes.set_title("range test: metalr knows no runs of this kind")

    return fill
