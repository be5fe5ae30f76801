"""Settings of a run by name: from Python, or as a TOML file in and out."""

import argparse
import dataclasses
import json
import math
import os
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError, unknown_name
from metalr.finetune.config import HEADINGS, RunConfig
from metalr.finetune.config_rules import checked, overruled
from metalr.runtime import files

_LARGEST = 2**20  # bytes; no file of settings is near this


def check_type(name: str, value: Any) -> None:
    """Refuse what is no setting, or has another type than it.

    TOML writes 3.0 as 3 too; a bool is not accepted as an int.

    Raises:
      MetalrError: Says the nearest names, or the types.
    """
    if name not in _HINTS:
        raise unknown_name("setting", name, _HINTS)
    allowed = typing.get_args(_HINTS[name]) or (_HINTS[name],)
    if type(value) in allowed or (type(value) is int and float in allowed):
        return
    wanted = " or ".join(t.__name__ for t in allowed if t is not type(None))
    raise MetalrError(f"the setting {name} cannot be {value!r:.80}; it takes {wanted}")


_HINTS = typing.get_type_hints(RunConfig)
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(RunConfig)}


def fitting(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under the names of `RunConfig`, of its types.

    Args:
      given: By name, as of the field or of the flag: `max_steps` or `max-steps`.

    Raises:
      MetalrError: A name is unknown or there twice, or a value is of another type.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        field = name.replace("-", "_")
        if field in found:
            raise MetalrError(f"the setting {field} is there twice; leave one out")
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        check_type(field, value)
        whole = type(value) is int and _HINTS[field] not in (int, int | None)
        # A number that no float holds is out of every range.
        found[field] = float(min(value, 10**300)) if whole else value
    return found


def from_python(config: "RunConfig | str | Path | None", **given: Any) -> RunConfig:
    """Return the checked settings of a call.

    Args:
      config: Settings, the path of a TOML file of them, or None for the defaults.
      **given: Settings that go before those.

    Raises:
      MetalrError: As of `fitting` and `checked`.
    """
    if config is None:
        config = RunConfig()
    elif not isinstance(config, RunConfig):
        config = RunConfig(**read_toml(Path(config)))
    settings = fitting(given)
    unset = {name: _DEFAULTS[name] for name in overruled(settings)}
    return checked(dataclasses.replace(config, **unset, **settings))


def from_command_line(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse flags, over the settings of the file that `--config` names.

    Args:
      parser: With the flags of `add_flags`, and `--config`.
      argv: The flags; those of the program if it is None.

    Raises:
      MetalrError: As of `read_toml`.
    """
    args = parser.parse_args(argv)
    if args.config:
        of_file = read_toml(Path(args.config))
        for name in overruled(_typed(parser, argv)):
            of_file.pop(name, None)
        parser.set_defaults(**of_file)
        args = parser.parse_args(argv)
    return args


def _typed(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> dict[str, Any]:
    """Return the settings that the flags say, without defaults."""
    nothing: Any = object()
    blank = argparse.Namespace(**dict.fromkeys(_DEFAULTS, nothing))
    found = vars(parser.parse_args(argv, blank))
    return {name: found[name] for name in _DEFAULTS if found[name] is not nothing}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file of settings.

    Raises:
      MetalrError: It is missing, is not TOML, or its settings do not fit.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise MetalrError(f"{path} is too large for a file of settings")
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise MetalrError(f"cannot read {path}: {fault.strerror or fault}") from fault
    except (ValueError, RecursionError) as fault:
        raise MetalrError(f"{path} is not TOML ({fault})") from fault
    try:
        return fitting(found)
    except MetalrError as fault:
        raise MetalrError(f"{path}: {fault}") from fault


def to_toml(config: RunConfig) -> str:
    """Return the settings as a TOML file, grouped as the flags are.

    Those without a value of their own are left out, and so is the folder: the file is
    for another run.
    """
    lines: list[str] = []
    group = None
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if value is None or f.name == "output":
            continue
        if f.metadata["group"] != group:
            group = f.metadata["group"]
            lines += ["", f"# {HEADINGS[group][0]}"]
        lines.append(f"{f.name} = {_literal(value)}")
    return "\n".join(lines[1:]) + "\n"


def write_toml(path: Path, config: RunConfig) -> None:
    """Write the settings of a run into a file."""
    text = to_toml(config)
    files.replace(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def _literal(value: bool | int | float | str) -> str:
    if isinstance(value, str):
        # Strings of JSON are those of TOML, but for one control character; names of
        # files may hold bytes that are no text.
        text = value.encode("utf-8", "replace").decode()
        text = json.dumps(text, ensure_ascii=False)
        return text.replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    return str(value).lower()
