"""Readers of files and of the hub: what they return, and every way they refuse."""

import csv
import gzip
import io
import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metalr.data import sources
from metalr.errors import MetalrError

ROWS = [{"sentence": 'a "good", long\nfilm', "label": 1}, {"sentence": "é", "label": 0}]
SQUAD = {
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "It was blue.",
                    "qas": [
                        {
                            "id": "q1",
                            "question": "Which colour?",
                            "answers": [{"text": "blue", "answer_start": 7}],
                        }
                    ],
                }
            ],
        }
    ]
}

# Files are written over and over in one folder, which is what hypothesis warns of.
many = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tables = st.lists(
    st.fixed_dictionaries({"a": texts, "b": texts}), min_size=1, max_size=5
)


def write(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# ------------------------------------------------------------ what is read


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.json", "x.JSONL"])
def test_json_lines_come_back_as_written(tmp_path, name):
    assert sources.read_rows(write(tmp_path / name, lines(ROWS))) == ROWS


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    path = write(tmp_path / "x.jsonl", "\ufeff" + lines(ROWS) + "\n  \n")
    assert sources.read_rows(path) == ROWS


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_may_be_one_list(tmp_path, indent):
    path = write(tmp_path / "x.json", json.dumps(ROWS, indent=indent))
    assert sources.read_rows(path) == ROWS


@pytest.mark.parametrize("indent", [None, 2])
def test_squads_nested_file_comes_out_flat_as_on_the_hub(tmp_path, indent):
    path = write(tmp_path / "dev-v1.1.json", json.dumps(SQUAD, indent=indent))
    assert sources.read_rows(path) == [
        {
            "id": "q1",
            "title": "T",
            "context": "It was blue.",
            "question": "Which colour?",
            "answers": {"text": ["blue"], "answer_start": [7]},
        }
    ]


def test_parquet_comes_back_as_written(tmp_path):
    rows = [{**row, "answers": {"text": ["x"], "answer_start": [1]}} for row in ROWS]
    # A folder name that pyarrow could take for a column.
    (tmp_path / "label=7").mkdir()
    path = tmp_path / "label=7" / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert sources.read_rows(path) == rows


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_a_text_of_a_book_s_length_is_read(name, tmp_path):
    text = "word " * 200_000
    path = write(tmp_path / name, f"text\n{text}\n")
    assert sources.read_rows(path) == [{"text": text}]


@many
@given(tables)
def test_csv_reads_what_the_csv_module_writes(tmp_path, rows):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["a", "b"])
    writer.writeheader()
    writer.writerows(rows)
    assert sources.read_rows(write(tmp_path / "x.csv", out.getvalue())) == rows


@many
@given(tables)
def test_json_lines_read_what_the_json_module_writes(tmp_path, rows):
    assert sources.read_rows(write(tmp_path / "x.jsonl", lines(rows))) == rows


def test_a_quote_in_a_tsv_file_is_a_character_of_the_text(tmp_path):
    path = write(tmp_path / "x.tsv", 'sentence\tlabel\n"so" he said\t1\n"open\t0\n')
    assert [row["sentence"] for row in sources.read_rows(path)] == [
        '"so" he said',
        '"open',
    ]


# ------------------------------------------------------------ what is refused


@many
@given(st.binary(max_size=200), st.sampled_from(sources.SUFFIXES))
def test_garbage_is_refused_without_a_traceback(tmp_path, raw, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(raw)
    try:
        rows = sources.read_rows(path)
    except MetalrError as fault:
        assert str(path) in str(fault)
    else:
        assert all(isinstance(row, dict) for row in rows)


BAD = {
    "broken line": ("x.jsonl", '{"a": 1}\n{"a": \n', "x.jsonl line 2 is not JSON"),
    "no object": ("x.jsonl", '{"a": 1}\n\n[1]\n', "line 3 is no JSON object: .\\[1\\]"),
    "deep": ("x.jsonl", "[" * 200_000, "line 1 is not usable JSON: nested too deeply"),
    "long number": ("x.jsonl", '{"a": ' + "9" * 5000 + "}", "line 1 is not usable"),
    "not UTF-8": ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "line 2 is not UTF-8: .*ff"),
    "empty": ("x.jsonl", "", "is empty"),
    "blank": ("x.json", "\n\n", "is empty"),
    "broken json": ("x.json", '[\n{"a": 1},\n{"a" 2}]', "x.json line 3 is not JSON"),
    "json of no rows": ("x.json", "{\n}", "holds neither"),
    "list of numbers": ("x.json", "[1, 2]", "holds neither"),
    "bad squad": ("x.json", '{"data": [{"paragraphs": [{}]}]}', "article 1 .* 'qas'"),
    "ragged": ("x.csv", "a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, the header has 2"),
    "column twice": ("x.csv", "a,b,a\n1,2,3\n", "the column 'a' more than once"),
    "open quote": ("x.csv", 'a,b\n1,"2\n', "line 2 breaks the format"),
    "header only": ("x.csv", "a,b\n", "is empty"),
    "csv not UTF-8": ("x.csv", b"a\n\xe9t\xe9\n", "line 2 is not UTF-8"),
    "ragged tsv": ("x.tsv", "a\tb\n1\n", "line 2 has 1 fields"),
    "foreign parquet": ("x.parquet", "PAR1 no", "no readable Parquet file"),
    "foreign ending": ("x.xlsx", "", "ends in .jsonl, .*not in '.xlsx'"),
    "no ending": ("rows", "", "not in ''"),
}


@pytest.mark.parametrize("name, content, message", BAD.values(), ids=BAD)
def test_a_bad_file_gets_a_line_that_says_where(tmp_path, name, content, message):
    with pytest.raises(MetalrError, match=message) as fault:
        sources.read_rows(write(tmp_path / name, content))
    assert "\n" not in str(fault.value)


def test_a_truncated_gzip_file_is_refused(tmp_path):
    whole = gzip.compress(lines(ROWS).encode())
    for raw in (whole[:-12], b"no gzip"):
        (tmp_path / "x.jsonl.gz").write_bytes(raw)
        with pytest.raises(MetalrError, match="no whole gzip file"):
            sources.read_rows(tmp_path / "x.jsonl.gz")


def test_an_endless_line_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_MAX_LINE", 1000)
    path = write(tmp_path / "x.jsonl.gz", b"x" * 5000)
    with pytest.raises(MetalrError, match="line 1 is longer than 1000 bytes"):
        sources.read_rows(path)


def test_a_missing_file_names_its_neighbours(tmp_path):
    write(tmp_path / "train.csv", "a\n1\n")
    with pytest.raises(MetalrError, match="the nearest there: train.csv"):
        sources.read_rows(tmp_path / "trian.csv")
    with pytest.raises(MetalrError, match="there is no folder"):
        sources.read_rows(tmp_path / "none" / "x.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(MetalrError, match="can't be read: Is a directory"):
        sources.read_rows(tmp_path / "folder.csv")


# ------------------------------------------------------------ the hub


@pytest.fixture(autouse=True)
def fresh_hub(monkeypatch):
    """Forgets what the hub answered and sees no settings of the machine."""
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    sources._answers.cache_clear()
    yield
    sources._answers.cache_clear()


class Reply(io.BytesIO):
    status = 200


def test_a_hanging_network_holds_nobody_up(monkeypatch):
    release = threading.Event()

    def hang(*args, **kwargs):
        release.wait(20)
        raise urllib.error.URLError("late")

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    start = time.monotonic()
    assert not sources.hub_answers(0.2)
    assert time.monotonic() - start < 5
    release.set()


def test_the_hub_is_asked_once_at_the_endpoint_in_use(monkeypatch):
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return Reply()

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert sources.hub_answers() and sources.hub_answers(10.0)
    assert asked == ["https://mirror.example/api/datasets/nyu-mll/glue"]


def test_offline_mode_asks_nobody(monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", pytest.fail)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not sources.hub_answers()


def test_a_hub_that_refuses_does_not_answer(monkeypatch):
    def refuse(url, timeout):
        raise urllib.error.URLError("refused")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert not sources.hub_answers()


def cache_a_split(folder: Path, rows: list[dict]) -> None:
    """Lays rows down the way datasets keeps what it once downloaded."""
    import datasets
    from datasets.arrow_writer import ArrowWriter

    folder = folder / "nyu-mll___glue" / "sst2" / "0.0.0" / "abc"
    folder.mkdir(parents=True)
    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
        }
    )
    with ArrowWriter(path=str(folder / "glue-train.arrow"), features=features) as out:
        for row in rows:
            out.write(row)
        count, size = out.finalize()
    split = {"name": "train", "num_bytes": size, "num_examples": count}
    info = {
        "builder_name": "parquet",
        "dataset_name": "glue",
        "config_name": "sst2",
        "version": "0.0.0",
        "splits": {"train": {**split, "dataset_name": "glue"}},
    }
    datasets.DatasetInfo(features=features, **info).write_to_directory(str(folder))


def test_a_dead_hub_is_replaced_by_the_local_cache(monkeypatch, tmp_path, capfd):
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cache_a_split(tmp_path, ROWS)
    assert sources.read_hub("nyu-mll/glue", "sst2", "train") == ROWS
    with pytest.raises(MetalrError, match="does not answer .* lacks it. --data toy"):
        sources.read_hub("nyu-mll/glue", "mnli", "train")
    # The libraries' switches are as before, and nothing was printed over the report.
    assert not datasets.config.HF_HUB_OFFLINE
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert capfd.readouterr() == ("", "")


def test_a_set_that_the_hub_lacks_is_a_users_fault(monkeypatch):
    import datasets

    def refuse(*args, **kwargs):
        raise FileNotFoundError("no such set")

    monkeypatch.setattr(sources, "hub_answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(MetalrError, match="can't be read from the hub: no such set"):
        sources.read_hub("no/such", None, "train")
