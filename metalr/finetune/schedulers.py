"""The scheduler table: a name -> an optax transformation with its rate in sight.

Methods that are optimizers of their own, and estimate the rate, leave that optimizer
aside and take weight decay and clipping from the plan. Each has one setting for all
tasks: its authors' or optax's default, as the table says.
"""

import functools
from typing import Any

import jax.numpy as jnp
import optax

from metalr import optax_schedule, stored_predictor
from metalr.controller import CONTROLLER_VERSION
from metalr.errors import unknown_name
from metalr.finetune.config import RunConfig
from metalr.finetune.loss_schedules import GreedySchedule, PlateauSchedule
from metalr.finetune.rules import (
    adalrs,
    estimating,
    find,
    gala,
    gen,
    lr_find,
    recipes,
    schedule_free_plus,
    shapes,
)
from metalr.finetune.rules.estimating import own
from metalr.finetune.rules.plan import Build, Inner, RunPlan, adamw
from metalr.finetune.scheduler import (
    Scheduler,
    loss_driven,
    metalr_row,
    scheduled,
    shuffled,
    without_evidence,
)

__all__ = ["SCHEDULERS", "Inner", "RunPlan", "Scheduler", "adamw", "get"]

# One rate for all small encoders: the best of the sweeps of the source tasks, says
# tests/benchmarks/fixed_rate.py.
FIXED_RATE = 3.2e-4

_OWN_RECIPE = ("warmup_steps", "weight_decay", "clip_norm")

SCHEDULERS: dict[str, Scheduler] = {
    "static": scheduled(
        "the base rate from the first step to the last",
        "experiment plan",
        shapes.static,
        ignores=("warmup_steps",),
    ),
    "constant": scheduled(
        "linear warm-up, then the base rate",
        "experiment plan",
        shapes.ramp,
    ),
    "linear": scheduled(
        "linear warm-up, then linear decay to 0",
        "Devlin et al. 2019",
        shapes.linear,
    ),
    "cosine": scheduled(
        "linear warm-up, then half a cosine to 0",
        "Loshchilov and Hutter 2017, without restarts",
        shapes.cosine,
    ),
    "wsd": scheduled(
        "linear warm-up, hold, linear decay to 0 in the last fifth",
        "arXiv 2405.18392",
        shapes.hold_then_decay,
    ),
    "rex": scheduled(
        "linear warm-up, then (1 - t) / (1/2 + (1 - t) / 2)",
        "arXiv 2107.04197",
        shapes.rex,
    ),
    "plateau": Scheduler(
        "warm-up, then x0.1 after 100 steps without 1 % less loss",
        "optax.contrib.reduce_on_plateau, experiment plan",
        loss_driven(PlateauSchedule),
    ),
    "greedylr": Scheduler(
        "warm-up, then /0.95 while the mean loss of 50 steps falls, else x0.95",
        "arXiv 2512.14527; defaults of transformers, lower bound 1e-7",
        loss_driven(GreedySchedule),
    ),
    "adalrs": Scheduler(
        "trials of higher rates, kept where the loss falls faster, on linear decay",
        "arXiv 2506.13274; the window is an assumption",
        adalrs.adalrs,
    ),
    "gala": Scheduler(
        "alignment of the gradient with the last step over its curvature",
        "arXiv 2506.08419; its form for AdamW is an assumption",
        gala.gala,
        ignores=("warmup_steps",),
    ),
    "gen": Scheduler(
        "the lowest point of a parabola along the step, every eighth step",
        "arXiv 2407.02772; PyPI gen-optim, defaults",
        gen.gen,
        ignores=("warmup_steps",),
    ),
    "lr_find_valley": Scheduler(
        "a probe of a quarter of the run finds the rate, then linear decay",
        "fastai's lr_find, valley",
        lr_find.lr_find(lr_find.valley),
        rate_free=True,
        ignores=("learning_rate",),
    ),
    "lr_find_steep": Scheduler(
        "a probe of a quarter of the run finds the rate, then linear decay",
        "fastai's lr_find, steepest",
        lr_find.lr_find(lr_find.steep),
        rate_free=True,
        ignores=("learning_rate",),
    ),
    "find_linear": Scheduler(
        "a probe of a quarter of the run finds the rate, then linear decay",
        "metalr.find",
        find.find(learned=False),
        learned=True,
        rate_free=True,
    ),
    "find_metalr": Scheduler(
        "a probe of a quarter of the run finds the rate, then metalr from it",
        "metalr.find",
        find.find(learned=True),
        learned=True,
        rate_free=True,
    ),
    "prodigy": Scheduler(
        "Prodigy's estimate on linear warm-up and decay",
        "optax.contrib.prodigy, safeguard_warmup as its authors advise",
        own(estimating.prodigy, shapes.linear),
        learning_rate=1.0,
        rate_free=True,
    ),
    "dadapt_adamw": Scheduler(
        "D-Adaptation's estimate on linear warm-up and decay",
        "optax.contrib.dadapt_adamw, defaults",
        own(estimating.dadapt_adamw, shapes.linear),
        learning_rate=1.0,
        rate_free=True,
    ),
    "dowg": Scheduler(
        "distance over weighted gradients, no AdamW, no schedule",
        "optax.contrib.dowg, defaults",
        own(estimating.dowg, shapes.static),
        learning_rate=1.0,
        rate_free=True,
        ignores=("warmup_steps",),
    ),
    "mechanic": Scheduler(
        "Mechanic's scale of AdamW on linear warm-up and decay",
        "optax.contrib.mechanize, defaults",
        own(estimating.mechanic, shapes.linear),
        learning_rate=1.0,
        rate_free=True,
    ),
    "momo_adam": Scheduler(
        "warm-up, then a Polyak rate of at most the base rate",
        "optax.contrib.momo_adam, default base rate 1e-2",
        own(estimating.momo_adam, shapes.ramp),
        learning_rate=1e-2,
    ),
    "schedule_free": Scheduler(
        "warm-up, then the base rate; scored on the averaged parameters",
        "optax.contrib.schedule_free_adamw, default base rate 2.5e-3",
        own(estimating.schedule_free, shapes.ramp),
        learning_rate=2.5e-3,
        served=estimating.averaged,
    ),
    "schedule_free_plus": Scheduler(
        "warm-up, then a Polyak rate; scored on the averaged parameters",
        "arXiv 2605.19095; the authors' reference code, defaults",
        schedule_free_plus.build,
        learning_rate=1.0,
        served=schedule_free_plus.averaged,
        rate_free=True,
        ignores=("weight_decay", "clip_norm"),
    ),
    "autogluon": Scheduler(
        "AdamW, rates 0.9 lower by layer, 10 % warm-up, cosine to 0",
        "AutoGluon multimodal's defaults, base rate 1e-4, without its soup",
        recipes.autogluon,
        learning_rate=recipes.AUTOGLUON_RATE,
        ignores=_OWN_RECIPE,
    ),
    "kerashub": Scheduler(
        "Adam at the base rate from the first step to the last",
        "KerasHub's defaults, base rate 5e-5",
        recipes.kerashub,
        learning_rate=recipes.KERASHUB_RATE,
        ignores=_OWN_RECIPE,
    ),
    "metalr": metalr_row(
        "a learned multiplier, 1/1024 to 1024, on warm-up, hold and linear decay",
        learned=True,
    ),
    "metalr_prior": metalr_row(
        "control: the rate that metalr starts from, by the facts of the run alone",
        "metalr.predictor.prior",
        change=without_evidence,
        learned=True,
        is_control=True,
    ),
    "metalr_linear": metalr_row(
        "metalr on linear warm-up and decay, without the hold",
        shape=shapes.linear,
        learned=True,
    ),
    "metalr_wrap": metalr_row(
        "metalr as metalr.wrap has it unless told otherwise, on the same shape",
        "metalr.optax_schedule, defaults",
        max_multiplier=optax_schedule.GENERAL_MULTIPLIER,
        trust=optax_schedule.TRUST,
        learned=True,
    ),
    "metalr_fixed": metalr_row(
        "control: metalr with its multiplier bound to 1",
        "metalr.optax_schedule, max_multiplier=1",
        max_multiplier=1.0,
        is_control=True,  # not `learned`: it makes no difference who would be asked
    ),
    "metalr_shuffled": metalr_row(
        "control: metalr whose features are shuffled, one fixed order",
        change=shuffled,
        learned=True,
        is_control=True,
    ),
}


def at_a_rate(
    build: Build,
    inner: Inner,
    plan: RunPlan,
) -> optax.GradientTransformationExtraArgs:
    """Build a transformation whose base rate is a number of its state.

    Runs that differ in their base rate alone are then one program, which compiles once.
    """
    plan = plan._replace(predictor=functools.cache(plan.predictor))
    build(inner, plan)  # reads the predictor and checks what no trace could

    def at(base_rate: Any) -> optax.GradientTransformationExtraArgs:
        return build(inner, plan._replace(learning_rate=base_rate))

    injected = optax.inject_hyperparams(at, hyperparam_dtype=jnp.float32)
    return injected(base_rate=jnp.float32(plan.learning_rate))


def get(name: str) -> Scheduler:
    """Return the row called `name`.

    Raises:
      MetalrError: There is none; the message has the nearest names.
    """
    if name not in SCHEDULERS:
        raise unknown_name("scheduler", name, SCHEDULERS)
    return SCHEDULERS[name]


def learned_by(config: RunConfig) -> dict[str, Any]:
    """Return what runs of the same settings must share; empty if nothing is learned.

    Raises:
      MetalrError: There is no such predictor.
    """
    if not get(config.scheduler).learned:
        return {}
    return {
        "predictor_sha256": _sha256(config.predictor),
        "controller": CONTROLLER_VERSION,
    }


def _sha256(path: str | None) -> str:
    return stored_predictor.read_metadata(path)["sha256"]
