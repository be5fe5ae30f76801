"""What the multiplier did and why, read off an optimizer's state."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.errors import MetalrError
from metalr.features import NAMES
from metalr.predictor import Predictor, distance, evidence, usual
from metalr.stored_predictor import load_predictor

_SHOWN = 3  # features in the line of text


def explain(opt_state: Any, predictor: Predictor | None = None) -> dict[str, Any]:
    """Say what metalr did in the last step and what it knows of the run.

    Args:
      opt_state: The state of an optimizer with metalr anywhere inside.
      predictor: The one that it was built with; None: the one that comes with metalr.

    Returns:
      step: calls so far; multiplier: of the last step; learning_rate: the one in the
      state, if there is one (of the last step where `inject` set it; before the
      multiplier where `wrap` is around an optimizer that keeps its own), else None;
      best: estimate of the best multiplier, with low and high, one standard deviation
      off; prior: the estimate at the first update; correction: octaves that the last
      step's evidence asks for; drivers: features and the octaves that each adds to it,
      against training's mean, largest first; distance: from training, out of range
      above 1; skipped, braked, out_of_range: counts of steps; text: all of it in one
      line.

    Raises:
      MetalrError: There is no metalr in the state, or more than one.

    >>> from metalr import wrap
    >>> from metalr.predictor import init_predictor
    >>> tx = wrap(optax.sgd(0.1), init_predictor())
    >>> explain(tx.init({"w": jnp.ones(2)}), init_predictor())["multiplier"]
    1.0
    """
    get = lambda name: _one(opt_state, name)  # noqa: E731
    predictor = load_predictor() if predictor is None else predictor
    if runs := jnp.shape(get("lr_step")):
        raise MetalrError(
            f"explain takes the state of one run, and this one holds {runs[0]}; take "
            "one of them: `jax.tree.map(lambda x: x[0], state)`"
        )
    vector = jnp.asarray(get("lr_features"))
    correction, _ = evidence(predictor, vector)
    gradient = jax.grad(lambda x: evidence(predictor, x)[0])(vector)
    shares = np.asarray(gradient * (vector - usual(predictor, vector)))
    order = np.argsort(-abs(shares))
    mean, deviation = float(get("lr_mean")), math.sqrt(max(get("lr_variance"), 0))
    rates = optax.tree.get_all_with_path(opt_state, "learning_rate")
    found: dict[str, Any] = {
        "step": int(get("lr_step")),
        "multiplier": float(get("lr_multiplier")),
        "learning_rate": float(rates[0][1]) if len(rates) == 1 else None,
        "best": 2**mean,
        "low": 2 ** (mean - deviation),
        "high": 2 ** (mean + deviation),
        "prior": 2 ** float(get("lr_prior")),
        "correction": float(correction),
        "drivers": {NAMES[k]: float(shares[k]) for k in order if shares[k]},
        "distance": float(distance(predictor.seen, vector)),
        "skipped": int(get("skipped_steps")),
        "braked": int(get("braked_steps")),
        "out_of_range": int(get("out_of_range_steps")),
    }
    return found | {"text": _text(found)}


def _text(found: dict[str, Any]) -> str:
    line = (
        f"step {found['step']}: rate x{found['multiplier']:.3g}; best estimate "
        f"x{found['best']:.3g} ({found['low']:.3g} to {found['high']:.3g}), "
        f"x{found['prior']:.3g} before the run had responded"
    )
    drivers = list(found["drivers"].items())[:_SHOWN]
    if drivers:
        line += "; driven by " + ", ".join(f"{k} {v:+.1f}" for k, v in drivers)
    for name, what in (
        ("skipped", "not finite"),
        ("braked", "loss above its start"),
        ("out_of_range", "unlike training"),
    ):
        if found[name]:
            line += f"; {found[name]} steps {what}"
    return line


def _one(opt_state: Any, name: str) -> Any:
    found = optax.tree.get_all_with_path(opt_state, name)
    if len(found) != 1:
        raise MetalrError(
            f"the optimizer's state must hold metalr once, found it {len(found)} "
            "times; give the state of metalr.wrap or metalr.inject"
        )
    return found[0][1]
