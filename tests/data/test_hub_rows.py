"""Sets of the hub, through the real datasets library, from a server that is here."""

from pathlib import Path

import pytest

from metalr.data import hub_rows
from metalr.data.loading import load
from metalr.data.tasks import TASKS
from metalr.errors import MetalrError
from metalr.runtime import hub
from tests.runtime import hub_server

ROWS = [{"sentence": 'a "good", long\nfilm', "label": 1}, {"sentence": "é", "label": 0}]


@pytest.fixture
def served(monkeypatch, tmp_path):
    with hub_server.here(monkeypatch, tmp_path) as here:
        yield here


def test_tasks_load_from_a_hub(served, capfd):
    hub_server.add_tasks(served, train=8, validation=4)
    for name in ("mnli", "stsb", "imdb", "squad"):  # others differ in columns alone
        data, task = load(name, "auto"), TASKS[name]
        assert data.origin.kind == "hub"
        assert data.origin.where.startswith(task.hub[0])
        assert len(data.train) == 8
        assert [*data.validation] == [*task.validation]
    assert capfd.readouterr() == ("", "")


def test_what_was_read_once_is_read_again_without_the_hub(served):
    served.add_set("nyu-mll/glue", {"train": ROWS}, "sst2")
    assert list(hub_rows.read("nyu-mll/glue", "sst2", "train")) == ROWS
    served.misbehave(".", hub_server.busy(503))
    hub.forget()
    assert list(hub_rows.read("nyu-mll/glue", "sst2", "train")) == ROWS


def test_the_configurations_of_a_set_are_kept_apart(served):
    served.add_set("nyu-mll/glue", {"train": ROWS}, "sst2")
    served.add_set("nyu-mll/glue", {"train": ROWS[:1]}, "cola")
    assert list(hub_rows.read("nyu-mll/glue", "cola", "train")) == ROWS[:1]
    with pytest.raises(MetalrError, match=r"can't be read from the hub: .*mrpc"):
        hub_rows.read("nyu-mll/glue", "mrpc", "train")


MANNERS = {
    "silent": ("GET .*parquet", hub_server.silent, "no progress for 0.6 s"),
    "trickling": ("GET .*parquet", hub_server.trickle, "no progress for 0.6 s"),
    "hanging": (
        r"GET /api/datasets/nyu-mll/glue/",
        hub_server.hang,
        "no (answer|progress)",
    ),
    "busy": (
        "HEAD .*README",
        hub_server.busy(429),
        r"busy \(429 and asks to wait 3600",
    ),
    "down": (
        "GET .*parquet",
        hub_server.busy(503),
        r"busy \(503 and asks to wait 3600",
    ),
    "broken": (".", hub_server.busy(500, ""), "answers with status 500|no progress"),
    "escaping": (
        "HEAD .*parquet",
        hub_server.with_headers(x_linked_etag='"../../../../outside"'),
        "would lead out of the cache",
    ),
}


@pytest.mark.parametrize("manner", MANNERS)
def test_a_hub_without_manners_is_a_fault_in_one_line(
    manner, served, monkeypatch, capfd, tmp_path
):
    monkeypatch.setenv(hub.PATIENCE, "0.6")
    served.add_set("nyu-mll/glue", {"train": ROWS}, "sst2")
    pattern, answer, says = MANNERS[manner]
    served.misbehave(pattern, answer)
    with pytest.raises(MetalrError, match=f"from the hub: .*{says}") as told:
        hub_rows.read("nyu-mll/glue", "sst2", "train")
    assert "\n" not in str(told.value)
    assert capfd.readouterr() == ("", "")
    assert not [p for p in tmp_path.parent.rglob("outside*")]


def cache_a_split(folder: Path, rows: list[dict]) -> None:
    """Lay rows down the way datasets keeps what it once downloaded."""
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
    assert list(hub_rows.read("nyu-mll/glue", "sst2", "train")) == ROWS
    with pytest.raises(MetalrError, match="does not answer .* lacks it. --data toy"):
        hub_rows.read("nyu-mll/glue", "mnli", "train")
    # The libraries' switches are as before, and nothing was printed over the report.
    assert not datasets.config.HF_HUB_OFFLINE
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert capfd.readouterr() == ("", "")


def test_a_set_that_the_hub_lacks_is_a_users_fault(monkeypatch):
    import datasets

    def refuse(*args, **kwargs):
        raise FileNotFoundError("no such set")

    monkeypatch.setattr(hub, "answers", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(MetalrError, match="can't be read from the hub: no such set"):
        hub_rows.read("no/such", None, "train")
