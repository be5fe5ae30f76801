"""The report of a comparison: `report.html`, `report.md`, and what the README shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalr.compare import comparison
from metalr.compare.comparison import Comparison
from metalr.errors import MetalrError
from metalr.report import document, figures, summary, tables
from metalr.report.document import Block, Heading, Picture, Points, Table, Text
from metalr.runtime.files import replace

README_COLUMNS = (0, 1, 2, 3, 5, 7, 8, 9, 10)  # of the summary, as wide as a page


def write(
    runs: Sequence[Mapping[str, Any]], folder: Path, *, baseline: str | None = None
) -> Path:
    """Write the report of a comparison.

    The folder gets `report.html` (one file that holds its pictures), `report.md` with
    `figures/`, `summary.png`, `sensitivity.png`, and `table.md`, the README's table.

    Args:
      runs: The lines of a store.
      folder: Where to; made if it is not there.
      baseline: The row that differences are taken to, such as "linear 2e-5"; None: as
        `measures.baseline`.

    Returns:
      The path of `report.html`.

    Raises:
      MetalrError: The store is empty or holds what can't be compared, there is no such
        baseline, or the folder can't be written to.
    """
    found = comparison.gather(runs, baseline)
    folder = Path(folder)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MetalrError(f"cannot write {folder}: {error.strerror}") from error
    blocks = page(found, folder)
    _write(folder / "table.md", document.to_markdown([readme_table(found)], folder))
    _write(folder / "report.md", document.to_markdown(blocks, folder))
    _write(folder / "report.html", document.to_html(blocks))
    return folder / "report.html"


def page(found: Comparison, folder: Path) -> list[Block]:
    """Draws the pictures into `folder` and returns the blocks of the report."""
    look = figures.Look(found)
    blocks: list[Block] = [Heading(1, _title(found))]
    blocks += map(Text, summary.sentences(found))
    blocks += _overall(found, look, folder)
    for index, place in enumerate(found.bars):
        blocks += _problem(found, look, place, folder / "figures" / f"{index:02}.png")
    blocks += _costs(found)
    blocks += _origins(found)
    return blocks


def _title(found: Comparison) -> str:
    toys = [found.toy(place) for place in found.bars]
    said = " (toy data)" if all(toys) else " (partly toy data)" if any(toys) else ""
    return f"Learning rates compared{said}"


def _overall(found: Comparison, look: figures.Look, folder: Path) -> list[Block]:
    bars, rates, profiles, gaps = (
        folder / "summary.png",
        folder / "sensitivity.png",
        folder / "figures" / "profiles.png",
        folder / "figures" / "differences.png",
    )
    figures.summary(found, look, bars)
    figures.sensitivity(found, look, rates)
    figures.profiles(found, look, profiles)
    figures.differences(found, gaps)
    return [
        Heading(2, "All tasks"),
        Table(tables.SUMMARY_HEAD, tables.summary_table(found), (found.subject,)),
        Points(tables.LEGEND),
        Picture(
            bars,
            "Left: final score above chance as a share of the best of its task and "
            "model, mean and 95 % bootstrap interval. Right: share of tasks and models "
            "whose steps to 95 % lie within a factor of the fastest; a tuned row is "
            "not charged for the rates that it tried.",
        ),
        Picture(
            rates,
            "Final score over the base rate: median and range over seeds. A level "
            "line: a rate of another scale. Grey: the other rows.",
        ),
        Picture(
            gaps,
            f"Differences to {found.baseline} in the share of the best, paired by "
            "task, model and seed: mean and 95 % bootstrap interval.",
        ),
        Picture(
            profiles,
            "Performance profiles for 95 % and 99 % of the best score above chance. "
            "Grey: the other rows.",
        ),
    ]


def _problem(
    found: Comparison, look: figures.Look, place: tuple[str, str], path: Path
) -> list[Block]:
    figures.problem(found, look, place, path)
    task, model = place
    toy = " (toy data)" if found.toy(place) else ""
    bar = found.bars[place]
    run = next(r for r in found.runs if (r["task"], r["model"]) == place)
    settings = run["settings"]
    length = settings.get("max_length") or "the task's own number of"
    return [
        Heading(2, f"{task}{toy}, {model}"),
        Text(
            f"Metric {run['metric']}, chance {bar.chance:.3f}, best final score "
            f"{bar.best:.3f}; up to {bar.horizon} steps of "
            f"{settings.get('batch_size')} rows, "
            f"at most {length} tokens."
        ),
        Table(
            tables.PROBLEM_HEAD, tables.problem_table(found, place), (found.subject,)
        ),
        Picture(
            path,
            f"{task}{toy} with {model}. Lines: median over seeds, bands: lowest to "
            "highest. Top right: final score over the base rate. Grey: the other rows.",
        ),
    ]


def _costs(found: Comparison) -> list[Block]:
    blocks: list[Block] = [Heading(2, "Cost of a step")]
    if not found.overheads:
        return [*blocks, Text("Not measured in this store.")]
    return [
        *blocks,
        Text(
            "Factors to plain AdamW, each the median of paired steps; the middle half "
            "is that of the repetitions."
        ),
        Table(tables.OVERHEAD_HEAD, tables.overhead_table(found)),
    ]


def _origins(found: Comparison) -> list[Block]:
    return [
        Heading(2, "Where the numbers come from"),
        Table(tables.ORIGIN_HEAD, tables.origin_table(found), left=True),
        Heading(3, "Settings"),
        Table(("setting", "values"), tables.settings_table(found), left=True),
        Heading(3, "Versions"),
        Table(("library", "version"), tables.versions_table(found), left=True),
    ]


def readme_table(found: Comparison) -> Table:
    """Returns the summary with the columns that a page has room for."""
    pick = lambda line: [line[i] for i in README_COLUMNS]  # noqa: E731
    cells = [pick(line) for line in tables.summary_table(found)]
    return Table(pick(tables.SUMMARY_HEAD), cells, (found.subject,))


def _write(path: Path, text: str) -> None:
    replace(path, lambda draft: draft.write_text(text, encoding="utf-8"))
