"""metalr: a learned learning rate for fine-tuning, as an optax transformation.

    tx = metalr.wrap(optax.adamw(schedule), total_steps=total_steps)
    updates, opt_state = tx.update(grads, opt_state, params, value=loss)

A first-time reader may go through it in this order: README; `finetune.py` (what a run
is); `metalr/optax_schedule.py` (what metalr is); `features.py`, `predictor.py` and
`controller.py` beside it (its parts). What lies at the top of the package is the
product; every folder is a harness around it: `finetune/` (`run.py` and `loop.py`,
the run), `meta/` (where the weights come from, from `train_meta.py` on), `compare/`
(what it is held against), `predict/` (what was fine-tuned, in use), `finding/` (the
finder of rates), `report/`, `data/`, `models/` and `runtime/`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from metalr.errors import MetalrError

if TYPE_CHECKING:
    from metalr.explanation import explain
    from metalr.finding.finder import find, suggest
    from metalr.fine_tuning import fine_tune
    from metalr.optax_schedule import default_schedule, inject, scale_by_metalr, wrap
    from metalr.predict.model import load
    from metalr.stored_predictor import load_predictor

__all__ = [
    "MetalrError",
    "default_schedule",
    "explain",
    "fine_tune",
    "find",
    "inject",
    "load",
    "load_predictor",
    "scale_by_metalr",
    "suggest",
    "wrap",
]

# Found when they are asked for: `--help` need not wait for jax.
_HOME = {
    "default_schedule": "metalr.optax_schedule",
    "explain": "metalr.explanation",
    "fine_tune": "metalr.fine_tuning",
    "find": "metalr.finding.finder",
    "scale_by_metalr": "metalr.optax_schedule",
    "inject": "metalr.optax_schedule",
    "load": "metalr.predict.model",
    "load_predictor": "metalr.stored_predictor",
    "suggest": "metalr.finding.finder",
    "wrap": "metalr.optax_schedule",
}


def __getattr__(name: str) -> Any:
    """Import what a public name stands for."""
    if name == "__version__":
        return importlib.import_module("metalr.runtime.versions").of_metalr()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
