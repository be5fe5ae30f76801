"""All rows of a file at once, as plain dicts."""

from pathlib import Path

from metalr.data.columns import Row
from metalr.data.formats import opening
from metalr.data.formats.table import PLAIN, Options
from metalr.errors import MetalrError


def read_rows(path: str | Path, options: Options = PLAIN) -> list[Row]:
    """Read all rows of one file; at least one."""
    path = Path(path)
    rows = list(opening.look(path, options).rows(None))
    if not rows:
        raise MetalrError(f"{path} is empty: it holds no rows")
    return rows
