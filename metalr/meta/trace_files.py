"""Traces of runs as Parquet: one file a sweep, one row a step.

A row has the observations of the step, from which features are computed when it is
read, the learning rate and the multiplier of the step, and its loss. Older files hold
the features themselves, without observations, and are refused when the features change;
thinned ones hold the features of a sample of steps. What belongs to a whole run is
compressed JSON in the schema metadata of the file. Older files name two of its keys
otherwise (`_OLD_KEYS`); readers see the present names.

>>> import tempfile
>>> run = Run(
...     about={"task": "sst2"},
...     evaluations=[{"step": 0, "eval_loss": 0.7}],
...     features=np.zeros((2, len(NAMES)), np.float32),
...     rate=np.full(2, 2e-5, np.float32),
...     multiplier=np.ones(2, np.float32),
...     loss=np.array([0.7, 0.6], np.float32),
... )
>>> with tempfile.TemporaryDirectory() as folder:
...     write(Path(folder) / "sweep.parquet", [run])
...     (found,) = read(Path(folder) / "sweep.parquet")
>>> found.about["task"], found.loss.tolist() == run.loss.tolist()
('sst2', True)
"""

import base64
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metalr.errors import MetalrError
from metalr.features import FEATURE_VERSION, NAMES
from metalr.meta.traces import SCALARS, About, Run, features_of, thin
from metalr.observe import Observation
from metalr.runtime import files, memory

ENDING = ".parquet"
_KEY = b"metalr.traces"
_OLD_KEYS = {"bank_id": "sweep_id", "prior": "decay"}
# Of a file: a sweep has some thousands. Parquet compresses equal values so well that a
# small file may fill any memory.
_MAX_STEPS = 10_000_000
_MAX_HEADER = 64 * 2**20
_KEPT_BITS = 12  # of a feature's significand: 1/4096, a hundredth of batch noise


class Broken(MetalrError):
    """A Parquet file that was cut off, by a kill or a full disk."""


def write(path: Path, runs: Sequence[Run]) -> None:
    """Write runs to one file; an interrupted write leaves the old file.

    Observations and features are rounded to 12 bits, which halves the file.

    Args:
      path: The file, in a folder that exists.
      runs: One or more.

    Raises:
      MetalrError: The file cannot be written.
      ValueError: The arrays of a run differ in length.
    """
    import pyarrow as pa
    from pyarrow import parquet

    for run in runs:
        shapes = {np.shape(getattr(run, name)) for name in SCALARS}
        if shapes != {(run.steps,)} or run.features.shape != (run.steps, len(NAMES)):
            raise ValueError(f"a run's arrays must have one row a step, got {shapes}")
    raw = all(run.observations is not None for run in runs)
    thinned = all(run.step is not None for run in runs)
    scalars = (*SCALARS, *["multiplier_before"] * thinned)
    name = "observations" if raw else "features"
    columns = list(Observation._fields) if raw else list(NAMES)
    wide = _rounded(np.concatenate([_float32(getattr(run, name)) for run in runs]))
    table = pa.table(
        {
            "run": np.concatenate(
                [np.full(run.steps, i, np.int32) for i, run in enumerate(runs)]
            ),
            "step": np.concatenate(
                [
                    np.arange(run.steps, dtype=np.int32)
                    if run.step is None
                    else run.step
                    for run in runs
                ]
            ),
            **dict(zip(columns, wide.T.copy(), strict=True)),
            **{
                scalar: np.concatenate([_float32(getattr(r, scalar)) for r in runs])
                for scalar in scalars
            },
        }
    )
    header = {
        "feature_version": FEATURE_VERSION,
        "thinned": thinned,
        name: columns,
        "runs": [{"about": r.about, "evaluations": r.evaluations} for r in runs],
    }
    table = table.replace_schema_metadata({_KEY: _packed(header)})
    floats = [*columns, *scalars]
    files.replace(
        path,
        lambda draft: parquet.write_table(
            table,
            draft,
            compression="zstd",
            use_dictionary=False,
            # Zeroed low bits stand together in a stream of their own.
            column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        ),
    )


def read(path: Path) -> list[Run]:
    """Read the runs of a file.

    Raises:
      MetalrError: The file is missing or broken, holds something else, or was made
        for another list of features.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with memory.bounded(path), parquet.ParquetFile(path) as file:
            header = _unpacked((file.schema_arrow.metadata or {})[_KEY])
            _check_header(path, header)
            if file.metadata.num_rows > _MAX_STEPS:
                raise ValueError(f"{file.metadata.num_rows} steps")
            name = "observations" if "observations" in header else "features"
            extra = ["step", "multiplier_before"] * (header.get("thinned") is True)
            table = file.read(["run", *header[name], *SCALARS, *extra])
        return _runs(table, header[name], header["runs"])
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise MetalrError(f"cannot read {path}: {error.strerror or error}") from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            # The system's fault: the file may be whole, and `collect` removes a broken.
            raise MetalrError(f"cannot read {path}: {_short(error)}") from error
        raise Broken(
            f"{path} is not Parquet that can be read ({_short(error)}); it may be cut "
            "off: delete it and collect it again"
        ) from error
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise MetalrError(
            f"{path} does not hold traces of metalr ({_short(error)}); take it out of "
            "the folder"
        ) from error


def _runs(table: Any, names: list[str], abouts: list[dict[str, Any]]) -> list[Run]:
    """Split a table into runs; raise ValueError if it is malformed."""
    number = table["run"].to_numpy()
    if number.dtype != np.int32 or np.any(np.diff(number, prepend=0) < 0):
        raise ValueError("the column run is not in order")
    if len(number) and number[-1] >= len(abouts):
        raise ValueError(f"{len(abouts)} runs in the head, others below")
    scalars = [n for n in table.column_names if n not in ("run", "step", *names)]
    columns = [np.column_stack([table[n].to_numpy() for n in names])]
    columns += [table[scalar].to_numpy() for scalar in scalars]
    if any(column.dtype != np.float32 for column in columns):
        raise ValueError("a column is not float32")
    if not np.isfinite(columns[0]).all():
        raise ValueError("a feature or an observation is not finite")
    thinned = "step" in table.column_names
    step = table["step"].to_numpy() if thinned else np.zeros(len(number), np.int32)
    if step.dtype != np.int32 or np.any(step < thinned):
        raise ValueError("the column step is not of steps after the first")
    ends = np.cumsum(np.bincount(number, minlength=len(abouts)))
    parts = (np.split(column, ends[:-1]) for column in [step, *columns])
    found = []
    for about, at, wide, rate, multiplier, loss, *before in zip(
        abouts, *parts, strict=True
    ):
        raw = None if names == list(NAMES) else wide
        seen = wide if raw is None else features_of(raw)
        keys = {_OLD_KEYS.get(str(k), str(k)): v for k, v in about["about"].items()}
        evaluations = about["evaluations"]
        run = Run(About(**keys), evaluations, seen, rate, multiplier, loss, raw)
        if thinned:
            run = run._replace(step=at, multiplier_before=before[0])
        found.append(run)
    return found


def read_all(
    paths: Sequence[Path], *, skip: Callable[[str], object] | None = None
) -> tuple[list[Path], list[Run]]:
    """Read files, in the order given.

    Args:
      paths: The files.
      skip: Called with the message of each file that is refused, and the file is left
        out; None raises.

    Returns:
      The files that were read, and all of their runs.

    Raises:
      MetalrError: A file is refused and `skip` is None, or there is none to read.
    """
    used, runs = [], []
    for path in paths:
        try:
            runs += read(path)
            used.append(path)
        except MetalrError as fault:
            if skip is None:
                raise
            skip(str(fault))
    if not runs:
        raise MetalrError(
            f"none of the {len(paths)} files of traces could be read; collect others: "
            "train_meta.py"
        )
    return used, runs


def paths_in(folder: Path) -> list[Path]:
    """Return the trace files of a folder, in the order of their names.

    Raises:
      MetalrError: There are none.
    """
    found = sorted(p for p in Path(folder).glob(f"*{ENDING}") if p.name[0] != ".")
    if not found:
        fault = "holds none" if Path(folder).is_dir() else "is none"
        raise MetalrError(
            f"{folder} must be a folder that holds traces (*{ENDING}), and {fault}; "
            "name another one, or collect some: train_meta.py"
        )
    return found


def thin_folder(source: Path, target: Path) -> None:
    """Write the traces of a folder to another one, those of the zoo thinned.

    Args:
      source: Folder of traces.
      target: Another folder, created if missing; a file in it is written again.

    Raises:
      MetalrError: It is the same folder, holds other traces, or a file is refused or
        cannot be written.
    """
    target.mkdir(parents=True, exist_ok=True)
    paths = paths_in(source)
    if target.resolve() == Path(source).resolve():
        raise MetalrError(
            f"--thin needs another folder than that of the traces, {source}"
        )
    there = {path.name for path in target.glob(f"*{ENDING}")}
    if other := sorted(there - {path.name for path in paths}):
        raise MetalrError(
            f"{target} holds other traces ({other[0]}); name a new folder for --thin"
        )
    for path in paths:
        runs = read(path)
        raw = all(r.observations is not None and "problem" in r.about for r in runs)
        write(target / path.name, thin(runs) if raw else runs)


def _packed(header: dict[str, Any]) -> bytes:
    """Compress the head of a file, which Parquet does not."""
    return base64.b85encode(zlib.compress(json.dumps(header).encode(), 9))


def _unpacked(packed: bytes) -> dict[str, Any]:
    """Read what `_packed` wrote; raise ValueError for anything else."""
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(base64.b85decode(packed), _MAX_HEADER)
    except zlib.error as error:
        raise ValueError(f"its head is not compressed JSON: {error}") from error
    if unpacking.unconsumed_tail:
        raise ValueError(f"its head has more than {_MAX_HEADER} bytes")
    return json.loads(text)


def _check_header(path: Path, header: dict[str, Any]) -> None:
    raw = "observations" in header
    names = header["observations" if raw else "features"]
    version = header["feature_version"]
    ours = list(Observation._fields if raw else NAMES)
    if names != ours or (version != FEATURE_VERSION and not raw):
        other = sorted(set(map(str, names)) ^ set(ours)) or ["the order or a formula"]
        raise MetalrError(
            f"traces must have the numbers of this metalr, version {FEATURE_VERSION}; "
            f"{path} has version {version} and differs in {', '.join(other)}. "
            "Collect again, or use the metalr that it was made with"
        )
    if not isinstance(header["runs"], list):
        raise ValueError("runs is not a list")
    for run in header["runs"]:
        if not isinstance(run["about"], dict):
            raise ValueError("about is not an object")
        if not all(isinstance(row, dict) for row in run["evaluations"]):
            raise ValueError("an evaluation is not an object")


def _short(fault: Exception) -> str:
    """Return a fault in one line."""
    return " ".join(repr(fault).split())[:200]


def _float32(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32)


def _rounded(features: np.ndarray) -> np.ndarray:
    """Round to the nearest float32 whose low bits of the significand are 0."""
    spare = 24 - _KEPT_BITS
    bits = np.ascontiguousarray(features, np.float32).view(np.uint32)
    bits = (bits + np.uint32(1 << (spare - 1))) & ~np.uint32((1 << spare) - 1)
    return bits.view(np.float32)
