"""What the user sees: lines off a terminal, a bar on one, a table at the end."""

import io

import pytest
from rich.console import Console

from metalr.finetune import display

pytestmark = pytest.mark.fast

TITLE = ["task   sst2 [toy]", "model  minilm"]
RESULT = {
    "task": "mrpc",
    "model": "minilm",
    "data": {"kind": "folder", "where": "a/" + "long/" * 25 + "path"},
    "weights": {"kind": "package", "where": "somewhere"},
    "scheduler": "linear",
    "seed": 3,
    "metric": "f1",
    "metrics": {"accuracy": 0.75, "f1": 0.8125, "eval_loss": 0.5},
    "last_metrics": {"accuracy": 0.5, "f1": None, "eval_loss": 0.625},
    "best_step": 60,
    "steps": 100,
    "seconds": 50.0,
    "notes": ["warm-up shortened [a bit]"],
    "history": [],
}


def train_row(step, total=1000, **more):
    row = {"step": step, "epoch": 3 * step / total, "loss": 0.5}
    return row | {"learning_rate": 2e-5} | more


def evaluation_row(step, total=1000):
    return {
        "step": step,
        "epoch": 3 * step / total,
        "accuracy": 0.875,
        "eval_loss": 0.4,
    }


def play(shown, total, every):
    """Tell a display a run with four evaluations."""
    shown.start(TITLE, total)
    for step in range(every, total + 1, every):
        shown.logged(train_row(step, total), 10.0)
        if step % (total // 4) == 0:
            shown.evaluated(evaluation_row(step, total))
    shown.note("saved [here]")
    shown.close()
    shown.close()


@pytest.mark.parametrize(
    ("total", "every"), [(1000, 1), (1000, 10), (990, 1), (100_000, 50), (12, 1)]
)
def test_a_log_file_gets_about_twenty_lines_and_every_evaluation(total, every):
    file = io.StringIO()
    play(display.Lines(file), total, every)
    lines = file.getvalue().splitlines()
    assert lines[:2] == TITLE
    assert lines[-1] == "saved [here]"
    training = [line for line in lines if "loss 0.5000" in line and "rate" in line]
    assert min(total // every, 20) <= len(training) <= 22
    assert sum("accuracy 0.8750" in line for line in lines) == 4
    assert f"step {total}/{total}" in training[-1]
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_a_line_says_loss_rate_multiplier_speed_and_time_left():
    file = io.StringIO()
    shown = display.Lines(file)
    shown.start([], 1000)
    shown.logged(train_row(100, lr_multiplier=1.5), 7.5)
    assert file.getvalue() == (
        "step  100/1000  epoch 0.30  loss 0.5000  rate 2.00e-05 (x1.50)  "
        "7.5 steps/s  2:00 left\n"
    )


def test_a_resumed_run_speaks_at_once():
    file = io.StringIO()
    shown = display.Lines(file)
    shown.start([], 1000)
    shown.logged(train_row(510), 10.0)
    assert "step  510/1000" in file.getvalue()


@pytest.mark.parametrize("speed", [0.0, float("inf"), float("nan")])
def test_a_speed_that_is_no_number_breaks_nothing(speed):
    file = io.StringIO()
    shown = display.Lines(file)
    shown.start([], 1000)
    shown.logged(train_row(1, loss=float("nan")), speed)
    assert "loss nan" in file.getvalue()


def test_a_terminal_shows_a_bar_with_the_last_score_and_keeps_evaluations():
    file = io.StringIO()
    console = Console(
        force_terminal=True, color_system=None, width=80, highlight=False, file=file
    )
    shown = display.Bar(console)
    shown.start(TITLE, 1000)
    shown.logged(train_row(500), 10.0)
    shown.evaluated(evaluation_row(500))
    picture = Console(width=80, file=io.StringIO(), record=True)
    picture.print(shown._picture())
    shown.close()
    shown.close()

    bar, words = picture.export_text().rstrip().splitlines()
    assert bar.endswith(" 500/1000")
    assert words == (
        "accuracy 0.8750  loss 0.5000  rate 2.00e-05  10 steps/s  0:50 left"
    )
    screen = file.getvalue()
    assert "task   sst2 [toy]" in screen
    assert "step  500/1000  epoch 1.50  accuracy 0.8750  eval_loss 0.4000" in screen


def test_quiet_prints_nothing(capsys):
    play(display.create(quiet=True), 100, 1)
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_lines(capsys):
    play(display.create(), 100, 10)
    out, err = capsys.readouterr()
    assert out.startswith(TITLE[0] + "\n")
    assert "\x1b" not in out
    assert not err


def test_summary_names_every_score_the_best_step_origins_and_files(capsys):
    display.summary(RESULT, ["runs/a/result.json"])
    out = capsys.readouterr().out
    words = [line.split() for line in out.splitlines()]
    assert ["score", "best,", "step", "60", "last"] in words
    assert ["accuracy", "0.7500", "0.5000"] in words
    assert ["f1", "0.8125", "-"] in words
    assert "100 in 0:50, 2 steps/s" in out
    assert "warm-up shortened [a bit]" in out
    assert "runs/a/result.json" in out
    # Long paths are folded and never cut.
    assert RESULT["data"]["where"] in "".join(out.split())


def test_quiet_summary_is_one_line(capsys):
    display.summary(RESULT, ["runs/a/result.json"], quiet=True)
    display.summary(RESULT | {"data": {"kind": "toy"}}, quiet=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"mrpc{toy}  f1 0.8125 at step 60 of 100  0:50" for toy in ("", " (toy data)")
    ]


def test_summary_of_a_run_without_evaluation(capsys):
    nothing = {"metrics": {}, "last_metrics": {}, "best_step": None, "seconds": 0}
    display.summary(RESULT | nothing)
    assert "steps  100 in 0:00" in capsys.readouterr().out
