"""`metalr show` puts runs side by side, whatever course they took."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from metalr import cli, errors
from metalr.compare import store
from metalr.finetune import display, result
from metalr.report import report, show
from metalr.runtime import files
from tests.compare.synthetic_store import a_run
from tests.report.png import size

pytestmark = pytest.mark.fast


@pytest.fixture
def runs(tmp_path):
    """Folders of a run with a multiplier and of one with another metric."""
    made = {
        "one": a_run(scheduler="metalr", scores=[0.6, 0.8, 0.75]),
        "two": a_run("cola", rate=3.2e-4, scores=[0.1, None], data={"kind": "toy"}),
    }
    for name, run in made.items():
        (tmp_path / name).mkdir()
        files.write_json(tmp_path / name / "result.json", run)
    return [tmp_path / name for name in made]


def printed(found, encoding="utf-8", width=80):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    show.print_runs(found, Console(file=file, width=width, force_terminal=False))
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.fixture
def main(monkeypatch):
    monkeypatch.setattr(cli, "hush_libraries", lambda: None)  # it is for good
    return cli.main


def spark(pairs, last=48, low=0.0, high=7.0):
    steps, values = np.array(pairs, float).T
    return show.spark(steps, values, last, low, high, "01234567")


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0, 0), (48, 0)], "0" * 48),
        ([(0, 7), (48, 7)], "7" * 48),
        ([(0, 0), (24, 0), (24.001, 7), (48, 7)], "0" * 24 + "7" * 24),
        ([(24, 7), (48, 7)], " " * 23 + "7" * 25),  # 24 is a border
        ([(0, 7), (24, 7)], "7" * 25 + " " * 23),
        ([(0, 7), (20, math.nan), (30, math.inf), (48, 7)], "7" * 48),
        ([(0, math.nan), (48, math.nan)], " " * 48),
        ([(0, -9), (48, -9)], "0" * 48),  # below the scale
    ],
)
def test_spark_shows_the_course(pairs, expected):
    assert spark(pairs) == expected


def test_spark_of_a_flat_scale_is_low():
    assert spark([(0, 3), (48, 3)], low=3.0, high=3.0) == "0" * 48


def test_terminal_shows_scores_settings_and_scales(runs):
    text = printed(show.read_runs(runs), width=160)
    facts = [line.split() for line in text.splitlines()]
    one = ["one", "sst2", "minilm:2", "metalr", "2e-5", "0", "30", "accuracy"]
    assert [*one, "0.7500", "0.8000", "20"] in facts
    two = ["two", "cola", "(toy)", "minilm:2", "linear", "3.2e-4", "0", "20"]
    assert [*two, "matthews", "-", "0.1000", "10"] in facts
    assert "accuracy, 0.6 to 0.8" in text
    assert "multiplier, 2 to 8" in text
    assert "learning rate, " in text


def test_a_terminal_without_blocks_gets_plain_characters(runs):
    text = printed(show.read_runs(runs), encoding="ascii")  # others would raise
    assert set(show.ASCII) & set(text)


def test_brackets_in_a_name_are_no_markup(runs):
    (run, _) = show.read_runs(runs).values()
    text = printed({"[bold]x[/bold]": run | {"task": "[red]sst2[/red]"}}, width=160)
    assert "[bold]x[/bold]" in text
    assert "[red]sst2[/red]" in text


HOSTILE = "\x1b[2J\u202egood\x07"


def test_text_of_a_stranger_s_result_moves_no_cursor(tmp_path, runs, main, capsys):
    run = a_run(task=HOSTILE, model=HOSTILE, scheduler=HOSTILE, notes=[HOSTILE])
    run["history"][1][HOSTILE] = run["metrics"][HOSTILE] = 0.5
    run |= {"metric": HOSTILE, "data": {"kind": HOSTILE, "where": HOSTILE}}
    run["chance"][HOSTILE] = 0.1
    folder = tmp_path / HOSTILE
    folder.mkdir()
    files.write_json(folder / "result.json", run)
    assert main(["show", str(folder), "--png", str(tmp_path / "x.png")]) == 0
    display.summary(result.read_result(folder / "result.json"), [folder])
    store.append(tmp_path / "runs.jsonl", run)
    report.write_report(store.read_lines(tmp_path / "runs.jsonl"), tmp_path)
    said = [capsys.readouterr().out]
    said += [(tmp_path / f"report.{kind}").read_text() for kind in ("md", "html")]
    for text in said:
        assert "good" in text and not {"\x1b", "\u202e", "\x07"} & {*text}


@pytest.mark.parametrize("name", result.FIELDS)
def test_result_that_lacks_a_field_is_refused_in_one_line(
    name, runs, tmp_path, main, capsys
):
    whole = files.read_json(runs[0] / "result.json")
    del whole[name]
    files.write_json(runs[0] / "result.json", whole)
    assert main(["show", str(runs[0])]) == errors.EXIT_FAULT
    said = capsys.readouterr().err
    assert f"missing {name}" in said and said.count("\n") == 1


def test_run_whose_settings_are_of_another_version_is_shown(runs, main, capsys):
    whole = files.read_json(runs[0] / "result.json")
    files.write_json(runs[0] / "result.json", whole | {"settings": {}})
    assert main(["show", str(runs[0])]) == 0
    assert "sst2" in capsys.readouterr().out


def test_a_run_without_any_number_is_shown(tmp_path):
    run = a_run(history=[], scores=[], metrics={}, last_metrics={}, steps=0)
    assert "sst2" in printed({"empty": run})
    show.draw_runs({"empty": run}, tmp_path / "empty.png")
    assert size(tmp_path / "empty.png")[0] > 1000


def test_names_differ_where_folders_do_not(tmp_path, runs):
    (tmp_path / "more").mkdir()
    other = runs[0].rename(tmp_path / "more" / "two")
    found = show.read_runs([runs[1], other / "result.json"])
    assert list(found) == ["two", str(other)]


def test_a_run_whose_short_name_is_another_run_s_path_is_shown(
    tmp_path, runs, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    runs[0].rename("runs/x")
    runs[1].rename("x")
    found = show.read_runs([Path("runs/x"), Path("x")])
    assert list(found) == ["x", str(tmp_path / "x")]
    assert [run["task"] for run in found.values()] == ["sst2", "cola"]


def test_picture_has_a_panel_for_each_quantity(runs, tmp_path, monkeypatch):
    drawn = []
    subplots = Figure.subplots

    def spy(self, *args, **kwargs):
        drawn.append(self)
        return subplots(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "subplots", spy)
    show.draw_runs(show.read_runs(runs), tmp_path / "all.png")
    assert size(tmp_path / "all.png")[0] > 1000
    axes = {ax.get_ylabel(): ax for ax in drawn[0].axes}
    assert list(axes) == [
        *("loss, smoothed", "accuracy", "matthews", "learning rate", "multiplier"),
    ]
    one = {line.get_label(): line for line in axes["accuracy"].lines}["one"]
    np.testing.assert_array_equal(one.get_ydata(), [0.6, 0.8, 0.75])
    rates = {line.get_label(): line for line in axes["learning rate"].lines}
    assert rates.keys() == {"one", "two"}


def test_command_prints_and_draws(runs, tmp_path, main, capsys):
    target = tmp_path / "drawn.png"
    assert main(["show", *map(str, runs), "--png", str(target)]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == str(target)
    assert "0.7500" in text
    assert size(target)[0] > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}"], "holds no finished run"),
        (["{tmp}/none"], "cannot read {tmp}/none: No such file"),
        (["{tmp}/text"], "text is not JSON"),
        (["{tmp}/one", "--png", "{tmp}/no/x.png"], "cannot write {tmp}/no/x.png"),
    ],
)
def test_faults_are_one_line_and_status_2(
    runs, tmp_path, main, capsys, arguments, message
):
    (tmp_path / "text").write_text("{")
    fill = lambda word: word.format(tmp=tmp_path)  # noqa: E731
    assert main(["show", *map(fill, arguments)]) == errors.EXIT_FAULT
    error = capsys.readouterr().err
    assert fill(message) in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
