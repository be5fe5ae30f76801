"""A scheduler, and what the rows of the table are made from.

Each row is handed an optimizer as a function of its learning rate and returns an
`optax.inject_hyperparams` transformation of it, so that the rate of the last step
is in the state, at `state.hyperparams["learning_rate"]`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax

from metalr import optax_schedule
from metalr.controller import MAX_MULTIPLIER
from metalr.finetune.rules import shapes
from metalr.finetune.rules.plan import Build, Inner, RunPlan
from metalr.finetune.rules.shapes import Shape
from metalr.predictor import Predictor


def _as_they_are(opt_state: Any, params: Any) -> Any:
    del opt_state
    return params


class Scheduler(NamedTuple):
    """A row of the table."""

    summary: str  # one line for `metalr schedulers`
    source: str  # where the rule and its settings come from
    build: Build
    # What the base rate is multiplied by, m aside; None: the rule sets it otherwise.
    shape: Shape | None = None
    # 2e-5 is the experiment plan's; methods that estimate the rate have a factor here.
    learning_rate: float = 2e-5  # base rate where the user gives none
    # (optimizer state, parameters) -> the parameters to score and to keep
    served: Callable[[Any, Any], Any] = _as_they_are
    tunable: bool = False  # people try several base rates, and so do comparisons
    learned: bool = False  # it asks the predictor
    is_control: bool = False  # it shows what another row owes to one of its parts
    # It finds the rate by itself: the base rate is a factor of that, or is not read.
    rate_free: bool = False
    ignores: tuple[str, ...] = ()  # settings that it does not read

    @property
    def averages(self) -> bool:
        """Whether it serves an average of its own."""
        return self.served is not _as_they_are


def loss_driven(rule: Callable[[float, optax.Schedule], Any]) -> Build:
    """Make a row's `build` from a schedule that the loss drives."""

    def build(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
        schedule: Any = rule(plan.learning_rate, shapes.ramp(plan))
        return optax.inject_hyperparams(inner)(learning_rate=schedule)

    return build


def scheduled(summary: str, source: str, shape: Shape, **more: Any) -> Scheduler:
    """Make a row from a schedule that is known in advance."""
    build = shapes.scheduled(shape)
    return Scheduler(summary, source, build, shape, tunable=True, **more)


def metalr_row(
    summary: str,
    source: str = "metalr.optax_schedule",
    *,
    change: Callable[[Predictor], Predictor] = lambda predictor: predictor,
    shape: Shape = shapes.hold_then_decay,
    max_multiplier: float = MAX_MULTIPLIER,
    trust: float = 0.0,
    **more: Any,
) -> Scheduler:
    """Make a row from what differs between the rows of metalr."""

    def build(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
        return optax_schedule.inject(
            inner,
            plan.learning_rate,
            change(plan.predictor()),
            total_steps=plan.total_steps,
            schedule=shape(plan),
            max_multiplier=max_multiplier,
            trust=trust,
        )

    return Scheduler(summary, source, build, shape, **more)


def shuffled(predictor: Predictor) -> Predictor:
    """Let the network take each feature for another one.

    The same scales, ranges and weights: what is lost is what the features mean. The
    prior stays as it is.
    """
    order = np.random.default_rng(0).permutation(len(predictor.mean))

    def mixed(network: Any) -> Any:
        rows = {
            name: {**layer, "kernel": np.asarray(layer["kernel"])[order]}
            for name, layer in network.weights.items()
            if name in ("hidden", "skip")
        }
        return network._replace(weights={**network.weights, **rows})

    own = predictor.own and mixed(predictor.own)
    return mixed(predictor)._replace(own=own)


def without_evidence(predictor: Predictor) -> Predictor:
    """Leave the prior alone: no number of steps counts as evidence."""
    return predictor._replace(correlation=np.float32(np.inf))
