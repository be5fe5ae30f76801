"""Banks to run: drawn, plain, and of a model that compiles at once."""

import dataclasses

from metalr import banks
from metalr.models import heads, huggingface

SOURCES = banks.Sources(
    tasks=("sst2", "rte"), models=("minilm:1", "minilm:2"), data="toy"
)
PLAIN = {"dropout": 0.0, "rescaled": 0.0, "frozen": False, "shuffled": False}


def draw(**changes):
    return banks.draw(0, SOURCES, seed=0)._replace(**changes)


def tiny(folder):
    """Returns a bank of a BERT so small that it compiles in a second or two."""
    found = huggingface.load("minilm:1", "classification", ("a", "b"), seed=0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = dataclasses.replace(found.config, **sizes)
    graphdef, params = heads.build(config, "classification", 2, seed=0)
    found = found._replace(config=config, graphdef=graphdef, params=params)
    huggingface.export(folder, found, "classification", ("a", "b"))
    return draw(
        **PLAIN,
        model=str(folder),
        batch=4,
        length=16,
        horizon=9,
        prior="linear",
        warmup=0,
        evaluations=3,
        validation_rows=20,
        shapes=1,
    )
