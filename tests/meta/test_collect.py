"""A collection is kept so that nothing is lost or done twice, whatever is killed."""

import errno
import importlib.util
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from metalr.errors import MetalrError
from metalr.features import FEATURES
from metalr.meta import collect, record, sweeps, trace_files, traces
from metalr.predictor import init_predictor
from metalr.runtime import processes
from tests.meta.drawn_sweeps import SOURCES, draw, tiny


@pytest.fixture
def counted(monkeypatch):
    """Replace runs by ones that take no time, and count them."""
    taken = []

    def record_runs(loaded, plans, stop=lambda: False):
        if stop():
            return None
        taken.extend(plan.about for plan in plans)
        return [one(loaded, plan) for plan in plans]

    def one(loaded, plan):
        n = loaded.horizon
        return traces.Run(
            {**json.loads(json.dumps(loaded._asdict())), **plan.about, "seconds": 0.0},
            [{"step": 0, "eval_loss": 0.7}, {"step": n, "eval_loss": None}],
            np.zeros((n, len(FEATURES)), np.float32),
            plan.rate * np.exp(plan.explore),
            np.exp(plan.explore),
            plan.rate,
        )

    monkeypatch.setattr(record, "load_sweep", lambda sweep: sweep)
    monkeypatch.setattr(record, "record_runs", record_runs)
    return taken


def after(calls):
    count = iter(range(10**6))
    return lambda: next(count) >= calls


def jobs(count=3, **changes):
    """Return jobs of nine runs each: seven peaks on one shape and two walks."""
    one_shape = SOURCES._replace(also=())
    drawn = [sweeps.draw(index, one_shape, 0) for index in range(count)]
    return [sweeps.Job(sweep._replace(**changes)) for sweep in drawn]


def collected(todo, output, **kwargs):
    return collect.collect(todo, output, workers=1, **kwargs)


@pytest.mark.robust
def test_killed_collection_goes_on_and_does_nothing_twice(counted, tmp_path):
    assert collected(jobs(), tmp_path / "whole")
    expected = list(counted)
    assert len(expected) == 27
    counted.clear()
    for calls in (5, 9, 14, 30):
        collected(jobs(), tmp_path / "cut", stop=after(calls))
    assert 9 < len(counted) < 27
    assert collected(jobs(), tmp_path / "cut")
    assert counted == expected
    for path in trace_files.paths_in(tmp_path / "whole" / "traces"):
        assert (
            tmp_path / "cut" / "traces" / path.name
        ).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "cut" / "parts").iterdir())


@pytest.mark.parametrize("together", [1, 4, 9, 20])
@pytest.mark.thorough
def test_runs_side_by_side_are_all_there_and_nothing_twice(counted, tmp_path, together):
    assert collected(jobs(), tmp_path / "in turn")
    in_turn = list(counted)
    counted.clear()
    collected(jobs(), tmp_path / "cut", together=together, stop=after(5))
    assert len(counted) < 27
    assert collected(jobs(), tmp_path / "cut", together=together)
    assert counted == in_turn


def test_runs_of_a_sweep_in_progress_are_not_counted_as_missing(counted, tmp_path):
    collected(jobs(1), tmp_path, stop=after(8))
    done = len(list((tmp_path / "parts").iterdir()))
    assert 0 < done < 9
    assert collect.missing(jobs(), tmp_path) == 27 - done


def test_a_collection_of_before_there_were_several_shapes_goes_on(counted, tmp_path):
    collected(jobs(1), tmp_path)
    path = tmp_path / "traces" / "sweep-00000.parquet"
    runs = trace_files.read(path)
    for run in runs:
        del run.about["also"]
    trace_files.write(path, runs)
    counted.clear()
    as_drawn_today = sweeps.draw(0, SOURCES, 0)
    assert as_drawn_today.also
    begun = collect.as_begun(as_drawn_today, tmp_path)
    assert begun == jobs(1)[0].sweep
    assert collected([sweeps.Job(begun)], tmp_path) and not counted
    assert collect.as_begun(as_drawn_today, tmp_path / "new") == as_drawn_today
    path.write_bytes(path.read_bytes()[:100])  # by a power cut
    assert collect.as_begun(as_drawn_today, tmp_path) == as_drawn_today


def test_parts_left_by_a_kill_after_the_sweep_was_written_go_away(counted, tmp_path):
    collected(jobs(1), tmp_path)
    left = tmp_path / "parts" / "sweep-00000-00.parquet"
    left.write_bytes((tmp_path / "traces" / "sweep-00000.parquet").read_bytes())
    assert collected(jobs(1), tmp_path)
    assert not left.exists() and len(counted) == 9


@pytest.mark.parametrize(
    "fault",
    [OSError(errno.EMFILE, "Too many open files"), pa.ArrowMemoryError("malloc")],
    ids=["files", "memory"],
)
def test_sweep_that_the_system_does_not_read_is_kept(
    counted, tmp_path, monkeypatch, fault
):
    def refuse(path):
        raise fault

    collected(jobs(1), tmp_path)
    (sweep,) = (tmp_path / "traces").iterdir()
    monkeypatch.setattr(parquet, "ParquetFile", refuse)
    with pytest.raises(MetalrError, match="cannot read .*sweep-00000"):
        collected(jobs(1), tmp_path)
    assert sweep.exists()


def test_folder_of_other_sweeps_is_refused(counted, tmp_path):
    collected(jobs(), tmp_path)
    with pytest.raises(MetalrError, match=r"other settings \(horizon\).*--output"):
        collected(jobs(horizon=7), tmp_path)


def test_time_that_is_up_begins_no_sweep(counted, tmp_path):
    assert not collected(jobs(), tmp_path, seconds=-1.0)
    assert not counted


def test_round_has_files_of_its_own(counted, tmp_path):
    job = sweeps.Job(draw(), 2, init_predictor(), 3)
    assert collected([*jobs(1), job], tmp_path)
    names = [path.name for path in trace_files.paths_in(tmp_path / "traces")]
    assert names == ["round-2-sweep-00000.parquet", "sweep-00000.parquet"]
    found = trace_files.read(tmp_path / "traces" / names[0])
    assert [(run.about["round"], run.about["run"]) for run in found] == [
        (2, 0),
        (2, 1),
        (2, 2),
    ]


def test_progress_is_plain_lines_without_a_terminal(counted, tmp_path, capsys):
    collected(jobs(1), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1/9 runs") and "min left" in lines[0]
    assert lines[-1].startswith("9/9 runs") and "sweep-00000 sst2" in lines[-1]


# ---- Processes.


@pytest.mark.thorough
def test_fault_in_a_process_reaches_the_user(tmp_path):
    todo = jobs(2, model="minilm:7")
    with pytest.raises(MetalrError, match="minilm:7"):
        collect.collect(todo, tmp_path, workers=2)


@pytest.mark.robust
def test_stop_ends_the_processes_and_leaves_signals_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_GRACE_SECONDS", 1.0)
    # Not Python's own: in the background a shell may have had SIGINT ignored.
    before = signal.getsignal(signal.SIGINT)
    begun = lambda: len(multiprocessing.active_children()) == 2  # noqa: E731
    assert not collect.collect(jobs(2), tmp_path, workers=2, stop=begun)
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("other", [1, 4])
def test_whole_round_of_another_number_of_runs_is_refused(counted, tmp_path, other):
    sweep = jobs(1)[0].sweep
    collected([sweeps.Job(sweep, 1, init_predictor(), 2)], tmp_path)
    with pytest.raises(MetalrError, match="the same --runs-per-sweep"):
        collected([sweeps.Job(sweep, 1, init_predictor(), other)], tmp_path)


def test_round_that_was_cut_does_not_go_on_with_fewer_runs(counted, tmp_path):
    job = sweeps.Job(jobs(1)[0].sweep, 1, init_predictor(), 4)
    collected([job], tmp_path, stop=lambda: len(counted) == 3)
    assert len(list((tmp_path / "parts").iterdir())) == 3
    with pytest.raises(MetalrError, match="the same --runs-per-sweep"):
        collected([job._replace(runs=2)], tmp_path)
    assert collected([job], tmp_path) and len(counted) == 4


# ---- Ray.

# Kills the worker of the run that is kept second, and has the other one go on.
KILLS_A_WORKER = """
import os, pickle, signal, sys
from pathlib import Path
from metalr.meta import collect, trace_files, traces

jobs = pickle.loads(Path(sys.argv[1]).read_bytes())
output, mark = Path(sys.argv[2]), sys.argv[3]

def workers():
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            ours = f"MARK={mark}".encode() in (folder / "environ").read_bytes()
        except OSError:
            continue
        if ours and title.startswith(b"ray::_task"):
            yield int(folder.name)

written = []
write = trace_files.write

def counting(path, runs):
    write(path, runs)
    written.append(path.name)
    if len(written) == 2:
        os.kill(next(workers()), signal.SIGKILL)
        print("killed")

trace_files.write = counting
assert collect.collect(jobs, output, executor="ray", workers=2)
print(*written)
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.robust
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or not Path("/proc/self/environ").exists(),
    reason="Ray is not installed, or processes cannot be told apart",
)
def test_ray_worker_killed_in_a_run_loses_no_trace_and_doubles_none(
    sweep, tmp_path, ray_folder
):
    todo = [
        sweeps.Job(sweep._replace(sweep_id=i, peaks=sweep.peaks[:4], also=(), walks=0))
        for i in (0, 1)
    ]
    (tmp_path / "jobs").write_bytes(pickle.dumps(todo))
    root = Path(__file__).parents[2]
    mark = str(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLS_A_WORKER]
        + [str(tmp_path / "jobs"), str(tmp_path / "out"), mark],
        env={
            **os.environ,
            "PYTHONPATH": str(root),
            "MARK": mark,
            "RAY_TMPDIR": ray_folder,
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert "killed" in lines
    names = [f"{job.name}-{run:02d}.parquet" for job in todo for run in range(4)]
    wholes = [f"{job.name}.parquet" for job in todo]
    assert sorted(lines[-1].split()) == sorted(names + wholes)
    found = trace_files.read_all(trace_files.paths_in(tmp_path / "out" / "traces"))[1]
    assert [(run.about["sweep_id"], run.about["run"]) for run in found] == [
        (i, run) for i in (0, 1) for run in range(4)
    ]
    assert not list((tmp_path / "out" / "parts").iterdir())
