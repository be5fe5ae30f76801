"""--profile leaves a trace that Perfetto opens, of some steps and no more."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from metalr.finetune.profile import FIRST, STEPS, Profile


@pytest.mark.parametrize("total", [FIRST + STEPS + 5, 6])
def test_trace_has_the_steps_in_the_middle(total, tmp_path):
    @jax.jit
    def a_step_of_mine(x):
        return x @ x / 8

    x = a_step_of_mine(jnp.ones((8, 8)))
    profile = Profile(tmp_path, total)
    for done in range(1, total + 1):
        x = a_step_of_mine(x)
        profile(done, x)
    profile.close()
    (file,) = tmp_path.rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    calls = [e for e in events if e.get("name") == "PjitFunction(a_step_of_mine)"]
    outer, end = 0, 0.0  # JAX notes a call from Python, and within it one from C++
    for event in sorted(calls, key=lambda e: e["ts"]):
        if event["ts"] >= end:
            outer, end = outer + 1, event["ts"] + event["dur"]
    assert outer == min(STEPS, total - 1)


class Waited:
    """Counts how often somebody waits for it."""

    times = 0

    def block_until_ready(self):
        self.times += 1


def test_resumed_run_is_traced_and_steps_behind_the_trace_wait_for_nobody(tmp_path):
    profile, waited = Profile(tmp_path, 100), Waited()
    for done in range(41, 41 + FIRST + STEPS):
        profile(done, waited)
    (file,) = tmp_path.rglob("perfetto_trace.json.gz")
    at_the_ends = waited.times
    for done in range(41 + FIRST + STEPS, 101):
        profile(done, waited)
    profile.close()
    assert at_the_ends == waited.times == 2
    assert list(tmp_path.rglob("perfetto_trace.json.gz")) == [file]


def test_run_that_ends_early_ends_its_trace(tmp_path):
    profile = Profile(tmp_path, 100)
    for done in range(1, FIRST + 1):
        profile(done, jnp.zeros(1))
    profile.close()
    assert list(tmp_path.rglob("perfetto_trace.json.gz"))
    profile.close()
