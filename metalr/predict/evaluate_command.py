"""`metalr evaluate`: the scores of a fine-tuned model on a file with labels."""

import argparse
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError, printable
from metalr.predict import command
from metalr.runtime.console import print_table
from metalr.runtime.files import check_new, write_json


def add(commands: Any) -> None:
    """Add the command to those of a parser."""
    parser = commands.add_parser(
        "evaluate",
        help="score a fine-tuned model on a file with labels",
        description="Scores a model on labelled rows that it has not seen (CSV, TSV, "
        "JSON Lines, Parquet): the scores of its task, and precision, recall and F1 of "
        "each class.",
    )
    add = parser.add_argument
    add("run", type=Path, help="folder of a run, or of a model")
    add("--file", required=True, type=Path, metavar="FILE", help="rows with labels")
    add("--output", type=Path, metavar="FILE", help="new JSON file for all of it")
    add("--label-column", metavar="NAME", help="column of the labels")
    command.add_model_flags(parser)


def carry_out(args: argparse.Namespace) -> int:
    """Carry out the command and return its exit status."""
    if str(args.file) == "-":
        raise MetalrError("metalr evaluate reads a file; write the rows into one")
    if args.output:
        _check_output(args.output)
    # After the flags are known to be good: these take seconds to import.
    from metalr.data import files
    from metalr.data.formats import opening
    from metalr.data.formats.table import Options
    from metalr.runtime import progress

    progress.visible(not args.quiet, stderr=True)
    options = Options(args.encoding, not args.no_header)
    opening.refuse_ignored([args.file], options)
    table = opening.look(args.file, options)
    model = command.load_model(args, label=args.label_column)
    checked, notes = files.labelled(table, model.usage.task)
    for line in (*table.notes, *notes):
        command.note(args, line)
    found = model.evaluate(checked.rows)
    try:
        if args.output:
            about = {"run": str(args.run), "file": str(args.file)}
            about |= {"left_out": checked.left_out}
            write_json(args.output, about | found.to_json())
    finally:  # a full disk does not take the scores, nor a closed pipe the file
        _print(args, found, checked.left_out)
    if args.output:
        print(printable(str(args.output)))
    return 0


def _check_output(path: Path) -> None:
    if path.suffix.lower() != ".json":
        raise MetalrError(
            f"--output must end in .json, since scores are no table, got {path}; "
            "metalr predict writes rows"
        )
    check_new(path)


def _print(args: argparse.Namespace, found: Any, left_out: dict[str, int]) -> None:
    from metalr.data import reading
    from metalr.predict import evaluation

    count = f"{found.rows:,} row{'s' * (found.rows != 1)}"
    missing = reading.by_reason(left_out)
    line = f"{args.file}: {count}" + (f"; left out: {missing}" if missing else "")
    print(printable(line))
    for head, rows in evaluation.tables(found):
        print_table(head, rows)
