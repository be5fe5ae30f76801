"""Parquet and Arrow files, and what `datasets` saves to a folder."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from metalr.data import cells
from metalr.data.formats import text
from metalr.data.formats.table import ENDINGS, DataFile, Options, Row
from metalr.errors import MetalrError
from metalr.runtime import memory

_BATCH = 1024  # rows that are Python objects at a time
_STATE, _SPLITS = "state.json", "dataset_dict.json"  # of a folder of datasets


def look_at_parquet(path: Path, options: Options) -> DataFile:
    """Look at a Parquet file.

    Raises:
      MetalrError: The file breaks its format.
    """
    with _refused(path, "Parquet"), memory.bounded(path):
        with _parquet(path, ()) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
            sizes = _sizes(file.metadata, _most(path))
    _check_count(path, count)

    def batches(columns: list[str]) -> Iterator[Any]:
        import pyarrow

        # A page is unpacked whole.
        total = sum(sizes.get(name, 0) for name in columns)
        if total > _most(path):
            raise _too_much(path)
        # A text that occurs often is then in memory once.
        texts = [n for n in columns if pyarrow.types.is_string(schema.field(n).type)]
        with _parquet(path, texts) as file:
            yield from file.iter_batches(_BATCH, columns=columns, use_threads=False)

    return _table(path, "Parquet", schema, batches)


def _parquet(path: Path, as_dictionary: Sequence[str]) -> Any:
    import pyarrow.parquet

    # ParquetFile and not read_table: that one makes columns of folder names such as
    # "label=1". With a buffer, a column is read page by page.
    return pyarrow.parquet.ParquetFile(
        path, read_dictionary=list(as_dictionary), buffer_size=2**20
    )


def _sizes(metadata: Any, most: int) -> dict[str, int]:
    """Return the bytes of each column when unpacked, as a file says.

    Of a file that has no more than `most` of all columns together nobody asks: where a
    column's own metadata is damaged, Arrow ends the process.
    """
    sizes: dict[str, int] = {}
    groups = range(metadata.num_row_groups)
    if sum(metadata.row_group(group).total_byte_size for group in groups) <= most:
        return sizes
    for group in groups:
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            name = column.path_in_schema.split(".")[0]
            sizes[name] = sizes.get(name, 0) + column.total_uncompressed_size
    return sizes


def look_at_arrow(path: Path, options: Options) -> DataFile:
    """Look at a file of Arrow: the stream that datasets writes, or Feather.

    Raises:
      MetalrError: The file breaks its format.
    """
    return _arrow_table(path, [path])


def look_at_folder(path: Path, options: Options) -> DataFile:
    """Look at a folder that `Dataset.save_to_disk` made.

    Raises:
      MetalrError: The folder is none, or one of several splits.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        splits = json.loads((path / _SPLITS).read_bytes())["splits"]
        raise MetalrError(
            f"{path} holds the splits {', '.join(map(str, splits))}; name one, such as "
            f"{path / str(splits[0])}"
        )
    try:
        files = json.loads((path / _STATE).read_bytes())["_data_files"]
        found = [path / Path(file["filename"]).name for file in files]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise MetalrError(
            f"{path} is not a folder that Dataset.save_to_disk made; name a file of it "
            f"({', '.join(ENDINGS)}), or give --data FOLDER with TASK/train.* and "
            "TASK/validation.*"
        ) from fault
    return _arrow_table(path, found)


def is_saved(path: Path) -> bool:
    """Say whether a folder is one of `save_to_disk`."""
    return (path / _STATE).is_file() or (path / _SPLITS).is_file()


def _arrow_table(path: Path, files: list[Path]) -> DataFile:
    if not files:
        raise MetalrError(f"{path} is empty: it holds no rows")
    with _refused(path, "Arrow"), memory.bounded(path), _stream(files[0]) as first:
        schema = first.schema

    def batches(columns: list[str]) -> Iterator[Any]:
        for file in files:
            with _stream(file) as reader:
                for number in range(reader.num_record_batches):
                    yield from _pieces(reader.get_batch(number), columns)

    def streamed(columns: list[str]) -> Iterator[Any]:
        for file in files:
            with _stream(file) as reader:
                for batch in reader:
                    yield from _pieces(batch, columns)

    is_stream = not hasattr(first, "num_record_batches")
    return _table(path, "Arrow", schema, streamed if is_stream else batches)


def _stream(path: Path) -> Any:
    import pyarrow

    source = pyarrow.memory_map(str(path))
    if source.read(6) == b"ARROW1":
        return pyarrow.ipc.open_file(source)
    source.seek(0)
    return pyarrow.ipc.open_stream(source)


def _pieces(batch: Any, columns: list[str]) -> Iterator[Any]:
    batch = batch.select(columns)
    for first in range(0, batch.num_rows, _BATCH):
        yield batch.slice(first, _BATCH)


# ------------------------------------------------------------ both


def _table(
    path: Path, kind: str, schema: Any, batches: Callable[[list[str]], Iterator[Any]]
) -> DataFile:
    names = list(schema.names)

    def rows(columns: Sequence[str] | None) -> Iterator[Row]:
        wanted = [n for n in names if columns is None or n in columns]
        for name in wanted:
            if names.count(name) > 1:
                raise MetalrError(f"{path} has the column {name!r} more than once")
        with _refused(path, kind):
            yield from _rows(path, batches(wanted))

    return DataFile(path, tuple(names), rows, classes=_classes(schema))


def _rows(path: Path, batches: Iterator[Any]) -> Iterator[Row]:
    done, left = 0, _most(path)
    while True:
        with memory.bounded(path):
            batch = next(batches, None)
            if batch is None:
                return
            columns = [_values(column) for column in batch.columns]
        done += batch.num_rows
        _check_count(path, done)
        for column in columns:
            left -= sum(len(v) for v in column if isinstance(v, str | bytes))
        if left < 0:
            raise _too_much(path)
        names = batch.schema.names
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def _values(column: Any) -> list[Any]:
    """Return a column's values; equal texts of a dictionary are one object."""
    import pyarrow

    kind = column.type
    if _is_binary(kind) or (
        pyarrow.types.is_dictionary(kind) and _is_binary(kind.value_type)
    ):
        with contextlib.suppress(pyarrow.ArrowInvalid):  # no UTF-8 stays what it is
            return column.cast(pyarrow.large_string()).to_pylist()
    if not pyarrow.types.is_dictionary(kind):
        return column.to_pylist()
    indices = column.indices
    used = indices.unique().drop_null()
    texts = dict(
        zip(used.to_pylist(), column.dictionary.take(used).to_pylist(), strict=True)
    )
    return [None if i is None else texts[i] for i in indices.to_pylist()]


def _is_binary(kind: Any) -> bool:
    """Say whether values are bytes, which older writers have for texts."""
    import pyarrow

    of = pyarrow.types
    return (
        of.is_binary(kind) or of.is_large_binary(kind) or of.is_fixed_size_binary(kind)
    )


def _most(path: Path) -> int:
    """Return how many bytes the texts of a file may have when they are unpacked."""
    files = [path] if path.is_file() else list(path.iterdir())
    size = sum(file.stat().st_size for file in files)
    return max(text.LEAST_UNPACKED, text.MOST_PACKED * size)


def _too_much(path: Path) -> MetalrError:
    return MetalrError(
        f"{path} unpacks to over {text.MOST_PACKED} times its size; if that is no "
        "mistake, write it as .jsonl"
    )


def _check_count(path: Path, count: int) -> None:
    if count > text.MAX_ROWS:
        raise MetalrError(f"{path} has more than {text.MAX_ROWS} rows")


def _classes(schema: Any) -> dict[str, tuple[str, ...]]:
    """Return the names of ids, as labels are spelled, that datasets has in a schema."""
    found = {}
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        info = json.loads(schema.metadata[b"huggingface"])["info"]
        for name, feature in info["features"].items():
            while isinstance(feature, dict) and isinstance(
                feature.get("feature"), dict
            ):
                feature = feature["feature"]  # of a list
            names = feature.get("names") if isinstance(feature, dict) else None
            if isinstance(names, list) and feature.get("_type") == "ClassLabel":
                found[name] = tuple(cells.spelled(str(n)) for n in names)
    return found


@contextlib.contextmanager
def _refused(path: Path, kind: str) -> Iterator[None]:
    """Turn what a broken file raises into one error."""
    import pyarrow

    try:
        yield
    except (
        pyarrow.ArrowException,
        OSError,
        ValueError,
        TypeError,
        ArithmeticError,  # dates and decimals that Python cannot say
    ) as fault:
        raise MetalrError(f"{path} is not a readable {kind} file: {fault}") from fault
