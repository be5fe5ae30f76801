"""The report of a comparison: `report.html`, `report.md`, and the table of the docs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalr.compare import comparison as comparisons
from metalr.compare.comparison import Comparison
from metalr.compare.criteria import Workload
from metalr.errors import MetalrError
from metalr.report import comparison_figures, conclusions, document, tables
from metalr.report.comparison_figures import LineStyles
from metalr.report.document import Block, Heading, Picture, Points, Table, Text
from metalr.runtime.files import replace

# Columns of the summary that fit the width of a page.
COMPACT_COLUMNS = (0, 1, 3, 4, 6, 10, 11, 12, 13, 14)


def write_report(
    lines: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    baseline: str | None = None,
    mix_devices: bool = False,
) -> Path:
    """Write the report of a comparison.

    The folder gets `report.html` (one file, pictures included), `report.md` with
    `figures/`, `summary.png`, `sensitivity.png`, and `table.md`, the table of the docs.

    Args:
      lines: The lines of a store.
      folder: Where the files go; created if it is missing.
      baseline: The method that differences are taken to, such as "linear 2e-5"; None:
        as `methods.choose_baseline`.
      mix_devices: Pair runs of two kinds of device too.

    Returns:
      The path of `report.html`.

    Raises:
      MetalrError: The store is empty, its runs cannot be compared, there is no such
        baseline, or the folder cannot be written to.
    """
    comparison = comparisons.from_lines(lines, baseline, mix_devices=mix_devices)
    folder = Path(folder)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MetalrError(f"cannot write {folder}: {error.strerror}") from error
    blocks = page(comparison, folder)
    table = document.to_markdown([compact_table(comparison)], folder)
    _write(folder / "table.md", table)
    _write(folder / "report.md", document.to_markdown(blocks, folder))
    _write(folder / "report.html", document.to_html(blocks))
    return folder / "report.html"


def page(comparison: Comparison, folder: Path) -> list[Block]:
    """Draw the pictures into a folder and return the blocks of the report."""
    styles = LineStyles(comparison)
    blocks: list[Block] = [Heading(1, _title(comparison))]
    blocks += map(Text, conclusions.sentences(comparison))
    blocks += _all_tasks(comparison, styles, folder)
    for index, workload in enumerate(comparison.references):
        picture = folder / "figures" / f"{index:02}.png"
        blocks += _one_workload(comparison, styles, workload, picture)
    blocks += _overhead(comparison)
    blocks += _origins(comparison)
    return blocks


def _title(comparison: Comparison) -> str:
    toys = [comparison.is_toy(workload) for workload in comparison.references]
    mark = " (toy data)" if all(toys) else " (partly toy data)" if any(toys) else ""
    return f"Learning rates compared{mark}"


def _all_tasks(comparison: Comparison, styles: LineStyles, folder: Path) -> list[Block]:
    bars, rates, profiles, gaps = (
        folder / "summary.png",
        folder / "sensitivity.png",
        folder / "figures" / "profiles.png",
        folder / "figures" / "differences.png",
    )
    comparison_figures.draw_summary(comparison, styles, bars)
    comparison_figures.draw_sensitivity(comparison, styles, rates)
    comparison_figures.draw_profiles(comparison, styles, profiles)
    comparison_figures.draw_differences(comparison, gaps)
    cells = tables.summary_table(comparison)
    return [
        Heading(2, "All tasks"),
        Table(tables.SUMMARY_HEAD, cells, (comparison.subject,)),
        *_left_out(comparison),
        Points(tables.LEGEND),
        Picture(
            bars,
            "Left: final score above chance as a share of the best of its task and "
            "model, mean and 95 % bootstrap interval. Right: share of tasks and models "
            "whose steps to 95 % lie within a factor of the fastest; the rates that a "
            "tuned method tried are not counted.",
        ),
        Picture(
            rates,
            "Final score over the base rate: median and range over seeds. A horizontal "
            "line: a rate on another scale. Grey: the other methods.",
        ),
        Picture(
            gaps,
            f"Differences to {comparison.baseline} in the share of the best, paired by "
            "task, model and seed: mean and 95 % bootstrap interval.",
        ),
        Picture(
            profiles,
            "Performance profiles for 95 % and 99 % of the target. "
            "Grey: the other methods.",
        ),
    ]


def _left_out(comparison: Comparison) -> list[Block]:
    """Return a paragraph on the workloads that nobody learns, if there are any."""
    names = ", ".join(" with ".join(workload) for workload in comparison.unlearned)
    if not names:
        return []
    said = "are shown below and left out of all means"
    if len(comparison.unlearned) == len(comparison.references):
        said = "are all there is, so that no mean here says anything"
    return [
        Text(
            f"Nobody learns {names}: no median final score is a tenth of the way from "
            f"chance to 1 (two tenths where the answers are spans). They {said}."
        )
    ]


def _one_workload(
    comparison: Comparison, styles: LineStyles, workload: Workload, path: Path
) -> list[Block]:
    comparison_figures.draw_workload(comparison, styles, workload, path)
    toy = " (toy data)" if comparison.is_toy(workload) else ""
    name = f"{workload.task}{toy}"
    reference = comparison.references[workload]
    run = next(r for r in comparison.runs if (r["task"], r["model"]) == workload)
    settings = run["settings"]
    read = run.get("reading") or {}  # lines of old runs have none
    length = read.get("max_length") or settings.get("max_length")
    length = length or "the task's default number of"
    cells = tables.workload_table(comparison, workload)
    return [
        Heading(2, f"{name}, {workload.model}"),
        Text(
            f"Metric {run['metric']}, chance {reference.chance:.3f}, best final score "
            f"{reference.best:.3f}; up to {reference.horizon} steps of "
            f"{settings.get('batch_size')} rows, "
            f"at most {length} tokens."
        ),
        Table(tables.WORKLOAD_HEAD, cells, (comparison.subject,)),
        Picture(
            path,
            f"{name} with {workload.model}. Lines: median over seeds, bands: lowest to "
            "highest. Top right: final score over the base rate. Grey: the other "
            "methods.",
        ),
    ]


def _overhead(comparison: Comparison) -> list[Block]:
    heading = Heading(2, "Cost of a step")
    if not comparison.overheads:
        return [heading, Text("Not measured in this store.")]
    return [
        heading,
        Text(
            "Factors to plain AdamW: the median of paired steps, and the middle half "
            "over repetitions."
        ),
        Table(tables.OVERHEAD_HEAD, tables.overhead_table(comparison)),
    ]


def _origins(comparison: Comparison) -> list[Block]:
    return [
        Heading(2, "Where the numbers come from"),
        Table(tables.ORIGIN_HEAD, tables.origin_table(comparison), left=True),
        Heading(3, "Settings"),
        Table(("setting", "values"), tables.settings_table(comparison), left=True),
        Heading(3, "Devices"),
        Table(
            ("kind", "processor", "threads", "runs"),
            tables.device_table(comparison),
            left=True,
        ),
        Heading(3, "Versions"),
        Table(("library", "version"), tables.versions_table(comparison), left=True),
    ]


def compact_table(comparison: Comparison) -> Table:
    """Return the summary with the columns that fit the width of a page."""
    pick = lambda line: [line[i] for i in COMPACT_COLUMNS]  # noqa: E731
    cells = [pick(line) for line in tables.summary_table(comparison)]
    return Table(pick(tables.SUMMARY_HEAD), cells, (comparison.subject,))


def _write(path: Path, text: str) -> None:
    replace(path, lambda draft: draft.write_text(text, encoding="utf-8"))
