"""Tasks of the short runs, and small files of rows that their models predict."""

import csv
import json
from typing import Any

import pyarrow.parquet

TASKS = ("sst2", "mnli", "stsb", "squad")
ROWS: dict[str, Any] = {"train_rows": 48, "validation_rows": 41}


def write(path, rows):
    """Write rows in the format of the file's ending."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0].keys())
            table.writeheader()
            table.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    """Return all rows of a file."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]
