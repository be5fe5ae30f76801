"""`metalr.fine_tune`: a run from Python is that of the command, and says its result."""

import json
import subprocess
import sys
import tomllib

import pytest

import metalr
from metalr.errors import MetalrError
from metalr.fine_tuning import FineTuned

SMALL = {"data": "toy", "train_rows": 32, "validation_rows": 16, "epochs": 4}
SMALL |= {"learning_rate": 3e-3, "scheduler": "linear", "log_every": 1}


def test_run_has_scores_a_model_to_call_and_a_file_that_makes_it_again(
    tiny, tmp_path, capsys
):
    seen = []

    class Shown:
        def start(self, title_lines, total_steps):
            seen.append(total_steps)

        def logged(self, row, steps_per_second):
            seen.append(row["step"])

        def evaluated(self, row):
            pass

        def note(self, line):
            pass

        def close(self):
            seen.append("closed")

    how = {"model": tiny, "output": tmp_path / "out", "displays": [Shown()]}
    run = metalr.fine_tune(task="sst2", max_steps=9, **SMALL, **how)
    assert seen == [4, 1, 2, 3, 4, "closed"]
    assert "--max-steps 9 is not reached: --epochs 4 are 4 steps" in run.result["notes"]
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert run.result["metrics"] == result["metrics"] == run.metrics
    assert run.score == result["metrics"]["accuracy"] and not run.interrupted
    assert run.folder == tmp_path / "out" and run.history == result["history"]
    assert run.load()("a fine film")["predicted_label"] in ("negative", "positive")
    assert "accuracy" in capsys.readouterr().out

    again = metalr.fine_tune(task="sst2", max_steps=9, **SMALL, **how)
    assert again.result == result

    # Its file of settings makes the same run, and a stop loses nothing of it.
    file, left = tmp_path / "out/config.toml", iter([False, True])
    assert tomllib.loads(file.read_text())["epochs"] == 4
    other = {"output": tmp_path / "again", "quiet": True}
    cut = metalr.fine_tune(file, stop=lambda: next(left), **other)
    assert cut.interrupted and cut.result["steps"] == 2
    whole = metalr.fine_tune(file, **other).history
    assert [row.get("loss") for row in whole] == [
        row.get("loss") for row in run.history
    ]


@pytest.mark.fast
def test_run_that_was_stopped_before_its_first_evaluation_has_no_score(tmp_path):
    result = {"metric": "accuracy", "metrics": {}, "history": [], "stopped": "asked"}
    run = FineTuned(tmp_path, result)
    assert run.interrupted and run.score is None and run.metrics == {}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lerning_rate": 1e-3}, "did you mean 'learning_rate'"),
        ({"batch_size": "32"}, "batch_size cannot be '32'"),
        ({"scheduler": "linear", "predictor": "x"}, "leave one of them out"),
        ({"resume": True, "data": "toy"}, "nothing to resume"),
    ],
)
def test_wrong_setting_is_refused_before_anything_is_written(
    given, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MetalrError, match=message):
        metalr.fine_tune(**given)
    assert not list(tmp_path.iterdir())


@pytest.mark.fast
def test_the_name_stays_a_function_beside_its_package_and_imports_nothing_early():
    code = (
        "import sys, metalr; assert 'jax' not in sys.modules;"
        "import metalr.finetune.run, metalr.fine_tuning;"
        "assert callable(metalr.fine_tune) and metalr.finetune.run"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
