"""Read the schedule of a finished optimizer by watching what it does.

An optax optimizer keeps its schedule in a closure. Under a constant gradient of one the
size of its update is that schedule times a constant, once its moments have filled. So a
copy of the optimizer is run on a tree of the same structure, with one coordinate a
leaf, until they have; then the count of its schedule, which stands in its state by a
name of optax's own, is set to each step of the run in turn. Where no count has such a
name, the copy takes the steps of the run one by one.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.arguments import gathers, is_gathering
from metalr.coordinates import is_trainable, leaves_of
from metalr.observe import TINY

_STEPS = 10_000  # watched at most
_AT_ONCE = 8192  # states of the optimizer in memory at a time
_LEAST_AREA = 1e-2
_FILLING = 100  # steps after which moments hardly change
_SAME = 0.02  # of the peak: levels that two states agree on
# Whose `count` is the step of a schedule, and of nothing else.
_COUNTED = (
    "ScaleByScheduleState",
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "WrappedScheduleState",
)


def read_schedule(
    inner: optax.GradientTransformationExtraArgs, params: Any, total_steps: int | None
) -> np.ndarray | None:
    """Return the level of an optimizer's rate over its peak at each step.

    Args:
      inner: The optimizer.
      params: Its parameters; their structure, axes and types are used.
      total_steps: Length of the run; None: the first 10,000 steps are read.

    Returns:
      Levels within [0, 1]: [steps]; None where the optimizer cannot be run like this,
      its updates under a constant gradient are no schedule, or its groups of parameters
      follow several.
    """
    found = _read(inner, params, total_steps)
    return None if isinstance(found, _Unread) else found


@dataclasses.dataclass(frozen=True)
class _Unread:
    """Why there are no levels, and the way out, as parts of a sentence."""

    why: str = ""
    way_out: str = ""


_TRACED = _Unread(
    ", whose rate is traced by jit, vmap or grad,",
    " (a function of the step, which may use that rate)",
)


def _read(
    inner: optax.GradientTransformationExtraArgs, params: Any, total_steps: int | None
) -> np.ndarray | _Unread:
    """Return the levels of `read_schedule`, or why there are none."""

    def one(leaf: Any) -> Any:
        if not is_trainable(leaf):
            return leaf
        return jnp.ones((1,) * jnp.ndim(leaf), jnp.asarray(leaf).dtype)

    try:
        with jax.ensure_compile_time_eval():
            tree = jax.tree.map(one, params, is_leaf=lambda x: x is None)
            sizes = _sizes(inner, tree, total_steps or _STEPS)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return _TRACED
    except Exception:  # whatever an optimizer of somebody else's raises
        return _Unread()
    if total_steps is not None and len(sizes) < total_steps:
        return _Unread()
    if not np.isfinite(sizes).all() or sizes.max() <= 0:
        return _Unread()
    return (sizes / sizes.max()).astype(np.float32)


def levels(
    schedule: optax.Schedule | np.ndarray, total_steps: int | None
) -> tuple[Callable[[Any], Any], float]:
    """Return a schedule relative to its peak, and its mean over the budget.

    Args:
      schedule: A function of the step in any unit, or its values at each step.
      total_steps: Length of the run, if known.

    Returns:
      A function of the step: log(schedule / peak), at least log 1e-9; and the log of
      the mean of schedule / peak, 0 where the length is not known.
    """
    if callable(schedule):
        last = _STEPS if total_steps is None else total_steps
        size = lambda step: jnp.abs(jnp.asarray(schedule(step), jnp.float32))  # noqa: E731
        grid = _grid(last)
        values = jax.vmap(size)(grid)  # a rate may be handed in with a descent's sign
        peak = jnp.maximum(jnp.max(values), TINY)
        level = lambda step: size(step) / peak  # noqa: E731
        even = np.linspace(0, last - 1, min(last, 513)).astype(np.int32)
        mean = jnp.interp(even, grid, values).mean() / peak
        area: Any = jnp.log(jnp.clip(mean, _LEAST_AREA, 1))
    else:
        table = np.asarray(schedule, np.float32) / np.max(schedule)
        level = lambda step: jnp.take(table, step, mode="clip")  # noqa: E731
        # No array of a trace: what is read off an optimizer is kept for the next one.
        area = log_area(table)
    log = lambda step: jnp.log(jnp.clip(level(step), 1e-9, 1))  # noqa: E731
    return log, area if total_steps is not None else 0.0


def log_area(levels: np.ndarray) -> float:
    """Return the log of the mean of schedule / peak over a budget, at least log 1e-2.

    >>> round(log_area(np.linspace(1, 0, 101)), 3)
    -0.693
    """
    return math.log(max(float(levels.mean()), _LEAST_AREA))


def structure(params: Any) -> Any:
    """Return what `read_schedule` depends on of parameters, as something hashable."""
    shapes = tuple(
        (jnp.shape(x), str(x.dtype))
        if is_trainable(x) and hasattr(x, "dtype")
        else None
        for x in leaves_of(params)
    )
    return jax.tree.structure(params, is_leaf=lambda x: x is None), shapes


def read_level(
    inner: optax.GradientTransformationExtraArgs, params: Any, total_steps: int | None
) -> tuple[Callable, Any]:
    """Return the `levels` of an optimizer's schedule; warn where it cannot be read."""
    table = _read(inner, params, total_steps)
    if not any(map(is_trainable, leaves_of(params))):  # there is no rate to read
        table = np.ones(1, np.float32)
    if isinstance(table, _Unread):
        warnings.warn(
            f"metalr.wrap cannot read the schedule of this optimizer{table.why} and "
            f"takes it for a constant rate; tell it with `schedule=`{table.way_out}.",
            stacklevel=4,
        )
        table = np.ones(1, np.float32)
    return levels(table, total_steps)


def _sizes(
    inner: optax.GradientTransformationExtraArgs, tree: Any, steps: int
) -> np.ndarray:
    """Return how far each step would move a tree of ones: [steps], or fewer."""
    grads = jax.tree.map(lambda x: x if is_trainable(x) else None, tree)
    state = inner.init(tree)
    if any(map(_hides_its_count, jax.tree.leaves(state, is_leaf=_hides_its_count))):
        raise ValueError("its schedule counts by another name")

    def step(state: Any, calls: Any) -> tuple[Any, list[jax.Array]]:
        # A loss that falls, or a plateau would lower the rate.
        value = jnp.exp(-1e-3 * jnp.asarray(calls, jnp.float32))
        updates, state = inner.update(grads, state, tree, value=value)
        found = [x for x in jax.tree.leaves(updates) if is_trainable(x)]
        # One that comes out as it went in is marked by a sign, see `_passed`.
        marked = [jnp.where(x == 1, -1, jnp.abs(x)) for x in found]
        return state, [x.sum().astype(jnp.float32) for x in marked]

    counted = any(map(_is_counted, jax.tree.leaves(state, is_leaf=_is_counted)))
    if counted and not gathers(state):
        return _sizes_by_count(step, state, steps)
    if not counted and not _counts_elsewhere(state):
        return np.ones(steps)  # without a count there is no schedule
    return _sizes_by_steps(step, state, min(steps, _STEPS))


# A step of the copy: its state and the calls so far, to its state and a size a leaf.
_Step = Callable[[Any, Any], tuple[Any, list[jax.Array]]]


def _sizes_by_count(step: _Step, state: Any, steps: int) -> np.ndarray:
    """Set the count to each step of the run in turn; NaN where moments remember.

    Two programs, each compiled once: a copy of many leaves takes longer to compile than
    to run.
    """

    @jax.jit
    def fill(state: Any, indices: jax.Array) -> Any:  # at the rates of these steps
        calls = jnp.arange(_FILLING)
        take = lambda s, at: (step(_at(s, at[0]), at[1])[0], None)  # noqa: E731
        return jax.lax.scan(take, state, (indices, calls))[0]

    @jax.jit
    def at(filled: Any, indices: jax.Array) -> list[jax.Array]:
        return jax.vmap(lambda i: step(_at(filled, i), _FILLING)[1])(indices)

    def at_each(filled: Any, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Evaluate parts of one length, which bounds the memory: [leaves, length]."""
        length = min(steps, _AT_ONCE)
        for part in np.resize(indices, (-(-len(indices) // length), length)):
            yield np.stack(at(filled, part))

    # A momentum behind the rate holds the rates of the steps before.
    some = _grid(steps)
    waited = (fill(state, np.full(_FILLING, i, np.int32)) for i in (0, steps // 2))
    parts = [next(at_each(filled, some))[:, : len(some)] for filled in waited]
    passed = _passed(parts[1])
    with np.errstate(invalid="ignore"):  # a rate of 0 everywhere is NaN
        one, other = (_sum(part, passed) for part in parts)
        apart = np.abs(one / one.max() - other / other.max())
    if not (np.all(apart < _SAME) and all(_agree(part, passed) for part in parts)):
        return np.full(steps, np.nan)
    filled = fill(state, np.arange(_FILLING, dtype=np.int32))
    whole = at_each(filled, np.arange(steps, dtype=np.int32))
    return np.concatenate([_sum(part, passed) for part in whole])[:steps]


def _sizes_by_steps(step: _Step, state: Any, steps: int) -> np.ndarray:
    """Take the steps one by one; a micro-batch has the size of the move it makes.

    NaN where leaves follow several schedules.
    """
    walk = jax.jit(lambda state, calls: jax.lax.scan(step, state, calls))
    each = np.stack(walk(state, np.arange(steps))[1])
    sizes = _sum(each, _passed(each))
    moved = np.flatnonzero(sizes)
    if not gathers(state) or not len(moved):
        filled = each[:, min(_FILLING, steps // 2) :]
        return sizes if _agree(filled, _passed(each)) else np.full(steps, np.nan)
    # Micro-batches, and moves at the last of them.
    filling = min(_FILLING * int(moved[0] + 1), _STEPS)
    state = _restarted(walk(state, np.arange(filling))[0])
    each = np.stack(walk(state, filling + np.arange(steps))[1])
    if not _agree(each, _passed(each)):
        return np.full(steps, np.nan)
    sizes = _sum(each, _passed(each))
    moved = np.flatnonzero(sizes)
    following = np.searchsorted(moved, np.arange(len(sizes)))
    held = sizes[moved[np.minimum(following, len(moved) - 1)]]
    # Whole groups without a move after the last one are a rate of 0.
    group = moved[-1] - moved[-2] if len(moved) > 1 else moved[0] + 1
    ended = moved[-1] + group < len(sizes)
    return np.where((following == len(moved)) & ended, 0, held)


def _passed(sizes: np.ndarray) -> np.ndarray:
    """Tell which leaves always come out as they went in: [leaves] bool.

    They are masked and follow no schedule, unless all are: that is an ascent at a rate
    of one.
    """
    marked = sizes == -1
    passed = np.all(marked | (sizes == 0), 1) & np.any(marked, 1)
    return passed & ~passed.all()


def _agree(sizes: np.ndarray, passed: np.ndarray) -> bool:
    """Tell whether the leaves that move follow one schedule, each in a unit of its own.

    The levels of several are none: how far each group moves is not known here.
    """
    sizes = np.abs(sizes[~passed])
    peaks = sizes.max(1, initial=0)
    moving = peaks != 0
    if not moving.any():
        return True
    return bool(np.all(np.ptp(sizes[moving] / peaks[moving, None], axis=0) < _SAME))


def _sum(sizes: np.ndarray, passed: np.ndarray) -> np.ndarray:
    """Add up the sizes of the leaves that are not passed on, in order: [steps]."""
    return sum(np.abs(sizes[~passed]), np.zeros(sizes.shape[1], np.float32))


def _grid(steps: int) -> np.ndarray:
    """Return some steps of a run, the first of them densely, where rates warm up."""
    even = np.linspace(0, steps - 1, 513)
    return np.unique(np.append(even, np.geomspace(1, steps, 512) - 1).astype(np.int32))


def _at(state: Any, step: jax.Array) -> Any:
    """Return a state with the counts of its schedules set to a step."""

    def move(part: Any) -> Any:
        if not _is_counted(part):
            return part
        rest = {k: _at(v, step) for k, v in part._asdict().items() if k != "count"}
        return part._replace(count=step, **rest)

    return jax.tree.map(move, state, is_leaf=_is_counted)


def _restarted(state: Any) -> Any:
    """Return a state at its first micro-batch again, but for its moments."""

    def move(part: Any) -> Any:
        if not is_gathering(part):
            return part
        return part._replace(
            mini_step=jnp.zeros_like(part.mini_step),
            gradient_step=jnp.zeros_like(part.gradient_step),
            acc_grads=jax.tree.map(jnp.zeros_like, part.acc_grads),
            inner_opt_state=_at(part.inner_opt_state, jnp.int32(0)),
        )

    return jax.tree.map(move, state, is_leaf=is_gathering)


def _is_counted(part: Any) -> bool:
    return type(part).__name__ in _COUNTED


def _counts_elsewhere(state: Any) -> bool:
    """Tell whether a rule that is not optax's counts; the counts of optax's are known.

    Moments of optax's count as well, and under a constant rate those of radam or nadam
    are no schedule.
    """
    parts = jax.tree.leaves(state, is_leaf=_is_of_optax)
    wrapped = [x for part in parts if _is_of_optax(part) for x in part]
    return any(_is_integer(part) for part in parts if not _is_of_optax(part)) or any(
        _counts_elsewhere(x) for x in wrapped if not hasattr(x, "dtype")
    )


def _is_of_optax(part: Any) -> bool:
    return hasattr(part, "_fields") and type(part).__module__.startswith("optax.")


def _hides_its_count(part: Any) -> bool:
    return type(part).__name__ in ("MomoState", "MomoAdamState")


def _is_integer(leaf: Any) -> bool:
    return jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jnp.integer)
