"""The scheduler table: a name -> an optax transformation with its rate in sight.

Each row is handed an optimizer as a function of its learning rate and returns an
`optax.inject_hyperparams` transformation of it, so that the rate which a step was
taken with stands in the state, at `state.hyperparams["learning_rate"]`.

Methods that are optimizers of their own, and estimate the rate, leave that optimizer
aside and take weight decay and clipping from the plan. Each has one setting for all
tasks: its authors' or optax's default, as the table says.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from metalr import optax_schedule
from metalr.errors import unknown_name
from metalr.finetune.loss_schedules import GreedySchedule, PlateauSchedule
from metalr.predictor import Predictor, load_predictor

Inner = Callable[[Any], optax.GradientTransformation]  # learning rate -> optimizer


class Plan(NamedTuple):
    """What a scheduler may know of the run before it starts."""

    learning_rate: float  # base (peak) rate
    total_steps: int
    warmup_steps: int
    predictor: Callable[[], Predictor] = load_predictor  # asked by who needs one
    weight_decay: float = 0.01  # of methods that bring their own optimizer
    clip_norm: float = 1.0  # the same; 0: none


def _as_they_are(opt_state: Any, params: Any) -> Any:
    del opt_state
    return params


class Scheduler(NamedTuple):
    """A row of the table."""

    summary: str  # one line for `metalr schedulers`
    source: str  # where the rule and its settings come from
    build: Callable[[Inner, Plan], optax.GradientTransformationExtraArgs]
    # 2e-5 is the experiment plan's; methods that estimate the rate have a factor here.
    learning_rate: float = 2e-5  # base rate where the user gives none
    # (optimizer state, parameters) -> the parameters to score and to keep
    served: Callable[[Any, Any], Any] = _as_they_are


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


def _answering(rule: Callable[[float, optax.Schedule], Any]):
    """Makes a row's `build` from a schedule that answers to the loss."""

    def build(inner: Inner, plan: Plan) -> optax.GradientTransformationExtraArgs:
        schedule: Any = rule(plan.learning_rate, _ramp(plan))
        return optax.inject_hyperparams(inner)(learning_rate=schedule)

    return build


def _metalr(change: Callable[[Predictor], Predictor], **options: Any):
    """Makes a row's `build` from a change of the predictor."""

    def build(inner: Inner, plan: Plan) -> optax.GradientTransformationExtraArgs:
        return optax_schedule.inject(
            inner,
            plan.learning_rate,
            change(plan.predictor()),
            total_steps=plan.total_steps,
            prior=_linear(plan),
            **options,
        )

    return build


def _shuffled(predictor: Predictor) -> Predictor:
    """Lets the network take each feature for another one.

    The same scales, ranges and weights: what is lost is what the features mean.
    """
    order = np.random.default_rng(0).permutation(len(predictor.mean))
    hidden = predictor.weights["hidden"]
    hidden = {**hidden, "kernel": np.asarray(hidden["kernel"])[order]}
    return predictor._replace(weights={**predictor.weights, "hidden": hidden})


def _own(
    optimizer: Callable[[Any, Plan], optax.GradientTransformation],
    shape: Callable[[Plan], optax.Schedule],
):
    """Makes a row's `build` from an optimizer that leaves the given one aside."""

    def build(inner: Inner, plan: Plan) -> optax.GradientTransformationExtraArgs:
        del inner
        make = lambda learning_rate: _clipped(  # noqa: E731
            optimizer(learning_rate, plan), plan.clip_norm
        )
        return _scheduled(shape)(make, plan)

    return build


def _prodigy(rate: Any, plan: Plan) -> optax.GradientTransformation:
    return contrib.prodigy(rate, weight_decay=plan.weight_decay, safeguard_warmup=True)


def _dadapt_adamw(rate: Any, plan: Plan) -> optax.GradientTransformation:
    return contrib.dadapt_adamw(rate, weight_decay=plan.weight_decay)


def _dowg(rate: Any, plan: Plan) -> optax.GradientTransformation:
    return contrib.dowg(rate, weight_decay=plan.weight_decay, mask=decay_mask)


def _mechanic(rate: Any, plan: Plan) -> optax.GradientTransformation:
    return contrib.mechanize(adamw(plan.weight_decay, clip_norm=0.0)(rate))


def _momo_adam(rate: Any, plan: Plan) -> optax.GradientTransformation:
    return contrib.momo_adam(rate, weight_decay=plan.weight_decay)


def _schedule_free(rate: Any, plan: Plan) -> optax.GradientTransformation:
    return contrib.schedule_free_adamw(rate, weight_decay=plan.weight_decay)


def _averaged(opt_state: Any, params: Any) -> Any:
    """Returns schedule-free's average, which it is to be judged by."""
    state = lambda x: isinstance(x, contrib.ScheduleFreeState)  # noqa: E731
    (found,) = [x for x in jax.tree.leaves(opt_state, is_leaf=state) if state(x)]
    return contrib.schedule_free_eval_params(found, params)


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
        _answering(PlateauSchedule),
    ),
    "greedylr": Scheduler(
        "warm-up, then /0.95 while the mean loss of 50 steps falls, else x0.95",
        "arXiv 2512.14527; defaults of transformers, lower bound 1e-7",
        _answering(GreedySchedule),
    ),
    "prodigy": Scheduler(
        "Prodigy's estimate on linear warm-up and decay",
        "optax.contrib.prodigy, safeguard_warmup as its authors advise",
        _own(_prodigy, _linear),
        learning_rate=1.0,
    ),
    "dadapt_adamw": Scheduler(
        "D-Adaptation's estimate on linear warm-up and decay",
        "optax.contrib.dadapt_adamw, defaults",
        _own(_dadapt_adamw, _linear),
        learning_rate=1.0,
    ),
    "dowg": Scheduler(
        "distance over weighted gradients, no AdamW, no schedule",
        "optax.contrib.dowg, defaults",
        _own(_dowg, _static),
        learning_rate=1.0,
    ),
    "mechanic": Scheduler(
        "Mechanic's scale of AdamW on linear warm-up and decay",
        "optax.contrib.mechanize, defaults",
        _own(_mechanic, _linear),
        learning_rate=1.0,
    ),
    "momo_adam": Scheduler(
        "warm-up, then a Polyak rate of at most the base rate",
        "optax.contrib.momo_adam, default base rate 1e-2",
        _own(_momo_adam, _ramp),
        learning_rate=1e-2,
    ),
    "schedule_free": Scheduler(
        "warm-up, then the base rate; scored on the averaged parameters",
        "optax.contrib.schedule_free_adamw, default base rate 2.5e-3",
        _own(_schedule_free, _ramp),
        learning_rate=2.5e-3,
        served=_averaged,
    ),
    "metalr": Scheduler(
        "a learned multiplier, 1/1024 to 1024, on linear warm-up and decay",
        "metalr.optax_schedule",
        _metalr(lambda predictor: predictor),
    ),
    "metalr_fixed": Scheduler(
        "control: metalr with its multiplier bound to 1",
        "metalr.optax_schedule, max_multiplier=1",
        _metalr(lambda predictor: predictor, max_multiplier=1.0),
    ),
    "metalr_shuffled": Scheduler(
        "control: metalr whose features are shuffled, one fixed order",
        "metalr.optax_schedule",
        _metalr(_shuffled),
    ),
}


class RatedState(NamedTuple):
    """State of `at_a_rate`."""

    base_rate: jax.Array  # [] float32
    rated: Any  # the transformation's own state


def at_a_rate(
    build: Callable[[Inner, Plan], optax.GradientTransformationExtraArgs],
    inner: Inner,
    plan: Plan,
) -> optax.GradientTransformationExtraArgs:
    """Builds a transformation whose base rate is a number of its state.

    Runs that differ in their base rate alone are then one program, which compiles once.
    """
    plan = plan._replace(predictor=functools.cache(plan.predictor))

    def at(rate: Any) -> optax.GradientTransformationExtraArgs:
        return build(inner, plan._replace(learning_rate=rate))

    first = at(plan.learning_rate)  # reads and checks what no trace could

    def init(params: Any) -> Any:
        rated = first.init(params)
        return RatedState(jnp.asarray(plan.learning_rate, jnp.float32), rated)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any):
        tx = at(state.base_rate)
        updates, rated = tx.update(updates, state.rated, params, **extra_args)
        return updates, state._replace(rated=rated)

    return optax.GradientTransformationExtraArgs(init, update)


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
        return _clipped(inner, clip_norm)

    return build


def _clipped(
    inner: optax.GradientTransformation, clip_norm: float
) -> optax.GradientTransformation:
    if not clip_norm:
        return inner
    return optax.chain(optax.clip_by_global_norm(clip_norm), inner)
