"""What a run shows while it trains, and the table at its end.

Every display has the same five methods: `start`, `logged`, `evaluated`, `note`,
`close`. Rows are those of the history: training rows have `loss` and `learning_rate`,
evaluation rows have scores.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from metalr.errors import printable
from metalr.runtime import progress
from metalr.runtime.origin import Origin

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Row = Mapping[str, Any]

LINES_PER_RUN = 20  # of training rows, where there is no terminal to redraw


class Display(Protocol):
    """What a run is shown on as it goes."""

    def start(self, title_lines: list[str], total_steps: int) -> None:
        """Show what runs on what; called once, before the first step."""
        ...

    def logged(self, row: Row, steps_per_second: float) -> None:
        """Show a training row."""
        ...

    def evaluated(self, row: Row) -> None:
        """Show an evaluation row."""
        ...

    def note(self, line: str) -> None:
        """Show a line of text."""
        ...

    def close(self) -> None:
        """Stop showing anything; may be called twice."""
        ...


def create(quiet: bool = False, others: Sequence[Display] = ()) -> Display:
    """Return the display for this stdout: a bar, plain lines, or nothing.

    Args:
      quiet: Show nothing on the screen.
      others: Displays that are shown everything too, as loggers are.
    """
    from rich.console import Console

    console = Console(highlight=False)
    displays: list[Display] = []
    if not quiet:
        displays.append(Bar(console) if console.is_terminal else Lines())
    return Together(*displays, *others)


class Lines:
    """Prints whole lines, few enough for a log file; each is flushed at once."""

    def __init__(self, file: IO[str] | None = None):
        self._file = file
        self._total = 0
        self._next = 0.0

    def start(self, title_lines: list[str], total_steps: int) -> None:
        """Print the title."""
        self._total = total_steps
        for line in title_lines:
            self.note(line)

    def logged(self, row: Row, steps_per_second: float) -> None:
        """Print the first and the last row, and some `LINES_PER_RUN` in between."""
        if row["step"] < min(self._next, self._total):
            return
        # The next mark is counted from the start and not from this row, so that the
        # number of lines does not depend on how often rows come.
        apart = max(1.0, self._total / LINES_PER_RUN)
        self._next = (row["step"] // apart + 1) * apart
        words = _training(row, steps_per_second, self._total)
        self.note("  ".join([_place(row, self._total), *words]))

    def evaluated(self, row: Row) -> None:
        """Print the scores."""
        self.note("  ".join([_place(row, self._total), *_scores(row)]))

    def note(self, line: str) -> None:
        """Print the line."""
        progress.say(line, self._file)

    def close(self) -> None:
        """Do nothing: every line is out already."""


class Bar:
    """Draws a progress bar, with evaluations and notes above it."""

    def __init__(self, console: "Console"):
        from rich.live import Live

        self._console = console
        self._done = self._total = 0
        self._training = ["compiling the first step"]
        self._score: list[str] = []
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            transient=True,  # what stays on the screen is the table
        )

    def start(self, title_lines: list[str], total_steps: int) -> None:
        """Print the title and draw an empty bar."""
        for line in title_lines:
            self.note(line)
        self._total = total_steps
        self._live.start()
        self._console.show_cursor(True)  # a signal may end the program at any time

    def logged(self, row: Row, steps_per_second: float) -> None:
        """Move the bar on."""
        self._done = row["step"]
        self._training = _training(row, steps_per_second, self._total)

    def evaluated(self, row: Row) -> None:
        """Print the scores, and keep the first of them below the bar."""
        scores = _scores(row)
        self._score = scores[:1]
        self.note("  ".join([_place(row, self._total), *scores]))

    def note(self, line: str) -> None:
        """Print the line above the bar."""
        self._console.print(line, markup=False)

    def close(self) -> None:
        """Remove the bar."""
        self._live.stop()

    def _picture(self) -> "RenderableType":
        """Return what is redrawn four times a second."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, self._total), completed=self._done)
        line.add_row(bar, Text(f"{self._done}/{self._total}", no_wrap=True))
        # Two lines: beside the bar, 80 columns would have no place for the words.
        return Group(line, Text("  ".join([*self._score, *self._training])))


class Together:
    """Passes everything on to other displays, in their order; silent without any."""

    def __init__(self, *displays: Display):
        self._displays = displays

    def start(self, title_lines: list[str], total_steps: int) -> None:
        """Start each display."""
        for display in self._displays:
            display.start(title_lines, total_steps)

    def logged(self, row: Row, steps_per_second: float) -> None:
        """Pass it on."""
        for display in self._displays:
            display.logged(row, steps_per_second)

    def evaluated(self, row: Row) -> None:
        """Pass it on."""
        for display in self._displays:
            display.evaluated(row)

    def note(self, line: str) -> None:
        """Pass it on."""
        for display in self._displays:
            display.note(line)

    def close(self) -> None:
        """Close each display."""
        for display in self._displays:
            display.close()


def summary(
    result: Mapping[str, Any],
    files: Sequence[Path | str] = (),
    *,
    quiet: bool = False,
    console: "Console | None" = None,
) -> None:
    """Print the table at the end of a run.

    Args:
      result: A `metalr.finetune.result.Result`.
      files: What the run left, to be listed.
      quiet: Print one line in place of the table.
      console: Where to print; stdout if it is None.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 100)  # a file has none; most paths fit
    if quiet:
        console.print(_last_line(result), markup=False, soft_wrap=True)
        return
    if result["metrics"]:
        best = f"best, step {result['best_step']}"
        table = Table("score", best, "last", box=box.SIMPLE_HEAD, pad_edge=False)
        table.columns[1].justify = table.columns[2].justify = "right"
        for name, value in result["metrics"].items():
            style = "bold" if name == result["metric"] else ""
            last = result["last_metrics"].get(name)
            table.add_row(Text(name), _number(value), _number(last), style=style)
        console.print(table)
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(result, files):
        facts.add_row(name, Text(value, overflow="fold"))
    console.print(facts)


def _last_line(result: Mapping[str, Any]) -> str:
    score = result["metrics"].get(result["metric"])
    toy = " (toy data)" if result["data"].get("kind") == "toy" else ""
    return (
        f"{result['task']}{toy}  {result['metric']} {_number(score)} at step "
        f"{result['best_step']} of {result['steps']}  {_clock(result['seconds'])}"
    )


def _facts(
    result: Mapping[str, Any], files: Sequence[Path | str]
) -> Iterator[tuple[str, str]]:
    yield "task", f"{result['task']}, {_origin(result['data'])}"
    yield "model", f"{result['model']}, {_origin(result['weights'])}"
    yield "rate", f"{result['scheduler']}, seed {result['seed']}"
    seconds, steps = result["seconds"], result["steps"]
    pace = f", {steps / seconds:.3g} steps/s" if seconds else ""
    yield "steps", f"{steps} in {_clock(seconds)}{pace}, evaluation not counted"
    for note in result["notes"]:
        yield "note", note
    for file in files:
        yield "file", printable(str(file))


def _origin(origin: Mapping[str, str]) -> str:
    return str(Origin.of(origin)) or "of unknown origin"


def _place(row: Row, total: int) -> str:
    """Return where in the run a row was taken.

    >>> _place({"step": 40, "epoch": 0.5}, 1200)
    'step   40/1200  epoch 0.50'
    """
    return f"step {row['step']:{len(str(total))}}/{total}  epoch {row['epoch']:.2f}"


def _training(row: Row, steps_per_second: float, total: int) -> list[str]:
    """Return loss, rate, speed and the time left in words.

    >>> row = {"step": 40, "loss": 0.51234, "learning_rate": 3.6e-5, "lr_multiplier": 2}
    >>> _training(row, 10.0, 1240)
    ['loss 0.5123', 'rate 3.60e-05 (x2.00)', '10 steps/s', '2:00 left']
    """
    rate = f"rate {row['learning_rate']:.2e}"
    if "lr_multiplier" in row:
        rate += f" (x{row['lr_multiplier']:.2f})"
    left = _clock((total - row["step"]) / max(steps_per_second, 1e-9))
    speed = f"{steps_per_second:.3g} steps/s"
    return [f"loss {_number(row['loss'])}", rate, speed, f"{left} left"]


def _scores(row: Row) -> list[str]:
    return [f"{k} {_number(v)}" for k, v in row.items() if k not in ("step", "epoch")]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _clock(seconds: float) -> str:
    """Return a time as a clock shows it.

    >>> _clock(65.4), _clock(3725)
    ('1:05', '1:02:05')
    """
    if not math.isfinite(seconds) or seconds > 360_000:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
