"""`metalr predict`: rows of a file or of stdin through a fine-tuned model."""

import argparse
import functools
import io
import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from metalr.data.formats.delimited import UNNAMED
from metalr.errors import MetalrError, unknown_name
from metalr.runtime import progress
from metalr.runtime.files import check_new
from metalr.runtime.program import unwound_at_signals

T = TypeVar("T")

_STDIN = "-"
_STREAMS = ("jsonl", "csv", "tsv")


def add(commands: Any) -> None:
    """Add the command to those of a parser."""
    parser = commands.add_parser(
        "predict",
        help="label rows with a fine-tuned model, or answer them",
        description="Reads rows (CSV, TSV, JSON Lines, Parquet or stdin) and writes "
        "them with the model's predictions in new columns.",
    )
    add = parser.add_argument
    add("run", type=Path, help="folder of a run, or of a model")
    add("--file", required=True, metavar="FILE", help="rows, or - for stdin")
    add("--output", type=Path, metavar="FILE", help="new file (default: stdout)")
    add("--format", help="of stdin and stdout: jsonl (the default), csv or tsv")
    add_model_flags(parser)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how rows are read and where the model computes."""
    add = parser.add_argument
    add("--text-column", metavar="NAME", help="column of the (first) text")
    add("--pair-column", metavar="NAME", help="column of the second text")
    add("--encoding", help="of a text file, such as cp1252 (default: UTF-8)")
    add("--no-header", action="store_true", help="columns are named by number, from 1")
    add("--batch-size", type=int, default=64, metavar="N", help="rows at once")
    add(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16"),
        help="of the matrix products",
    )
    add(
        "--parallel",
        default="auto",
        choices=("auto", "one", "jit", "pmap"),
        help="over which devices, as of finetune.py",
    )
    add("--quiet", action="store_true", help="no progress and no notes on stderr")


def load_model(args: argparse.Namespace, **columns: str | None) -> Any:
    """Load the model that the flags name, with other names for some columns."""
    from metalr.predict.model import load
    from metalr.runtime import compilation

    compilation.use_cache()
    columns = {"text": args.text_column, "pair": args.pair_column, **columns}
    return load(
        args.run,
        batch_size=args.batch_size,
        dtype=args.dtype,
        parallel=args.parallel,
        columns={of: name for of, name in columns.items() if name},
    )


def carry_out(args: argparse.Namespace) -> int:
    """Carry out the command and return its exit status."""
    _check(args)
    # After the flags are known to be good: these take seconds to import.
    from metalr.data.formats.table import Options
    from metalr.predict import files, source

    form = args.format or "jsonl"
    output = files.format_of(args.output) if args.output else form
    options = Options(args.encoding, not args.no_header)
    if args.file == _STDIN:
        rows = source.from_stream(_stdin(args.encoding), form, options)
    else:
        rows = source.from_file(Path(args.file), options, functools.partial(note, args))
    rows = _without_blank(rows)
    found = joined(rows, load_model(args).stream)
    if not args.quiet:
        found = _watched(found)
    if args.output:
        with unwound_at_signals():
            files.write(args.output, output, found)
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):  # the locale may know ASCII alone
        sys.stdout.reconfigure(encoding="utf-8")
    files.print_to(sys.stdout, output, found, quoted=False)
    return 0


def note(args: argparse.Namespace, line: str) -> None:
    """Print a note on stderr, unless --quiet."""
    if not args.quiet:
        progress.say(f"note: {line}", sys.stderr)


def _stdin(encoding: str | None) -> IO[str]:
    """Return stdin in its encoding; a locale would have damaged bytes pass."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        try:
            sys.stdin.reconfigure(encoding=encoding or "utf-8", errors="strict")
        except LookupError:
            raise MetalrError(
                f"--encoding must be one that Python knows, such as cp1252, got "
                f"{encoding!r}"
            ) from None
    return sys.stdin


def _without_blank(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows that hold something, as training reads them, and count others.

    Raises:
      MetalrError: None does.
    """
    from metalr.data import cells

    blank = kept = 0
    for row in rows:
        # A number that pandas gave the row, in a column without a name, is nothing.
        held = [x for name, x in row.items() if not name.startswith(UNNAMED)]
        if len(row) > 1 and all(map(cells.is_missing, held)):
            blank += 1
        else:
            kept += 1
            yield row
    if blank and not kept:
        raise MetalrError(f"there is nothing to predict: all {blank} rows are blank")
    if blank:
        progress.say(f"blank rows left out: {blank}", sys.stderr)


def _check(args: argparse.Namespace) -> None:
    if args.format is not None and args.format not in _STREAMS:
        raise unknown_name("--format", args.format, _STREAMS)
    if args.format and args.file != _STDIN and args.output:
        raise MetalrError(
            "--format is of stdin and stdout; the names of files say theirs"
        )
    if args.output:
        check_new(args.output)


def _watched(rows: Iterable[T]) -> Iterator[T]:
    """Yield the rows, and show on stderr how many came and how fast."""
    begun, done = time.monotonic(), 0
    with progress.loading("predicting", stderr=True) as log:
        for done, row in enumerate(rows, start=1):
            yield row
            log(done)
    speed = done / max(time.monotonic() - begun, 1e-3)
    progress.say(f"{done:,} row{'s' * (done != 1)}, {speed:.3g} rows/s", sys.stderr)


def joined(rows: Iterable[Any], predict: Any) -> Iterator[dict[str, Any]]:
    """Yield each row with its prediction.

    Args:
      rows: Mappings, read once.
      predict: `Model.stream`.

    Raises:
      MetalrError: A row has a column of a prediction's name already.
    """
    from metalr.predict.outputs import flat

    given, read = itertools.tee(rows)
    for number, (row, said) in enumerate(
        zip(given, predict(read), strict=True), start=1
    ):
        if taken := row.keys() & {*said, *flat(said)}:
            raise MetalrError(
                f"row {number} has the column {sorted(taken)[0]!r} already, which the "
                "predictions need; rename it"
            )
        yield row | said
