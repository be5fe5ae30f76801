"""Sweeps for tests: drawn, plain, and of a model that compiles in seconds."""

from metalr.meta import sweeps
from tests.models.small_models import save_bert

SOURCES = sweeps.Sources(
    tasks=("sst2", "rte"), models=("minilm:1", "minilm:2"), data="toy", paired=1.0
)
PLAIN = {"dropout": 0.0, "rescaled": 0.0, "frozen": False, "shuffled": False}


def draw(**changes):
    return sweeps.draw(0, SOURCES, seed=0)._replace(**changes)


def tiny(folder):
    """Return a sweep of a BERT that compiles in a second or two, saved in `folder`."""
    return draw(
        **PLAIN,
        model=str(save_bert(folder)),
        batch=4,
        length=16,
        horizon=9,
        decay="linear",
        warmup=0,
        evaluations=3,
        validation_rows=20,
        shapes=1,
    )
