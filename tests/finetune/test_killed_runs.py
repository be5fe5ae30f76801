"""A run that was killed goes on to the result of the uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.finetune.commands import FAST, SMALL

ROOT = Path(__file__).parents[2]
LONG = ("--task", "sst2", *SMALL, *FAST, "--train-rows", 960, "--epochs", 5)
LONG += ("--scheduler", "metalr")  # its state has most to lose


@pytest.fixture(scope="module")
def command(tiny, tmp_path_factory):
    """Return a run of 150 steps as a command line, and its environment."""
    argv = [sys.executable, ROOT / "finetune.py", "--model", tiny, *LONG]
    cache = tmp_path_factory.mktemp("cache")  # compiled once for all of them
    env = {**os.environ, "METALR_CACHE": str(cache)}
    return [*map(str, argv), "--save-every", "20"], env


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """Return the folder of that run, never interrupted."""
    argv, env = command
    folder = tmp_path_factory.mktemp("whole") / "run"
    argv = [*argv, "--output", str(folder)]
    subprocess.run(argv, env=env, check=True, capture_output=True, timeout=300)
    return folder


def what_counts(folder):
    result = json.loads((folder / "result.json").read_text())
    weights = (folder / "model/model.safetensors").read_bytes()
    timed = ("seconds", "step_seconds", "settings")
    return {k: result[k] for k in result if k not in timed}, weights


@pytest.mark.robust
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_run_that_was_killed_goes_on_to_the_result_of_the_uninterrupted(
    signum, command, whole, tmp_path
):
    argv, env = command
    argv = [*argv, "--output", str(tmp_path / "cut")]
    process = subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    saved = tmp_path / "cut/checkpoints/last/40"
    deadline = time.monotonic() + 200
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signum)
    out, err = process.communicate(timeout=100)
    assert not (tmp_path / "cut/result.json").exists(), "finished before the signal"
    if signum == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + signum
        assert "the same command resumes" in out
    assert "Traceback" not in err

    argv.append("--resume")
    again = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert what_counts(tmp_path / "cut") == what_counts(whole)


def test_run_whose_reader_has_gone_ends_all_the_same(command, tmp_path):
    argv, env = command
    pipe = subprocess.PIPE
    argv = [*argv, "--epochs", "1", "--output", str(tmp_path / "out")]
    with subprocess.Popen(argv, env=env, stdout=pipe, stderr=pipe) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert what_counts(tmp_path / "out")[0]["steps"] == 30
