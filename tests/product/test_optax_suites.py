"""optax's own tests, as they lie in the installed wheel, run on metalr's doors.

They name an optimizer and build it; here it is built inside metalr. Where a test hands
on no loss or parameters, which metalr needs, it is given constant ones. What stands in
EXCEPT does not pass, for the reason beside it.
"""

import contextlib
import functools
import importlib
import inspect
import types
import unittest

import jax
import jax.numpy as jnp
import optax
import pytest
from optax._src import alias as aliases

from metalr import inject, scale_by_metalr, wrap
from metalr.predictor import init_predictor
from tests.product.steering import opinionated

pytest.importorskip("absl.testing", reason="optax's tests are absl's")
pytestmark = [
    pytest.mark.optax,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # theirs
]

BASES = {
    "adabelief": {"learning_rate": 1e-2},
    "adadelta": {"learning_rate": 0.1},
    "adafactor": {"learning_rate": 5e-3},
    "adagrad": {"learning_rate": 1.0},
    "adam": {"learning_rate": 1e-1},
    "adamax": {"learning_rate": 1e-1},
    "adamaxw": {"learning_rate": 1e-1},
    "adamw": {"learning_rate": 1e-1},
    "adan": {"learning_rate": 1e-1},
    "amsgrad": {"learning_rate": 1e-1},
    "lamb": {"learning_rate": 1e-3},
    "lion": {"learning_rate": 1e-2, "weight_decay": 1e-4},
    "nadam": {"learning_rate": 1e-2},
    "novograd": {"learning_rate": 1e-3},
    "radam": {"learning_rate": 5e-3},
    "rmsprop": {"learning_rate": 5e-3},
    "sgd": {"learning_rate": 1e-3, "momentum": 0.9},
    "sm3": {"learning_rate": 1.0},
    "yogi": {"learning_rate": 1e-1},
}
FEW = ("sgd", "adamw", "adafactor", "lion")  # one of each kind of state
DOORS = ("wrap", "steered", "inject", "link")

# (suite, beginning of the test's name) -> why it does not pass.
EXCEPT = {
    ("_masking_test", "test_masked_state_structure"): (
        "takes the trace out of the inner state by its place, where metalr's own "
        "state now is"
    ),
    ("_conditionality_test", "test_apply_if_finite_s"): (
        "its last lines want NaN in the parameters: after so many errors in a row "
        "apply_if_finite hands them on, but metalr drops each, to the last"
    ),
}


def handing(tx):
    """Hand on a loss where the caller has none."""

    def update(updates, state, params=None, **extra):
        if params is None:
            params = jax.tree.map(jnp.ones_like, updates)
        return tx.update(updates, state, params, **{"value": jnp.float32(1)} | extra)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def behind(door, base):
    """Return a factory with the signature of a base that builds it inside metalr."""

    @functools.wraps(base)
    def make(*args, **kwargs):
        if door == "inject":
            one = optax.constant_schedule(1.0)
            rate = kwargs.pop("learning_rate", args[0] if args else None)
            return handing(inject(base, rate, init_predictor(), schedule=one, **kwargs))
        built = base(*args, **kwargs)
        if door == "link":
            link = scale_by_metalr(built, init_predictor())
            return handing(optax.chain(link, optax.identity()))
        return handing(
            wrap(built, opinionated() if door == "steered" else init_predictor())
        )

    return make


class Named(str):
    """The name of a base, which optax's tests take for one that is told the loss."""

    def __eq__(self, other):
        """Is equal to the optimizers that optax hands the loss on to."""
        return other in ("polyak_sgd", "momo")

    __hash__ = str.__hash__


def suite(name):
    folder = "contrib" if name == "_common_test" else "transforms"
    folder = "_src" if name in ("alias_test", "sharding_test") else folder
    return pytest.importorskip(f"optax.{folder}.{name}")


def raw(case, name):
    """Return a test as it was written, before its parameters were filled in."""
    found = [n for n in dir(case) if n == name or n.startswith(f"{name}0")]
    found += [n for n in dir(case) if n.startswith(name)]
    test = getattr(case, found[0])
    return getattr(test, "__wrapped__", test)


@contextlib.contextmanager
def as_theirs():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        try:
            yield
        except unittest.SkipTest as reason:
            pytest.skip(str(reason))


def run(monkeypatch, module, case, test, door, base, **arguments):
    where = suite(module)
    made = behind(door, getattr(aliases, base))
    known = ("_get_opt", "_get_opt_factory")
    for name in known:
        if hasattr(where, name):
            monkeypatch.setattr(where, name, lambda *_: made)
    case = getattr(where, case)
    settings = {"opt_name": Named(base), "opt_kwargs": BASES[base], **arguments}
    with as_theirs():
        raw(case, test)(case("run"), **settings)


CONTRIB = {"wrapper_name": None, "wrapper_kwargs": None}
EVERY = [
    *(("wrap", base) for base in BASES),
    *((door, base) for door in DOORS[1:] for base in FEW),
]


@pytest.mark.parametrize(("door", "base"), EVERY)
def test_extra_arguments_are_accepted_and_nothing_is_compiled_again(
    monkeypatch, door, base
):
    test = "test_optimizers_accept_extra_args"
    run(
        *(monkeypatch, "_common_test", "ContribTest", test, door, base),
        **CONTRIB,
        wrap=False,
    )


@pytest.mark.parametrize(("door", "base"), EVERY)
def test_updates_have_the_type_of_the_parameters(monkeypatch, door, base):
    test = "test_preserve_dtype"
    run(monkeypatch, "alias_test", "AliasTest", test, door, base, dtype="bfloat16")


@pytest.mark.parametrize(("door", "base"), EVERY)
def test_micro_batches_are_gathered(monkeypatch, door, base):
    test = "test_gradient_accumulation"
    run(monkeypatch, "alias_test", "AliasTest", test, door, base, dtype="bfloat16")


STABLE = [
    *(("wrap", base, "float16") for base in BASES),
    *((door, base, "float64") for door in DOORS for base in ("sgd", "adamw")),
    ("wrap", "adamw", "complex64"),
    ("inject", "sgd", "complex64"),
    ("wrap", "adam", "complex128"),
]


@pytest.mark.parametrize(("door", "base", "dtype"), STABLE)
def test_the_state_keeps_shape_type_and_sharding(monkeypatch, door, base, dtype):
    test = "test_state_shape_dtype_shard_stability"
    run(
        *(monkeypatch, "alias_test", "AliasTest", test, door, base),
        dtype=getattr(jnp, dtype),
    )


@pytest.mark.parametrize("base", ["sgd", "adam", "adamw", "lion", "rmsprop", "yogi"])
@pytest.mark.parametrize("door", ["wrap", "link"])
def test_hyperparameters_are_injected(monkeypatch, door, base):
    test = "test_optimizers_can_be_wrapped_in_inject_hyperparams"
    run(monkeypatch, "alias_test", "AliasTest", test, door, base)


@pytest.mark.parametrize(
    ("door", "base"), [("wrap", "adam"), ("inject", "adamw"), ("link", "rmsprop")]
)
@pytest.mark.parametrize("target", ["parabola", "mixed_tensor_target"])
def test_it_converges_and_its_state_is_mapped_over(monkeypatch, door, base, target):
    where = suite("_common_test")
    run(
        *(monkeypatch, "_common_test", "ContribTest", "test_optimizers", door, base),
        **CONTRIB,
        target=getattr(where, f"_setup_{target}"),
        dtype="float32",
    )


@pytest.mark.parametrize(
    ("test", "door", "base"),
    [
        *(
            (test, "wrap", base)
            for test in (
                "test_init_with_abstract_input",
                "test_state_sharding_type_init_match_update",
            )
            for base in ("sgd", "adam", "adamw", "lamb", "novograd", "lion")
        ),
        ("test_state_sharding_type_preserved_with_jit", "wrap", "adamw"),
        ("test_state_sharding_type_preserved_with_jit", "inject", "sgd"),
    ],
)
def test_on_a_mesh_of_eight_devices(monkeypatch, test, door, base):
    case = suite("sharding_test").ShardingTest
    # They compare it as text with "0.7.2", and would skip themselves from 0.10 on.
    monkeypatch.setattr(jax, "__version__", "0.9")
    tx = behind(door, getattr(aliases, base))(learning_rate=1.0)
    with as_theirs():
        raw(case, test)(case("run"), tx)


def of_suite():
    """Yield the tests of transformations around an optimizer: module, case, name."""
    for module, wanted in {
        "_masking_test": "test_masked test_prefix_mask test_nested_mask "
        "test_tree_mismatch_fails test_masked_state_structure test_empty "
        "test_mask_compatible_callable_pytree",
        "_accumulation_test": "test_multi_steps_every_k_schedule "
        "test_multi_steps_scan_dtype_stability test_multi_steps_zero_nans "
        "test_multi_steps_skip_not_finite test_multi_steps",
        "_conditionality_test": "test_apply_if_finite test_apply_if_finite_pmap",
        "_combining_test": "test_empty test_labels_mismatch",
        "_freezing_test": "test_selective_transform_effect test_nested_train_all",
    }.items():
        try:
            where = importlib.import_module(f"optax.transforms.{module}")
        except ImportError:
            continue
        for _, case in inspect.getmembers(where, inspect.isclass):
            if not issubclass(case, unittest.TestCase):
                continue
            for name in unittest.TestLoader().getTestCaseNames(case):
                if name.rstrip("0123456789_") in wanted.split() or any(
                    name.startswith(f"{w}_") or name.rstrip("0123456789") == w
                    for w in wanted.split()
                ):
                    yield module, case, name


@pytest.mark.parametrize(
    ("module", "case", "name"),
    [pytest.param(*found, id=f"{found[0]}-{found[2]}") for found in of_suite()],
)
def test_transformations_around_it_do_what_they_do_around_any(
    monkeypatch, module, case, name
):
    for (where, test), reason in EXCEPT.items():
        if where == module and name.startswith(test):
            pytest.skip(reason)
    inside = {
        name: behind("wrap", base)
        for name, base in vars(aliases).items()
        if name in ("sgd", "adam")
    }
    where = importlib.import_module(f"optax.transforms.{module}")
    patched = types.SimpleNamespace(**{**vars(aliases), **inside})
    monkeypatch.setattr(where, "alias", patched)
    with as_theirs():
        getattr(case(name), name)()
