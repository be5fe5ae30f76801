"""Files as spreadsheets, pandas, data sets and annotation tools write them."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from metalr.data.loading import load
from metalr.errors import MetalrError

ROOT = Path(__file__).parents[2]
TEXTS = ["a good film", "so bad", "quite, good", "not my film"]
LABELS = [1, 0, 1, 0]
FRAME = pandas.DataFrame({"text": TEXTS, "label": LABELS})
PLAIN = "text,label\n" + "".join(
    f'"{text}",{label}\n' for text, label in zip(TEXTS, LABELS, strict=True)
)


def rows_of(path: Path, **more):
    """Return texts and class names of all rows, and what is said of them."""
    data = load("file", train_file=path, validation_file=path, **more)
    task = data.task
    texts = data.train.column(task.text)
    labels = data.train.column(task.label)
    if task.kind == "classification":
        labels = [task.labels[i] for i in labels]
    return texts, labels, "\n".join(data.reading.lines())


def write(path: Path, content) -> Path:
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8", newline="")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content))
    return path


# ------------------------------------------------------------ the same rows, written

DICTS = FRAME.to_dict("records")
SAME = {
    "blank columns": (
        "x.csv",
        PLAIN.replace("\n", ",,\n").replace("label,,", "label,,"),
    ),
    "a column more than once": (
        "x.csv",
        "id,text,label,id\n"
        + "".join(f'1,"{r["text"]}",{r["label"]},2\n' for r in DICTS),
    ),
    "spaces around names": ("x.csv", PLAIN.replace("text,label", " text , label ")),
    "spaces after commas": ("x.csv", PLAIN.replace('",', '", ').replace("t,l", "t, l")),
    "semicolons": ("x.csv", PLAIN.replace('",', '";').replace("t,l", "t;l")),
    "bars": ("x.csv", PLAIN.replace('",', '"|').replace("t,l", "t|l")),
    "sep line": ("x.csv", "sep=;\n" + PLAIN.replace('",', '";').replace("t,l", "t;l")),
    "quoted sep line": ("x.csv", '"sep=,"\r\n' + PLAIN.replace("\n", "\r\n")),
    "old Mac": ("x.csv", PLAIN.replace("\n", "\r")),
    "UTF-8 with mark": ("x.csv", PLAIN.encode("utf-8-sig")),
    "UTF-16": ("x.csv", PLAIN.encode("utf-16")),
    "UTF-16, tabs": ("x.txt", FRAME.to_csv(sep="\t", index=False).encode("utf-16")),
    "UTF-16 without mark": ("x.csv", PLAIN.encode("utf-16-be")),
    "UTF-16, old Mac": ("x.csv", PLAIN.replace("\n", "\r").encode("utf-16")),
    "UTF-32": ("x.csv", PLAIN.encode("utf-32")),
    "pandas' row numbers": ("x.csv", FRAME.to_csv()),
    "all quoted, tabs": ("x.tsv", FRAME.to_csv(sep="\t", index=False, quoting=1)),
    "words quoted, tabs": ("x.tsv", FRAME.to_csv(sep="\t", index=False, quoting=2)),
    "empty last lines": ("x.csv", PLAIN + ",\n,\n\n"),
    "gz that is none": ("x.csv.gz", PLAIN.encode()),
    "gz without the name": ("x.csv", gzip.compress(PLAIN.encode())),
    "ndjson": ("x.ndjson", FRAME.to_json(orient="records", lines=True)),
    "lines as json": ("x.json", FRAME.to_json(orient="records", lines=True)),
    "columns": ("x.json", FRAME.to_json()),
    "columns, indented": ("x.json", FRAME.to_json(indent=2)),
    "index": ("x.json", FRAME.to_json(orient="index")),
    "named index": ("x.json", FRAME.set_axis(list("abcd")).to_json(orient="index")),
    "split": ("x.json", FRAME.to_json(orient="split")),
    "table": ("x.json", FRAME.to_json(orient="table", indent=1)),
    "records": ("x.json", FRAME.to_json(orient="records")),
    "lists": ("x.json", FRAME.to_dict("list")),
    "rows under data": ("x.json", {"version": 1, "data": DICTS}),
    "rows under another name": ("x.json", {"train": DICTS}),
    "data set viewer": ("x.json", {"rows": [{"row_idx": 0, "row": r} for r in DICTS]}),
    "lists as labels": ("x.json", [{**r, "label": [r["label"]]} for r in DICTS]),
    "choices as labels": (
        "x.json",
        [{**r, "label": {"choices": [str(r["label"])]}} for r in DICTS],
    ),
}


@pytest.mark.parametrize("name, content", SAME.values(), ids=SAME)
def test_rows_are_the_same_however_they_are_written(tmp_path, name, content):
    texts, labels, _ = rows_of(write(tmp_path / name, content))
    assert texts == TEXTS and labels == [str(label) for label in LABELS]


@pytest.mark.parametrize(
    "text",
    ['she said "so" twice', "a\ttab", "two\nlines", '"all"', 'say ""', 'one"'],
)
@pytest.mark.parametrize("others", [["plain", "words"], ["a, b", "c"]])
def test_tsv_as_pandas_writes_it_comes_back(tmp_path, text, others):
    frame = pandas.DataFrame({"text": [text, *others], "label": [1, 0, 1]})
    path = write(tmp_path / "x.tsv", frame.to_csv(sep="\t", index=False))
    assert rows_of(path)[0] == [text, *others]


@pytest.mark.parametrize(
    "texts",
    [
        ['"so" he said', '"open', "plain"],
        ['"I am fine', 'and you?"', "plain"],
        ['"whole"', "plain", "words"],
    ],
)
def test_quotes_of_a_tsv_file_that_quotes_nothing_are_text(tmp_path, texts):
    body = "".join(f"{text}\t{n % 2}\n" for n, text in enumerate(texts))
    path = write(tmp_path / "x.tsv", "text\tlabel\n" + body)
    assert rows_of(path)[0] == texts


def test_a_carriage_return_within_a_line_is_text(tmp_path):
    path = write(tmp_path / "x.csv", 'text,label\none\rtwo,1\n"a\rb, c",0\n')
    assert rows_of(path)[0] == ["one\rtwo", "a\rb, c"]


def test_without_a_header_columns_are_named_by_number(tmp_path):
    path = write(tmp_path / "x.csv", PLAIN.split("\n", 1)[1])
    with pytest.raises(MetalrError, match="--text-column; .* --no-header .*number"):
        rows_of(path)
    found = rows_of(path, header=False, text_column="1", label_column="2")
    assert found[:2] == (TEXTS, ["1", "0", "1", "0"])


@pytest.mark.parametrize(
    "encoding, text",
    [
        ("cp1252", "it was £5 – “cheap”, no?"),
        ("latin-1", "très bien, à bientôt"),
        ("cp1251", "это очень хороший фильм про любовь и войну"),
        ("gb18030", "这是一部非常好的电影"),
    ],
)
def test_another_encoding_is_named_by_the_user(tmp_path, encoding, text):
    content = f'text,label\nplain words,0\n"{text}",1\n'
    path = write(tmp_path / "x.csv", content.encode(encoding))
    with pytest.raises(MetalrError, match=r"line 3 is not UTF-8: .*--encoding"):
        rows_of(path)
    assert rows_of(path, encoding=encoding)[0] == ["plain words", text]


def test_an_encoding_that_is_none_is_refused(tmp_path):
    for name in ("klingon", "base64", "rot13"):
        with pytest.raises(MetalrError, match=f"--encoding '{name}' is not an enc"):
            rows_of(write(tmp_path / "x.csv", PLAIN), encoding=name)


def test_names_that_parquet_has_for_ids_are_kept(tmp_path):
    import datasets

    names = ["zebra", "ant", "unseen"]
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    rows = {"text": [*TEXTS, "hidden"], "label": [1, 0, 1, 0, -1]}
    data = datasets.Dataset.from_dict(rows, features=features)
    data.to_parquet(tmp_path / "x.parquet")
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=data).save_to_disk(tmp_path / "splits")
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    for path in (tmp_path / "x.parquet", tmp_path / "saved", arrow):
        texts, labels, said = rows_of(path)
        assert texts == TEXTS and labels == ["ant", "zebra", "ant", "zebra"]
        assert "zebra 2, ant 2, unseen 0" in said and "without a training row" in said
        assert "2 no gold label" in said  # one of each side
    assert load("file", str(tmp_path / "saved")).task.labels == tuple(names)
    with pytest.raises(MetalrError, match="the splits train; name one, such as"):
        rows_of(tmp_path / "splits")


@pytest.mark.parametrize("kind", ["text", "binary", "dictionary", "large", "view"])
def test_texts_of_every_type_of_arrow_are_texts(tmp_path, kind):
    types = {
        "dictionary": pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
        "large": pyarrow.large_string(),
        "view": pyarrow.string_view(),
    }
    texts = pyarrow.array(TEXTS).cast(types.get(kind, pyarrow.string()))
    if kind == "binary":
        texts = pyarrow.array([text.encode() for text in TEXTS])
    table = pyarrow.table({"text": texts, "label": LABELS})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    if kind == "binary":
        with pytest.raises(MetalrError, match="which is not text"):
            rows_of(tmp_path / "x.parquet")
    else:
        assert rows_of(tmp_path / "x.parquet")[0] == TEXTS


FAR = 2**62
ODD = {
    "date32": pyarrow.array([2**31 - 1] * 4, pyarrow.int32()).cast(pyarrow.date32()),
    "date64": pyarrow.array([FAR // 86_400_000 * 86_400_000] * 4).cast(
        pyarrow.date64()
    ),
    "timestamp": pyarrow.array([FAR] * 4).cast(pyarrow.timestamp("ms")),
    "zone": pyarrow.array([FAR] * 4).cast(pyarrow.timestamp("us", "Mars/Olympus")),
    "duration": pyarrow.array([FAR] * 4).cast(pyarrow.duration("s")),
}


@pytest.mark.parametrize("kind", ODD)
def test_dates_out_of_range_matter_only_where_they_are_labels(tmp_path, kind):
    table = pyarrow.table({"text": TEXTS, "label": LABELS, "when": ODD[kind]})
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(table, path)
    texts, _, said = rows_of(path)
    assert texts == TEXTS and "not read: when" in said
    with pytest.raises(MetalrError, match="not a readable Parquet|(no|not a) label"):
        rows_of(path, label_column="when")


REFUSED = {
    "workbook": ("x.xlsx", b"PK\x03\x04", "save it as CSV"),
    "workbook, named csv": ("x.csv", b"PK\x03\x04" + b"\0" * 50, "save it as CSV"),
    "pickle": ("x.pkl", b"\x80", "could run code"),
    "archive": ("x.zip", b"PK", "unpack it"),
    "several lists": ("x.json", {"train": DICTS, "test": DICTS}, "several lists"),
    "label studio": (
        "x.json",
        [{"id": 1, "data": {"text": "a"}, "annotations": []}],
        "export it as JSON-MIN or CSV",
    ),
    "nan among numbers": (
        "x.csv",
        "text,label\na,0\nb,1\nc,nan\n",
        "row 3: .* holds 'nan' among numbers .* leave such rows out .1 of 3.",
    ),
    "no gold label": (
        "x.csv",
        "text,label\na,-1\nb,-1\n",
        "a test split has no labels",
    ),
    "quotes with backslash": (
        "x.csv",
        'text,label\n"a \\"b\\" c",1\n',
        "line 2 breaks the format: .* is doubled",
    ),
    "fields": ("x.csv", "text,label\na,b,1\n", "3 fields.* has 2: .*with commas"),
    "tsv fields": ("x.tsv", "text\tlabel\na\n", "with tabs .* quotes are text"),
}


@pytest.mark.parametrize("name, content, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_with_a_way_out(
    tmp_path, name, content, message
):
    with pytest.raises(MetalrError, match=message) as fault:
        rows_of(write(tmp_path / name, content))
    assert "\n" not in str(fault.value)


def test_many_columns_are_read_in_no_time_and_unread(tmp_path):
    names = [f"c{n}" for n in range(30_000)]
    rows = [["text", "label", *names]]
    rows += [[f"t{n}", str(n % 2), *("1" * len(names))] for n in range(3)]
    path = write(tmp_path / "x.csv", "\n".join(",".join(row) for row in rows))
    assert rows_of(path)[0] == ["t0", "t1", "t2"]


# ------------------------------------------------------------ what is understood


def csv_of(tmp_path, labels, column="label"):
    body = "".join(f"text {n},{label}\n" for n, label in enumerate(labels))
    return write(tmp_path / "x.csv", f"text,{column}\n{body}")


UNDERSTOOD = {
    "scores to 100": (
        [n * 37 % 101 for n in range(80)],
        "regression",
        "taken for scores",
    ),
    "ids without gap": ([n % 30 for n in range(300)], "classification", "30 classes"),
    "codes": ([f"0{n % 30}" for n in range(99)], "classification", "30 classes"),
    "stars": ([n % 5 + 1 for n in range(50)], "classification", "5 classes"),
    "fractions": ([0.5, 1, 2] * 5, "regression", "regression of text"),
    "decimal commas": (['"3,5"', '"4,0"', "2"] * 5, "regression", "decimal comma"),
    "true": (
        ["true", "True", "FALSE", "false"] * 5,
        "classification",
        "2 classes: false 9,",
    ),
    "sentiment": ([-1, 0, 1] * 9, "classification", "-1 taken for a class: 33%"),
    "plus and minus": (["+", "-"] * 9, "classification", "2 classes: + "),
    "minus one of two": ([-1, 1] * 9, "classification", "2 classes: -1 "),
    "dashes": (
        ["yes", "no", "-"] * 9,
        "classification",
        "left out: 9 no gold label (-)",
    ),
    "hidden": ([0, 1, 2] * 9 + [-1] * 2, "classification", "2 no gold label (-1)"),
    "header again": (["yes", "no", "label"] * 5, "classification", "'label' is named"),
    "accents": (["caf\u00e9", "cafe\u0301", "tea"] * 5, "classification", "2 classes"),
}


@pytest.mark.parametrize("labels, kind, said", UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_what_labels_are_taken_for_is_said(tmp_path, labels, kind, said):
    data = load("file", train_file=csv_of(tmp_path, labels))
    assert data.task.kind == kind
    assert said in "\n".join(data.reading.lines())
    assert data.reading.to_json()["kind"] == kind


@pytest.mark.parametrize("value", [True, "True", "true", "TRUE"])
def test_true_is_one_class_in_every_format(tmp_path, value):
    train = write(
        tmp_path / "x.json", [{"text": "a", "label": v} for v in (True, False)]
    )
    other = write(tmp_path / "y.json", [{"text": "a", "label": value}])
    data = load("file", train_file=train, validation_file=other)
    assert data.task.labels == ("false", "true")
    assert data.validation["validation"][0]["label"] == 1


def test_the_user_says_what_the_rows_are(tmp_path):
    path = csv_of(tmp_path, [n * 37 % 101 for n in range(80)])
    data = load("file", train_file=path, kind="classification")
    assert data.task.kind == "classification" and len(data.task.labels) == 80
    path = csv_of(tmp_path, [1, 2, 3] * 9)
    assert load("file", train_file=path, kind="regression").task.kind == "regression"
    path = csv_of(tmp_path, ["low", "high"] * 9)
    with pytest.raises(MetalrError, match="'low', which is not a finite number"):
        load("file", train_file=path, kind="regression")
    with pytest.raises(MetalrError, match="column 'question' is missing"):
        load("file", train_file=path, kind="qa")
    with pytest.raises(MetalrError, match="sst2 is a classification; --kind"):
        load("sst2", train_file=path, kind="regression")


@pytest.mark.parametrize(
    "pair",
    [
        ("text", "text_pair"),
        ("question", "sentence"),
        ("premise", "hypothesis"),
        ("sentence1", "sentence2"),
        ("question1", "question2"),
    ],
)
@pytest.mark.parametrize("label", ["label", "gold_label"])
def test_pairs_are_known_by_their_columns(tmp_path, pair, label):
    rows = [{"id": n, pair[0]: "a", pair[1]: f"b{n}", label: n % 2} for n in range(20)]
    data = load("file", train_file=write(tmp_path / "x.json", rows))
    assert (data.task.text, data.task.pair, data.task.label) == (*pair, label)
    assert data.reading.columns == (*pair, label) and data.reading.unread == ("id",)


def test_the_order_of_classes_does_not_hang_on_hashes(tmp_path):
    path = csv_of(tmp_path, ["7", "07", "12", "7.0", "007"] * 6)
    script = (
        "import sys; from metalr.data.loading import load; "
        "print(load('file', train_file=sys.argv[1]).task.labels)"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script, str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert said == {"('007', '07', '7', '12')\n"}


def test_what_is_left_out_of_a_known_set_is_counted(tmp_path):
    rows = [{"sentence": f"t{n}", "label": n % 3 - 1} for n in range(30)]
    path = write(tmp_path / "x.json", rows)
    data = load("sst2", train_file=path, validation_file=path)
    assert len(data.train) == 20
    assert data.reading.left_out == {"no gold label (-1)": 20}  # of both
