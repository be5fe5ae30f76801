"""The table of a probe's knowledge, on sweeps whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalr.features import NAMES
from metalr.finding.probe import NO_GUESS
from metalr.meta import forecasts, peak_curves, probe_table, replays, traces
from metalr.optax_schedule import inject
from metalr.predictor import init_predictor


def run(peak, losses, **about):
    steps = 40
    return traces.Run(
        about={"sweep_id": 1, "task": "t", "kind": "peak", "peak": peak, "seed": 0,
               "base_rate": peak, "depth": 2, "width": 8, "shape": "linear", **about},
        evaluations=[
            {"step": k * steps // 2, "eval_loss": x, "accuracy": 1 - x / 2}
            for k, x in enumerate(losses)
        ],
        features=np.zeros((steps, len(NAMES)), np.float32),
        rate=np.full(steps, peak, np.float32),
        multiplier=np.ones(steps, np.float32),
        loss=np.linspace(losses[0], losses[-1], steps).astype(np.float32),
    )  # fmt: skip


def parabola(best=-6.0):
    """Make a sweep whose log loss falls by 2 at its best, by 0.2 less 2 octaves off."""
    peaks = np.arange(-10.0, -1.0)
    falls = 2 - 0.05 * (peaks - best) ** 2
    return [run(2.0**p, [1, np.exp(-f), np.exp(-f)]) for p, f in zip(peaks, falls)]  # noqa: B905


def test_costs_and_the_best_peak_of_a_parabola_are_its_own():
    (sweep,) = peak_curves.curves(parabola())
    assert sweep.best == pytest.approx(-6.0, abs=0.01)
    lost = probe_table.lost([sweep])
    for way in ("4x lower", "4x higher"):
        np.testing.assert_allclose(lost[way], 0.1, atol=1e-3)


def test_only_runs_that_end_well_make_forecasts():
    runs = parabola()
    good = forecasts.good_runs(runs, peak_curves.curves(runs))
    off = [abs(np.log2(run.peak) + 6) for _, run in good]
    # A quarter of what the rate decides, 0.05 * 4^2, is lost two octaves off.
    assert sorted(off) == [0, 1, 1, 2, 2]


def test_a_forecast_recovers_a_line_and_its_error_that_of_left_out_groups():
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 3, 200)
    group = rng.integers(5, size=200).astype(str)
    rows = [
        forecasts.Row(g, np.array([v]), 0.7 * v + e)
        for g, v, e in zip(group, x, rng.normal(0, 0.1, 200), strict=True)
    ]
    # One in twenty learned late: they do not bend the line.
    rows[::20] = [row._replace(target=9.0) for row in rows[::20]]
    found = forecasts.forecast(rows)
    assert found is not None
    assert found["weights"][0] == pytest.approx(0.7, abs=0.02)
    assert found["error"] == pytest.approx(0.1 * 1.28, abs=0.06)
    assert forecasts.forecast(rows[:8]) is None
    of_one = [row._replace(group="sst2") for row in rows]
    assert forecasts.forecast(of_one) is None  # nothing to leave out


@pytest.mark.parametrize("wrong", [0.5, 1.0, 3.0])
def test_scaled_intervals_cover_what_they_promise(wrong):
    rng = np.random.default_rng(1)
    errors = rng.normal(0, 1, 4000) * wrong
    scale = probe_table._scale(errors, np.ones(4000))
    assert scale == pytest.approx(wrong, rel=0.05)
    covered = abs(errors) <= probe_table.WIDTH * scale
    assert covered.mean() == pytest.approx(probe_table.COVERAGE, abs=0.01)


def test_a_replay_knows_what_the_controller_knew():
    rng = np.random.default_rng(2)
    predictor = init_predictor()
    weights = jax.tree.map(
        lambda x: np.asarray(x + rng.normal(0, 0.1, x.shape), np.float32),
        predictor.weights,
    )
    predictor = predictor._replace(
        weights=weights,
        prior_variance=np.ones(1, np.float32),
        prior_bias=np.full(1, -8.0, np.float32),
        base_variance=np.float32(NO_GUESS),
    )
    rate, n = 0.01, 30
    tx = inject(optax.adam, rate, predictor, total_steps=n, max_multiplier=1024.0)
    curvature = jnp.array([1.0, 3.0, 9.0])
    loss = lambda p: jnp.sum(curvature * p**2)  # noqa: E731

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    params = jnp.ones(3)
    state, seen = tx.init(params), []
    for _ in range(n):
        params, state = step(params, state)
        seen.append(state)
    columns = lambda name: np.array([getattr(s, name) for s in seen])  # noqa: E731
    recorded = run(rate, [1.0, 0.5])._replace(
        features=columns("lr_features"),
        multiplier=columns("lr_multiplier"),
        rate=columns("lr_multiplier"),
        loss=columns("lr_mean"),
    )
    found = replays.replay(predictor, [recorded], 40)
    for name, there in (("mean", "lr_mean"), ("variance", "lr_variance")):
        own = getattr(found, name)[0]
        shift = np.log2(rate) if name == "mean" else 0.0
        assert np.isnan(own[n:]).all()
        np.testing.assert_allclose(own[1:n] - shift, columns(there)[1:], atol=2e-3)
