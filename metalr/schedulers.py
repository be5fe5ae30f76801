"""The scheduler table: a name -> an optax transformation with its rate in sight.

Each row is handed an optimizer as a function of its learning rate and returns an
`optax.inject_hyperparams` transformation of it, so that the rate which a step was
taken with stands in the state, at `state.hyperparams["learning_rate"]`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from metalr import optax_schedule, predictor
from metalr.errors import unknown_name

Inner = Callable[[Any], optax.GradientTransformation]  # learning rate -> optimizer


class Plan(NamedTuple):
    """What a scheduler may know of the run before it starts."""

    learning_rate: float  # base (peak) rate
    total_steps: int
    warmup_steps: int
    predictor: str | None = None  # folder of a learned predictor; None: shipped


class Scheduler(NamedTuple):
    """A row of the table."""

    summary: str  # one line for `metalr schedulers`
    source: str  # where the rule and its settings come from
    build: Callable[[Inner, Plan], optax.GradientTransformationExtraArgs]


def warmup(total_steps: int, asked: int) -> int:
    """Returns the warm-up that a run allows: at most a tenth of its steps.

    >>> warmup(6000, 500), warmup(200, 500)
    (500, 20)
    """
    return min(asked, total_steps // 10)


def _ramp(plan: Plan) -> optax.Schedule:
    """Rises to 1 over the warm-up; the first step is taken at 1/(w+1), not at 0."""
    w = plan.warmup_steps
    return lambda count: jnp.minimum(1.0, (count + 1.0) / (w + 1.0))


def _decay(plan: Plan) -> optax.Schedule:
    """Returns the share of the steps after the warm-up that is left, 1 to 0."""
    span = max(1, plan.total_steps - plan.warmup_steps)
    return lambda count: jnp.clip((plan.total_steps - count) / span, 0.0, 1.0)


def _scheduled(shape: Callable[[Plan], optax.Schedule]):
    """Makes a row's `build` from a schedule of the multiplier of the base rate."""

    def build(inner: Inner, plan: Plan) -> optax.GradientTransformationExtraArgs:
        factor = shape(plan)
        # A float32 rate: a Python float would take the parameters' type.
        rate = lambda count: jnp.float32(plan.learning_rate) * factor(count)  # noqa: E731
        return optax.inject_hyperparams(inner)(learning_rate=rate)

    return build


def _static(plan: Plan) -> optax.Schedule:
    return lambda count: jnp.float32(1.0)


def _linear(plan: Plan) -> optax.Schedule:
    return optax_schedule.default_schedule(1.0, plan.total_steps, plan.warmup_steps)


def _cosine(plan: Plan) -> optax.Schedule:
    ramp, left = _ramp(plan), _decay(plan)
    return lambda count: jnp.minimum(
        ramp(count), 0.5 - 0.5 * jnp.cos(jnp.pi * left(count))
    )


class PlateauState(NamedTuple):
    """State of `PlateauSchedule`."""

    steps: jax.Array  # [] int32, taken so far
    plateau: contrib.ReduceLROnPlateauState


class PlateauSchedule:
    """`optax.contrib.reduce_on_plateau` as a stateful schedule of the rate.

    The settings are the experiment plan's: after `lookahead` steps whose mean loss
    is not below the best such mean by `threshold`, the rate is multiplied by
    `factor`. As a schedule and not as a scaling of the updates, so that the rate
    which is logged is the rate which was applied.

    Args:
      plan: Base rate and warm-up.
      factor: What the rate is multiplied by.
      lookahead: Steps in one mean of the loss.
      threshold: Relative improvement that counts.
    """

    def __init__(
        self,
        plan: Plan,
        factor: float = 0.1,
        lookahead: int = 100,
        threshold: float = 0.01,
    ):
        self._base = plan.learning_rate
        self._ramp = _ramp(plan)
        self._rule = contrib.reduce_on_plateau(
            factor=factor,
            patience=1,
            rtol=threshold,
            accumulation_size=lookahead,
        )

    def init(self) -> PlateauState:
        """Returns the state before the first step."""
        params = jnp.zeros((), jnp.float32)  # only their type matters: of the scale
        rule: Any = self._rule.init(params)
        return PlateauState(jnp.zeros((), jnp.int32), rule)

    def update(
        self, state: PlateauState, *, value: jax.Array, **extra_args: Any
    ) -> PlateauState:
        """Takes the loss of this step into account.

        A loss that is not finite is left out: a NaN would stay in the mean.
        """
        del extra_args
        value = jnp.asarray(value, jnp.float32)
        _, after = self._rule.update(
            jnp.zeros(()), state.plateau, value=jnp.nan_to_num(value)
        )
        finite = jnp.isfinite(value)
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        plateau = jax.tree.map(keep, after, state.plateau)
        steps: Any = optax.safe_increment(state.steps)
        return PlateauState(steps, plateau)

    def __call__(self, state: PlateauState, **extra_args: Any) -> jax.Array:
        """Returns the rate of this step."""
        del extra_args
        scale: Any = state.plateau.scale
        return jnp.float32(self._base) * self._ramp(state.steps) * scale


def _plateau(inner: Inner, plan: Plan) -> optax.GradientTransformationExtraArgs:
    schedule: Any = PlateauSchedule(plan)
    return optax.inject_hyperparams(inner)(learning_rate=schedule)


def _metalr(inner: Inner, plan: Plan) -> optax.GradientTransformationExtraArgs:
    return optax_schedule.inject(
        inner,
        plan.learning_rate,
        predictor.load_predictor(plan.predictor),
        total_steps=plan.total_steps,
        prior=_linear(plan),
    )


SCHEDULERS: dict[str, Scheduler] = {
    "static": Scheduler(
        "the base rate from the first step to the last",
        "experiment plan",
        _scheduled(_static),
    ),
    "constant": Scheduler(
        "linear warm-up, then the base rate",
        "experiment plan",
        _scheduled(_ramp),
    ),
    "linear": Scheduler(
        "linear warm-up, then linear decay to 0",
        "Devlin et al. 2019",
        _scheduled(_linear),
    ),
    "cosine": Scheduler(
        "linear warm-up, then half a cosine to 0",
        "Loshchilov and Hutter 2017, without restarts",
        _scheduled(_cosine),
    ),
    "plateau": Scheduler(
        "warm-up, then x0.1 after 100 steps without 1 % less loss",
        "optax.contrib.reduce_on_plateau, experiment plan",
        _plateau,
    ),
    "metalr": Scheduler(
        "a learned multiplier, 1/64 to 64, on linear warm-up and decay",
        "metalr.optax_schedule",
        _metalr,
    ),
}


def get(name: str) -> Scheduler:
    """Returns the row called `name`.

    Raises:
      MetalrError: There is none; the message has the nearest names.
    """
    if name not in SCHEDULERS:
        raise unknown_name("scheduler", name, SCHEDULERS)
    return SCHEDULERS[name]


def decay_mask(params: Any) -> Any:
    """Returns True for the leaves that weight decay applies to.

    BERT's recipe decays weight matrices and embeddings, not biases and LayerNorm:
    exactly the leaves with two axes or more.
    """
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def adamw(weight_decay: float, clip_norm: float) -> Inner:
    """Returns AdamW as a function of its rate, with BERT's decay mask and clipping.

    Args:
      weight_decay: Decoupled decay, not on biases and LayerNorm.
      clip_norm: Bound of the gradient's global norm; 0 switches clipping off.
    """

    def build(learning_rate: Any) -> optax.GradientTransformation:
        inner = optax.adamw(learning_rate, weight_decay=weight_decay, mask=decay_mask)
        if not clip_norm:
            return inner
        return optax.chain(optax.clip_by_global_norm(clip_norm), inner)

    return build
