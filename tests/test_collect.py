"""Banks are drawn, run and kept so that nothing is lost, done twice or made up."""

import dataclasses
import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr import (
    banks,
    collect,
    executors,
    loop,
    optax_schedule,
    recipe,
    record,
    schedulers,
    traces,
)
from metalr.config import RunConfig
from metalr.controller import MAX_MULTIPLIER
from metalr.errors import MetalrError
from metalr.features import FEATURES
from metalr.models import heads, huggingface
from metalr.predictor import init_predictor

SOURCES = banks.Sources(
    tasks=("sst2", "rte"), models=("minilm:1", "minilm:2"), data="toy"
)
PLAIN = {"dropout": 0.0, "rescaled": 0.0, "frozen": False, "shuffled": False}


def draw(**changes):
    return banks.draw(0, SOURCES, seed=0)._replace(**changes)


# ------------------------------------------------------------------ banks


def test_same_index_draws_the_same_bank_and_another_index_another():
    drawn = [banks.draw(index, SOURCES, 3) for index in range(20)]
    assert drawn == [banks.draw(index, SOURCES, 3) for index in range(20)]
    assert len({bank.seed for bank in drawn}) == 20
    assert drawn[0] != banks.draw(0, SOURCES, 4)


def test_draws_reach_every_choice_and_tasks_take_turns():
    drawn = [banks.draw(index, SOURCES, 0) for index in range(200)]
    assert [bank.task for bank in drawn[:4]] == ["sst2", "rte", "sst2", "rte"]
    for name, choices in {
        "model": SOURCES.models,
        "horizon": SOURCES.horizons,
        "prior": banks.PRIORS,
        "frozen": (False, True),
        "shuffled": (False, True),
    }.items():
        assert {getattr(bank, name) for bank in drawn} == set(choices)
    shares = np.mean([[b.frozen, b.shuffled, b.rescaled > 0] for b in drawn], axis=0)
    np.testing.assert_allclose(shares, [0.15, 0.1, 0.3], atol=0.1)


def test_peaks_span_seven_octaves_evenly():
    octaves = np.diff(np.log2(draw().peaks))
    np.testing.assert_allclose(octaves, 7 / 6, atol=0.01)


@pytest.mark.parametrize("horizon", [1, 9, 100])
def test_linear_prior_is_the_schedule_that_metalr_multiplies(horizon):
    bank = draw(prior="linear", horizon=horizon, warmup=horizon // 10)
    schedule = optax_schedule.default_schedule(1.0, total_steps=horizon)
    np.testing.assert_allclose(
        banks.prior(bank), jax.vmap(schedule)(jnp.arange(horizon)), rtol=1e-6
    )


def test_cosine_prior_is_that_of_the_scheduler_table():
    plan = schedulers.Plan(1.0, total_steps=100, warmup_steps=30)
    bank = draw(prior="cosine", horizon=100, warmup=30)
    expected = jax.vmap(schedulers._cosine(plan))(jnp.arange(100))
    np.testing.assert_allclose(banks.prior(bank), expected, atol=1e-6)


def test_run_at_a_peak_has_that_peak_from_any_base_rate():
    bank = draw()
    plans = banks.plans(banks.Job(bank))
    assert [plan.about["kind"] for plan in plans] == ["peak"] * 7 + ["walk"] * 2
    for plan, peak in zip(plans, bank.peaks, strict=False):
        np.testing.assert_allclose(
            plan.rate * np.exp(plan.explore), peak * banks.prior(bank), rtol=1e-4
        )
        assert abs(np.log2(plan.about["base_rate"] / peak)) <= 7
    assert len({plan.about["base_rate"] for plan in plans}) == 9


@pytest.mark.parametrize("seed", range(5))
def test_walk_stays_between_the_peaks_and_within_the_bounds_of_the_multiplier(seed):
    bank = draw(seed=seed, prior="constant", warmup=0)
    for plan in banks.plans(banks.Job(bank))[7:]:
        rate = plan.rate * np.exp(plan.explore)
        assert bank.peaks[0] * 0.99 < rate.min() < rate.max() < bank.peaks[-1] * 1.01
        assert np.abs(plan.explore).max() < np.log(MAX_MULTIPLIER)


def test_policy_starts_from_rates_over_three_decades_and_explores_every_other_time():
    plans = banks.plans(banks.Job(draw(), 1, init_predictor(), 200))
    bases = np.log10([plan.about["base_rate"] for plan in plans])
    assert -6 <= bases.min() < -5.8 and -2.9 < bases.max() <= -2.7
    explored = [bool(np.any(plan.explore)) for plan in plans]
    assert explored == [False, True] * 100


# ------------------------------------------------------------------ one run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A BERT so small that it compiles in a second or two."""
    found = huggingface.load("minilm:1", "classification", ("a", "b"), seed=0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = dataclasses.replace(found.config, **sizes)
    graphdef, params = heads.build(config, "classification", 2, seed=0)
    folder = tmp_path_factory.mktemp("tiny")
    found = found._replace(config=config, graphdef=graphdef, params=params)
    huggingface.export(folder, found, "classification", ("a", "b"))
    return str(folder)


@pytest.fixture(scope="module")
def bank(tiny):
    return draw(
        **PLAIN,
        model=tiny,
        batch=4,
        length=16,
        horizon=9,
        prior="linear",
        warmup=0,
        evaluations=3,
        validation_rows=20,
        shapes=1,
    )


@pytest.fixture(scope="module")
def opened(bank):
    return record.open_bank(bank)


@pytest.fixture(scope="module")
def runs(bank, opened):
    return [record.take(opened, plan) for plan in banks.plans(banks.Job(bank))]


def test_all_runs_of_a_bank_share_one_compilation(bank, opened, runs):
    moving = init_predictor()._replace(gain=np.float32(1))
    policy = banks.plans(banks.Job(bank, 1, moving, 2))
    assert all(record.take(opened, plan) is not None for plan in policy)
    assert len(runs) == 9
    assert opened.step._cache_size() == 1


def test_losses_are_those_of_adamw_at_the_same_rates(bank, runs):
    prepared = recipe.prepare(
        RunConfig(
            task=bank.task,
            model=bank.model,
            data=bank.data,
            batch_size=bank.batch,
            max_steps=bank.horizon,
            epochs=9.0,
            max_length=bank.length,
            dropout=0.0,
            seed=bank.seed,
        ),
        data=record._rows(bank),
        max_shapes=1,
    )
    tx = optax.inject_hyperparams(schedulers.adamw(0.01, 1.0))(
        learning_rate=lambda count: jnp.asarray(runs[3].rate)[count]
    )
    step = loop.make_step(prepared.problem.loss_fn, tx, accumulate=1)
    params = prepared.problem.params
    state = loop.start(params, tx.init(params), bank.seed)
    losses = []
    for index in range(bank.horizon):
        state, logged = step(state, prepared.problem.batches.batch(index))
        losses.append(float(logged["loss"]))
    np.testing.assert_allclose(runs[3].loss, losses, rtol=1e-5)


def test_what_is_recorded_is_the_plan(bank, runs):
    for run, plan in zip(runs, banks.plans(banks.Job(bank)), strict=True):
        np.testing.assert_allclose(run.multiplier, np.exp(plan.explore), rtol=1e-5)
        np.testing.assert_allclose(run.rate, plan.rate * run.multiplier, rtol=1e-5)
        assert [row["step"] for row in run.evaluations] == [0, 3, 6, 9]
        assert run.about["base_rate"] == plan.about["base_rate"]
        assert (run.about["depth"], run.about["width"]) == (1, 16)


def test_features_see_the_multiplier_of_the_step_before(runs):
    column = [row.name for row in FEATURES].index("multiplier")
    for run in runs:
        before = np.concatenate([[1.0], run.multiplier[:-1]])
        np.testing.assert_allclose(run.features[:, column], np.log(before), atol=1e-5)


def test_runs_of_a_bank_start_alike(runs):
    assert len({run.loss[0] for run in runs}) == 1
    assert len({run.evaluations[0]["eval_loss"] for run in runs}) == 1


def test_stop_leaves_a_run_at_the_next_step(bank, opened):
    assert record.take(opened, banks.plans(banks.Job(bank))[0], lambda: True) is None


PARAMS = {
    "encoder": {"embeddings": {"words": jnp.arange(6.0).reshape(3, 2)}},
    "out": {"kernel": jnp.arange(4.0).reshape(2, 2)},
}


def parabola(params, batch, key):
    return sum(jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(params))


def test_rescaled_parameters_have_the_same_loss_and_gradients_by_their_scales():
    bank = draw(**PLAIN | {"rescaled": 0.6})
    params, loss_fn, plain = record._disguised(bank, PARAMS, parabola)
    jax.tree.map(np.testing.assert_allclose, plain(params), PARAMS)
    (loss, grads) = jax.value_and_grad(loss_fn)(params, {}, None)
    assert float(loss) == pytest.approx(float(parabola(PARAMS, {}, None)))
    scale = PARAMS["out"]["kernel"][0, 1] / params["out"]["kernel"][0, 1]
    expected = scale * jax.grad(parabola)(PARAMS, {}, None)["out"]["kernel"]
    np.testing.assert_allclose(grads["out"]["kernel"], expected, rtol=1e-5)


def test_frozen_embeddings_get_no_gradient_and_the_rest_all():
    bank = draw(**PLAIN | {"frozen": True})
    params, loss_fn, _ = record._disguised(bank, PARAMS, parabola)
    grads = jax.grad(loss_fn)(params, {}, None)
    assert not np.any(grads["encoder"]["embeddings"]["words"])
    expected = jax.grad(parabola)(PARAMS, {}, None)["out"]["kernel"]
    np.testing.assert_allclose(grads["out"]["kernel"], expected)


def test_shuffled_weights_keep_their_values_within_a_leaf():
    params, _, _ = record._disguised(
        draw(**PLAIN | {"shuffled": True}), PARAMS, parabola
    )
    words = params["encoder"]["embeddings"]["words"]
    assert not np.array_equal(words, PARAMS["encoder"]["embeddings"]["words"])
    np.testing.assert_array_equal(np.sort(np.ravel(words)), np.arange(6))


# ------------------------------------------------------------------ files


@pytest.fixture
def counted(monkeypatch):
    """Runs that take no time, counted."""
    taken = []

    def take(opened, plan, stop=lambda: False):
        if stop():
            return None
        taken.append(plan.about)
        n = opened.horizon
        return traces.Run(
            {**json.loads(json.dumps(opened._asdict())), **plan.about, "seconds": 0.0},
            [{"step": 0, "eval_loss": 0.7}, {"step": n, "eval_loss": None}],
            np.zeros((n, len(FEATURES)), np.float32),
            plan.rate * np.exp(plan.explore),
            np.exp(plan.explore),
            plan.rate,
        )

    monkeypatch.setattr(record, "open_bank", lambda bank: bank)
    monkeypatch.setattr(record, "take", take)
    return taken


def after(calls):
    count = iter(range(10**6))
    return lambda: next(count) >= calls


def jobs(count=3, **changes):
    drawn = [banks.draw(index, SOURCES, 0) for index in range(count)]
    return [banks.Job(bank._replace(**changes)) for bank in drawn]


def collected(todo, output, **kwargs):
    return collect.collect(todo, output, workers=1, **kwargs)


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
    for path in traces.files(tmp_path / "whole" / "traces"):
        assert (
            tmp_path / "cut" / "traces" / path.name
        ).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "cut" / "parts").iterdir())


def test_runs_of_a_bank_in_progress_are_not_counted_as_missing(counted, tmp_path):
    collected(jobs(1), tmp_path, stop=after(8))
    done = len(list((tmp_path / "parts").iterdir()))
    assert 0 < done < 9
    assert collect.missing(jobs(), tmp_path) == 27 - done


def test_parts_left_by_a_kill_after_the_bank_was_written_go_away(counted, tmp_path):
    collected(jobs(1), tmp_path)
    left = tmp_path / "parts" / "bank-00000-00.parquet"
    left.write_bytes((tmp_path / "traces" / "bank-00000.parquet").read_bytes())
    assert collected(jobs(1), tmp_path)
    assert not left.exists() and len(counted) == 9


def test_folder_of_other_banks_is_refused(counted, tmp_path):
    collected(jobs(), tmp_path)
    with pytest.raises(MetalrError, match=r"other settings \(horizon\).*--output"):
        collected(jobs(horizon=7), tmp_path)


def test_time_that_is_up_begins_no_bank(counted, tmp_path):
    assert not collected(jobs(), tmp_path, seconds=-1.0)
    assert not counted


def test_round_has_files_of_its_own(counted, tmp_path):
    job = banks.Job(draw(), 2, init_predictor(), 3)
    assert collected([*jobs(1), job], tmp_path)
    names = [path.name for path in traces.files(tmp_path / "traces")]
    assert names == ["bank-00000.parquet", "round-2-bank-00000.parquet"]
    found = traces.read(tmp_path / "traces" / names[1])
    assert [(run.about["round"], run.about["run"]) for run in found] == [
        (2, 0),
        (2, 1),
        (2, 2),
    ]


def test_progress_is_plain_lines_without_a_terminal(counted, tmp_path, capsys):
    collected(jobs(1), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1/9 runs") and "min left" in lines[0]
    assert lines[-1].startswith("9/9 runs") and "bank-00000 sst2" in lines[-1]


# ------------------------------------------------------------------ processes


def test_fault_in_a_process_reaches_the_user(tmp_path):
    todo = jobs(2, model="minilm:7")
    with pytest.raises(MetalrError, match="minilm:7"):
        collect.collect(todo, tmp_path, workers=2)


def test_stop_ends_the_processes_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "_PATIENCE", 1.0)
    # Not Python's own: in the background a shell may have had SIGINT ignored.
    before = signal.getsignal(signal.SIGINT)
    assert not collect.collect(jobs(2), tmp_path, workers=2, stop=lambda: True)
    assert signal.getsignal(signal.SIGINT) is before


# ------------------------------------------------------------------ Ray

# Kills the worker of the run that is kept second, and has the other one go on.
KILLS_A_WORKER = """
import os, pickle, signal, sys
from pathlib import Path
from metalr import collect, traces

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
write = traces.write

def counting(path, runs):
    write(path, runs)
    written.append(path.name)
    if len(written) == 2:
        os.kill(next(workers()), signal.SIGKILL)
        print("killed")

traces.write = counting
assert collect.collect(jobs, output, executor="ray", workers=2)
print(*written)
"""


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or not Path("/proc/self/environ").exists(),
    reason="Ray is not installed, or processes cannot be told apart",
)
def test_ray_worker_killed_in_a_run_loses_no_trace_and_doubles_none(bank, tmp_path):
    todo = [
        banks.Job(bank._replace(bank_id=i, peaks=bank.peaks[:4], walks=0))
        for i in (0, 1)
    ]
    (tmp_path / "jobs").write_bytes(pickle.dumps(todo))
    root = Path(__file__).parents[1]
    mark = str(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLS_A_WORKER]
        + [str(tmp_path / "jobs"), str(tmp_path / "out"), mark],
        env={**os.environ, "PYTHONPATH": str(root), "MARK": mark},
        check=True,
        capture_output=True,
        text=True,
        timeout=400,
    )
    lines = ended.stdout.splitlines()
    assert "killed" in lines
    names = [f"{job.name}-{run:02d}.parquet" for job in todo for run in range(4)]
    wholes = [f"{job.name}.parquet" for job in todo]
    assert sorted(lines[-1].split()) == sorted(names + wholes)
    found = traces.read_all(traces.files(tmp_path / "out" / "traces"))[1]
    assert [(run.about["bank_id"], run.about["run"]) for run in found] == [
        (i, run) for i in (0, 1) for run in range(4)
    ]
    assert not list((tmp_path / "out" / "parts").iterdir())
