"""A signal ends a program at once until its loop has begun, without a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metalr.finetune import run_folder
from metalr.finetune.config import RunConfig
from tests.models import small_models

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="looks at what is loaded in /proc"
)

# Moments of a start, which do not depend on how fast it is: a library is mapped, a file
# is there. Each is in the midst of something: an import, rows, weights, a compilation.
LIBRARIES = ("_multiarray_umath", "jaxlib", "tokenizers")
MOMENTS = (*LIBRARIES, "rows", "settings.json")
CASES = [(moment, signal.SIGINT) for moment in MOMENTS] + [("rows", signal.SIGTERM)]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start finetune.py in a new folder, with rows that take for ever to be read."""
    work = tmp_path_factory.mktemp("interrupts")
    tiny = small_models.save_bert(work / "tiny")
    env = {**os.environ, "METALR_CACHE": str(work / "cache"), "HF_HUB_OFFLINE": "1"}

    def start(folder, *flags):
        argv = [sys.executable, str(ROOT / "finetune.py"), "--model", str(tiny)]
        argv += ["--output", str(folder), *flags]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=env, stdout=pipe, stderr=pipe, text=True)

    return start


def wait_until(reached, process):
    deadline = time.monotonic() + 300
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.002)


def is_mapped(process, name):
    try:
        return name in Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return False


@pytest.mark.robust
@pytest.mark.parametrize(("moment", "signum"), CASES)
def test_signal_before_the_first_step_ends_at_once_and_without_a_word(
    moment, signum, start, tmp_path
):
    flags = ["--data", "toy", "--task", "sst2", "--train-rows", "64"]
    if moment == "rows":
        os.mkfifo(tmp_path / "rows.jsonl")
        flags = ["--train-file", str(tmp_path / "rows.jsonl")]
    process = start(tmp_path / "run", *flags)
    if moment == "rows":
        with open(tmp_path / "rows.jsonl", "w") as file:  # waits for the reader
            file.write('{"text": "good", "label": 1}\n')
            file.flush()
            process.send_signal(signum)
            out, err = process.communicate(timeout=60)
    else:
        written = {"settings.json": (tmp_path / "run/settings.json").exists}
        reached = written.get(moment, lambda: is_mapped(process, moment))
        wait_until(reached, process)
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert process.returncode == -signum, (out, err)
    assert err == ""
    run_folder.check(tmp_path / "run", RunConfig(), resume=False, overwrite=True)
    with run_folder.held(tmp_path / "run"):  # the folder is free again
        pass


@pytest.mark.robust
@pytest.mark.parametrize("moment", ["tensorstore", "checkpoints"])
def test_signal_while_the_first_state_is_saved_ends_after_it(moment, start, tmp_path):
    flags = ["--data", "toy", "--task", "sst2", "--train-rows", "64", "--epochs", "50"]
    process = start(tmp_path / "run", *flags)
    made = (tmp_path / "run/checkpoints").exists
    reached = made if moment == "checkpoints" else lambda: is_mapped(process, moment)
    wait_until(reached, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert "saved; the same command resumes" in out
    assert (tmp_path / "run/checkpoints/last").is_dir()
