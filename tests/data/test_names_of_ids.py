"""Names that the datasets library keeps for ids of classes are read with the ids."""

from pathlib import Path

import pytest

from metalr.data.loading import load
from metalr.errors import MetalrError
from tests.data.rows_of_files import LABELS, TEXTS, rows_of, write


def named_classes(path: Path, names, labels=LABELS) -> Path:
    """Write rows whose ids have names, as `datasets` keeps them."""
    import datasets

    kinds = {
        "sentence": datasets.Value("string"),
        "label": datasets.ClassLabel(names=names),
    }
    columns = {"sentence": [*TEXTS, "more"][: len(labels)], "label": labels}
    rows = datasets.Dataset.from_dict(columns, datasets.Features(kinds))
    rows.to_parquet(str(path))
    return path


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


SPELLED = {
    "capitals of truth": (["False", "True"], ("false", "true")),
    "fractions of ids": (["1.0", "2.0"], ("1", "2")),
    "a space behind": (["not spam ", "spam"], ("not spam", "spam")),
    "an accent apart": (["cafe\u0301", "tea"], ("caf\u00e9", "tea")),
}


@pytest.mark.parametrize("names, spelled", SPELLED.values(), ids=SPELLED)
def test_names_of_ids_are_spelled_as_labels_are(names, spelled, tmp_path):
    path = named_classes(tmp_path / "x.parquet", names)
    assert load("file", train_file=path, validation_file=path).task.labels == spelled
    assert rows_of(path)[1] == [spelled[label] for label in LABELS]
    other = write(tmp_path / "y.json", [{"sentence": "a", "label": names[1]}])
    data = load("file", train_file=path, validation_file=other)
    assert data.validation["validation"][0]["label"] == 1


@pytest.mark.parametrize("names", [["spam", "spam "], ["1", "1.0"], ["", "spam"]])
def test_names_of_ids_that_become_one_or_none_are_refused(names, tmp_path):
    path = named_classes(tmp_path / "x.parquet", names)
    with pytest.raises(MetalrError, match="names of column 'label' must differ"):
        load("file", train_file=path)
    with pytest.raises(MetalrError, match="names of column 'label' must differ"):
        load("sst2", train_file=path)


@pytest.mark.parametrize("name", ["-", "-1", "-100"])
def test_a_class_that_is_named_like_no_label_is_kept_apart_from_it(name, tmp_path):
    labels = [*LABELS, -1]
    path = named_classes(tmp_path / "x.parquet", ["good", name], labels)
    texts, found, said = rows_of(path)
    assert found == [("good", name)[label] for label in LABELS]
    assert "2 no gold label (-1)" in said  # one of each side


def test_a_hidden_score_that_has_names_is_left_out(tmp_path):
    path = named_classes(tmp_path / "x.parquet", ["1", "2"], [*LABELS, -1])
    texts, found, said = rows_of(path, kind="regression")
    assert found == [2.0, 1.0, 2.0, 1.0] and "2 no gold label (-1)" in said


@pytest.mark.parametrize(
    ("names", "first", "said"),
    [
        (["negative", "positive"], "positive", ""),
        (["positive", "negative"], "negative", ""),
        (["bad", "good"], "positive", "taken by their ids: bad is negative, good is"),
    ],
)
def test_ids_of_a_known_task_are_read_by_the_names_that_the_file_has(
    names, first, said, tmp_path
):
    path = named_classes(tmp_path / "x.parquet", names)
    data = load("sst2", train_file=path, validation_file=path)
    (tmp_path / "sst2").mkdir()
    for split in ("train", "validation"):
        named_classes(tmp_path / f"sst2/{split}.parquet", names)
    for of in (data, load("sst2", str(tmp_path))):
        assert data.task.labels[of.train[0]["label"]] == first
        assert said in "\n".join(of.reading.lines())
