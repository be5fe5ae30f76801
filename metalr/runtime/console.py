"""Tables on the screen."""

from metalr.errors import printable


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print rows under their head, as wide as the terminal or 120 characters.

    Cells are printed as they are: markup in them is text, what would steer a terminal
    is escaped.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    # A pipe has no width of its own; rows must not be cut there.
    console = Console()
    Console(width=None if console.is_terminal else 120).print(table)
