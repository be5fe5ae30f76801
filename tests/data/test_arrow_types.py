"""Texts and labels of every type of Arrow are read, and what is neither is told."""

import decimal

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from metalr.errors import MetalrError
from tests.data.rows_of_files import LABELS, TEXTS, rows_of


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
    assert rows_of(tmp_path / "x.parquet")[0] == TEXTS


def test_bytes_that_are_no_utf8_are_no_texts(tmp_path):
    table = pyarrow.table({"text": [b"\xff", b"b"], "label": [0, 1]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(MetalrError, match="which is not text"):
        rows_of(tmp_path / "x.parquet")


LABEL_TYPES = {
    "decimal": pyarrow.array([decimal.Decimal(i) for i in LABELS]),
    "bytes": pyarrow.array([str(i).encode() for i in LABELS]),
    "bytes of a length": pyarrow.array([b"1", b"0", b"1", b"0"], pyarrow.binary(1)),
    "category": pyarrow.array(LABELS).dictionary_encode(),
    "category of texts": pyarrow.array(list("1010")).dictionary_encode(),
    "list of one": pyarrow.array([[i] for i in LABELS]),
    "unsigned": pyarrow.array(LABELS, pyarrow.uint64()),
    "float": pyarrow.array([1.0, 0.0, 1.0, 0.0]),
    "half": pyarrow.array(numpy.array(LABELS, numpy.float16)),
}


@pytest.mark.parametrize("kind", LABEL_TYPES)
def test_labels_of_every_type_of_arrow_are_labels(tmp_path, kind):
    table = pyarrow.table({"text": TEXTS, "label": LABEL_TYPES[kind]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    assert rows_of(tmp_path / "x.parquet")[1] == ["1", "0", "1", "0"]


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
