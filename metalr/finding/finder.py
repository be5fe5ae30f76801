"""Find a learning rate by a short probe, or from the facts of a run alone.

    found = metalr.find(loss_fn, params, optax.adamw, batches, steps=900)
    print(found.text)
    tx = optax.adamw(metalr.default_schedule(found.rate, 900))

A range test raises the rate until the loss leaves, and reads the best one off the
curve; what is best for a hundred steps at a rising rate is seldom best for a run. The
probe takes the first steps of the run itself, under metalr: the prior of the run's
facts, and then the evidence of each step, fused (`metalr.controller`). What is known of
such runs besides (`metalr.finding.experience`) gives the interval, the cost of a wrong
rate and a forecast. A run of a kind that training has not seen gets no rate: only the
curve of a range test.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalr.arguments import (
    check_is_rate,
    check_schedule,
    check_whole,
    checked_optimizer,
    refuse_remembering,
)
from metalr.errors import MetalrError, unknown_name
from metalr.finding import batch_source, probe
from metalr.finding.experience import ANY, KINDS, Experience, load_experience
from metalr.finding.facts import Facts, read_facts
from metalr.finding.findings import Finding, Suggestion
from metalr.finding.probed_run import ProbedRun
from metalr.optax_schedule import default_schedule
from metalr.predictor import Predictor
from metalr.read_schedule import read_schedule
from metalr.stored_predictor import load_predictor

# A probe is sure below this standard deviation, after so many steps.
SURE, LEAST_STEPS = 0.5, 20
# Where an optimizer is given as a function of its rate, facts are read at this one.
_ANY_RATE = 1e-3


def find(
    loss_fn: Callable[..., Any],
    params: Any,
    optimizer: optax.GradientTransformation | Callable[..., Any],
    batches: Any,
    *,
    steps: int,
    learning_rate: float | None = None,
    schedule: optax.Schedule | None = None,
    key: jax.Array | None = None,
    has_aux: bool = False,
    predictor: Predictor | None = None,
    kind: str = ANY,
    most_steps: int = probe.MOST_STEPS,
    on_end: Callable[[Any], Any] | None = None,
    experience: Experience | None = None,
) -> Finding:
    """Find the peak learning rate of a run by its first steps, on copies.

    Parameters, optimizer state, batches and random keys are afterwards what they were,
    bit for bit.

    Args:
      loss_fn: (params, batch) -> loss, the mean of the batch; with `key`, (params,
        batch, key) -> loss.
      params: Any pytree that `jax.grad` takes.
      optimizer: A function of the learning rate, as `optax.adamw`; or a finished
        optimizer with its schedule.
      batches: A function of the step, a sequence, or an iterable that begins anew each
        time, as a loader does. An iterator is refused.
      steps: Of the whole run.
      learning_rate: Peak rate of a finished optimizer. None: what is found is a
        multiple of it.
      schedule: Shape of the schedule, in any unit. None: `metalr.default_schedule` for
        a function, and for a finished optimizer what can be read off it.
      key: Of the loss, folded with the step.
      has_aux: Whether the loss is the first of two that `loss_fn` returns.
      predictor: As in `metalr.wrap`.
      kind: A row of what is known of runs: "encoder" for fine-tunes, or "any".
      most_steps: Of the probe, at most 100; half of the run if that is less, but 20
        at least.
      on_end: Given the copy's parameters after the probe; what it returns is `score`.
      experience: What is known of such runs, as of `load_experience`; None: what is
        shipped, less what is true of the shipped predictor alone.

    Returns:
      The rate with an interval, what others cost, and a forecast: see `Finding`.

    Raises:
      MetalrError: An argument is outside of its range, the schedule cannot be read, or
        the first loss is not finite.

    >>> import jax.numpy as jnp
    >>> def loss_fn(params, batch):
    ...     return jnp.mean((batch @ params["w"] - 1) ** 2)
    >>> params, batch = {"w": jnp.full(3, 0.1)}, jnp.eye(3)
    >>> found = find(loss_fn, params, optax.adam, [batch], steps=40)
    >>> found.steps <= 20
    True
    """
    run, base = _run(
        loss_fn,
        params,
        optimizer,
        batches,
        steps=steps,
        learning_rate=learning_rate,
        schedule=schedule,
        key=key,
        has_aux=has_aux,
    )
    check_whole("most_steps", most_steps, 1, "Leave it out.")
    if most_steps > probe.MOST_STEPS:
        raise MetalrError(
            f"`most_steps` must lie in [1, {probe.MOST_STEPS}], got {most_steps}"
        )
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    experience = experience or load_experience(predictor=predictor)
    predictor = load_predictor() if predictor is None else predictor
    most = min(most_steps, longest(steps))
    with batch_source.random_states_kept(batches):
        facts = read_facts(run, predictor)
        log, last = probe.respond(
            run,
            predictor,
            facts.log2_best,
            most=most,
            ended=lambda log: _is_over(log, facts, experience),
        )
        score = on_end(last) if on_end is not None else None
        known, distance = _is_known(log, facts)
        curve = () if known else _curve(run, facts, log, base, most)
    mean, deviation = log.mean[-1], experience.deviation(log.variance[-1])
    rate = base * 2.0 ** float(mean)
    return Finding(
        rate=rate if known else None,
        low=rate * 2.0 ** (-experience.width * deviation) if known else None,
        high=rate * 2.0 ** (experience.width * deviation) if known else None,
        coverage=experience.coverage,
        prior=base * 2.0**facts.log2_best,
        relative=learning_rate is None and _is_finished(optimizer),
        known=known,
        distance=distance,
        total_steps=steps,
        steps=len(log.value) + len(curve),
        losses=tuple(log.value.tolist()),
        rates=tuple((base * 2.0**log.rate).tolist()),
        means=tuple((base * 2.0**log.mean).tolist()),
        costs=experience.costs(kind) if known else {},
        forecast=experience.final_loss(kind, log.value) if known else None,
        curve=curve,
        score=score,
    )


def suggest(
    loss_fn: Callable[..., Any],
    params: Any,
    optimizer: optax.GradientTransformation | Callable[..., Any],
    batches: Any,
    *,
    steps: int,
    learning_rate: float | None = None,
    schedule: optax.Schedule | None = None,
    key: jax.Array | None = None,
    has_aux: bool = False,
    predictor: Predictor | None = None,
    experience: Experience | None = None,
) -> Suggestion:
    """Suggest a peak learning rate from one gradient; no step is taken.

    Args:
      loss_fn: As in `find`, as all that follow.
      params: The parameters.
      optimizer: The optimizer.
      batches: The batches; the first is read.
      steps: Of the whole run.
      learning_rate: Peak rate of a finished optimizer.
      schedule: Shape of the schedule.
      key: Of the loss.
      has_aux: Whether the loss is the first of two that `loss_fn` returns.
      predictor: As in `metalr.wrap`.
      experience: As in `find`.

    Returns:
      The rate with an interval: see `Suggestion`.

    Raises:
      MetalrError: As in `find`.
    """
    run, base = _run(
        loss_fn,
        params,
        optimizer,
        batches,
        steps=steps,
        learning_rate=learning_rate,
        schedule=schedule,
        key=key,
        has_aux=has_aux,
    )
    experience = experience or load_experience(predictor=predictor)
    predictor = load_predictor() if predictor is None else predictor
    with batch_source.random_states_kept(batches):
        facts = read_facts(run, predictor)
    rate, deviation = base * 2.0**facts.log2_best, math.sqrt(facts.variance)
    width = experience.width * experience.prior_scale * deviation
    return Suggestion(
        rate=rate,
        low=rate * 2.0**-width,
        high=rate * 2.0**width,
        coverage=experience.coverage,
        relative=learning_rate is None and _is_finished(optimizer),
        known=math.isfinite(facts.variance) and facts.distance <= 1,
        distance=facts.distance,
        total_steps=steps,
    )


def longest(steps: int) -> int:
    """Return how many steps a probe of a run of that many has at most.

    >>> [longest(steps) for steps in (10, 30, 100, 900)]
    [10, 20, 50, 100]
    """
    return min(probe.MOST_STEPS, max(LEAST_STEPS, steps // 2), steps)


# ---------------------------------------------------------------- its inside


def _is_finished(optimizer: Any) -> bool:
    return isinstance(optimizer, optax.GradientTransformation | optax.MultiSteps)


def _run(
    loss_fn: Callable[..., Any],
    params: Any,
    optimizer: Any,
    batches: Any,
    *,
    steps: int,
    learning_rate: float | None = None,
    schedule: optax.Schedule | None = None,
    key: jax.Array | None = None,
    has_aux: bool = False,
) -> tuple[ProbedRun, float]:
    """Check what was given, and returns it with the rate that octaves count from."""
    check_whole("steps", steps, 2, "It is of the whole run.")
    if learning_rate is not None:
        check_is_rate(learning_rate)
        if not 0 < learning_rate < math.inf:
            raise MetalrError(f"`learning_rate` must be positive, got {learning_rate}")
    base = 1.0 if learning_rate is None else learning_rate
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = checked_optimizer(optimizer)
    levels = None if schedule is None else _levels(schedule, steps)
    if not _is_finished(optimizer):
        if not callable(optimizer):
            raise MetalrError(
                "`optimizer` must be one of optax, or a function of the learning rate "
                f"as optax.adamw, got a {type(optimizer).__name__}"
            )
        base = _ANY_RATE if learning_rate is None else learning_rate
        shape = schedule or default_schedule(1.0, steps)
        levels = _levels(shape, steps) if levels is None else levels
        peak = float(np.max(levels))  # the rate is that of the schedule's peak
        optimizer = optimizer(lambda step: base * jnp.abs(shape(step)) / peak)
    inner = optax.with_extra_args_support(optimizer)
    refuse_remembering(jax.eval_shape(inner.init, params))
    if levels is None:
        levels = read_schedule(inner, params, steps)
    if levels is None:
        raise MetalrError(
            "the schedule of this optimizer cannot be read; give its shape, a function "
            "of the step, as `schedule=`"
        )
    run = ProbedRun(
        loss_fn,
        params,
        inner,
        batch_source.by_step(batches),
        steps,
        np.asarray(levels / np.max(levels), np.float32),
        key,
        has_aux,
    )
    return run, base


def _levels(schedule: optax.Schedule, steps: int) -> np.ndarray:
    """Return the size of a schedule at each step, in its own unit.

    At once, or one by one where it branches. It may have the sign of a descent.

    Raises:
      MetalrError: It is no function, 0 at every step, or not finite at one.
    """
    check_schedule(schedule)
    try:
        found = np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps)))
    except Exception:  # whatever a function of somebody else's raises
        found = np.array([np.asarray(schedule(step)) for step in range(steps)])
    if not np.isfinite(found).all() or not np.any(found):
        raise MetalrError(
            "`schedule` must be finite at every step and other than 0 at one, got "
            f"{np.min(found):g} to {np.max(found):g} over {steps} steps"
        )
    return np.abs(found)


def _is_known(log: probe.Log, facts: Facts) -> tuple[bool, float]:
    """Tell whether training has seen runs of the kind, and how far they are."""
    seen = log.distance[1:]  # before the first update there is nothing to see
    distance = float(np.median(seen)) if len(seen) else 0.0
    distance = max(distance, facts.distance)
    return distance <= 1 and math.isfinite(facts.variance), distance


def _is_over(log: probe.Log, facts: Facts, experience: Experience) -> bool:
    """Tell whether more steps of a probe would say nothing new."""
    if len(log.value) < LEAST_STEPS:
        return False
    known, _ = _is_known(log, facts)
    return not known or experience.deviation(log.variance[-1]) < SURE


def _curve(
    run: ProbedRun, facts: Facts, log: probe.Log, base: float, most: int
) -> tuple[tuple[float, float], ...]:
    """Take what is left of the steps for a range test."""
    left = most - len(log.value)
    if left < LEAST_STEPS:
        return ()
    octaves, losses = probe.range_test(run, facts.relative_rate, left)
    rates = base * 2.0**octaves
    return tuple(zip(rates.tolist(), losses.tolist(), strict=True))
