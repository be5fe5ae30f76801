"""`import metalr` stays light; `lint-imports` holds the arrows between the folders."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.models import small_models

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]


def test_importing_metalr_brings_nothing_heavy():
    with open(ROOT / "pyproject.toml", "rb") as file:
        lint = tomllib.load(file)["tool"]["ruff"]["lint"]
    heavy = set(lint["flake8-tidy-imports"]["banned-module-level-imports"])
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
        cwd=ROOT,
    )
    brought = set(found.stdout.split())
    assert "metalr" in brought
    assert not brought & heavy


def test_a_program_loads_tokenizers_without_the_seconds_that_torch_takes(tmp_path):
    folder = small_models.save_bert(tmp_path / "tiny")
    program = (
        "import sys\n"
        "from metalr.runtime import program\n"
        "program.leave_out_torch()\n"
        "transformers = program.import_transformers()\n"
        f"tokenizer = transformers.AutoTokenizer.from_pretrained({str(folder)!r})\n"
        "assert tokenizer('a good film')['input_ids'][1:-1]\n"
        "assert not [name for name in sys.modules if name.startswith('torch.')]\n"
        # Whoever looks for PyTorch's classes among the modules finds no dummy.
        "assert 'torch' not in sys.modules\n"
        "import scipy.stats, sklearn.metrics\n"
        "assert scipy.stats.rankdata([3, 1])[0] == 2\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=ROOT)


def test_rows_come_without_the_half_second_that_pandas_takes():
    program = (
        "import sys\n"
        "from metalr.data import loading\n"
        "for task in ('sst2', 'stsb', 'mrpc'):\n"
        "    data = loading.load(task, 'toy', train_rows=20, validation_rows=9)\n"
        "    assert data.train[1][data.task.label] == data.train.array('label')[1]\n"
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, cwd=ROOT)
