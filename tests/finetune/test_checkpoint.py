"""Whatever happens to the files of a checkpoint, a run goes on to the same bits."""

import errno
import json
import resource
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from metalr.errors import MetalrError
from metalr.finetune import checkpoint, journal
from metalr.finetune.checkpoint import Checkpoints
from tests.finetune import regression_runs

PACE = regression_runs.PACE._replace(eval_every=5, log_every=1)


def train(folder=None, *, display=None, pace=PACE, stop=lambda: False, scores=None):
    """Return a run whose score improves, so that each evaluation is saved as best."""
    keep = Checkpoints(folder) if folder else None
    of = regression_runs.problem(evaluate=scores or regression_runs.score)
    display = display or regression_runs.Screen()
    try:
        outcome = regression_runs.train(
            pace, problem=of, checkpoints=keep, stop=stop, display=display
        )
        best = keep and keep.best(
            jax.eval_shape(lambda: outcome.params), outcome.best.get("step")
        )
    finally:
        if keep:
            keep.close()
    return outcome, best


def after(steps):
    count = iter(range(1, 10**6))
    return lambda: next(count) == steps


def assert_same(found, expected):
    assert found.history == expected.history and found.best == expected.best
    np.testing.assert_array_equal(found.params["w"], expected.params["w"])


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


HURTS = {
    "truncated": halve,
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a bit flipped": flip,
    "gone": Path.unlink,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return an uninterrupted run and its best parameters."""
    return train(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Return the folder of the run, stopped at a step that was evaluated and saved."""
    folder = tmp_path_factory.mktemp("cut")
    train(folder, stop=after(15))
    return folder


@pytest.mark.parametrize(
    ("part", "hurt"), [*(("last/15", hurt) for hurt in HURTS), ("best/15", "zeroed")]
)
def test_damaged_newest_file_is_passed_over_and_said(part, hurt, whole, cut, tmp_path):
    expected, expected_best = whole
    shutil.copytree(cut, tmp_path / "cut")
    files = (tmp_path / "cut" / part).rglob("*")
    largest = max((p for p in files if p.is_file()), key=lambda p: p.stat().st_size)
    HURTS[hurt](largest)
    screen = regression_runs.Screen()
    resumed, best = train(tmp_path / "cut", display=screen)
    notes = [line for line in screen.lines if isinstance(line, str)]
    assert notes[0].startswith("passed over the checkpoint of step 15: ")
    assert_same(resumed, expected)
    np.testing.assert_array_equal(best["w"], expected_best["w"])


def rewrite(folder, change):
    """Change a checkpoint's journal as another version would, and seal it again."""
    place = folder / "last/15"
    path = place / "journal/metadata"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    sums = {"files": checkpoint._sums(place), "format": 1, "step": 15}
    (place / "seal.json").write_text(json.dumps(sums))


OTHER_VERSIONS = {
    "a field more": lambda journal: journal | {"mood": "good"},
    "a field less": lambda journal: {k: v for k, v in journal.items() if k != "stale"},
    "none yet": lambda journal: {k: v for k, v in journal.items() if k != "format"},
}


@pytest.mark.parametrize("change", OTHER_VERSIONS)
def test_journal_of_another_version_is_gone_on_with(change, whole, cut, tmp_path):
    shutil.copytree(cut, tmp_path / "cut")
    rewrite(tmp_path / "cut", OTHER_VERSIONS[change])
    screen = regression_runs.Screen()
    resumed, _ = train(tmp_path / "cut", display=screen)
    assert "resuming from step 15" in screen.lines
    assert_same(resumed, whole[0])


def test_seal_of_the_first_format_is_good(whole, cut, tmp_path):
    shutil.copytree(cut, tmp_path / "cut")
    for seal in (tmp_path / "cut").rglob("seal.json"):
        seal.write_text(json.dumps(json.loads(seal.read_text())["files"]))
    screen = regression_runs.Screen()
    resumed, _ = train(tmp_path / "cut", display=screen)
    assert "resuming from step 15" in screen.lines
    assert_same(resumed, whole[0])


@pytest.mark.parametrize("kind", ["journal", "seal"])
def test_format_of_a_later_version_is_said_with_the_way_out(kind, cut, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(cut, folder)
    shutil.rmtree(folder / "last/10")
    rewrite(folder, lambda journal: journal | {"format": 1 + (kind == "journal")})
    if kind == "seal":
        seal = folder / "last/15/seal.json"
        seal.write_text(json.dumps(json.loads(seal.read_text()) | {"format": 2}))
    with pytest.raises(MetalrError, match="step 15: it is of format 2 and this metalr"):
        train(folder)


def test_checkpoint_under_the_name_of_another_step_is_passed_over(whole, cut, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(cut, folder)
    (folder / "last/15").rename(folder / "last/20")
    screen = regression_runs.Screen()
    resumed, _ = train(folder, display=screen)
    said = "passed over the checkpoint of step 20: it is that of step 15"
    assert said in screen.lines
    assert_same(resumed, whole[0])


def test_damaged_checkpoint_is_replaced_when_its_step_comes_again(cut, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(cut, folder)
    halve(folder / "last/15/state/_METADATA")
    train(folder, stop=after(7))  # from 10, so to 17
    assert checkpoint._damage(folder / "last/15") is None


@pytest.mark.robust
@pytest.mark.parametrize("save", [1, 2, 6])
def test_run_that_dies_before_a_checkpoint_is_sealed_goes_on(
    save, whole, tmp_path, monkeypatch
):
    expected, expected_best = whole
    sums, calls = checkpoint._sums, iter(range(1, 10**6))

    def dies(place):
        if next(calls) == save:
            raise KeyboardInterrupt  # no `Exception`: nothing tidies up
        return sums(place)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_sums", dies)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut")
    resumed, best = train(tmp_path / "cut")
    assert_same(resumed, expected)
    np.testing.assert_array_equal(best["w"], expected_best["w"])


def test_best_parameters_are_those_of_the_step_that_is_asked_for(tmp_path):
    keep = Checkpoints(tmp_path)
    for step in (10, 12):  # the second by a life that was killed before it was counted
        keep.save_best(step, {"w": np.full(3, float(step), np.float32)})
    abstract = jax.eval_shape(lambda: {"w": np.zeros(3, np.float32)})
    found = [keep.best(abstract, step)["w"][0] for step in (10, 12, 8)]
    keep.close()
    assert found == [10, 12, 12]


def test_best_parameters_that_a_state_relies_on_outlive_newer_ones(tmp_path):
    of = lambda step: {"w": np.full(3, float(step), np.float32)}  # noqa: E731
    abstract = jax.eval_shape(lambda: of(0))
    keep = Checkpoints(tmp_path)
    keep.save_best(20, of(20))
    keep.save(60, of(60), {"best": {"step": 20}})
    for step in (70, 80):  # lost with the process, and the next one rounds otherwise
        keep.save_best(step, of(step))
    keep.close()
    keep = Checkpoints(tmp_path)
    saved = keep.latest(abstract)
    assert saved and saved.step == 60
    keep.save_best(90, of(90))
    assert keep.best(abstract, 20)["w"][0] == 20
    keep.save(100, of(100), {"best": {"step": 90}})
    keep.save(120, of(120), {"best": {"step": 90}})
    keep.save_best(130, of(130))
    keep.close()
    left = {
        int(path.name) for path in (tmp_path / "best").iterdir() if path.name[0] != "."
    }
    assert left == {90, 130}


def test_no_readable_checkpoint_is_said_with_the_way_out(cut, tmp_path):
    shutil.copytree(cut, tmp_path / "cut")
    for file in (tmp_path / "cut/last").rglob("_METADATA"):
        halve(file)
    with pytest.raises(MetalrError, match=r"step 15: .* damaged.*--overwrite"):
        train(tmp_path / "cut")


def test_full_disk_is_one_line_and_the_earlier_checkpoint_is_whole(
    whole, tmp_path, monkeypatch
):
    expected, _ = whole
    sums = checkpoint._sums

    def full(place):
        if place.name == "15" and place.parent.name == "last":
            raise OSError(errno.ENOSPC, "No space left on device")
        return sums(place)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_sums", full)
        with pytest.raises(MetalrError, match="No space.*make room") as fault:
            train(tmp_path / "cut")
    assert "\n" not in str(fault.value)
    resumed, _ = train(tmp_path / "cut")
    assert_same(resumed, expected)


def test_file_size_limit_of_the_system_is_one_line_too(whole, cut, tmp_path):
    expected, _ = whole
    shutil.copytree(cut, tmp_path / "cut")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(MetalrError, match="cannot save a checkpoint.*make room"):
            train(tmp_path / "cut")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("*tmp*"))
    resumed, _ = train(tmp_path / "cut")
    assert_same(resumed, expected)


@pytest.mark.robust
def test_full_disk_prints_no_traceback_of_orbax(tmp_path, capfd):
    keep = Checkpoints(tmp_path)
    noise = np.random.default_rng(0).normal(size=300_000)  # a megabyte, incompressible
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(MetalrError, match="cannot save a checkpoint.*make room"):
            keep.save(1, {"w": jax.device_put(noise.astype(np.float32))}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        keep.close()
    assert not capfd.readouterr().err


def test_run_that_stopped_early_and_died_takes_no_further_step(tmp_path):
    pace = PACE._replace(eval_every=4, early_stopping=2)
    scores = {"r": 0.5}
    expected, _ = train(tmp_path, pace=pace, scores=lambda params: scores)
    assert expected.stopped == "early"
    again, _ = train(tmp_path, pace=pace, scores=lambda params: scores)
    assert (again.stopped, again.steps) == ("early", expected.steps)
    assert again.history == expected.history


def test_loss_that_is_not_finite_is_seen_before_it_is_saved(tmp_path):
    class Poisoned(regression_runs.Rows):
        def batch(self, step):
            found = super().batch(step)
            found["x"][0, 0] = np.inf if step == 6 else found["x"][0, 0]
            return found

    keep = Checkpoints(tmp_path)
    of = regression_runs.problem()._replace(batches=Poisoned())
    pace = PACE._replace(log_every=100, eval_every=100, save_every=2)
    with pytest.raises(journal.Diverged, match="step 7"):
        regression_runs.train(pace, problem=of, checkpoints=keep)
    keep.close()
    assert sorted(p.name for p in (tmp_path / "last").iterdir()) == ["4", "6"]


def test_leftovers_of_a_killed_save_are_removed(cut, tmp_path):
    shutil.copytree(cut, tmp_path / "cut")
    torn = tmp_path / "cut/last/20.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "cut/last/15", torn)
    train(tmp_path / "cut")
    assert not torn.exists()


def test_a_new_run_waits_for_orbax_no_sooner_than_it_saves(tmp_path):
    keep = Checkpoints(tmp_path)
    assert keep.latest(None) is None
    assert not {"_ocp", "_last", "_best"} & vars(keep).keys()
    keep.close()
    assert not list(tmp_path.iterdir())
