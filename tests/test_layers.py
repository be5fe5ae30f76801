"""Imports point down, and the package stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import metalr

pytestmark = pytest.mark.fast

PACKAGE = Path(list(metalr.__path__)[0])

# From the bottom up: a module imports only from rows below its own.
ROWS = (
    {"errors", "memory", "sampling"},
    {"features", "config", "executors", "hosts", "metrics", "profile", "data.rows"},
    {"results", "sharding", "data.derived"},
    {"measures", "document", "checkpoint", "store", "progress", "pretrain_config"},
    {"data.tasks"},
    {"aggregates"},
    {"curves", "comparison"},
    {"figures", "answer", "tables"},
    {"report", "show"},
    {"run_folder"},
    {"data.toy.draw", "models.encoder"},
    {"data.toy.facts", "data.toy.pairs", "data.toy.reviews", "data.toy.singles"},
    {"data.sources", "data.toy"},
    {"predictor", "traces", "data.files", "models.heads", "models.locate", "costs"},
    {"controller", "data.loading"},
    {"optax_schedule", "loss_schedules", "labels", "data.encode", "models.weights"},
    {"models.huggingface"},
    {"schedulers", "data.batches"},
    {"", "data", "models"},  # the packages themselves: `metalr/__init__.py` and so on
    {"loop"},
    {"evaluate"},
    {"preparation"},
    {"recipe", "banks", "plan", "overhead"},
    {"record", "pretrain"},
    {"collect", "fit"},
    {"rounds", "compare"},
    {"meta_train"},
    {"display"},
    {"cli"},
    {"__main__"},
)
ROW = {name: height for height, row in enumerate(ROWS) for name in row}

# Each costs between a tenth of a second and ten, or is not always installed.
HEAVY = set(
    "datasets matplotlib orbax pandas pyarrow ray rich safetensors scipy sklearn "
    "tensorboardX torch transformers".split()
)
CORE = ("sampling", "features", "predictor", "controller", "optax_schedule")
METHODS = {"schedulers", *CORE}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def absolute(node: ast.ImportFrom, importer: str) -> str:
    """Returns the full name of the module that a `from` imports from."""
    if node.level == 0:
        return node.module or ""
    is_package = MODULES[importer].name == "__init__.py"
    parts = ["metalr", *filter(None, importer.split("."))]
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *filter(None, [node.module])])


def imports(name: str, nodes: Iterator[ast.AST]) -> set[str]:
    """Returns full names; `from metalr.data import encode` is `metalr.data.encode`."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, name)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                is_module = inner.removeprefix("metalr.") in MODULES.keys() | ROW.keys()
                found.add(inner if is_module else source)
    return found


def own(found: set[str]) -> set[str]:
    """Returns those of metalr itself, by the names of the table."""
    return {
        module.removeprefix("metalr").removeprefix(".")
        for module in found
        if module.split(".")[0] == "metalr"
    }


def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def at_import(module: ast.Module) -> Iterator[ast.AST]:
    """Walks what runs when the module is imported."""
    pending: list[ast.AST] = [module]
    while pending:
        node = pending.pop()
        yield node
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not lazy and not typing:
            pending += ast.iter_child_nodes(node)


@pytest.mark.parametrize("name", MODULES)
def test_module_has_a_place_and_imports_only_from_below(name):
    assert name in ROW, f"give metalr.{name} a row in the table of this test"
    used = own(imports(name, ast.walk(tree(name))))
    assert not used - ROW.keys(), "imports a module without a row"
    upward = sorted(module for module in used if ROW[module] >= ROW[name])
    assert not upward, f"metalr.{name} imports {upward}, which is not below it"


@pytest.mark.parametrize("name", MODULES)
def test_heavy_libraries_are_imported_where_they_are_used(name):
    found = {module.split(".")[0] for module in imports(name, at_import(tree(name)))}
    assert not found & HEAVY


@pytest.mark.parametrize("name", [name for name in CORE if name in MODULES])
def test_core_needs_jax_flax_optax_alone(name):
    found = {module.split(".")[0] for module in imports(name, at_import(tree(name)))}
    allowed = {"metalr", "jax", "flax", "optax", "numpy", *sys.stdlib_module_names}
    assert found <= allowed


@pytest.mark.skipif("loop" not in MODULES, reason="there is no loop yet")
def test_loop_knows_no_method_even_by_way_of_others():
    reached, pending = set(), ["loop"]
    while pending:
        name = pending.pop()
        if name in reached or name not in MODULES:
            continue
        reached.add(name)
        pending += own(imports(name, ast.walk(tree(name))))
    assert not reached & METHODS


def test_importing_metalr_brings_nothing_heavy():
    # What jax, flax and optax bring along themselves (flax: rich) is not ours to count.
    program = (
        "import sys, jax, flax, optax\n"
        "before = set(sys.modules)\n"
        "import metalr\n"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=PACKAGE.parent,
    )
    brought = set(found.stdout.split())
    assert "metalr" in brought
    assert not brought & HEAVY


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import metalr.loop", {"loop"}),
        ("from metalr.errors import MetalrError", {"errors"}),
        ("from metalr import errors, results", {"errors", "results"}),
        ("from metalr import nothing_known", {""}),
        ("def f():\n  from metalr.errors import unknown_name", {"errors"}),
        ("from . import errors", {"errors"}),
        ("from .errors import MetalrError", {"errors"}),
        ("import jax.numpy as jnp", set()),
    ],
)
def test_every_spelling_of_an_import_is_seen(line, expected):
    assert own(imports("results", ast.walk(ast.parse(line)))) == expected
