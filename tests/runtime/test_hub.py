"""The hub: bounded, quiet, and checked, whatever it answers."""

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from metalr.errors import MetalrError
from metalr.runtime import hub
from tests.runtime import hub_server

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh_hub(monkeypatch):
    """Forget what the hub answered, and the settings of the machine."""
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", hub.PATIENCE):
        monkeypatch.delenv(name, raising=False)
    hub.forget()
    yield
    hub.forget()


class Reply(io.BytesIO):
    status = 200


def test_a_hanging_network_holds_nobody_up(monkeypatch):
    release = threading.Event()

    def hang(*args, **kwargs):
        release.wait(300)
        raise urllib.error.URLError("late")

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    start = time.monotonic()
    assert not hub.answers(0.2)
    assert time.monotonic() - start < 100
    release.set()


def test_the_hub_is_asked_once_at_the_endpoint_in_use(monkeypatch):
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return Reply()

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert hub.answers() and hub.answers(10.0)
    assert asked == ["https://mirror.example/api/datasets/nyu-mll/glue"]


def test_offline_mode_asks_nobody(monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", pytest.fail)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not hub.answers()


def test_a_dead_address_does_not_answer(monkeypatch):
    def refuse(url, timeout):
        raise urllib.error.URLError("refused")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert not hub.answers()


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_a_refusal_is_an_answer(monkeypatch, tmp_path, status):
    with hub_server.here(monkeypatch, tmp_path) as here:
        here.misbehave(".", hub_server.busy(status))
        assert hub.answers()


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "1e9", ""])
def test_a_patience_that_is_no_time_is_refused(monkeypatch, given):
    monkeypatch.setenv(hub.PATIENCE, given)
    with pytest.raises(MetalrError, match=f"{hub.PATIENCE} must be seconds"):
        hub.patience()


def test_a_call_gives_its_value_and_its_own_faults():
    assert hub.call(lambda: 3) == 3
    with pytest.raises(KeyError, match="x"):
        hub.call(lambda: {}["x"])


def test_work_without_traffic_may_take_its_time(monkeypatch):
    monkeypatch.setenv(hub.PATIENCE, "0.05")
    release = threading.Event()
    threading.Timer(0.3, release.set).start()
    assert hub.call(lambda: release.wait(20))


def test_libraries_are_as_before_after_a_call():
    import huggingface_hub.utils as utils
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    def state():
        return (
            _http._GLOBAL_CLIENT_FACTORY,
            constants.HF_HUB_DISABLE_XET,
            constants.HF_HUB_OFFLINE,
            logging.getLogger("huggingface_hub").level,
            utils.are_progress_bars_disabled(),
        )

    before = state()
    inside = hub.call(state, online=False)
    assert inside[1:4] == (True, True, logging.CRITICAL) and inside[4]
    assert state() == before


# ------------------------------------------------------------ programs

# A shell's background has had SIGINT ignored, and a child inherits that.
FIND = """
import signal
import sys

signal.signal(signal.SIGINT, signal.default_int_handler)
from metalr import cli
from metalr.models import locate

cli.hush_libraries()
sys.exit(cli.guarded(lambda: print(locate.find("me/bert").folder) or 0))
"""


def find(here: hub_server.Hub, home: Path, **more: str) -> subprocess.Popen:
    variables = {**os.environ, **here.environment(home), **more}
    return subprocess.Popen(
        [sys.executable, "-c", FIND],
        cwd=ROOT,
        env=variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def served():
    with hub_server.running() as here:
        files = {"config.json": b"{}", "model.safetensors": b"12345678" * 1000}
        here.add("me/bert", files)
        yield here


@pytest.mark.parametrize("manner", [hub_server.silent, hub_server.trickle])
def test_a_program_ends_with_one_line_where_the_hub_goes_on_forever(
    manner, served, tmp_path
):
    served.misbehave("GET .*safetensors", manner)
    program = find(served, tmp_path, **{hub.PATIENCE: "0.5"})
    out, err = program.communicate(timeout=60)
    assert program.returncode == 2 and out == "", err
    assert err.startswith("error: model me/bert can't be read") and err.count("\n") == 1
    assert "made no progress for 0.5 s" in err


def test_the_first_interrupt_ends_a_download(served, tmp_path):
    begun = threading.Event()

    def silent(handler):
        begun.set()
        return hub_server.silent(handler)

    served.misbehave("GET .*safetensors", silent)
    program = find(served, tmp_path, **{hub.PATIENCE: "600"})
    assert begun.wait(60)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=200)  # less than the patience
    assert (program.returncode, out, err) == (130, "", "")
