"""Optimizers of optax.contrib that estimate the rate, at optax's defaults.

They leave the given optimizer aside and take weight decay and clipping from the plan.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax
from optax import contrib

from metalr.finetune.rules import plan as plans
from metalr.finetune.rules.plan import Build, Inner, RunPlan
from metalr.finetune.rules.shapes import scheduled


def own(
    optimizer: Callable[[Any, RunPlan], optax.GradientTransformation],
    shape: Callable[[RunPlan], optax.Schedule],
) -> Build:
    """Make a row's `build` from an optimizer that leaves the given one aside."""

    def build(inner: Inner, plan: RunPlan) -> optax.GradientTransformationExtraArgs:
        del inner
        make = lambda learning_rate: plans.clipped(  # noqa: E731
            optimizer(learning_rate, plan), plan.clip_norm
        )
        return scheduled(shape)(make, plan)

    return build


def prodigy(rate: Any, plan: RunPlan) -> optax.GradientTransformation:
    """Build Prodigy with the safeguard that its authors advise under a warm-up."""
    return contrib.prodigy(rate, weight_decay=plan.weight_decay, safeguard_warmup=True)


def dadapt_adamw(rate: Any, plan: RunPlan) -> optax.GradientTransformation:
    """Build D-Adaptation's AdamW."""
    return contrib.dadapt_adamw(rate, weight_decay=plan.weight_decay)


def dowg(rate: Any, plan: RunPlan) -> optax.GradientTransformation:
    """Build DoWG, distance over weighted gradients."""
    return contrib.dowg(rate, weight_decay=plan.weight_decay, mask=plans.decay_mask)


def mechanic(rate: Any, plan: RunPlan) -> optax.GradientTransformation:
    """Build Mechanic around AdamW."""
    return contrib.mechanize(plans.adamw(plan.weight_decay, clip_norm=0.0)(rate))


def momo_adam(rate: Any, plan: RunPlan) -> optax.GradientTransformation:
    """Build MoMo-Adam, a Polyak rate of at most the given one."""
    return contrib.momo_adam(rate, weight_decay=plan.weight_decay)


def schedule_free(rate: Any, plan: RunPlan) -> optax.GradientTransformation:
    """Build schedule-free AdamW."""
    return contrib.schedule_free_adamw(rate, weight_decay=plan.weight_decay)


def averaged(opt_state: Any, params: Any) -> Any:
    """Return schedule-free's average, which it is to be judged by."""
    state = lambda x: isinstance(x, contrib.ScheduleFreeState)  # noqa: E731
    (found,) = [x for x in jax.tree.leaves(opt_state, is_leaf=state) if state(x)]
    return contrib.schedule_free_eval_params(found, params)
