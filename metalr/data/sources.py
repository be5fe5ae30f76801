"""Rows from files, as they are there.

Nothing here knows tasks: a row is a plain dict.
"""

from pathlib import Path

from metalr.data.columns import Row
from metalr.data.formats import opening
from metalr.data.formats.table import PLAIN, Options
from metalr.errors import MetalrError


def read_rows(path: str | Path, options: Options = PLAIN) -> list[Row]:
    """Read all rows of one file; its name's ending says the format.

    `.jsonl` and `.json` hold one JSON object a line; `.json` may also be one list of
    objects, columns as pandas and datasets write them, or a file in SQuAD's own nested
    form, whose rows come out flat as on the hub. `.csv` has a header line and quotes
    as in RFC 4180. `.tsv` has a header line and either quotes as pandas writes them,
    or none, as GLUE's files (a quote there is a character of the text). All of these
    may be gzipped. `.parquet`, `.arrow` and folders of `Dataset.save_to_disk` are read
    by pyarrow.

    Args:
      path: The file.
      options: How it is written, where the file does not say.

    Returns:
      At least one row; values of CSV and TSV are strings.

    Raises:
      MetalrError: The file is missing, empty, or breaks its format.
    """
    path = Path(path)
    rows = list(opening.look(path, options).rows(None))
    if not rows:
        raise MetalrError(f"{path} is empty: it holds no rows")
    return rows
