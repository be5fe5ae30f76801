"""Short runs of some tasks, each made when a test asks for it, and the rows of each."""

import functools
import json

import pytest

from metalr.data import loading
from metalr.finetune.config import RunConfig
from metalr.finetune.display import Together
from metalr.finetune.run import run
from metalr.runtime.files import write_json
from tests.models import small_models
from tests.predict.short_runs import ROWS, TASKS


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """Return `task -> the folder of a short run of it`."""
    place = tmp_path_factory.mktemp("runs")
    model = small_models.save_bert(place / "tiny", scale=10)

    @functools.cache
    def run_of(task):
        config = RunConfig(
            task=task,
            data="toy",
            model=str(model),
            scheduler="linear",
            learning_rate=3e-3,
            max_steps=2,
            max_length=64,
            batch_size=16,
            **({"stride": 16} if task == "squad" else {}),
            **ROWS,
        )
        found = run(config, Together(), folder=place / task)
        (place / task / "metrics.json").write_text(json.dumps(found["metrics"]))
        write_json(place / task / "result.json", found)
        return place / task

    return run_of


@pytest.fixture(scope="session")
def sst2(run_of):
    """Return the folder of a short run of one task: it is made before a test begins."""
    return run_of("sst2")


@pytest.fixture(scope="session")
def rows():
    """Return the validation rows of each task, by task."""
    return {
        task: next(iter(loading.load(task, "toy", **ROWS).validation.values()))
        for task in TASKS
    }
