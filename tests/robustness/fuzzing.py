"""Valid files of every format that metalr reads, ways to hurt them, and the readers.

`mutate` is a pure function of the file and a list of cuts, so that hypothesis draws the
cuts in the test suite, and `fault_table.py` draws a hundred thousand of them.
"""

import argparse
import contextlib
import gzip
import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from metalr import cli, predictor, stored_predictor
from metalr.compare import comparison, execute, plan, store
from metalr.data import loading
from metalr.features import FEATURES
from metalr.finetune import display
from metalr.finetune.config import RunConfig
from metalr.finetune.config_rules import changed
from metalr.finetune.result import read_result
from metalr.meta import labels, trace_files, traces
from metalr.models import heads, huggingface, weights
from metalr.report import conclusions, document, show, tables
from metalr.runtime import files
from tests.compare import synthetic_store
from tests.models import small_models
from tests.runtime.a_result import RESULT

LARGE = (b"99999999999999999999", b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}")
# What a field of JSON may be in place of what it should be.
ODD_NAMES = (
    *("\x1b[2J\x07", "\u202eevil", "a\nb\r", "[red]x[/nope]", "$\\bad{", "\ud800"),
    *("", "x" * 300),
)
ODD = (None, True, -1, 0.5, 1e308, 10**400, [], {}, [[]], {"": 0}, *ODD_NAMES)
BYTES = ("flip", "delete", "insert", "truncate", "repeat", "splice", "large", "nest")
FIELDS = ("drop", "odd", "rename")  # of JSON, or of one line of it; else nothing
KINDS = (*BYTES, *FIELDS)


class Cut(NamedTuple):
    """One change of a file."""

    kind: str  # one of KINDS
    place: float  # in [0, 1), a share of the file
    length: int  # bytes
    payload: bytes


class Reader(NamedTuple):
    """A format."""

    name: str  # of the file, with the ending that says the format
    seeds: Callable[[], list[bytes]]  # whole files
    read: Callable[[Path], Any]


def mutate(content: bytes, cuts: Sequence[Cut], other: bytes) -> bytes:
    """Return a file after all cuts; `other` is what splices come from."""
    for kind, place, length, payload in cuts:
        at = int(place * len(content))
        rest = content[at + length :]
        match kind:
            case "flip":
                hurt = bytes(b ^ (payload or b"\x01")[0] for b in content[at:][:length])
                content = content[:at] + hurt + rest
            case "delete":
                content = content[:at] + rest
            case "insert":
                content = content[:at] + payload + content[at:]
            case "truncate":
                content = content[:at]
            case "repeat":
                content = content[:at] + content[at:][:length] * 3 + rest
            case "splice":
                content = content[:at] + other[int(place * len(other)) :]
            case "large":
                content = content[:at] + LARGE[length % len(LARGE)] + rest
            case "nest":
                content = content[:at] + b"[" * 2000 + content[at:]
            case _:
                content = _with_other_field(content, kind, place, length)
    return content


def _with_other_field(content: bytes, kind: str, place: float, length: int) -> bytes:
    """Return JSON, or JSON Lines, with one field dropped, renamed or of odd content.

    A cut of bytes hardly ever leaves JSON that a reader looks further into.
    """
    lines = [content]
    number = 0
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        lines = content.split(b"\n")
        number = int(place * 7919) % len(lines)
        try:
            whole = json.loads(lines[number])
        except (ValueError, RecursionError):
            return content
    places = list(_places(whole))
    if not places:
        return content
    holder, name = places[int(place * len(places))]
    if kind == "odd":
        holder[name] = ODD[length % len(ODD)]
    else:
        value = holder.pop(name)
        if kind == "rename" and isinstance(holder, dict):
            holder[ODD_NAMES[length % len(ODD_NAMES)]] = value
    lines[number] = json.dumps(whole).encode()
    return b"\n".join(lines)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each field of JSON as what holds it and its name or number."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, entry in list(pairs):
            yield value, name
            yield from _places(entry)


def drawn(rng: random.Random) -> list[Cut]:
    """Draw a list of cuts, mostly one or two."""
    return [
        Cut(
            rng.choice(KINDS),
            rng.random(),
            rng.choice((1, 1, 1, 2, 4, 16, 64, rng.randrange(1, 99))),
            rng.randbytes(rng.choice((1, 1, 4, 32))),
        )
        for _ in range(rng.choice((1, 1, 2, 2, 5)))
    ]


# ------------------------------------------------------------------ whole files

ROWS = [
    {"sentence": "a good film", "label": 1},
    {"sentence": 'it said "bad", twice', "label": 0},
    {"sentence": "größer", "label": 1},
]
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "films",
            "paragraphs": [
                {
                    "context": "the film is good",
                    "qas": [
                        {
                            "id": "1",
                            "question": "what is good ?",
                            "answers": [{"text": "film", "answer_start": 4}],
                        },
                        {
                            "id": "2",
                            "question": "how is it ?",
                            "answers": [{"text": "good", "answer_start": 12}],
                        },
                    ],
                }
            ],
        }
    ],
}


def _csv() -> list[bytes]:
    text = 'sentence,label\na good film,1\n"it said ""bad"", twice",0\ngrößer,1\n'
    return [text.encode(), b"\xef\xbb\xbf" + text.encode()]


def _tsv() -> list[bytes]:
    return ["sentence\tlabel\na good film\t1\nbad\t0\ngrößer\t1\n".encode()]


def _json_lines() -> list[bytes]:
    return ["".join(json.dumps(row) + "\n" for row in ROWS).encode()]


def _gzipped() -> list[bytes]:
    return [gzip.compress(content, mtime=0) for content in _json_lines()]


def _parquet() -> list[bytes]:
    import pyarrow
    from pyarrow import parquet

    files = []
    for compression in ("none", "zstd"):
        buffer = io.BytesIO()
        table = pyarrow.Table.from_pylist(ROWS * 20)
        parquet.write_table(table, buffer, compression=compression)
        files.append(buffer.getvalue())
    return files


def _traces() -> list[bytes]:
    import tempfile

    runs = []
    for peak in (1e-5, 1e-4):
        about = {"sweep_id": 1, "task": "sst2", "kind": "peak", "peak": peak}
        about |= {"base_rate": 1e-5, "depth": 1, "width": 16, "seed": 3}
        evaluations = [{"step": s, "eval_loss": 0.7 - s / 9} for s in (0, 2)]
        ones = np.ones(2, np.float32)
        features = np.zeros((2, len(FEATURES)), np.float32)
        run = traces.Run(traces.About(**about), evaluations, features, ones, ones, ones)
        runs.append(run)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sweep.parquet")
        trace_files.write(path, runs)
        return [path.read_bytes()]


def _model() -> tuple[Any, Any]:
    config = small_models.BERT
    return config, heads.build(config, "classification", 2, seed=0)[1]


def _config() -> list[bytes]:
    config, _ = _model()
    content = huggingface.config_json(config, "classification", ("no", "yes"))
    return [json.dumps(content).encode()]


def _safetensors() -> list[bytes]:
    from safetensors.numpy import save

    config, params = _model()
    return [save(weights.to_files(params, config, "classification"))]


def _index() -> list[bytes]:
    names = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    return [json.dumps({"metadata": {}, "weight_map": names}).encode()]


# ------------------------------------------------------------------ the readers


def _read_rows(path: Path) -> None:
    loading.load("file", train_file=str(path), validation_file=str(path))


def _read_config(path: Path) -> None:
    config = huggingface.read_config(weights.read_json(path), path)
    assert config.num_hidden_layers <= huggingface.MOST_LAYERS


def _read_safetensors(path: Path) -> None:
    config = small_models.BERT
    _, shapes = heads.outline(config, "classification", 2, "float32")
    tensors = weights.read([path], config, "classification")
    weights.assemble(tensors, shapes, config, "classification", seed=0)


def _read_index(path: Path) -> None:
    for found in weights.files_of(path.parent):
        assert found.parent == path.parent


def _read_settings(path: Path) -> None:
    changed(files.read_json(path), RunConfig().to_json())


def _read_traces(path: Path) -> None:
    labels.examples(trace_files.read(path))


def _show_result(path: Path) -> None:
    """Read a result as `metalr show` and a finished run do, and export its model."""
    text = io.StringIO()
    shown = Console(file=text, width=200)
    show.print_runs(show.read_runs([path]), shown)
    result = read_result(path)
    for quiet in (False, True):
        display.summary(result, [path], quiet=quiet, console=shown)
    _check_text(text.getvalue())
    run, target = path.parent / "run", path.parent / "exported"
    shutil.rmtree(target, ignore_errors=True)
    (run / "model").mkdir(parents=True, exist_ok=True)
    for copy in (run / "result.json", run / "model/config.json"):
        shutil.copy(path, copy)
    with contextlib.redirect_stdout(None):
        cli._export(argparse.Namespace(run=str(run), folder=str(target), merge=False))
    assert (target / "config.json").read_bytes() == path.read_bytes()


def _check_text(text: str) -> None:
    """Refuse text that would do more in a terminal than stand there."""
    hidden = [c for c in text if not c.isprintable() and c != "\n"]
    assert not hidden, f"shown unescaped: {hidden[0]!r}"


def _read_store(path: Path) -> None:
    """Read a store, what a dry run says of it, and a report without its pictures."""
    todo = [RunConfig(task="sst2", model="minilm:2", max_steps=4, data="toy")]
    head, rows = execute.forecast(todo, path)
    found = comparison.from_lines(store.read_lines(path), None)
    blocks = [document.Points(conclusions.sentences(found)), document.Table(head, rows)]
    named = (tables.summary_table, tables.overhead_table, tables.origin_table)
    cells = [of(found) for of in (*named, tables.settings_table, tables.versions_table)]
    cells += [tables.workload_table(found, place) for place in found.references]
    blocks += [document.Table(("",) * len(c[0]), c) for c in cells if c]
    for text in (document.to_markdown(blocks, path.parent), document.to_html(blocks)):
        _check_text(text.replace("\u00a0", " "))


def _read_plan(path: Path) -> None:
    plan.expand(plan.read_plan(str(path)))


def _read_arrays(path: Path) -> None:
    """Load a predictor with its arrays replaced by `path`."""
    folder = path.parent / "predictor"
    stored_predictor.save_predictor(folder, predictor.init_predictor(), {})
    shutil.copyfile(path, folder / "arrays.npz")
    stored_predictor.load_predictor(folder)


def _store() -> list[bytes]:
    runs = [
        synthetic_store.a_run(scheduler=scheduler, seed=seed)
        for scheduler in ("linear", "metalr")
        for seed in (0, 1)
    ]
    lines = [*runs, synthetic_store.overhead("metalr")]
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


def _plan() -> dict[str, Any]:
    return {
        "models": ["minilm:1"],
        "schedulers": ["linear", "metalr"],
        "seeds": 2,
        "tuned": ["linear"],
        "rates": [2e-5, 1e-3],
        "rates_of": {"metalr": [1e-6]},
        "settings": {"max_steps": 4, "data": "toy"},
        "tasks": {"sst2": {}, "rte": {"max_steps": 6, "epochs": 2.5}},
    }


def _predictor_file(name: str) -> list[bytes]:
    """Return a file of a predictor that is saved for it."""
    with tempfile.TemporaryDirectory() as folder:
        stored_predictor.save_predictor(folder, predictor.init_predictor(), {"seed": 0})
        return [(Path(folder) / name).read_bytes()]


READERS = {
    "CSV": Reader("rows.csv", _csv, _read_rows),
    "TSV": Reader("rows.tsv", _tsv, _read_rows),
    "JSON Lines": Reader("rows.jsonl", _json_lines, _read_rows),
    "JSON Lines, gzip": Reader("rows.jsonl.gz", _gzipped, _read_rows),
    "Parquet": Reader("rows.parquet", _parquet, _read_rows),
    "SQuAD": Reader(
        "squad.json",
        lambda: [json.dumps(SQUAD).encode(), json.dumps(SQUAD, indent=1).encode()],
        _read_rows,
    ),
    "config.json": Reader("config.json", _config, _read_config),
    "safetensors": Reader("model.safetensors", _safetensors, _read_safetensors),
    "safetensors index": Reader("model.safetensors.index.json", _index, _read_index),
    "predictor metadata": Reader(
        "metadata.json",
        lambda: _predictor_file("metadata.json"),
        lambda path: stored_predictor.read_metadata(path.parent),
    ),
    "predictor arrays": Reader(
        "arrays.npz", lambda: _predictor_file("arrays.npz"), _read_arrays
    ),
    "traces": Reader("sweep.parquet", _traces, _read_traces),
    "result.json": Reader(
        "result.json",
        lambda: [
            json.dumps(RESULT).encode(),
            json.dumps(synthetic_store.a_run(scheduler="metalr")).encode(),
        ],
        _show_result,
    ),
    "result store": Reader("runs.jsonl", _store, _read_store),
    "plan, JSON": Reader(
        "plan.json", lambda: [json.dumps(_plan()).encode()], _read_plan
    ),
    "plan, TOML": Reader(
        "plan.toml",
        lambda: [p.read_bytes() for p in sorted(plan.PLANS.glob("*.toml"))],
        _read_plan,
    ),
    "settings.json": Reader(
        "settings.json",
        lambda: [json.dumps(RunConfig().to_json()).encode()],
        _read_settings,
    ),
}
