"""`metalr find` and `metalr suggest`: a rate for a fine-tune before it is begun."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError
from metalr.finetune.config import RunConfig, add_flags
from metalr.finetune.config_rules import check, from_flags
from metalr.runtime.files import check_writable
from metalr.runtime.flags import flag_of

# What the found rate is the peak of, by the name in `finetune.rules.shapes`.
_IN_WORDS = {
    "static": "one rate",
    "ramp": "warm-up and one rate",
    "linear": "linear decay",
    "cosine": "cosine decay",
    "hold_then_decay": "a hold and linear decay",
    "rex": "REX decay",
}


def add(commands: Any) -> None:
    """Add both commands to those of a parser."""
    find = commands.add_parser(
        "find",
        help="find the learning rate of a fine-tune by a short probe",
        description="Takes at most 100 steps on a copy and prints a rate with an "
        "interval, what it costs to be 4x off, and a forecast; or the curve of a range "
        "test, if metalr knows no such runs. The flags are those of finetune.py.",
    )
    add_flags(find)
    more = find.add_argument_group("this call").add_argument
    more("--png", type=Path, metavar="FILE", help="draw the probe into a PNG")
    more("--use", action="store_true", help="then fine-tune at the rate")
    more(
        "--overwrite",
        action="store_true",
        help="with --use: begin again and delete what is there",
    )
    suggest = commands.add_parser(
        "suggest",
        help="a learning rate from the facts of a fine-tune, without a step",
        description="Looks at one gradient and at what is known of a fine-tune before "
        "it begins. The flags are those of finetune.py.",
    )
    add_flags(suggest)
    more = suggest.add_argument_group("this call").add_argument
    more("--steps", type=int, metavar="N", help="of the whole run, as --max-steps")


def find(args: argparse.Namespace) -> int:
    """Carry out `metalr find` and return the exit status."""
    _check_length("--max-steps", args.max_steps)
    config = from_flags(args, finds=True)
    shape = _shape(config)
    if args.overwrite and not args.use:
        raise MetalrError("--overwrite is of the run that --use begins; give both")
    if args.png:
        _check_png(args.png)
    # After the flags are known to be good: these take seconds to import.
    from metalr.finding import experience, finder, findings
    from metalr.finetune.config_rules import refuse_flags_of_others
    from metalr.finetune.run import title
    from metalr.runtime import compilation

    if args.use:
        _check_use(config, args.overwrite)
    compilation.use_cache()
    prepared, run = _prepared(config, shape)
    if args.use:
        refuse_flags_of_others(config, prepared.data.task)
    print("\n".join(title(prepared)))
    if not args.use:
        _say_unused(config)
    found = finder.find(
        **run,
        kind=experience.ENCODER,
        on_end=prepared.problem.evaluate,
    )
    print(findings.describe(found, _IN_WORDS[shape.__name__]))
    if forecast := _score(found, prepared.data.task.metric, run["experience"]):
        print(forecast)
    if args.png:
        from metalr.report.finding import draw_finding

        draw_finding(found, args.png)
        print(args.png)
    return _use(config, found, args.overwrite) if args.use else 0


def _check_length(flag: str, steps: int | None) -> None:
    """Refuse a run that ends before its rate can be looked at."""
    if steps is not None and steps < 2:
        raise MetalrError(f"{flag} must be at least 2, got {steps}")


def _check_png(path: Path) -> None:
    """Refuse a picture that cannot be written, before the probe for it."""
    if path.suffix.lower() != ".png":
        raise MetalrError(f"--png must name a file that ends in .png, got {path}")
    check_writable(path)


def suggest(args: argparse.Namespace) -> int:
    """Carry out `metalr suggest` and return the exit status."""
    if args.steps is not None:
        if args.max_steps is not None:
            raise MetalrError("--steps and --max-steps say the same; give one of them")
        _check_length("--steps", args.steps)
        # As many epochs as that takes.
        args.max_steps, args.epochs = args.steps, float(max(args.steps, 1))
    _check_length("--max-steps", args.max_steps)
    config = from_flags(args, finds=True)
    shape = _shape(config)
    from metalr.finding import finder
    from metalr.finetune.run import title
    from metalr.runtime import compilation

    compilation.use_cache()
    prepared, run = _prepared(config, shape)
    print("\n".join(title(prepared)))
    _say_unused(config)
    print(finder.suggest(**run).text.replace("its schedule", _IN_WORDS[shape.__name__]))
    return 0


def _say_unused(config: RunConfig) -> None:
    """Say which settings are for a whole run, where none is to follow."""
    given = [n for n in ("output", "log_to", "profile") if getattr(config, n)]
    if given:
        print(
            f"note: nothing is trained, so {', '.join(map(flag_of, given))} "
            f"{'is' if len(given) == 1 else 'are'} not used; `metalr find --use` trains"
        )


def _shape(config: RunConfig) -> Callable[..., Any]:
    """Return the schedule whose peak is looked for."""
    from metalr.finetune import schedulers

    row = schedulers.get(config.scheduler)
    if row.shape is None:
        rows = schedulers.SCHEDULERS.items()
        usable = [name for name, row in rows if row.shape and not row.is_control]
        raise MetalrError(
            f"--scheduler {config.scheduler} finds or sets its rate itself; use "
            f"{', '.join(usable[:-1])} or {usable[-1]}"
        )
    return row.shape


def _prepared(
    config: RunConfig, shape: Callable[..., Any]
) -> tuple[Any, dict[str, Any]]:
    """Load a run, and return it with the arguments of `metalr.find`."""
    import jax

    from metalr.finding.experience import load_experience
    from metalr.finetune import preparation, schedulers
    from metalr.optax_schedule import warmup_of
    from metalr.stored_predictor import load_predictor

    # The rate alone is looked for, so no predictor is asked within the run itself.
    rows = schedulers.SCHEDULERS.items()
    plain = next(name for name, row in rows if row.shape is shape and row.tunable)
    # An average of the parameters has no part in what is found.
    parallel = "jit" if config.parallel == "pmap" else config.parallel
    probed = dataclasses.replace(config, scheduler=plain, ema=0.0, parallel=parallel)
    prepared = preparation.prepare(check(probed))
    problem, pace, layout = prepared.problem, prepared.pace, prepared.layout
    rate = float(prepared.config.learning_rate or 0.0)
    plan = schedulers.RunPlan(
        learning_rate=rate,
        total_steps=pace.total_steps,
        warmup_steps=warmup_of(pace.total_steps, config.warmup_steps),
    )
    return prepared, {
        "loss_fn": _in_parts(problem.loss_fn, pace.accumulate, layout),
        "params": layout.put_state(problem.params),
        "optimizer": prepared.tx,
        "batches": lambda step: layout.put(problem.batches.batch(step)),
        "steps": pace.total_steps,
        "learning_rate": rate,
        "schedule": shape(plan),
        "key": jax.random.key(pace.seed),
        "predictor": load_predictor(config.predictor),
        "experience": load_experience(config.predictor),
    }


def _in_parts(
    loss_fn: Callable[..., Any], accumulate: int, layout: Any
) -> Callable[..., Any]:
    """Return a loss that needs the memory of a part of the batch at a time."""
    if accumulate == 1:
        return loss_fn
    import jax
    import jax.numpy as jnp

    from metalr.finetune.loop import parts_of

    def whole(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        @jax.checkpoint
        def one(part: Any) -> jax.Array:
            rows, key, share = part
            # A part may hold filling rows alone, whose mean is 0/0.
            return jnp.where(share > 0, share * loss_fn(params, rows, key), 0.0)

        parts = parts_of(batch, key, accumulate, layout)
        return jnp.sum(jax.lax.map(one, parts))

    return whole


def _score(found: Any, metric: str, experience: Any) -> str | None:
    """Return a forecast of the last score in words."""
    now = (found.score or {}).get(metric)
    if now is None or not found.known:
        return None
    share = min(1.0, found.steps / found.total_steps)
    forecast = experience.final_score(metric, now, share)
    if forecast is None:
        return None
    low, middle, high = forecast
    return (
        f"final {metric} about {middle:.3f}, between {low:.3f} and {high:.3f} "
        f"({now:.3f} after the probe)"
    )


def _check_use(config: RunConfig, overwrite: bool) -> None:
    """Refuse what the run would, before a probe of minutes rather than after it.

    Raises:
      MetalrError: A flag is not read, or the folder holds a run that can't be this one.
    """
    from metalr.finetune import loggers, run_folder
    from metalr.finetune.run import refuse_unread
    from metalr.runtime.files import read_json

    refuse_unread(config)
    folder, before = run_folder.of(config), None
    if (settings := folder / run_folder.SETTINGS).is_file():
        before = read_json(settings).get("learning_rate")
    # A rate is all that the probe may still make equal, and it always finds a number.
    wanted = _at(config, before or config.learning_rate or 1.0)
    run_folder.check(folder, wanted, resume=False, overwrite=overwrite)
    loggers.create(folder, config)


def _at(config: RunConfig, rate: float) -> RunConfig:
    """Return the settings of the run at a rate that was found."""
    from metalr.finetune import schedulers

    learned = schedulers.get(config.scheduler).learned
    read = config.predictor if learned else None  # by the run, after the probe
    return dataclasses.replace(config, learning_rate=rate, predictor=read)


def _use(config: RunConfig, found: Any, overwrite: bool) -> int:
    """Fine-tune at the rate that was found."""
    import signal

    from metalr.fine_tuning import fine_tune
    from metalr.runtime.program import Stop, how_to_resume

    if found.rate is None:
        raise MetalrError(
            "--use needs a rate, and none was found; choose one by the curve and give "
            "it to finetune.py as --learning-rate"
        )
    rate = float(f"{found.rate:.3g}")
    print(f"fine-tuning at {rate:g}")
    stop = Stop()
    ended = fine_tune(_at(config, rate), overwrite=overwrite, stop=stop)
    if ended.interrupted:
        print(f"stopped at step {ended.result['steps']}, saved; {how_to_resume()}")
        return stop.status or 128 + signal.SIGTERM
    return 0
