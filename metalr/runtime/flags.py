"""Settings as one frozen dataclass: each field is a flag, with its range and reason.

tyro would make a parser of a dataclass too, but it knows no ranges, and takes seconds
to import on a busy machine, for which `--help` would have to wait.
"""

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from metalr.errors import MetalrError, unknown_name

T = TypeVar("T")
# Counters on a device have 32 bits; a float has to be one of them too.
_MOST = {int: 2**31 - 1, float: 3.4e38}
_METAVARS = {int: "N", float: "X", str: "NAME"}


def flag(default: Any, group: str, help: str, **extra: Any) -> Any:
    """Return a field that is a flag of the command line too.

    Args:
      default: Of both.
      group: Heading in the help.
      help: In the help, without the default.
      **extra: choices; metavar, what the help calls the value; low and high, between
        which a number has to lie; most, a high that is no limit of the method's;
        changes, what of a run another value changes, if not its numbers; path, that it
        may name a file or folder.
    """
    return dataclasses.field(
        default=default, metadata={"group": group, "help": help, **extra}
    )


def add(
    parser: argparse.ArgumentParser,
    settings: type,
    headings: Mapping[str, tuple[str, ...]] = {},
) -> None:
    """Add one flag per field of a dataclass of settings, grouped, defaults shown.

    Args:
      parser: Where to.
      settings: The dataclass.
      headings: Title, and perhaps a description, of a group, where its name is not it.
    """
    hints = typing.get_type_hints(settings)
    groups: dict[str, Any] = {}
    for f in dataclasses.fields(settings):
        meta, hint, group = f.metadata, hints[f.name], f.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(*headings.get(group, (group,)))
        name, add = flag_of(f.name), groups[group].add_argument
        if hint is bool:
            add(name, action="store_true", help=meta["help"])
            # Against a file of settings, where the flag is on.
            off = f"--{name[5:]}" if f.name.startswith("no_") else f"--no-{name[2:]}"
            hidden = argparse.SUPPRESS
            add(off, action="store_false", dest=f.name, help=hidden)
            continue
        several, default = typing.get_origin(hint) is tuple, f.default
        said: Any = (
            " ".join(map(str, default)) if isinstance(default, tuple) else default
        )
        kind = typing.get_args(hint)[0] if several else _plain_type(hint)
        add(
            name,
            type=kind,
            nargs="+" if several else None,
            default=default,
            choices=meta.get("choices"),
            metavar=None if "choices" in meta else meta.get("metavar", _METAVARS[kind]),
            help=meta["help"] + ("" if said in (None, "") else f" (default: {said})"),
        )


def read(settings: type[T], args: argparse.Namespace) -> T:
    """Build settings from parsed flags, which may be more than theirs."""
    values = {f.name: getattr(args, f.name) for f in dataclasses.fields(settings)}  # pyright: ignore[reportArgumentType]
    return settings(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    )


def flag_of(name: str) -> str:
    """Return the flag of a field.

    >>> flag_of("batch_size")
    '--batch-size'
    """
    return "--" + name.replace("_", "-")


def check_ranges(config: Any) -> None:
    """Refuse settings that are none of their `choices`, or not in `low` to `high`.

    Raises:
      MetalrError: One is; the message has the flag, the rule and the value.
    """
    for f in dataclasses.fields(config):
        given = getattr(config, f.name)
        for value in given if isinstance(given, tuple) else (given,):
            _check(flag_of(f.name), f.metadata, value)


def _check(name: str, meta: Mapping[str, Any], value: Any) -> None:
    if "choices" in meta and value not in meta["choices"]:
        raise unknown_name(name, value, meta["choices"])
    if value is None or not {"low", "high"} & set(meta):
        return
    low, high = meta["low"], meta.get("high")
    most = high or meta.get("most", _MOST[type(value)])
    # NaN is in no range, and infinities are no JSON.
    if not (low <= value <= most and math.isfinite(value)):
        rule = f"at least {low}" if value < low else f"at most {most}"
        rule = f"{low} to {high}" if high else rule
        raise MetalrError(f"{name} must be a finite number, {rule}; got {value}")


def _plain_type(hint: Any) -> type:
    """Return T of `T` or `T | None`."""
    if isinstance(hint, types.UnionType):
        return next(t for t in typing.get_args(hint) if t is not type(None))
    return hint
