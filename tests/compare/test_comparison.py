"""What the runs of a store say: the sentences, the tables, and what can't be said."""

import pytest

from metalr.compare import comparison
from metalr.errors import MetalrError
from metalr.report import summary, tables
from tests.compare.synthetic_store import a_run, overhead, pair_of_rows

pytestmark = pytest.mark.fast


def sentences(lines, baseline="linear 2e-5"):
    return summary.sentences(comparison.gather(lines, baseline))


def test_answer_of_a_win_is_worked_out_by_hand():
    # sst2: 0.5 is chance, 0.9 the best, 0.7 half of it; cola: 0.9 and 7/9 of it.
    good, fast, lost = sentences(pair_of_rows([0.9, 0.9, 0.9, 0.9], [0.5, 0.6, 0.7]))
    assert "2 tasks, 1 model and 3 seeds" in good
    assert "metalr ends at 1.000" in good
    assert "linear 2e-5 at 0.639: better by +0.361" in good
    assert "6 pairs" in good
    assert fast.startswith("In most pairs it reaches 95 % of the best score and lin")
    assert fast.endswith("it misses it in 0 of 6 runs, linear 2e-5 in 6 of 6.")
    assert "no row is better beyond the interval" in lost
    assert "it is behind linear 2e-5 on no task" in lost


def test_answer_of_a_loss_names_it():
    runs = pair_of_rows([0.5, 0.6, 0.7], [0.9, 0.9, 0.9])
    good, fast, lost = sentences(runs)
    assert "worse by -0.361" in good
    assert fast.startswith("In half of the pairs or more it never reaches 95 % of")
    assert "it loses to linear 2e-5 (-0.361)" in lost
    assert "to linear 2e-5 (1.00 against 0.00)" in lost
    assert "sst2 with minilm:2 (-0.500) and cola with minilm:2 (-0.222)" in lost


def test_answer_of_a_tie_claims_nothing():
    runs = pair_of_rows([0.6, 0.8], [0.6, 0.8], tasks=("sst2",))
    runs[0] = a_run(scheduler="metalr", seed=0, scores=[0.6], failed="not finite")
    good, fast, lost = sentences(runs)
    assert "no difference that these runs can show, off by -0.333" in good
    assert "1.00 times the steps of linear 2e-5" in fast
    assert lost.endswith("and 1 of its 3 runs failed.")


def test_answer_about_the_baseline_itself_compares_it_with_nothing():
    good, fast, _ = sentences([a_run(scheduler="metalr")], baseline="metalr")
    assert good.endswith("it is the baseline.")
    assert fast == "It reaches 95 % of the best score, or misses it in 0 of 1 run."


def test_summary_table_by_hand():
    runs = pair_of_rows([0.9, 0.9], [0.5, 0.9], tasks=("sst2",))
    runs += [a_run(rate=1e-3, seed=s, scores=[0.5, 0.5]) for s in range(3)]
    cells = tables.summary_table(comparison.gather(runs, "linear 2e-5"))
    found = {line[0]: line[1:] for line in cells}
    same = "+0.000 [+0.000, +0.000]"
    share, done = "1.000 (IQR 0.000)", ("0 of 3", "0 of 3")
    assert found == {
        "metalr": (share, same, "1.00", "1.00", "0.750", "2.0", "1.00", *done, "1"),
        "linear 2e-5": (
            *(share, "baseline", "2.00", "2.00", "0.250", "2.0", "0.67", *done, "1"),
        ),
        "linear tuned": (
            *(share, same, "2.00", "2.00", "0.250", "2.0", "0.67", *done, "2"),
        ),
    }


def test_problem_table_counts_the_rates_that_were_tried():
    runs = [a_run(rate=r, scores=[0.6, s]) for r, s in ((2e-5, 0.7), (1e-3, 0.9))]
    found = comparison.gather(runs, "linear 2e-5")
    cells = {c[0]: c for c in tables.problem_table(found, ("sst2", "minilm:2"))}
    head = tables.PROBLEM_HEAD
    tuned = dict(zip(head, cells["linear tuned"], strict=True))
    assert (tuned["rate"], tuned["steps to 95 %"], tuned["steps paid"]) == (
        *("1e-3", "20", "40"),
    )
    assert tuned["epochs to 95 %"] == "1.00"
    plain = dict(zip(head, cells["linear 2e-5"], strict=True))
    assert (plain["steps to 95 %"], plain["steps paid"]) == ("∞", "∞")


def test_overheads_are_the_quartiles_of_the_pairs():
    lines = [a_run(), overhead("prodigy", (1.0, 1.1, 1.2, 1.4, 1.6), 2.0)]
    (cells,) = tables.overhead_table(comparison.gather(lines, "linear 2e-5"))
    assert cells[0] == "prodigy"
    assert cells[-3:] == ("1.200", "1.100 to 1.400", "2.000")


def test_a_rerun_takes_the_place_of_the_first():
    lines = [a_run(scores=[0.6], key="same"), a_run(scores=[0.8], key="same")]
    (run,) = comparison.gather(lines, "linear 2e-5").runs
    assert run["last_metrics"] == {"accuracy": 0.8}


def test_a_rerun_under_another_predictor_takes_the_place_of_the_first():
    lines = [
        a_run(scores=[x], key=k, scheduler="metalr")
        for x, k in ((0.6, "a"), (0.8, "b"))
    ]
    (run,) = comparison.gather([*lines, a_run()], "linear 2e-5").rows["metalr"].runs
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
        ([a_run(), overhead("dowg", ())], "overhead-dowg: step_ratio is no list of"),
        ([a_run(), overhead("dowg", state=None)], "state_ratio is no number"),
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
        comparison.gather(lines, "linear 2e-5")
    assert "\n" not in str(caught.value)


def test_schedulers_may_bring_their_own_warm_up():
    other = a_run(scheduler="static")
    other["settings"] |= {"warmup_steps": 0, "predictor": "x"}
    assert len(comparison.gather([a_run(), other], "linear 2e-5").rows) == 2
