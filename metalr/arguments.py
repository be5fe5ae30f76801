"""Check what users hand in; errors say the rule, the value and the way out."""

import inspect
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.errors import MetalrError

# Rules whose own state remembers where the parameters are, or how large their steps
# were: a factor on what they return makes their memory wrong.
_REMEMBERING = {
    "ScheduleFreeState": "optax.contrib.schedule_free(metalr.wrap(base), ...)",
    "MechanicState": "optax.contrib.mechanize(metalr.wrap(base), ...)",
    "LookaheadState": "the optimizer alone: it hands no loss on to what it wraps",
    "SAMState": "the optimizer alone: it hands no loss on to what it wraps",
    "ProdigyState": "the optimizer alone: it estimates the rate itself",
    "DAdaptAdamWState": "the optimizer alone: it estimates the rate itself",
    "DoGState": "the optimizer alone: it estimates the rate itself",
    "ScaleByDistanceOverGradientsState": (
        "the optimizer alone: it estimates the rate itself"
    ),
    "DoWGState": "the optimizer alone: it estimates the rate itself",
    "COCOBState": "the optimizer alone: it estimates the rate itself",
    "MadgradState": "another rule: its steps are no multiple of its rate",
    "ScaleByZoomLinesearchState": "the optimizer alone: it searches for its steps",
    "ScaleByBacktrackingLinesearchState": (
        "the optimizer alone: it searches for its steps"
    ),
}


_OWN = "MetalrState"


def checked_value(value: Any) -> jax.Array:
    """Return the loss as a float32 scalar.

    Raises:
      MetalrError: It is missing, or is none.
    """
    way_out = (
        "Call `tx.update(grads, opt_state, params, value=loss)`; a trainer that cannot "
        "pass it on (flax's TrainState) has to call `tx.update` itself."
    )
    if value is None:
        raise MetalrError(
            f"metalr needs the loss as `value=`, got none. {way_out} Where it was "
            "passed, something around metalr has dropped it, as optax.chain does of "
            "`gradient_transformation()` of a MultiSteps: give it "
            "`optax.GradientTransformationExtraArgs(steps.init, steps.update)`."
        )
    if isinstance(value, tuple | list | dict):
        raise MetalrError(
            f"`value` must be the loss alone, got a {type(value).__name__}: with "
            f"`has_aux=True`, take the loss out first. {way_out}"
        )
    if isinstance(value, str) or _is_function(value):
        raise MetalrError(
            f"`value` must be the loss, one number; got a {type(value).__name__}. "
            f"{way_out}"
        )
    if jnp.shape(value) != ():
        raise MetalrError(
            f"`value` must be one number, the mean loss of the batch; got an array of "
            f"shape {jnp.shape(value)}. Take its mean."
        )
    return jnp.asarray(value, jnp.float32)


def _is_function(value: Any) -> bool:
    return callable(value) and not hasattr(value, "dtype")


def check_whole(name: str, value: Any, least: int, way_out: str) -> None:
    """Refuse what is no whole number, or too small.

    Raises:
      MetalrError: The value is such; the message ends with the way out.
    """
    try:
        is_whole = operator.index(value) >= least
    except TypeError:
        is_whole = False
    if not is_whole:
        raise MetalrError(
            f"`{name}` must be a whole number of at least {least}, got {value}. "
            f"{way_out}"
        )


def known_number(value: Any) -> float | None:
    """Return one real number whose value is known; None: an array, a tracer, no number.

    As Python's own: to compare a number of JAX inside of a trace makes a tracer.
    """
    if isinstance(value, str) or np.ndim(value):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def checked_total_steps(total_steps: Any) -> int | None:
    """Return the length of a run as Python's own number; None: it is not known.

    Raises:
      MetalrError: It is no length.
    """
    if total_steps is None:
        return None
    check_whole(
        "total_steps",
        total_steps,
        1,
        "Round it, as by `math.ceil(epochs * rows / batch)`; leave it out if the "
        "length of the run is not known.",
    )
    return operator.index(total_steps)


def check_schedule(schedule: Any) -> None:
    """Refuse a schedule that is no function; None is one that is not given."""
    if schedule is not None and not callable(schedule):
        raise MetalrError(
            "`schedule` must be a function of the step, got a "
            f"{type(schedule).__name__}. Give one of optax, as "
            "optax.linear_schedule(1.0, 0.0, steps)"
        )


def check_state(state: Any, kind: type) -> None:
    """Refuse a state that is not of a kind: of another optimizer, or of a file."""
    if not isinstance(state, kind):
        raise MetalrError(
            f"the state must be that of metalr, got a {type(state).__name__}. Make it "
            "by `tx.init(params)`; give `jax.eval_shape(tx.init, params)` to what "
            "restores a saved one"
        )


def checked_optimizer(inner: Any) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer that takes extra arguments.

    Raises:
      MetalrError: It is none.
    """
    if isinstance(inner, optax.MultiSteps):  # as it is it drops no extra argument
        gathering: Any = inner.update
        return optax.GradientTransformationExtraArgs(inner.init, gathering)
    if not (hasattr(inner, "init") and hasattr(inner, "update")):
        raise MetalrError(
            "`inner` must be an optimizer, as optax.adamw(1e-3), got a "
            f"{type(inner).__name__}. Call the factory with its rate, or give it to "
            "metalr.inject"
        )
    return optax.with_extra_args_support(inner)


def is_gathering(part: Any) -> bool:
    """Tell whether a part of a state gathers micro-batches."""
    return isinstance(part, optax.MultiStepsState)


def gathers(inner_state: Any) -> bool:
    """Tell whether a rule of an optimizer gathers micro-batches."""
    return any(map(is_gathering, jax.tree.leaves(inner_state, is_leaf=is_gathering)))


def refuse_remembering(inner_state: Any) -> None:
    """Raise an error for a rule whose memory a factor on its updates would belie."""
    known = lambda x: type(x).__name__ in (*_REMEMBERING, _OWN)  # noqa: E731
    for part in jax.tree.leaves(inner_state, is_leaf=known):
        name = type(part).__name__
        if name == _OWN:
            raise MetalrError(
                "`inner` is multiplied by metalr already, and a run has one factor. "
                "Use one of the two, around the optimizer itself."
            )
        if name in _REMEMBERING:
            raise MetalrError(
                "metalr multiplies the update of a rule, and "
                f"{name.removesuffix('State')} keeps a record of its own updates that "
                f"would no longer be true. Use {_REMEMBERING[name]}."
            )


def check_rate(
    learning_rate: float | optax.Schedule, schedule: optax.Schedule | None
) -> None:
    """Raise an error for what is no rate, or is one that is told twice."""
    if callable(learning_rate):
        if schedule is not None:
            raise MetalrError(
                "`learning_rate` must be a number where `schedule` is given, got two "
                "schedules. Multiply them into one."
            )
        return
    check_is_rate(learning_rate)
    if (rate := known_number(learning_rate)) is not None and not 0 < rate < math.inf:
        raise MetalrError(
            f"`learning_rate` must be positive, got {learning_rate}. Give the peak "
            "rate, 2e-5 for instance, or a schedule."
        )


def check_is_rate(learning_rate: Any) -> None:
    """Raise an error for what is no number at all.

    None is the rate of a `metalr.find` that found none, and a text what YAML makes of
    2e-5.
    """
    if learning_rate is None:
        raise MetalrError(
            "`learning_rate` must be a number, got None. `metalr.find` has no rate for "
            "a run of a kind that it does not know: its `text` says why"
        )
    if isinstance(learning_rate, str):
        raise MetalrError(
            f"`learning_rate` must be a number, got the text {learning_rate!r}. Use "
            "`float`; YAML reads 2e-5 as a text, and 2.0e-5 as a number"
        )
    if not (isinstance(learning_rate, float | int) or hasattr(learning_rate, "dtype")):
        raise MetalrError(
            "`learning_rate` must be a number, got a "
            f"{type(learning_rate).__name__}. A predictor is given by name, as "
            "`predictor=`"
        )


def static_arguments(
    inner_factory: Callable, inner_kwargs: dict, static_args: str | Iterable[str]
) -> set[str]:
    """Name what `inject_hyperparams` would trace, round or call by mistake.

    It gives numbers the type of the parameters: a b2 of 0.999 is 1 in bfloat16, and
    Adam's correction of the bias then divides by 0.
    """
    if not callable(inner_factory):
        raise MetalrError(
            "`inner_factory` must be a function of the rate, as optax.adamw, got a "
            f"{type(inner_factory).__name__}. Give a finished optimizer to metalr.wrap"
        )
    parameters = inspect.signature(inner_factory).parameters
    if "learning_rate" not in parameters:
        raise MetalrError(
            "`inner_factory` must take `learning_rate`, as optax.adamw does; "
            f"{inner_factory!r} does not. Build the optimizer and use `wrap`."
        )
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    for name, parameter in parameters.items():
        value = inner_kwargs.get(name, parameter.default)
        function = callable(value) and (
            name not in inner_kwargs or name.endswith(("mask", "dtype"))
        )
        if isinstance(value, int | float) or function:
            static.add(name)
    return static - {"learning_rate"}
