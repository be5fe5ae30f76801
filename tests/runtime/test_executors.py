"""Work on many items is neither lost nor done twice, and leaves nothing behind."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metalr.errors import MetalrError
from metalr.runtime import executors, processes, program
from tests.runtime import executor_work as work

ROOT = Path(__file__).parents[2]


def carried_out(function, items, **kwargs):
    results = []
    kwargs.setdefault("on_result", lambda item, value: results.append((item, value)))
    whole = executors.carry_out(function, items, **kwargs)
    return whole, results


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("workers", [1, 2])
def test_each_item_has_its_result_once(workers):
    whole, results = carried_out(work.square, range(7), workers=workers)
    assert whole
    assert sorted(results) == [(n, n * n) for n in range(7)]


def test_generator_gives_each_result_as_it_comes_and_from_another_process():
    whole, results = carried_out(work.count_to, [3, 0, 2], workers=2)
    assert whole
    found = sorted((item, value) for item, (value, _) in results)
    assert found == [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    assert os.getpid() not in {pid for _, (_, pid) in results}


def test_process_has_one_core_and_one_thread_and_no_jax_that_it_does_not_need():
    _, results = carried_out(work.about_the_process, [0, 1], workers=2)
    for _, (count, flags, jax) in results:
        assert count == 1 and "eigen=false" in flags and not jax


@pytest.mark.parametrize("workers", [1, 2])
def test_start_is_called_once_in_each_process_that_works(workers, monkeypatch):
    monkeypatch.delenv("STARTED", raising=False)
    how = {"workers": workers, "start": work.mark_start}
    _, results = carried_out(work.starts, range(4), **how)
    assert [value for _, value in results] == ["x"] * 4
    assert os.environ.pop("STARTED", None) == ("x" if workers == 1 else None)


def test_items_are_taken_when_a_worker_is_free():
    taken, told = [], []

    def items():
        for number in range(5):
            assert len(taken) - len(told) < 2
            taken.append(number)
            yield number

    note = lambda item, value: told.append(value)  # noqa: E731
    assert executors.carry_out(work.square, items(), workers=2, on_result=note)
    assert sorted(told) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (13, MetalrError, "^13 is unlucky$"),
        (14, RuntimeError, "ValueError: 14 is no"),  # a bug is not the user's fault
        (15, MetalrError, r"died \(exit code -9"),
    ],
)
def test_fault_in_a_process_ends_all_with_its_message(number, kind, message):
    with pytest.raises(kind, match=message):
        carried_out(work.square, [1, number, 2], workers=2)


@pytest.mark.parametrize("function", [work.until_stopped, work.for_ever])
def test_stop_leaves_no_process_behind(function, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_GRACE_SECONDS", 0.5)
    paths = [tmp_path / name for name in "ab"]
    began = lambda: all(p.exists() and p.read_text() for p in paths)  # noqa: E731
    whole, results = carried_out(function, paths * 2, workers=2, stop=began)
    assert not whole and len(results) <= 2
    assert not any(alive(int(path.read_text())) for path in paths)


def test_stop_is_heard_by_work_in_this_process(tmp_path):
    path = tmp_path / "a"
    whole, results = carried_out(
        work.until_stopped, [path, path], workers=1, stop=path.exists
    )
    assert not whole and [value for _, value in results] == ["stopped"]
    assert not executors.stopping()


def test_processes_end_with_the_program_that_began_them(tmp_path):
    program = (
        "import sys\nfrom metalr.runtime import executors\n"
        "from tests.runtime import executor_work as work\n"
        "if __name__ == '__main__': executors.carry_out("
        "work.until_stopped, sys.argv[1:], workers=2, on_result=print)"
    )
    paths = [tmp_path / name for name in "ab"]
    started = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, paths)], env=environment()
    )
    wait_for(lambda: all(p.exists() and p.read_text() for p in paths))
    started.kill()
    started.wait()
    pids = [int(path.read_text()) for path in paths]
    wait_for(lambda: not any(map(alive, pids)))
    assert [alive(pid) for pid in pids] == [False, False]


def test_unknown_executor_is_refused_with_the_known_ones():
    with pytest.raises(MetalrError, match="'rya'.*did you mean 'ray'"):
        carried_out(work.square, [1], kind="rya")


def wait_for(condition, seconds=300):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


# ------------------------------------------------------------------ Ray

# One cluster for all: it takes seconds to start.
ON_RAY = """
import json, signal, sys, time
from pathlib import Path
import ray
from metalr.runtime import executors, ray_cluster
from metalr.errors import MetalrError
from tests.runtime import executor_work as work

ray_cluster.RETRIES = 1
folder = Path(sys.argv[1])
found = {}

def run(function, items, **kwargs):
    results = []
    note = lambda item, value: results.append([item, value])
    try:
        whole = executors.carry_out(
            function, items, workers=2, kind="ray", on_result=note, **kwargs)
    except (MetalrError, RuntimeError) as fault:
        return str(fault)
    return whole, results

mine = signal.getsignal(signal.SIGTERM)
found["own cluster"] = run(work.square, [2, 3])
found["left"] = ray.is_initialized(), signal.getsignal(signal.SIGTERM) == mine
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False,
         logging_level="CRITICAL")
found["dies"] = run(work.dies_once, [["a", str(folder / "mark")], ["b", ""]])
found["fault"] = run(work.square, [1, 13])
found["bug"] = run(work.square, [14])
found["death"] = run(work.square, [15])
path = folder / "pid"
found["stop"] = run(work.for_ever, [str(path)], stop=path.exists)
found["kept"] = ray.is_initialized()
ray.shutdown()
(folder / "found.json").write_text(json.dumps(found))
"""


@pytest.mark.robust
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)
def test_ray_retries_what_died_and_loses_and_doubles_nothing(tmp_path, ray_folder):
    ended = subprocess.run(
        [sys.executable, "-c", ON_RAY, str(tmp_path)],
        env=environment() | {"RAY_TMPDIR": ray_folder},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    whole, results = found["own cluster"]
    assert whole and sorted(results) == [[2, 4], [3, 9]]
    assert found["left"] == [False, True]
    whole, results = found["dies"]
    assert whole and (tmp_path / "mark").exists()
    values = sorted(value for _, value in results)
    assert values == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert found["fault"] == "13 is unlucky"
    assert "ValueError: 14 is not a number" in found["bug"]
    assert "failed for good after 1 retries" in found["death"]
    assert found["stop"][0] is False and found["kept"]
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not alive(pid))


def test_without_ray_the_flag_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MetalrError, match="pip install ray"):
        carried_out(work.square, [1], kind="ray")


def test_a_signal_ends_the_work_in_this_process_until_its_loop_asks(monkeypatch):
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    seen = []

    def work(item):
        seen.append(signal.getsignal(signal.SIGINT))
        executors.stopping()
        seen.append(signal.getsignal(signal.SIGINT))

    try:
        stop = program.Stop()
        whole, _ = carried_out(work, [0, 1], workers=1, stop=stop)
        stop.signum = signal.SIGTERM  # came after it was asked, and before the next
        sent = []
        monkeypatch.setattr(os, "kill", lambda pid, signum: sent.append(signum))
        stop.release()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert whole and sent == [signal.SIGTERM]
    assert seen[::2] == [signal.SIG_DFL] * 2 and signal.SIG_DFL not in seen[1::2]
