"""Settings as a file: what is written is read back, and a wrong word is told."""

import dataclasses
import tomllib
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import finetune
from metalr.errors import MetalrError
from metalr.finetune import settings
from metalr.finetune.config import RunConfig
from metalr.finetune.config_rules import from_flags

pytestmark = pytest.mark.fast

HINTS = typing.get_type_hints(RunConfig)
VALUES = {
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(exclude_categories=["Cs"])),
    type(None): st.none(),
}


def values(hint):
    return st.one_of(*(VALUES[t] for t in typing.get_args(hint) or (hint,)))


@given(st.fixed_dictionaries({name: values(hint) for name, hint in HINTS.items()}))
def test_toml_holds_every_setting_with_its_value(given):
    config = RunConfig(**given)
    found = tomllib.loads(settings.to_toml(config))
    wanted = {name: x for name, x in config.to_json().items() if x is not None}
    wanted.pop("output", None)
    assert found == wanted


def test_name_that_is_no_text_is_written_all_the_same(tmp_path):
    config = RunConfig(train_file="caf\udce9\x7f.csv")
    settings.write_toml(tmp_path / "config.toml", config)
    found = settings.read_toml(tmp_path / "config.toml")
    assert found["train_file"] == "caf?\x7f.csv"


def parse(*argv):
    return from_flags(settings.from_command_line(finetune.command_line(), argv))


def test_flags_go_before_the_file_and_the_file_before_the_defaults(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'task = "rte"\nlearning-rate = 1\nepochs = 5\nno_header = true\nremat = true\n'
    )
    config = parse("--config", str(file))
    wanted = RunConfig(
        task="rte", learning_rate=1.0, epochs=5.0, no_header=True, remat=True
    )
    assert config == wanted and type(config.epochs) is float
    off = parse("--header", "--no-remat", "--epochs", "7", "--config", str(file))
    assert off == dataclasses.replace(wanted, epochs=7.0, no_header=False, remat=False)
    assert settings.from_python(file, epochs=7) == dataclasses.replace(
        wanted, epochs=7.0
    )


def test_printed_file_makes_the_same_run(tmp_path):
    config = parse("--task", "squad", "--lora", "8", "--learning-rate", "1e-5")
    (tmp_path / "run.toml").write_text(settings.to_toml(config))
    assert parse("--config", str(tmp_path / "run.toml")) == config


WRONG = {
    "unknown": ("lerning_rate = 1e-3", "did you mean 'learning_rate'"),
    "twice": ("max-steps = 1\nmax_steps = 1", "max_steps is there twice"),
    "text for a number": ('batch_size = "4"', "batch_size cannot be '4'; it takes int"),
    "fraction for a count": ("batch_size = 4.5", "it takes int"),
    "switch for a number": ("lora = true", "lora cannot be True"),
    "table": ("[training]\nseed = 1", "unknown setting 'training'"),
    "no TOML": ("seed: 1", "is not TOML"),
    "range": ("dropout = 2", "--dropout must be"),
    "larger than any float": (f"epochs = 1{'0' * 400}", "--epochs must be"),
    "choice": ('dtype = "float33"', "did you mean 'float32'"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_file_says_the_rule_and_the_way_out(fault, tmp_path):
    text, message = WRONG[fault]
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(MetalrError, match=message):
        parse("--config", str(tmp_path / "run.toml"))
    with pytest.raises(MetalrError, match=message):
        settings.from_python(tmp_path / "run.toml")


PATHS = [f.name for f in dataclasses.fields(RunConfig) if f.metadata.get("path")]


@pytest.mark.parametrize("name", PATHS)
def test_home_is_put_in_the_place_of_its_sign_in_every_path(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", "/home/me")
    file = tmp_path / "run.toml"
    file.write_text(f'scheduler = "metalr"\n{name} = "~/x"\n')
    made = [
        parse("--config", str(file)),
        parse(f"--{name.replace('_', '-')}", "~/x"),
        settings.from_python(file),
        settings.from_python(None, **{name: Path("~/x")}),
        RunConfig(**{name: "~/x"}),
    ]
    assert {getattr(config, name) for config in made} == {"/home/me/x"}


def test_every_setting_that_is_shown_as_a_file_or_a_folder_is_a_path():
    shown = {"FILE", "FOLDER", "WHERE"}
    fields = dataclasses.fields(RunConfig)
    assert {f.name for f in fields if f.metadata.get("metavar") in shown} <= {*PATHS}


def test_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(MetalrError, match="cannot read .*No such file"):
        parse("--config", str(tmp_path / "none.toml"))


OVERRULED = {
    "no lora": ("lora = 4\nlora_alpha = 8.0", ["--lora", "0"], {"lora_alpha": None}),
    "evaluations": (
        "eval_every = 2",
        ["--evals-per-epoch", "2"],
        {"eval_every": None, "evals_per_epoch": 2},
    ),
    "scheduler": ('predictor = "x"', ["--scheduler", "linear"], {"predictor": None}),
}


@pytest.mark.parametrize("name", OVERRULED)
def test_what_a_flag_leaves_without_effect_is_not_read_from_the_file(name, tmp_path):
    text, argv, expected = OVERRULED[name]
    file = tmp_path / "run.toml"
    file.write_text(text)
    found = parse("--config", str(file), *argv)
    given = {argv[0][2:]: int(argv[1]) if argv[1].isdecimal() else argv[1]}
    assert settings.from_python(file, **given) == found
    for field, value in expected.items():
        assert getattr(found, field) == value
