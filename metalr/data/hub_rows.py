"""Rows of the sets on the Hugging Face hub, through the datasets library."""

import contextlib
from collections.abc import Iterator
from typing import Any

from metalr.data.columns import Row
from metalr.errors import MetalrError
from metalr.runtime import hub

_CHUNK = 4096  # rows that are Python objects at a time


def read(dataset_id: str, name: str | None, split: str) -> Iterator[Row]:
    """Read one split from the hub, or from the local cache where it doesn't answer.

    datasets maps its files: what is read does not stay in memory.

    Args:
      dataset_id: A set whose files are Parquet, such as `nyu-mll/glue`.
      name: Its configuration, or None.
      split: Such as `train`.

    Raises:
      MetalrError: The hub does not answer and the split is not in the cache, or the
        hub has no such set.
    """
    what = f"{dataset_id} {name or ''}".strip() + f" ({split})"

    def load(online: bool) -> Any:
        import datasets  # in this thread alone: it takes a second

        def work() -> Any:
            return datasets.load_dataset(dataset_id, name, split=split)

        with _quiet(datasets, online):
            return hub.call(work, online=online)

    reason = ""
    if hub.answers():
        try:
            return _rows(load(online=True), what)
        except Exception as fault:  # many kinds, from HTTP errors to a damaged cache
            reason = " ".join(str(fault).split())[:200] or type(fault).__name__
    try:
        return _rows(load(online=False), what)
    except Exception as fault:
        if reason:
            raise MetalrError(f"{what} can't be read from the hub: {reason}") from fault
        raise MetalrError(
            f"{what}: {hub.endpoint()} does not answer (or HF_HUB_OFFLINE is set) and "
            "the local cache of datasets lacks it. --data toy needs no network, "
            "--data FOLDER reads files"
        ) from fault


def _rows(dataset: Any, what: str) -> Iterator[Row]:
    if not len(dataset):
        raise MetalrError(f"{what} is empty on the hub")

    def rows() -> Iterator[Row]:
        try:
            for part in dataset.with_format("arrow").iter(batch_size=_CHUNK):
                yield from part.to_pylist()
        except (OSError, ValueError) as fault:  # of Arrow too
            raise MetalrError(
                f"{what} in the local cache of datasets is damaged: {fault}"
            ) from fault

    return rows()


@contextlib.contextmanager
def _quiet(datasets: Any, online: bool) -> Iterator[None]:
    """Keep bars and log lines of datasets from the screen, offline if need be.

    Its switch is read when it is imported, which may have happened long ago.
    """
    import datasets.config as config

    before = config.HF_HUB_OFFLINE
    verbosity = datasets.logging.get_verbosity()
    bars = datasets.is_progress_bar_enabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        config.HF_HUB_OFFLINE = before or not online
        yield
    finally:
        config.HF_HUB_OFFLINE = before
        datasets.logging.set_verbosity(verbosity)
        if bars:
            datasets.enable_progress_bars()
