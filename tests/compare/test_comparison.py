"""Only runs that may be compared are compared."""

import math
from pathlib import Path

import pytest

from metalr.compare import comparable, comparison, criteria, paired, store
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


def test_a_rerun_takes_the_place_of_one_from_before_a_setting_existed():
    whole = comparable.DEFAULTS | a_run(scheduler="metalr")["settings"]
    older = {name: value for name, value in whole.items() if name != "train_file"}
    lines = [
        a_run(scores=[x], key=k, settings=s, scheduler="metalr")
        for x, k, s in ((0.6, "a", older), (0.8, "b", whole))
    ]
    found = comparison.from_lines([*lines, a_run()], "linear 2e-5")
    (run,) = found.methods["metalr"].runs
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


def test_lines_of_two_versions_of_the_protocol_are_refused():
    lines = [a_run(protocol=1), a_run(seed=1, protocol=2)]
    with pytest.raises(MetalrError, match="these follow 1 and 2"):
        comparison.from_lines(lines)
    assert len(comparison.from_lines([a_run(protocol=1), a_run(seed=1)]).runs) == 2


@pytest.mark.parametrize("other", [{"controller": 8}, {"predictor_sha256": "b"}])
def test_runs_of_two_predictors_or_controllers_are_no_one_comparison(other):
    own = {"predictor_sha256": "a", "controller": 9}
    old, new, unnamed = (
        a_run(scheduler="metalr", seed=seed, **fields)
        for seed, fields in enumerate(
            [{"learned_by": own | other}, {"learned_by": own}, {}]
        )
    )
    assert len(comparison.from_lines([new, unnamed]).runs) == 2
    control = new | {"scheduler": "metalr_prior"}  # a control of another metalr
    for pair in ([old, new], [old, control]):
        with pytest.raises(MetalrError, match="one predictor and controller"):
            comparison.from_lines(pair)


def test_an_overhead_measured_again_takes_the_place_of_the_first():
    lines = [a_run(), overhead("metalr"), overhead("metalr", (2.0,)) | {"key": "new"}]
    (found,) = comparison.from_lines(lines).overheads
    assert found["key"] == "new"


def test_target_is_what_the_median_run_of_the_baseline_ends_with():
    lines = [a_run(seed=i, scores=[x]) for i, x in enumerate((0.6, 0.7, 0.9))]
    lines += [a_run(scheduler="metalr", scores=[0.65, 0.7, 0.98])]
    found = comparison.from_lines(lines, "linear 2e-5")
    (reference,) = found.references.values()
    assert reference.target(1.0) == pytest.approx(0.7) and reference.best == 0.98
    assert found.values(found.methods["metalr"].runs, "steps to 95 %") == [20]


def test_what_nobody_learns_is_shown_and_not_averaged():
    lines = [
        a_run(task, scheduler=scheduler, seed=seed, scores=[score])
        | ({"chance": {"f1": 0.0, "exact_match": 0.0}} if task == "squad" else {})
        for task, scores in (("sst2", (0.9, 0.7)), ("squad", (0.05, 0.15)))
        for scheduler, score in zip(("metalr", "linear"), scores, strict=True)
        for seed in range(3)
    ]
    found = comparison.from_lines(lines, "linear 2e-5")
    assert [of.task for of in found.unlearned] == ["squad"]
    assert [of.task for of in found.references] == ["sst2", "squad"]
    gap = paired.score_difference(found, "metalr")
    assert gap.pairs == 3 and gap.estimate == pytest.approx(0.5)
    apart = paired.ahead(found, "metalr", "linear 2e-5")
    assert {of.task: gap for of, gap in apart.items()} == {"sst2": pytest.approx(0.5)}
    alone = comparison.from_lines(lines[6:], "linear 2e-5")
    assert paired.score_difference(alone, "metalr").pairs == 3


@pytest.mark.parametrize(
    ("scores", "learned"),
    [
        ((0.56, 0.56, 0.56), True),  # a tenth of the way from 0.5 to 1 is 0.55
        ((0.54, 0.54, 0.54), False),
        ((0.5, 0.5, 0.9), False),  # the median counts, and not one lucky seed
    ],
)
def test_learned_is_a_tenth_of_the_way_by_the_median_seed(scores, learned):
    lines = [a_run(seed=n, scores=[score]) for n, score in enumerate(scores)]
    found = comparison.from_lines(lines, "linear 2e-5")
    assert (found.unlearned == ()) == learned


CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


@pytest.mark.parametrize(
    ("name", "method"), [("comparison", "plateau"), ("targets", "metalr")]
)
def test_lines_of_an_older_metalr_are_read(name, method):
    lines = store.read_lines(CHECKPOINTS / name / "runs.jsonl")
    older = [line for line in lines if line["kind"] != "run" or "device" not in line]
    found = comparison.from_lines(older)
    assert {criteria.device(run) for run in found.runs} == {"unknown"}
    assert paired.score_difference(found, method).pairs >= 9
    assert math.isnan(paired.speed_ratio(found, method, "seconds").estimate)


def test_lines_that_name_a_device_are_paired_with_those_that_name_none_when_told():
    lines = store.read_lines(CHECKPOINTS / "comparison" / "runs.jsonl")
    with pytest.raises(MetalrError, match="one kind of device.*--mix-devices"):
        paired.score_difference(comparison.from_lines(lines), "metalr")
    told = comparison.from_lines(lines, mix_devices=True)
    assert paired.score_difference(told, "metalr").pairs == 9


ROWS = {of: {"kind": "folder", "where": "data/sst2", "sha256": of} for of in ("1", "2")}


def test_flag_of_older_runs_that_changed_no_number_keeps_none_apart():
    old, new = a_run(seed=0), a_run(seed=1)
    old["settings"]["tensorboard"] = False
    assert len(comparison.from_lines([old, new]).runs) == 2


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            {"data": ROWS | {"sha256": "1"}},
            {"data": ROWS | {"sha256": "2"}},
            "rows '1'",
        ),
        ({}, {"chance": {"accuracy": 0.75}}, "chance 0.5 and 0.75"),
    ],
)
def test_runs_on_rows_that_changed_under_one_name_are_refused(one, other, said):
    lines = [a_run(seed=0, **one), a_run(seed=1, **other)]
    with pytest.raises(MetalrError, match=f"must share their settings.*{said}"):
        comparison.from_lines(lines, "linear 2e-5")
