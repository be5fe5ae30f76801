"""Two processes make one run, and one that loses its partner ends with one line."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from metalr import cli
from metalr.errors import MetalrError
from metalr.finetune.checkpoint import Checkpoints
from metalr.finetune.config import add_flags
from metalr.finetune.config_rules import from_flags
from metalr.finetune.display import Together
from metalr.finetune.run import run
from metalr.runtime import hosts

ROOT = Path(__file__).parents[2]


class TwoProcesses:
    """finetune.py started twice, as one run."""

    def __init__(self, *argv):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, str(ROOT / "finetune.py"), *argv]
        command += ["--coordinator", f"localhost:{port}", "--processes", "2"]
        self.started = [
            subprocess.Popen(
                [*command, "--process-id", str(index)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in (0, 1)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.started:
            process.kill()
            process.communicate()

    def ended(self):
        """Wait for both; return what each printed."""
        said = [process.communicate(timeout=500) for process in self.started]
        assert not any("Traceback" in err for _, err in said), said
        return [out for out, _ in said]

    @property
    def statuses(self):
        return [process.returncode for process in self.started]


def wait_for(path, both, seconds=500):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"no {path}"
        assert all(process.poll() is None for process in both.started), both.ended()
        time.sleep(0.02)


def short_run(model):
    argv = ["--model", str(model), "--task", "sst2", "--data", "toy", "--quiet"]
    argv += ["--train-rows", "50", "--validation-rows", "27", "--batch-size", "5"]
    return [*argv, "--log-every", "1", "--save-every", "4"]


def parsed(argv):
    parser = cli.Parser()
    add_flags(parser)
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args(argv)


def test_processes_are_named_all_three_or_not_at_all():
    with pytest.raises(MetalrError, match="go together"):
        hosts.join("localhost:1234", processes=2)
    with pytest.raises(MetalrError, match="must be 0 to 1.*got 2"):
        hosts.join("localhost:1234", processes=2, process_id=2)


@pytest.mark.thorough
def test_two_processes_one_and_two_again_go_on_to_the_numbers_of_one(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setenv("METALR_CACHE", str(tmp_path / "cache"))
    argv = [*short_run(tiny), "--epochs", "2", "--learning-rate", "3e-3"]
    argv += ["--eval-every", "10", "--scheduler", "linear"]
    config = from_flags(parsed(argv))
    cut = tmp_path / "cut"

    with TwoProcesses(*argv, "--output", str(cut), "--shard-params") as both:
        wait_for(cut / "checkpoints/last/4", both)
        both.started[1].send_signal(signal.SIGTERM)  # the other one has to hear of it
        both.ended()
    assert both.statuses == [128 + signal.SIGTERM] * 2
    assert not (cut / "result.json").exists()

    steps = []
    alone = run(
        config,
        Together(),
        folder=cut,
        stop=lambda: bool(steps.append(0) or len(steps) > 4),
    )
    assert alone["stopped"] == "asked" and alone["history"][0]["step"] == 1

    with TwoProcesses(*argv, "--output", str(cut), "--shard-params") as both:
        said = both.ended()
    assert both.statuses == [0, 0]
    assert "accuracy" in said[0] and "accuracy" not in said[1]
    found = json.loads((cut / "result.json").read_text())
    assert (cut / "model/model.safetensors").is_file()

    whole = run(config, Together())
    assert [row["step"] for row in found["history"]] == [
        row["step"] for row in whole["history"]
    ]
    for name in ("loss", "eval_loss"):
        ours, theirs = (
            [row[name] for row in run["history"] if name in row]
            for run in (found, whole)
        )
        np.testing.assert_allclose(ours, theirs, rtol=2e-3)


@pytest.mark.robust
def test_process_whose_partner_is_killed_ends_at_once_with_one_line(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setenv("METALR_CACHE", str(tmp_path / "cache"))
    argv = [*short_run(tiny), "--epochs", "100", "--output", str(tmp_path / "cut")]
    with TwoProcesses(*argv) as both:
        wait_for(tmp_path / "cut/checkpoints/last/4/seal.json", both)
        both.started[1].kill()
        _, said = both.started[0].communicate(timeout=60)
    assert both.started[0].returncode == 2
    assert said.startswith("error: another process of this run has ended or failed")
    assert said.count("\n") == 1


@pytest.mark.robust
@pytest.mark.fast
@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_partner_lost_inside_a_save_is_not_taken_for_a_full_disk(
    kind, tmp_path, monkeypatch
):
    keep = Checkpoints(tmp_path)
    monkeypatch.setattr(hosts, "alone", lambda: False)
    monkeypatch.setattr(hosts, "wait_for_all", lambda what: None)

    def lost(*_, **__):
        raise kind("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")

    monkeypatch.setattr(keep._last, "save", lost)
    with pytest.raises(kind, match="Gloo"):
        keep.save(4, {"w": np.zeros(2)}, {})
    monkeypatch.setattr(hosts, "alone", lambda: True)
    with pytest.raises(MetalrError, match="cannot save"):
        keep.save(4, {"w": np.zeros(2)}, {})
    keep.close()


@pytest.mark.fast
def test_fault_of_one_process_of_several_ends_it_at_once_in_its_own_words(
    monkeypatch, capsys
):
    monkeypatch.setattr(hosts, "alone", lambda: False)
    monkeypatch.setattr(hosts.os, "_exit", sys.exit)
    for fault, said in (
        (MetalrError("the disk is full"), "error: the disk is full\n"),
        (ValueError("UNKNOWN: Gloo failed:\nclosed"), "ended or failed (UNKNOWN: Gloo"),
    ):
        with pytest.raises(SystemExit, match="2"), hosts.together():
            raise fault
        found = capsys.readouterr().err
        assert said in found and found.count("\n") == 1
    with pytest.raises(ValueError, match="a bug"), hosts.together():
        raise ValueError("a bug")
