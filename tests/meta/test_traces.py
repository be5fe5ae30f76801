"""A trace comes back as it was written, and nothing else passes for one."""

import base64
import json
import zlib

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from metalr import features
from metalr.errors import MetalrError
from metalr.features import FEATURES, NAMES
from metalr.meta import labels, trace_files, traces
from metalr.observe import Observation
from metalr.runtime import files

pytestmark = pytest.mark.fast


def draw(steps, seed=0):
    rng = np.random.default_rng(seed)
    column = lambda: rng.lognormal(size=steps).astype(np.float32)  # noqa: E731
    return traces.Run(
        about={"task": "sst2", "peak": 1e-4, "seed": seed},
        evaluations=[{"step": 0, "eval_loss": 0.7}, {"step": steps, "eval_loss": None}],
        features=rng.normal(size=(steps, len(FEATURES))).astype(np.float32),
        rate=column(),
        multiplier=column(),
        loss=column(),
    )


def draw_raw(steps, seed=0):
    """Return a run with positive observations, from which features are computed."""
    rng = np.random.default_rng([seed, 1])
    raw = rng.lognormal(size=(steps, len(Observation._fields))).astype(np.float32)
    raw[:, Observation._fields.index("log_level")] = -rng.uniform(size=steps)
    raw[0, Observation._fields.index("update_norm")] = 0  # nothing has moved
    return draw(steps, seed)._replace(observations=raw)


@pytest.fixture
def folder(tmp_path):
    trace_files.write(tmp_path / "a.parquet", [draw(5), draw(3, seed=1)])
    trace_files.write(tmp_path / "b.parquet", [draw(4, seed=2)])
    return tmp_path


def test_runs_come_back_as_they_were_written(folder):
    for found, written in zip(
        trace_files.read(folder / "a.parquet"), [draw(5), draw(3, seed=1)], strict=True
    ):
        assert found.about == written.about
        assert found.evaluations == written.evaluations
        for name in ("rate", "multiplier", "loss"):
            np.testing.assert_array_equal(getattr(found, name), getattr(written, name))
        np.testing.assert_allclose(found.features, written.features, rtol=2**-12)


def test_observations_come_back_and_features_are_computed_from_them(tmp_path):
    written = [draw_raw(5), draw_raw(9, seed=1)]
    trace_files.write(tmp_path / "a.parquet", written)
    read = trace_files.read(tmp_path / "a.parquet")
    for found, run in zip(read, written, strict=True):
        np.testing.assert_allclose(found.observations, run.observations, rtol=2**-12)
        levels = np.exp(found.observations[:, Observation._fields.index("log_level")])
        expected = features.of_trace(
            Observation(*found.observations.T), run.steps, np.log(levels.mean())
        )
        np.testing.assert_allclose(found.features, expected, rtol=1e-4, atol=1e-4)


def test_thinned_runs_teach_the_same(tmp_path):
    """A fit sees the same steps, features and targets of a whole and a thinned run."""
    about = {"sweep_id": 1, "seed": 0, "task": "t", "depth": 0, "width": 0}
    about["problem"] = "linear"
    runs = [
        draw_raw(200, seed)._replace(
            about=about | {"kind": "peak", "peak": 1e-3 * 4**seed, "base_rate": 1e-3},
            evaluations=[{"step": 0, "eval_loss": 1.0}, {"step": 200, "eval_loss": x}],
        )
        for seed, x in enumerate((0.9, 0.5, 2.0))
    ]
    trace_files.write(tmp_path / "whole.parquet", runs)
    whole = trace_files.read(tmp_path / "whole.parquet")
    trace_files.write(tmp_path / "thin.parquet", traces.thin(whole))
    thinned = trace_files.read(tmp_path / "thin.parquet")
    assert {run.steps for run in thinned} == {11 + traces.LATE}
    trace_files.thin_folder(tmp_path, tmp_path / "shipped")
    again = trace_files.read(tmp_path / "shipped" / "whole.parquet")
    assert [run.steps for run in again] == [run.steps for run in thinned]
    ours, theirs = labels.examples(thinned), labels.examples(whole)
    for name in ("step", "target", "weight", "features", "run"):
        one, other = getattr(ours, name), getattr(theirs, name)
        if name in ("step", "run"):
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_held_run_has_every_step_and_those_that_were_kept_unchanged():
    run = draw(100)._replace(about={"horizon": 100})
    (thinned,) = traces.thin([run])
    full = traces.held(thinned)
    assert full.steps == 100 and full.step is None
    np.testing.assert_array_equal(full.features[thinned.step], thinned.features)
    np.testing.assert_array_equal(full.loss[98], run.loss[thinned.step[-2]])
    assert traces.held(run) is run


def test_thinned_file_that_names_a_step_before_the_first_update_is_refused(tmp_path):
    run = traces.thin([draw(30)])[0]
    broken = run._replace(step=run.step - 1)
    trace_files.write(tmp_path / "a.parquet", [broken])
    with pytest.raises(MetalrError, match="column step"):
        trace_files.read(tmp_path / "a.parquet")


def test_observations_outlive_another_version_of_the_features(tmp_path):
    trace_files.write(tmp_path / "a.parquet", [draw_raw(5)])
    spoil(tmp_path / "a.parquet", "other version")
    (found,) = trace_files.read(tmp_path / "a.parquet")
    assert found.features.shape == (5, len(FEATURES))


def test_other_observations_are_refused_by_name(tmp_path):
    trace_files.write(tmp_path / "a.parquet", [draw_raw(5)])
    spoil(tmp_path / "a.parquet", "other observations")
    with pytest.raises(MetalrError, match="phase_of_the_moon"):
        trace_files.read(tmp_path / "a.parquet")


def test_features_written_again_keep_every_bit(folder):
    once = trace_files.read(folder / "b.parquet")
    trace_files.write(folder / "c.parquet", once)
    (twice,) = trace_files.read(folder / "c.parquet")
    np.testing.assert_array_equal(once[0].features, twice.features)


def test_file_is_plain_parquet_for_others(folder):
    table = parquet.read_table(folder / "a.parquet")
    assert table["step"].to_pylist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert table["run"].to_pylist() == [0] * 5 + [1] * 3
    assert all(table.schema.field(name).type == pa.float32() for name in NAMES)


def test_rows_take_little_more_than_half_of_float32(tmp_path):
    trace_files.write(tmp_path / "a.parquet", [draw(20_000)])
    size = (tmp_path / "a.parquet").stat().st_size
    assert size < 0.65 * 4 * 20_000 * (len(FEATURES) + 3)


def test_head_that_fills_the_memory_is_refused(folder):
    table = parquet.read_table(folder / "a.parquet")
    packed = base64.b85encode(zlib.compress(b" " * (65 * 2**20), 9))
    table = table.replace_schema_metadata({b"metalr.traces": packed})
    parquet.write_table(table, folder / "a.parquet")
    with pytest.raises(MetalrError, match="head has more than"):
        trace_files.read(folder / "a.parquet")


def test_nan_loss_survives(tmp_path):
    run = draw(3)._replace(loss=np.array([1, np.nan, np.inf], np.float32))
    trace_files.write(tmp_path / "a.parquet", [run])
    (found,) = trace_files.read(tmp_path / "a.parquet")
    np.testing.assert_array_equal(found.loss, run.loss)


def test_arrays_of_different_lengths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one row a step"):
        trace_files.write(tmp_path / "a.parquet", [draw(3)._replace(loss=np.zeros(2))])
    assert not list(tmp_path.iterdir())


def spoil(path, kind):
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "not Parquet":
        path.write_text("no parquet")
    elif kind == "foreign":
        parquet.write_table(pa.table({"x": [1]}), path)
    else:
        table = parquet.read_table(path)
        packed = table.schema.metadata[b"metalr.traces"]
        header = json.loads(zlib.decompress(base64.b85decode(packed)))
        if kind == "other version":
            header["feature_version"] += 1
        elif kind == "other features":
            header["features"][0] = "phase_of_the_moon"
        elif kind == "other observations":
            header["observations"][0] = "phase_of_the_moon"
        elif kind == "runs missing":
            header["runs"] = header["runs"][1:]
        packed = base64.b85encode(zlib.compress(json.dumps(header).encode()))
        metadata = {b"metalr.traces": packed}
        parquet.write_table(table.replace_schema_metadata(metadata), path)


SPOILT = [
    ("cut off", "cut off"),
    ("not Parquet", "not Parquet that can be read"),
    ("foreign", "does not hold traces"),
    ("other version", "numbers of this metalr, version"),
    ("other features", "phase_of_the_moon"),
    ("runs missing", "does not hold traces"),
]


@pytest.mark.parametrize(("kind", "message"), SPOILT)
def test_broken_or_foreign_file_is_refused_by_name(folder, kind, message):
    spoil(folder / "a.parquet", kind)
    with pytest.raises(MetalrError, match=f"(?s)a.parquet.*{message}|{message}.*a.par"):
        trace_files.read_all(trace_files.paths_in(folder))


@pytest.mark.parametrize(("kind", "message"), SPOILT)
def test_rest_is_read_when_told_to(folder, kind, message):
    spoil(folder / "a.parquet", kind)
    told = []
    used, (run,) = trace_files.read_all(trace_files.paths_in(folder), skip=told.append)
    assert used == [folder / "b.parquet"]
    assert run.about["seed"] == 2
    assert len(told) == 1 and message in told[0]


def test_keys_of_older_files_have_their_present_names(tmp_path):
    old = draw(5)._replace(about={"bank_id": 3, "prior": "cosine"})
    trace_files.write(tmp_path / "bank-00003.parquet", [old])
    (found,) = trace_files.read(tmp_path / "bank-00003.parquet")
    assert found.about == {"sweep_id": 3, "decay": "cosine"}


def test_folder_without_traces_is_a_fault(tmp_path):
    with pytest.raises(MetalrError, match="holds traces .*holds none"):
        trace_files.read_all(trace_files.paths_in(tmp_path))


def test_digest_tells_contents_and_names_apart(folder):
    a, b = trace_files.paths_in(folder)
    before = files.checksum([a, b])
    assert files.checksum([a, b]) == before
    assert files.checksum([a]) != before
    b.rename(folder / "c.parquet")
    assert files.checksum(trace_files.paths_in(folder)) != before


def test_thin_keeps_encoders_whole_and_touches_no_other_folder(tmp_path):
    about = {"sweep_id": 1, "seed": 0, "task": "t", "depth": 0, "width": 0}
    own, target = tmp_path / "own", tmp_path / "thin"
    own.mkdir()
    for name, more in (("encoder", {}), ("zoo", {"problem": "linear"})):
        runs = [draw_raw(200)._replace(about=about | more)]
        trace_files.write(own / f"{name}.parquet", runs)
    trace_files.thin_folder(own, target)
    steps = {
        path.stem: trace_files.read(path)[0].steps
        for path in trace_files.paths_in(target)
    }
    assert steps == {"encoder": 200, "zoo": 11 + traces.LATE}
    with pytest.raises(MetalrError, match="another folder"):
        trace_files.thin_folder(own, own)
    (own / "zoo.parquet").unlink()
    with pytest.raises(MetalrError, match="holds other traces"):
        trace_files.thin_folder(own, target)
