"""Only runs that may be compared are compared."""

import pytest

from metalr.compare import comparison
from metalr.errors import MetalrError
from tests.compare.synthetic_store import a_run, overhead

pytestmark = pytest.mark.fast


def test_a_rerun_takes_the_place_of_the_first():
    lines = [a_run(scores=[0.6], key="same"), a_run(scores=[0.8], key="same")]
    (run,) = comparison.from_lines(lines, "linear 2e-5").runs
    assert run["last_metrics"] == {"accuracy": 0.8}


def test_a_rerun_under_another_predictor_takes_the_place_of_the_first():
    lines = [
        a_run(scores=[x], key=k, scheduler="metalr")
        for x, k in ((0.6, "a"), (0.8, "b"))
    ]
    (run,) = (
        comparison.from_lines([*lines, a_run()], "linear 2e-5").methods["metalr"].runs
    )
    assert run["last_metrics"] == {"accuracy": 0.8}


LONG = {**a_run()["settings"], "max_length": 64}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "at least one run, got 0 lines"),
        ([overhead("prodigy")], "at least one run, got 1 lines"),
        ([a_run(version=2)], "line sst2-.* of version 2, and this .* version 1"),
        ([{"task": "sst2"}], "the line without a key: not a result of metalr"),
        ([a_run(kind="walk")], "neither a run nor an overhead but 'walk'"),
        ([a_run(seed="0")], "seed has type str"),
        ([a_run(chance={})], "no chance for its metric"),
        ([a_run(chance={"accuracy": None})], "no chance for its metric"),
        ([{k: v for k, v in a_run().items() if k != "key"}], "without a key"),
        ([a_run(settings=3)], "settings has type int"),
        ([a_run(settings={})], "no learning_rate in its settings"),
        ([a_run(metrics={"f1": "0.3"})], "metrics has no number for 'f1'"),
        ([a_run(history=[{"step": 1, "loss": []}])], "history has no number"),
        ([a_run(history=[{"step": -1}])], "history has rows without a step"),
        ([a_run(), overhead("dowg", ())], "overhead-dowg: step_ratio is not a list of"),
        ([a_run(), overhead("dowg", state=None)], "state_ratio is not a number"),
        (
            [a_run(), {"version": 1, "kind": "overhead", "key": "x"}],
            "line x: missing scheduler, model, batch_size",
        ),
        (
            [a_run(), a_run(settings=LONG, scheduler="metalr", key="b")],
            r"those of sst2 minilm:2 differ \(max_length None and 64\)",
        ),
        (
            [a_run(), a_run(settings={**LONG, "max_length": None, "warmup_steps": 7},
                            seed=1)],
            r"sst2 minilm:2 linear 2e-05 differ \(warmup_steps 500 and 7\)",
        ),
        ([a_run(), a_run(data={"kind": "toy"}, seed=1)], "kind of data 'folder' and"),
        ([a_run(scheduler="prodigy", rate=1.0)], "unknown baseline 'linear 2e-5'"),
    ],
)  # fmt: skip
def test_what_can_not_be_compared_is_one_clear_line(lines, message):
    with pytest.raises(MetalrError, match=message) as caught:
        comparison.from_lines(lines, "linear 2e-5")
    assert "\n" not in str(caught.value)


def test_schedulers_may_bring_their_own_warm_up():
    other = a_run(scheduler="static")
    other["settings"] |= {"warmup_steps": 0, "predictor": "x"}
    assert len(comparison.from_lines([a_run(), other], "linear 2e-5").methods) == 2
