"""Tables on the screen."""


def print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print rows under their head, as wide as the terminal or 120 characters."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width of its own; rows must not be cut there.
    console = Console()
    Console(width=None if console.is_terminal else 120).print(table)
