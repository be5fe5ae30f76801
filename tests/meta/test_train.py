"""From traces and rounds to a predictor in a folder, and the one that is shipped."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train_meta
from metalr.errors import MetalrError
from metalr.meta import collect, fit, labels, rounds, sweeps, trace_files, train
from metalr.meta.zoo import check
from metalr.meta.zoo.sweeps import FIRST_ID, PER_PROGRAM
from metalr.predictor import evidence
from metalr.runtime import files
from metalr.stored_predictor import load_predictor, read_metadata
from tests.meta.made_sweeps import LEARNED, run, sweep
from tests.meta.made_sweeps import sweeps as made_sweeps
from tests.meta.tiny_sweeps import tiny

ROOT = Path(__file__).parents[2]
QUICK = fit.Settings(steps=200, batch=256)


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "traces"
    where.mkdir()
    runs = made_sweeps()
    for i in range(12):
        trace_files.write(where / f"sweep-{i:05d}.parquet", runs[5 * i : 5 * i + 5])
    return where


def test_refit_from_the_files_gives_the_saved_weights(folder, tmp_path):
    fitted = train.fit_predictor(trace_files.paths_in(folder), QUICK, check=False)
    train.save(tmp_path / "predictor", fitted)
    again = train.fit_predictor(trace_files.paths_in(folder), QUICK, check=False)
    loaded = load_predictor(tmp_path / "predictor")
    jax.tree.map(np.testing.assert_array_equal, again.predictor, loaded)
    about = read_metadata(tmp_path / "predictor")["provenance"]
    assert about["traces"]["sha256"] == files.checksum(trace_files.paths_in(folder))
    assert about["runs by task"] == {"qqp": 20, "rte": 20, "sst2": 20}
    assert about["check"]["trained"][0]["steps"] == 12 * 5 * LEARNED


@pytest.mark.thorough
def test_left_out_tasks_and_sizes_have_no_part_in_the_fit(folder):
    paths = trace_files.paths_in(folder)
    _, runs = trace_files.read_all(paths)
    (size,) = {labels.size(run) for run in runs}
    fitted = train.fit_predictor(paths, QUICK, check=False, without=["qqp"])
    others = [run for run in runs if run.about["task"] != "qqp"]
    expected = fit.fit(labels.examples(others), QUICK)
    jax.tree.map(np.testing.assert_array_equal, fitted.predictor, expected)
    assert fitted.provenance["runs by task"] == {"rte": 20, "sst2": 20}
    assert fitted.provenance["without"] == ["qqp"]
    for name, said in (
        (size, "no sweep with two peaks"),
        ("qqq", "did you mean 'qqp'"),
    ):
        with pytest.raises(MetalrError, match=said):
            train.fit_predictor(paths, QUICK, check=False, without=[name])


def test_script_fits_to_traces_alone(folder, tmp_path, monkeypatch, capsys):
    quick = functools.partial(fit.Settings, steps=50, batch=64)
    monkeypatch.setattr(fit, "Settings", quick)
    monkeypatch.setattr(check, "left_out", lambda seed: tiny(warmup=0))
    output = tmp_path / "output"
    flags = ["--traces", str(folder), "--output", str(output), "--skip-broken"]
    monkeypatch.setattr(sys, "argv", ["train_meta.py", *flags])
    (folder / "foreign.parquet").write_text("no parquet")
    with jax.numpy_rank_promotion("allow"):  # the zoo's small networks do
        assert train_meta.main() == 0
    printed = capsys.readouterr().out
    assert "foreign.parquet is not Parquet" in printed
    assert "| task qqp |" in printed
    assert "| metalr, this predictor |" in printed
    assert (output / "check.png").stat().st_size > 10_000
    load_predictor(output / "predictor")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--horizon", "100", "0"], "--horizon must be at least 5"),
        (["--batch", "0"], "--batch must be at least 1"),
        (["--length", "2"], "--length must be at least 8"),
        (["--budget-minutes", "0"], "--budget-minutes must be above 0"),
        (["--budget-minutes", "nan"], "--budget-minutes must be above 0"),
        (["--traces", "t", "--zoo", "9", "--batch", "8"], "read --zoo, --batch\n"),
    ],
)
def test_flag_out_of_its_range_is_one_line_before_anything_is_collected(
    tmp_path, monkeypatch, capsys, flags, said
):
    output = tmp_path / "output"
    argv = ["train_meta.py", "--output", str(output), *flags]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        train_meta.main()
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not output.exists()


def test_no_round_begins_before_the_sweeps_are_whole(folder, monkeypatch):
    monkeypatch.setattr(collect, "collect", lambda jobs, output, **options: False)
    monkeypatch.setattr(fit, "fit", lambda *_: pytest.fail("fitted to a part"))
    chosen = [sweeps.draw(0, sweeps.Sources(("sst2",), ("minilm:1",), "toy"), 0)]
    assert not rounds.gather(chosen, folder.parent, rounds=2, seconds=1)


def test_round_runs_the_predictor_of_the_rounds_before_on_informative_sweeps(
    folder, monkeypatch
):
    flat = [run(2.0**x, 1.0, sweep_id=12) for x in (-12, -10)]
    trace_files.write(folder / "sweep-00012.parquet", flat)
    asked = []

    def fake_collect(jobs, output, **options):
        asked.append(jobs)
        for job in jobs:
            if job.round:
                of = {"sweep_id": job.sweep.sweep_id, "seed": job.sweep.sweep_id}
                found = [run(2.0**-9, 0.5, kind="policy", **of)]
                trace_files.write(output / "traces" / f"{job.name}.parquet", found)
        return True

    monkeypatch.setattr(collect, "collect", fake_collect)
    monkeypatch.setattr(fit, "fit", lambda data, settings: len(data.target) // LEARNED)
    sources = sweeps.Sources(("sst2",), ("minilm:1",), "toy")
    chosen = [sweeps.draw(index, sources, 0) for index in range(13)]
    for _ in range(2):  # started again, it goes on with the same predictors
        assert rounds.gather(chosen, folder.parent, rounds=2)
        own, first, second = asked
        assert [job.round for job in own] == [0] * 13
        assert [job.sweep.sweep_id for job in first] == list(range(12))
        assert {job.predictor for job in first} == {62}
        assert {job.predictor for job in second} == {62 + 12}
        asked.clear()


def test_a_round_leaves_out_the_refused_files_that_the_fit_leaves_out(
    folder, monkeypatch
):
    monkeypatch.setattr(collect, "collect", lambda jobs, output, **options: True)
    monkeypatch.setattr(fit, "fit", lambda data, settings: None)
    (folder / "sweep-00099.parquet").write_bytes(b"PAR1")
    chosen = [sweeps.draw(0, sweeps.Sources(("sst2",), ("minilm:1",), "toy"), 0)]
    told: list[str] = []
    assert rounds.gather(chosen, folder.parent, rounds=1, skip=told.append)
    assert len(told) == 1 and "sweep-00099" in told[0]
    with pytest.raises(MetalrError, match="sweep-00099"):
        rounds.gather(chosen, folder.parent, rounds=1)


def test_zoo_comes_before_encoders_and_its_rounds_take_one_sweep_of_each_program(
    tmp_path, monkeypatch
):
    asked = []
    (tmp_path / "traces").mkdir()

    def zoo(indices, output, *, number=0, predictor=None, **options):
        asked.append(("zoo", [*indices], number, predictor))
        for index in () if number else indices:
            # Of the third program no peak is better than another.
            found = sweep(FIRST_ID + index, problem="linear", task="linear")
            flat = [{"step": 0, "eval_loss": 0.5}, {"step": 30, "eval_loss": 0.5}]
            if index // PER_PROGRAM == 2:
                found = [one._replace(evaluations=flat) for one in found]
            trace_files.write(output / "traces" / f"zoo-0-{index:05d}.parquet", found)
        return True

    def encoders(jobs, output, **options):
        asked.append(("encoders", [job.round for job in jobs]))
        return True

    monkeypatch.setattr(rounds, "collect_zoo", zoo)
    monkeypatch.setattr(collect, "collect", encoders)
    monkeypatch.setattr(fit, "fit", lambda data, settings: len(data.target) // LEARNED)
    sources = sweeps.Sources(("sst2",), ("minilm:1",), "toy")
    chosen = [sweeps.draw(0, sources, 0)]
    assert rounds.gather(chosen, tmp_path, rounds=1, zoo=9)
    assert asked == [
        ("zoo", [*range(9)], 0, None),
        ("encoders", [0]),
        ("zoo", [0, 3], 1, 45),
    ]


@pytest.mark.thorough
def test_shipped_traces_give_the_shipped_weights():
    paths = trace_files.paths_in(ROOT / "checkpoints/traces")
    told = read_metadata(None)["provenance"]
    assert files.checksum(paths) == told["traces"]["sha256"]
    _, runs = trace_files.read_all(paths)
    assert len(runs) == told["runs"]
    data = labels.examples(runs)
    found, shipped = fit.fit(data), load_predictor()
    # Bit for bit where it was fitted; here XLA optimises nothing, and sums in another
    # order, so that weights differ a little and answers must not.
    rows = jnp.asarray(data.features[:: len(data.features) // 500])
    for name in ("mean", "std", "prior_weights", "prior_bias", "correlation"):
        mine, theirs = getattr(found, name), getattr(shipped, name)
        np.testing.assert_allclose(mine, theirs, rtol=0.02, atol=1e-3, err_msg=name)
    (mine, spread), (theirs, wide) = (evidence(p, rows) for p in (found, shipped))
    np.testing.assert_allclose(mine, theirs, atol=0.05)  # octaves
    np.testing.assert_allclose(spread, wide, rtol=0.1)
