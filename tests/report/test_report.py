"""The report holds what its store holds, as text, tables and pictures."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from metalr.compare import comparison, methods
from metalr.errors import MetalrError
from metalr.report import comparison_figures, document, report
from tests.compare.synthetic_store import a_run, pair_of_rows, store
from tests.report.png import size

pytestmark = pytest.mark.fast

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that all tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def undrawn(monkeypatch):
    """Skip drawing, a second a plot, in tests of the text."""
    monkeypatch.setattr(
        comparison_figures, "save_figure", lambda path, *rest: path.write_bytes(b"PNG")
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    lines = store(tasks=("sst2", "cola"), models=("minilm:2",), seeds=2)
    path = report.write_report(lines, folder / "new" / "one", baseline="linear tuned")
    assert path == folder / "new" / "one" / "report.html"
    return path.parent


def test_folder_holds_the_report_in_each_form(written):
    names = {str(p.relative_to(written)) for p in written.rglob("*") if p.is_file()}
    plots = {f"figures/{n}.png" for n in ("00", "01", "profiles", "differences")}
    plots |= {"summary.png", "sensitivity.png"}
    assert names == {"report.html", "report.md", "table.md"} | plots
    for plot in plots:
        assert size(written / plot)[0] > 1000


def test_html_holds_its_pictures_and_fetches_nothing(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_markdown_links_files_that_are_there_and_its_tables_are_even(written):
    text = (written / "report.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert len(links) == 6
    assert all((written / link).is_file() for link in links)
    for block in text.split("\n\n"):
        if block.startswith("|"):
            lines = block.strip().split("\n")
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
            assert len(widths) == 1, block


def test_both_forms_hold_every_row_problem_and_library(written):
    html = Page((written / "report.html").read_text(encoding="utf-8")).text
    markdown = (written / "report.md").read_text(encoding="utf-8").replace("\\", "")
    for name in ("linear 2e-5", "constant tuned", "metalr_fixed", "cola, minilm:2"):
        assert name in html
        assert name in markdown
    assert "0.10.2" in html
    assert "glue" in html
    assert "1.020" in html  # optimizer state of metalr in the table of overheads


def test_the_same_store_gives_the_same_bytes(tmp_path):
    lines = pair_of_rows([0.6, 0.8], [0.6, 0.7], tasks=("sst2",))
    first, second = (
        report.write_report(lines, tmp_path / name, baseline="linear 2e-5").read_bytes()
        for name in ("a", "b")
    )
    assert first == second


@pytest.mark.parametrize("hostile", ['<script>alert("1")</script>', "a|b\n# c", "&lt;"])
def test_words_from_the_data_are_only_words(tmp_path, undrawn, hostile):
    run = a_run(task=hostile, data={"kind": hostile}, versions={hostile: hostile})
    path = report.write_report([run], tmp_path, baseline="linear 2e-5")
    page = Page(path.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.tags.count("h1") == 1
    assert hostile in page.text
    markdown = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "\n# c" not in markdown


@pytest.mark.parametrize(
    ("kinds", "title"),
    [
        (("toy", "toy"), "Learning rates compared (toy data)"),
        (("toy", "hub"), "Learning rates compared (partly toy data)"),
        (("hub", "hub"), "Learning rates compared"),
    ],
)
def test_toy_data_are_marked_in_the_headings(tmp_path, undrawn, kinds, title):
    tasks = ("sst2", "cola")
    runs = [a_run(t, data={"kind": k}) for t, k in zip(tasks, kinds, strict=True)]
    path = report.write_report(runs, tmp_path, baseline="linear 2e-5")
    lines = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# {title}"
    for task, kind in zip(tasks, kinds, strict=True):
        mark = " (toy data)" if kind == "toy" else ""
        assert f"## {task}{mark}, minilm:2" in lines


@pytest.mark.parametrize(
    "runs",
    [
        [a_run(failed="not finite", history=[], metrics={}, steps=0)],
        [a_run(scores=[None, None])],
        [a_run(scores=[0.4])],  # below chance: nobody learned
        [a_run(rate=0.0, scheduler="metalr")],
    ],
)
@pytest.mark.thorough
def test_a_store_without_anything_to_draw_is_drawn(tmp_path, runs):
    path = report.write_report(runs, tmp_path, baseline=[*methods.group(runs)][0])
    assert size(tmp_path / "figures" / "00.png")[0] > 1000
    assert Page(path.read_text(encoding="utf-8")).tags.count("img") == 5


@pytest.mark.parametrize(
    "runs",
    [
        [a_run(), a_run(rate=1e-3, seed=5, scores=[0.9])],  # no pair of seeds
        [a_run(), a_run("cola", scheduler="metalr")],  # no task in common
    ],
)
def test_a_store_with_gaps_gives_a_report(tmp_path, undrawn, runs):
    path = report.write_report(runs, tmp_path, baseline="linear 2e-5")
    text = Page(path.read_text(encoding="utf-8")).text
    assert "nan" not in text
    assert "–" in text  # what can't be said


def test_what_can_not_be_compared_leaves_no_folder(tmp_path):
    with pytest.raises(MetalrError, match="at least one run"):
        report.write_report([], tmp_path / "report", baseline="linear 2e-5")
    assert not (tmp_path / "report").exists()


def test_a_folder_that_can_not_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MetalrError, match="cannot write .*file"):
        report.write_report(
            [a_run()], tmp_path / "file" / "new", baseline="linear 2e-5"
        )


def test_band_is_the_range_over_seeds_where_they_are_known():
    seeds = [[(10, 0.2), (20, 0.4)], [(10, 0.6), (20, None), (30, 0.2)], [(20, 0.5)]]
    runs = [{"history": [{"step": s, "f1": v} for s, v in rows]} for rows in seeds]
    steps, low, middle, high = comparison_figures.band(runs, "f1")
    np.testing.assert_array_equal(steps, [10, 20, 30])
    np.testing.assert_allclose(low, [0.2, 0.4, 0.2])  # (0.6 + 0.2) / 2 = 0.4 at 20
    np.testing.assert_allclose(middle, [0.4, 0.4, 0.2])
    np.testing.assert_allclose(high, [0.6, 0.5, 0.2])


def test_plots_show_the_numbers_of_the_runs(tmp_path, monkeypatch):
    drawn = []
    subplots = Figure.subplots

    def spy(self, *args, **kwargs):
        drawn.append(self)
        return subplots(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "subplots", spy)
    runs = pair_of_rows([0.8, 0.9], [0.6, 0.7], tasks=("sst2",))
    found = comparison.from_lines(runs, "linear 2e-5")
    styles = comparison_figures.LineStyles(found)
    comparison_figures.draw_workload(
        found, styles, ("sst2", "minilm:2"), tmp_path / "one.png"
    )
    score, rates, rate, multiplier = drawn[0].axes
    lines = {line.get_label(): line for line in score.lines}
    np.testing.assert_allclose(lines["metalr"].get_ydata(), [0.8, 0.9])
    np.testing.assert_array_equal(lines["linear 2e-5"].get_xdata(), [10, 20])
    assert "95% of the target" in [text.get_text() for text in score.texts]
    heights = [
        line.get_ydata()[0] for line in score.lines if len(line.get_ydata()) == 2
    ]
    assert 0.69 in np.round(heights, 12)  # linear ends with 0.7
    (line,) = [line for line in multiplier.lines if line.get_label() == "metalr"]
    np.testing.assert_array_equal(line.get_ydata(), [2, 4])
    assert rate.get_yscale() == rates.get_xscale() == "log"
    assert {
        line.get_ydata()[0] for line in rates.lines if line.get_marker() == "o"
    } == {
        *(0.9, 0.7),
    }

    comparison_figures.draw_sensitivity(found, styles, tmp_path / "rates.png")
    (panel,) = drawn[1].axes
    marks = [line for line in panel.lines if line.get_marker() == "o"]
    assert {(*m.get_xdata(), *m.get_ydata()) for m in marks} == {
        (2e-5, 0.9),
        (2e-5, 0.7),
    }
    comparison_figures.draw_profiles(found, styles, tmp_path / "two.png")
    lines = {line.get_label(): line for line in drawn[2].axes[0].lines}
    assert set(lines["metalr"].get_ydata()) == {1.0}
    assert set(lines["linear 2e-5"].get_ydata()) == {0.0, 1.0}  # twice the steps


def test_subject_and_baseline_are_always_drawn_strong():
    runs = [a_run(scheduler=f"s{n}", scores=[0.9]) for n in range(9)]
    runs += [a_run(scores=[0.6]), a_run(scheduler="metalr", scores=[0.55])]
    styles = comparison_figures.LineStyles(comparison.from_lines(runs, "s8"))
    assert styles.names[:3] == ["metalr", "s8", "linear 2e-5"]
    strong = [styles.style(name) for name in styles.names]
    assert (
        len({style["color"] for style in strong})
        == len(strong)
        == comparison_figures.MOST_STYLES
    )
    assert styles.style("s7")["color"] == comparison_figures.GREY


def test_html_and_markdown_of_each_block(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    blocks = [
        document.Heading(2, "a < b"),
        document.Points(["x", "y_z"]),
        document.Table(["n", "v"], [["p", "1"], ["q", "2"]], strong=("q",)),
        document.Picture(picture, "what it shows"),
    ]
    assert document.to_markdown(blocks, tmp_path) == (
        "## a &lt; b\n\n- x\n- y\\_z\n\n"
        "| n | v |\n| --- | --: |\n| p | 1 |\n| **q** | **2** |\n\n"
        "![what it shows](a.png)\n"
    )
    text = document.to_html(blocks)
    assert "<h2>a &lt; b</h2>" in text
    assert '<tr class="strong"><td>q</td><td>2</td></tr>' in text
    assert "iVBORw==" in text or "iVBORw" in text
