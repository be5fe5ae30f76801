"""Plans of few and short runs, as files."""

import json
from typing import Any

from tests.models import small_models

SMALL: dict[str, Any] = {
    "models": ["minilm:1"],
    "schedulers": ["linear", "metalr", "prodigy"],
    "seeds": 2,
    "tuned": ["linear"],
    "rates": [2e-5, 1e-3],
    "rates_of": {"metalr": [1e-6]},
    "evaluations": 2,
    "settings": {"max_steps": 4, "batch_size": 4, "data": "toy"},
    "tasks": {"sst2": {}, "rte": {"max_steps": 6}},
}


def write(folder, **changes):
    """Write the small plan with changes; return the path as a text."""
    path = folder / "plan.json"
    path.write_text(json.dumps(SMALL | changes))
    return str(path)


def tiny_plan(folder, **changes):
    """Write a plan whose runs of a tiny model take seconds."""
    model = small_models.save_bert(folder / "model")
    return write(
        folder,
        models=[str(model)],
        tasks={"sst2": {}},
        schedulers=["linear", "dowg", "metalr"],
        tuned=[],
        rates_of={},
        settings=SMALL["settings"] | {"train_rows": 16, "validation_rows": 8},
        **changes,
    )
