"""Only a MetalrError comes out of a reader, whatever the file holds."""

import ast
import errno
import gzip
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import metalr
from metalr import cli, errors
from metalr.data import hub_rows
from metalr.data.formats import json_rows, text
from metalr.errors import MetalrError
from metalr.models import weights
from metalr.runtime import files
from tests.data.rows_of_files import read_rows
from tests.models import small_models
from tests.robustness import fuzzing

pytestmark = pytest.mark.robust

ROOT = Path(__file__).parents[2]
CUTS = st.lists(
    st.builds(
        fuzzing.Cut,
        st.sampled_from(fuzzing.KINDS),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([1, 2, 4, 16, 64]),
        st.binary(max_size=32),
    ),
    min_size=1,
    max_size=5,
)


NAMES = list(fuzzing.READERS)


@pytest.mark.parametrize("name", NAMES)
def test_whole_file_is_read_without_a_word(name, tmp_path, capfd):
    reader = fuzzing.READERS[name]
    seeds = reader.seeds()
    capfd.readouterr()  # what making them said
    for content in seeds:
        (tmp_path / reader.name).write_bytes(content)
        reader.read(tmp_path / reader.name)
    assert seeds and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
def test_damaged_file_gets_an_error_of_one_line_or_none(name, tmp_path):
    reader = fuzzing.READERS[name]
    seeds = reader.seeds()

    @settings(
        max_examples=60,
        derandomize=True,  # a find is for fault_table.py; here nothing may flake
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(seeds), CUTS, st.sampled_from(seeds))
    def hurt(content, cuts, other):
        path = tmp_path / reader.name
        path.write_bytes(fuzzing.mutate(content, cuts, other))
        try:
            reader.read(path)
        except MetalrError as fault:
            assert "\n" not in str(fault) and len(str(fault)) < 1100

    hurt()


def bomb(kind, folder, monkeypatch):
    """Write a file that would fill the memory, limits lowered to keep it small."""
    monkeypatch.setattr(text, "MAX_LINE", 2**16)
    monkeypatch.setattr(json_rows, "MAX_WHOLE", 2**17)
    monkeypatch.setattr(text, "MAX_ROWS", 5000)
    monkeypatch.setattr(files, "MAX_JSON", 2**16)
    match kind:
        case "long line":
            path = folder / "rows.csv"
            path.write_bytes(b"sentence,label\n" + b"a" * 2**24)
        case "long value":
            path = folder / "rows.json"
            path.write_text("[\n" + '{"sentence": "a", "label": 1},\n' * 10_000)
        case "packed lines":
            path = folder / "rows.jsonl.gz"
            path.write_bytes(gzip.compress(b'{"sentence": "a"}\n' * 10**5))
        case "packed line":
            path = folder / "rows.jsonl.gz"
            path.write_bytes(gzip.compress(b" " * 2**24))
        case "deep":
            path = folder / "rows.json"
            path.write_text("[" * 10**5)
        case "deep line":
            path = folder / "rows.jsonl"
            path.write_text('{"a":' * 10**4)
        case "packed rows":
            import pyarrow
            from pyarrow import parquet

            path = folder / "rows.parquet"
            table = pyarrow.table({"sentence": pyarrow.repeat("a", 10**6)})
            parquet.write_table(table, path)
    return path


BOMBS = {
    "long line": "longer than",
    "long value": "one row a line",
    "packed lines": "more than 5000 lines",
    "packed line": "longer than",
    "deep": "nested too deeply|is one JSON value|longer than",
    "deep line": "nested too deeply",
    "packed rows": "more than 5000 rows",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_file_that_would_fill_the_memory_is_refused_on_the_way(
    kind, tmp_path, monkeypatch
):
    path = bomb(kind, tmp_path, monkeypatch)
    tracemalloc.start()
    try:
        with pytest.raises(MetalrError, match=BOMBS[kind]):
            read_rows(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Of what the encoding is told by, and not the 16 MiB that the file unpacks to.
    assert peak < 5 * 2**20


@pytest.mark.parametrize("read", [files.read_json, weights.read_json])
@pytest.mark.parametrize("content", ["[" * 10**5, '{"a":' * 10**5, " " * 2**17])
def test_json_that_is_deep_or_large_is_refused(read, content, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_JSON", 2**16 if content[0] == " " else 2**20)
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(MetalrError, match="nested too deeply|at most"):
        read(path)


@pytest.mark.parametrize("claimed", [2**40, 2**63, 2**20])
def test_header_of_safetensors_that_claims_too_much_is_refused(claimed, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", claimed) + b"{}")
    tracemalloc.start()
    try:
        with pytest.raises(MetalrError, match="not a complete safetensors"):
            weights.read([path], small_models.BERT, "classification")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a/b", ".."])
def test_index_of_weights_names_files_beside_it_alone(name, tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(MetalrError, match="beside it"):
        weights.files_of(tmp_path)


# ------------------------------------------------------------------ no code from files

MODULES = sorted(Path(list(metalr.__path__)[0]).rglob("*.py"))
SCRIPTS = [
    Path(metalr.__path__[0]).parent / n for n in ("finetune.py", "train_meta.py")
]
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}


def faults_of(source):
    """List what could run code that a file holds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None)
            if name in BANNED_CALLS:
                yield name
            for word in node.keywords:
                constant = getattr(word.value, "value", None)
                if word.arg == "trust_remote_code" and constant is not False:
                    yield word.arg
                if word.arg == "allow_pickle" and constant is not False:
                    yield word.arg
                if word.arg == "shell" and constant is not False:
                    yield word.arg
        elif isinstance(node, ast.Import):
            yield from {a.name.split(".")[0] for a in node.names} & BANNED_MODULES
        elif isinstance(node, ast.ImportFrom):
            yield from {(node.module or "").split(".")[0]} & BANNED_MODULES


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda path: path.name)
def test_no_module_runs_code_that_a_file_holds(path):
    # What the processes of one run send each other comes from no file.
    own = {"pickle"} if path.name in ("processes.py", "ray_cluster.py") else set()
    assert not set(faults_of(path.read_text(encoding="utf-8"))) - own


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "import pickle",
        "from joblib import load",
        "f(x, trust_remote_code=True)",
        "f(x, trust_remote_code=given)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_every_spelling_of_running_code_is_seen(line):
    assert list(faults_of(line))


@pytest.mark.skipif(sys.platform != "linux", reason="no other system has the bound")
def test_page_that_claims_billions_of_values_takes_no_memory(tmp_path):
    (content, _), said = fuzzing._parquet(), b"\x16\x78\x26\x08\x16\x80\x04"
    assert content.count(said) == 1  # 60 rows of a group, and two fields after it
    path = tmp_path / "rows.parquet"
    path.write_bytes(content.replace(said, b"\x16\x88\xd9\xf7\xe2\x80\x04"))
    script = """
import resource, sys
from pathlib import Path
from metalr.data.formats import opening, table
from metalr.errors import MetalrError
before = resource.getrlimit(resource.RLIMIT_AS)
try:
    list(opening.look(Path(sys.argv[1]), table.PLAIN).rows(None))
except MetalrError as fault:
    assert "not a readable Parquet" in str(fault)
assert resource.getrlimit(resource.RLIMIT_AS) == before
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0])  # ru_maxrss begins with the parent's
"""
    # In a process of its own: unbounded, the system would kill it.
    argv = [sys.executable, "-c", script, str(path)]
    run = subprocess.run(argv, check=True, cwd=ROOT, capture_output=True, text=True)
    assert int(run.stdout) < 500_000  # kB


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_one_line_wherever_it_is_met(number, tmp_path, capsys):
    def main():
        raise OSError(number, os.strerror(number), "curves.png")

    assert cli.guarded(main) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "curves.png" in said and "resumes" in said


def test_late_failure_of_a_write_is_not_told_again_and_others_still_are(tmp_path):
    script = """
import sys, types
from metalr import cli
told = []
sys.unraisablehook = told.append
cli.hush_libraries()
for words in ("Event loop is closed", "something else"):
    sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(words)))
assert [str(fault.exc_value) for fault in told] == ["something else"]
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


# ------------------------------------------------------------------ secrets


@pytest.mark.parametrize(
    "text",
    [
        "401 for https://user:secretword@hub.example/api",
        "got https://hub.example/f?X-Token=secretword&x=1",
        "header Authorization: Bearer secretword",
        "the token secretword is not valid",
    ],
)
def test_no_error_quotes_a_token(text, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secretword")
    assert "secretword" not in str(MetalrError(text))
    assert "***" in errors.without_secrets(text)


def test_address_of_the_hub_is_quoted_without_its_password(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secretword@127.0.0.1:1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MetalrError, match=r"https://\*\*\*@127") as fault:
        hub_rows.read("nyu-mll/glue", "sst2", "train")
    assert "secretword" not in str(fault.value)
