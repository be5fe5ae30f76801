"""A short probe of a run, on copies: what its first steps say, and a range test.

Nothing that is handed in is changed: parameters are copied before a step donates them,
the optimizer's state is made anew, and batches are read by their number.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr import controller, coordinates, features, observe
from metalr.coordinates import is_trainable
from metalr.errors import MetalrError
from metalr.features import OF_STATIC
from metalr.optax_schedule import wrap
from metalr.predictor import Predictor, distance, prior
from metalr.read_schedule import log_area

MOST_STEPS = 100
RAMP = 10  # steps of the probe's own warm-up, which is shorter than a run's
# The rate that a probe begins with is no guess of the user's.
NO_GUESS = 1e4  # octaves^2, its variance
_SMALL = 2.0**-10  # of the weights: an update that is only looked at
_PATIENCE = 1024  # updates in which an optimizer that adds up gradients has moved
_USUAL = 0.1  # root mean square of weights, where they all are zero
# A range test goes over these sizes of an update beside the weights, as log2.
_RANGE = (-20.0, 2.0)
_DIVERGED = 4.0  # times the fall of the loss so far, above its lowest: the test ends


class ProbedRun(NamedTuple):
    """What is probed."""

    loss_fn: Callable[..., Any]  # (params, batch[, key]) -> loss, or (loss, aux)
    params: Any
    optimizer: optax.GradientTransformationExtraArgs  # at the user's own rate
    batch: Callable[[int], Any]  # step -> batch
    steps: int  # of the whole run
    levels: np.ndarray  # [steps] of its schedule, over their peak
    key: jax.Array | None = None  # of the loss, if it wants one
    has_aux: bool = False


class Facts(NamedTuple):
    """What is known of a run before it moves."""

    log2_best: float  # of the factor on the user's rate that is best
    variance: float  # octaves^2
    distance: float  # of the facts from training; out of range above 1; inf: no weights
    relative_rate: float  # log2 of an update beside the weights, at the user's peak
    value: float  # the first loss


class Log(NamedTuple):
    """The steps of a probe: [n] each; rates in octaves from the user's own."""

    value: np.ndarray  # the loss before the step
    rate: np.ndarray  # that the step was taken with
    mean: np.ndarray  # of the best peak rate
    variance: np.ndarray  # of that
    distance: np.ndarray  # of the features from training


def facts(run: ProbedRun, predictor: Predictor) -> Facts:
    """Read the facts of a run off one gradient; nothing moves.

    Raises:
      MetalrError: The first loss or gradient is not finite, the gradient is 0, or the
        optimizer moves nothing.
    """
    start = int(np.flatnonzero(run.levels > 0)[0])
    level, area = float(np.log(run.levels[start])), log_area(run.levels)
    grad = _value_and_grad(run)

    def look(params: Any, batch: Any) -> tuple[jax.Array, ...]:
        value, grads = grad(params, batch, jnp.int32(0))
        updates = _first_update(run.optimizer, grads, params, value, start)
        theta, u, g = (_wide(tree) for tree in (params, updates, grads))
        where = coordinates.layout(theta)
        sizes = (
            jnp.sqrt(jnp.sum(coordinates.squared_norms(tree, where))) for tree in (u, g)
        )
        moved, slope = sizes
        weight = jnp.sqrt(jnp.sum(coordinates.squared_norms(theta, where)))
        # Beside weights of zero every update is as large.
        blank = weight == 0
        weight = jnp.where(blank, _USUAL * math.sqrt(_coordinates(theta)), weight)
        ratio = jnp.where(moved > 0, _SMALL * weight / moved, 1.0)
        share = jnp.exp2(jnp.round(jnp.log2(ratio)))
        first, observer = observe.observe(
            g, observe.init(theta, where), theta, where, value=value, log_level=level
        )
        clock = {"total_steps": run.steps, "log_area": area}
        _, summary = features.update(first, features.init(), step=0, **clock)
        seen, _ = observe.observe(
            g,
            observer,
            jax.tree.map(lambda x, y: x + share * y, theta, u),
            where,
            value=value,
            log_level=level,
            log_multiplier=jnp.log(share),
        )
        vector, _ = features.update(seen, summary, step=1, **clock)
        said, variance = prior(predictor, vector)
        apart = distance(predictor.prior_seen, vector[OF_STATIC])
        apart = jnp.where(blank, jnp.inf, apart)
        relative = jnp.log2(moved / weight) - level / math.log(2)
        best = jnp.where(blank, -relative + math.log2(_SMALL), jnp.log2(share) + said)
        return best, variance, apart, relative, value, slope, moved

    found = jax.jit(look)(run.params, run.batch(0))
    *known, slope, moved = (float(x) for x in jax.device_get(found))
    if not (math.isfinite(known[-1]) and math.isfinite(slope)):
        raise MetalrError(
            f"a probe needs a finite loss and gradient at the start, got "
            f"{known[-1]:g} and a gradient of norm {slope:g}; look at the first batch"
        )
    if slope == 0:
        raise MetalrError(
            "a probe needs a gradient other than 0 at the start; look at the loss, at "
            "what of the parameters it reads, and at the first batch"
        )
    if moved == 0:
        raise MetalrError(
            f"a probe needs an optimizer that moves the parameters, got one that left "
            f"them where they were in {start + _PATIENCE} updates; look at its rate, "
            "its mask and how many gradients it adds up"
        )
    return Facts(*known)


def _first_update(
    optimizer: optax.GradientTransformationExtraArgs,
    grads: Any,
    params: Any,
    value: jax.Array,
    start: int,
) -> Any:
    """Return the first update that moves, once the schedule has left zero."""

    def update(state: Any) -> tuple[Any, Any]:
        return optimizer.update(grads, state, params, value=value)

    def pending(carry: tuple[jax.Array, Any, Any]) -> jax.Array:
        done, updates, _ = carry
        still = jnp.stack([jnp.all(x == 0) for x in jax.tree.leaves(updates)]).all()
        return (done <= start) | (still & (done < start + _PATIENCE))

    def step(carry: tuple[jax.Array, Any, Any]) -> tuple[jax.Array, Any, Any]:
        done, _, state = carry
        return done + 1, *update(state)

    first = (jnp.int32(1), *update(optimizer.init(params)))
    return jax.lax.while_loop(pending, step, first)[1]


def respond(
    run: ProbedRun,
    predictor: Predictor,
    begin: float,
    *,
    most: int,
    ended: Callable[[Log], bool],
) -> tuple[Log, Any]:
    """Take steps of a copy of the run under metalr, and logs what they say.

    Args:
      run: The run.
      predictor: Of metalr.
      begin: Log2 of the factor on the user's rate that the first step has.
      most: Steps at most.
      ended: Asked every few steps.

    Returns:
      The log, and the parameters of the copy after the last step.
    """
    table = probe_levels(run.levels)
    factors = 2.0**begin * table / np.maximum(run.levels, 1e-9)
    predictor = predictor._replace(base_variance=np.float32(NO_GUESS))
    tx = wrap(
        _times(run.optimizer, factors),
        predictor,
        total_steps=run.steps,
        schedule=lambda step: jnp.take(jnp.asarray(table), step, mode="clip"),
        max_multiplier=controller.MAX_MULTIPLIER,
        trust=0.0,
    )
    step_fn = _step(run, tx, _read(predictor))
    params = jax.tree.map(_copy, run.params)
    state, rows = jax.jit(tx.init)(params), []
    for index in range(most):
        params, state, row = step_fn(params, state, run.batch(index), jnp.int32(index))
        rows.append(row)
        if index % 5 == 4 or index == most - 1:
            rows = jax.device_get(rows)
            log = _log(rows, begin)
            if ended(log):
                break
    return _log(jax.device_get(rows), begin), params


def range_test(
    run: ProbedRun, relative_rate: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Raise the rate of a copy of the run step by step until the loss leaves.

    Args:
      run: The run.
      relative_rate: As `Facts` has it.
      steps: At most.

    Returns:
      Log2 of the factors on the user's rate, and the losses after steps at them: [n].
    """
    octaves = np.linspace(*_RANGE, steps) - relative_rate
    factors = 2.0**octaves / np.maximum(run.levels[:steps], 1e-9)
    tx = _times(run.optimizer, factors)
    step_fn = _step(run, tx, lambda state: {})
    params = jax.tree.map(_copy, run.params)
    state, values = jax.jit(tx.init)(params), []
    for index in range(steps):
        batch = run.batch(index)
        params, state, row = step_fn(params, state, batch, jnp.int32(index))
        values.append(float(row["value"]))
        lowest = min(values)
        if not math.isfinite(values[-1]) or (
            index > 5
            and values[-1] - values[0] > _DIVERGED * max(values[0] - lowest, 1e-3)
            and values[-1] > values[0] + 0.5 * abs(values[0])
        ):
            break
    after = np.array(values[1:])
    return octaves[: len(after)], after


def probe_levels(levels: np.ndarray) -> np.ndarray:
    """Return a schedule without its warm-up, but for a short one of the probe's.

    >>> probe_levels(np.array([0.25, 0.5, 1.0, 0.5])).astype(float).round(2).tolist()
    [0.09, 0.18, 0.27, 0.18]
    """
    whole = np.maximum.accumulate(levels[::-1])[::-1]
    ramp = np.minimum(1.0, (np.arange(len(levels)) + 1) / (RAMP + 1))
    return (whole * ramp).astype(np.float32)


# ---------------------------------------------------------------- its inside


def _value_and_grad(run: ProbedRun) -> Callable[[Any, Any, jax.Array], tuple[Any, Any]]:
    def loss(params: Any, batch: Any, index: jax.Array) -> jax.Array:
        keys = () if run.key is None else (jax.random.fold_in(run.key, index),)
        value = run.loss_fn(params, batch, *keys)
        return value[0] if run.has_aux else value

    return jax.value_and_grad(loss)


def _step(run: ProbedRun, tx: Any, read: Callable[[Any], dict[str, Any]]) -> Callable:
    grad = _value_and_grad(run)
    tx = optax.with_extra_args_support(tx)

    def step(params: Any, state: Any, batch: Any, index: jax.Array) -> Any:
        value, grads = grad(params, batch, index)
        updates, state = tx.update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        return params, state, {"value": value, **read(state)}

    return jax.jit(step, donate_argnums=(0, 1))


class _TimesState(NamedTuple):
    factors: jax.Array  # [T]; in the state, so that programs do not differ by them
    factor_step: jax.Array  # [] int32
    inner_state: Any


def _times(
    inner: optax.GradientTransformationExtraArgs, factors: np.ndarray
) -> optax.GradientTransformationExtraArgs:
    """Multiply the updates of an optimizer by a factor a step."""

    def init(params: Any) -> _TimesState:
        table = jnp.asarray(factors, jnp.float32)
        return _TimesState(table, jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        updates, inner_state = inner.update(
            updates, state.inner_state, params, **extra_args
        )
        factor = jnp.take(state.factors, state.factor_step, mode="clip")

        def scale(leaf: Any) -> Any:
            return (leaf * factor).astype(leaf.dtype) if is_trainable(leaf) else leaf

        step = optax.safe_increment(state.factor_step)
        updates = jax.tree.map(scale, updates)
        return updates, state._replace(factor_step=step, inner_state=inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _read(predictor: Predictor) -> Callable[[Any], dict[str, Any]]:
    def read(state: controller.MetalrState) -> dict[str, Any]:
        return {
            "rate": jnp.log2(state.lr_multiplier),
            "mean": state.lr_mean,
            "variance": state.lr_variance,
            "distance": distance(predictor.seen, state.lr_features),
        }

    return read


def _log(rows: list[dict[str, Any]], begin: float) -> Log:
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    log = Log(**columns)
    return log._replace(rate=log.rate + begin, mean=log.mean + begin)


def _wide(tree: Any) -> Any:
    """Return a tree in float32, so that a small step is not rounded away."""

    def widen(leaf: Any) -> Any:
        if not is_trainable(leaf):
            return jnp.zeros(())
        leaf = jnp.asarray(leaf)
        return leaf if jnp.iscomplexobj(leaf) else leaf.astype(jnp.float32)

    return jax.tree.map(widen, tree)


def _coordinates(tree: Any) -> int:
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))


def _copy(leaf: Any) -> Any:
    return jnp.copy(leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf
