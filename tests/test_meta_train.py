"""Labels say what hindsight says, and the fit finds what is in them, every time."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train_meta
from metalr import banks, collect, labels, meta_train, traces
from metalr.errors import MetalrError
from metalr.features import FEATURES
from metalr.predictor import apply, load_predictor, read_metadata, unusual

ROOT = Path(__file__).parents[1]
NAMES = [row.name for row in FEATURES]
QUICK = meta_train.Settings(steps=200, batch=256)
STEPS = 30


def run(peak, outcome, *, offset=0.0, kind="peak", seed=0, **about):
    """One run whose slope tells where the best rate, 2**-11 here, lies."""
    rng = np.random.default_rng([seed, int(1e4 * (20 + np.log2(peak)))])
    features = rng.normal(size=(STEPS, len(NAMES))).astype(np.float32)
    features[:, NAMES.index("slope")] = np.tanh((-11 - np.log2(peak)) / 3)
    features[:, NAMES.index("slope")] += 0.1 * rng.normal(size=STEPS)
    features[:, NAMES.index("horizon_known")] = 1
    about = {
        "kind": kind,
        "base_rate": peak * 2**-offset,
        "bank_id": 0,
        "task": "sst2",
        "model": "minilm:1",
        "depth": 1,
        "width": 384,
        "origin": "toy",
        "seed": seed,
    } | about
    if kind == "peak":
        about["peak"] = peak
    return traces.Run(
        about,
        [{"step": 0, "eval_loss": 0.5}, {"step": STEPS, "eval_loss": outcome / 2}],
        features,
        np.full(STEPS, peak, np.float32),
        np.full(STEPS, 2**offset, np.float32),
        np.ones(STEPS, np.float32),
    )


def bank(bank_id=0, best=-11.0, depth=0.05, **about):
    """Five peaks, J rising by `depth` per octave off the best."""
    rng = np.random.default_rng(bank_id)
    return [
        run(
            2.0**log2,
            0.5 + depth * abs(log2 - best),
            offset=rng.uniform(-5, 5),
            seed=bank_id,
            bank_id=bank_id,
            **about,
        )
        for log2 in np.linspace(-14.5, -7.5, 5)
    ]


@pytest.fixture(scope="module")
def runs():
    return [
        run
        for i in range(12)
        for run in bank(i, task=("sst2", "qqp", "rte")[i % 3], depth=0.05)
    ]


# ------------------------------------------------------------------ labels


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.5], 0.5),
        ([2.0, 1.0, 0.5], 0.3125),
        ([1.0, 2.0, None], np.inf),
        ([None, 1.0], np.inf),
        ([1.0], np.inf),
    ],
)
def test_outcome_is_half_the_mean_half_the_last_over_the_first(losses, expected):
    assert labels.outcome([{"eval_loss": loss} for loss in losses]) == expected


@pytest.mark.parametrize("best", [-12.75, -11.0, -9.25])
def test_best_peak_of_a_parabola_is_found(best):
    peaks = np.linspace(-14.5, -7.5, 5)
    of = [run(2.0**x, 0.4 + 0.03 * (x - best) ** 2) for x in peaks]
    assert labels.judge(of).log2_best == pytest.approx(best, abs=0.3)


def test_peaks_that_are_as_good_share_the_label():
    of = [run(2.0**-12, 0.5), run(2.0**-10, 0.5), run(2.0**-8, 1.0)]
    assert labels.judge(of).log2_best == pytest.approx(-11, abs=0.01)


def test_run_that_diverged_neither_wins_nor_hides_the_others():
    of = bank()
    of[-1].evaluations[-1]["eval_loss"] = None
    found = labels.judge(of)
    assert found.log2_best == pytest.approx(-11, abs=0.3) and np.isfinite(found.signal)


def test_signal_is_of_what_is_won_and_not_of_what_is_lost():
    learns = labels.judge(bank()).signal
    flat = labels.judge([run(2.0**x, 1.0) for x in (-12, -10, -8)]).signal
    only_harm = labels.judge(
        [run(2.0**-12, 0.999), run(2.0**-10, 1.0), run(2.0**-8, 3.0)]
    ).signal
    assert learns > 0.9 and flat < 0.01 and only_harm < 0.01


def test_target_is_how_far_the_step_before_was_off():
    of = bank()
    found = labels.examples(of, unknown_horizon=0)
    target = found.target.reshape(5, STEPS)
    best = labels.judge(of).log2_best
    for row, made in zip(target, of, strict=True):
        # At the first step, the multiplier is still 1.
        assert row[0] == pytest.approx(
            np.clip(best - np.log2(made.about["base_rate"]), -6, 6)
        )
        off = best - np.log2(made.about["peak"])
        np.testing.assert_allclose(row[1:], np.clip(off, -6, 6), atol=1e-5)


def test_walk_and_policy_are_judged_by_the_peaks_of_their_bank():
    of = [*bank(), run(2.0**-9, 0.1, kind="policy")]
    found = labels.examples(of, unknown_horizon=0)
    best = labels.judge(bank()).log2_best
    np.testing.assert_allclose(found.target[-STEPS:], best + 9, atol=1e-5)


def test_banks_count_by_signal_and_not_by_their_steps():
    weak = [run(2.0**x, 1.0, bank_id=1) for x in (-12, -10)]
    found = labels.examples([*bank(), *weak, *bank(2), *bank(2)])
    weight = [found.weight[: 5 * STEPS], found.weight[5 * STEPS : 7 * STEPS]]
    twice = found.weight[7 * STEPS :]
    assert weight[1].sum() < 0.01 * weight[0].sum()
    assert twice.sum() == pytest.approx(weight[0].sum(), rel=0.01)


def test_traces_without_a_whole_bank_are_a_fault():
    with pytest.raises(MetalrError, match="no whole bank"):
        labels.examples([run(1e-4, 0.5, kind="policy")])


@pytest.mark.parametrize(
    ("rows", "about"),
    [
        ([{"step": 0}, {"step": 6, "eval_loss": 0.1}], {}),
        ([{"eval_loss": 10**400}, {"eval_loss": 0.1}], {}),
        ([{"eval_loss": True}, {"eval_loss": "x"}], {}),
        ([{"eval_loss": 1.0}, {"eval_loss": 0.1}], {"peak": 10**400}),
    ],
)
def test_run_without_what_labels_are_made_of_is_one_clear_line(rows, about):
    bad = run(1e-4, 0.5)
    bad = bad._replace(evaluations=rows, about=bad.about | about)
    with pytest.raises(MetalrError, match="lacks a usable"):
        labels.examples([*bank(), bad])


# ------------------------------------------------------------------ the fit


def test_fit_finds_the_direction(runs):
    data = meta_train.label(runs, QUICK)
    found = meta_train.score(meta_train.fit(data, QUICK), data)
    assert found["sign"] > 0.95
    assert found["rmse"] < 0.6 * found["still"]


def test_fit_gives_the_same_bits_again(runs):
    data = meta_train.label(runs, QUICK)
    first, second = (meta_train.fit(data, QUICK) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_examples_that_are_left_out_change_nothing(runs):
    data = meta_train.label(runs, QUICK)
    kept = data.task != "rte"
    spoilt = data._replace(
        target=np.where(kept, data.target, 99.0),
        features=np.where(kept[:, None], data.features, 7.0).astype(np.float32),
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        meta_train.fit(data, QUICK, kept=kept),
        meta_train.fit(spoilt, QUICK, kept=kept),
    )


def test_hidden_feature_changes_no_answer_and_is_never_unusual(runs):
    settings = QUICK._replace(hidden=("slope",))
    data = meta_train.label(runs, settings)
    predictor = meta_train.fit(data, settings)
    usual = jnp.array(predictor.mean)
    other = usual.at[NAMES.index("slope")].set(1.0)
    assert not unusual(predictor, usual) and not unusual(predictor, other)
    assert apply(predictor, usual) == apply(predictor, other)
    assert meta_train.score(predictor, data)["sign"] < 0.8  # slope was all there was


def test_run_of_unknown_length_is_not_unusual(runs):
    data = meta_train.label(runs, QUICK)
    clock = [NAMES.index(n) for n in ("progress", "horizon_known", "horizon")]
    hidden = ~np.any(data.features[:, clock], axis=1)
    assert 0.1 < hidden.mean() < 0.2
    predictor = meta_train.fit(data, QUICK)
    assert not unusual(predictor, jnp.array(predictor.mean).at[np.array(clock)].set(0))


def test_unknown_hidden_feature_is_a_fault(runs):
    data = meta_train.label(runs, QUICK)
    with pytest.raises(MetalrError, match="no such feature: phase_of_the_moon"):
        meta_train.fit(data, QUICK._replace(hidden=("phase_of_the_moon",)))


def test_table_has_a_row_for_each_task_left_out(runs):
    rows = meta_train.leave_one_out(meta_train.label(runs, QUICK), "task", QUICK)
    assert [row["out"] for row in rows] == ["qqp", "rte", "sst2"]
    assert all(row["sign"] > 0.9 for row in rows)  # the tasks are alike here
    assert not meta_train.leave_one_out(meta_train.label(runs), "size", QUICK)


# ------------------------------------------------------------------ files and rounds


@pytest.fixture
def folder(runs, tmp_path):
    where = tmp_path / "traces"
    where.mkdir()
    for i in range(12):
        traces.write(where / f"bank-{i:05d}.parquet", runs[5 * i : 5 * i + 5])
    return where


def test_refit_from_the_files_gives_the_saved_weights(folder, tmp_path):
    made = meta_train.make(traces.files(folder), QUICK, check=False)
    meta_train.save(tmp_path / "predictor", made)
    again = meta_train.make(traces.files(folder), QUICK, check=False)
    loaded = load_predictor(tmp_path / "predictor")
    jax.tree.map(np.testing.assert_array_equal, again.predictor, loaded)
    about = read_metadata(tmp_path / "predictor")["provenance"]
    assert about["traces"]["sha256"] == traces.digest(traces.files(folder))
    assert about["runs by task"] == {"qqp": 20, "rte": 20, "sst2": 20}
    assert about["check"]["trained"][0]["steps"] == 12 * 5 * STEPS


def test_script_fits_to_traces_alone(folder, tmp_path, monkeypatch, capsys):
    quick = functools.partial(meta_train.Settings, steps=50, batch=64)
    monkeypatch.setattr(meta_train, "Settings", quick)
    output = tmp_path / "output"
    flags = ["--traces", str(folder), "--output", str(output), "--skip-broken"]
    monkeypatch.setattr(sys, "argv", ["train_meta.py", *flags])
    (folder / "foreign.parquet").write_text("no parquet")
    assert train_meta.main() == 0
    printed = capsys.readouterr().out
    assert "foreign.parquet is not Parquet" in printed
    assert "| task qqp |" in printed
    load_predictor(output / "predictor")


def test_round_runs_the_predictor_of_the_rounds_before_on_banks_that_tell(
    folder, monkeypatch
):
    flat = [run(2.0**x, 1.0, bank_id=12) for x in (-12, -10)]
    traces.write(folder / "bank-00012.parquet", flat)
    asked = []

    def fake_collect(jobs, output, **options):
        asked.append(jobs)
        for job in jobs:
            if job.round:
                found = [run(2.0**-9, 0.5, kind="policy", bank_id=job.bank.bank_id)]
                traces.write(output / "traces" / f"{job.name}.parquet", found)
        return True

    monkeypatch.setattr(collect, "collect", fake_collect)
    monkeypatch.setattr(
        meta_train, "fit", lambda data, settings: len(data.target) // STEPS
    )
    sources = banks.Sources(("sst2",), ("minilm:1",), "toy")
    chosen = [banks.draw(index, sources, 0) for index in range(13)]
    for _ in range(2):  # started again, it goes on with the same predictors
        assert meta_train.gather(chosen, folder.parent, rounds=2)
        own, first, second = asked
        assert [job.round for job in own] == [0] * 13
        assert [job.bank.bank_id for job in first] == list(range(12))
        assert {job.predictor for job in first} == {62}
        assert {job.predictor for job in second} == {62 + 12}
        asked.clear()


def test_shipped_traces_give_the_shipped_weights():
    paths = traces.files(ROOT / "checkpoints/traces")
    told = read_metadata(None)["provenance"]
    assert traces.digest(paths) == told["traces"]["sha256"]
    _, runs = traces.read_all(paths)
    assert len(runs) == told["runs"]
    found = meta_train.fit(meta_train.label(runs))
    ours, theirs = (jax.tree.leaves(p) for p in (found, load_predictor()))
    # Bit for bit on the machine that it was fitted on.
    for mine, shipped in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, shipped, atol=1e-4)
