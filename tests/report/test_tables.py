"""The tables of a comparison give what is worked out by hand."""

import pytest

from metalr.compare import comparison
from metalr.report import tables
from tests.compare.synthetic_store import a_run, overhead, pair_of_rows

pytestmark = pytest.mark.fast


def test_summary_table_by_hand():
    runs = pair_of_rows([0.9, 0.9], [0.5, 0.9], tasks=("sst2",))
    runs += [a_run(rate=1e-3, seed=s, scores=[0.5, 0.5]) for s in range(3)]
    cells = tables.summary_table(comparison.from_lines(runs, "linear 2e-5"))
    found = {line[0]: line[1:] for line in cells}
    same = "+0.000 [+0.000, +0.000]"
    share, done = ("1.000 (IQR 0.000)", "1.000"), ("0 of 3", "0 of 3", "–")
    fast = ("1.00", "1.00", "–", "–", "0.750", "2.0", "1.00")
    slow = ("2.00", "2.00", "–", "–", "0.250", "2.0", "0.67")
    assert found == {
        "metalr": (*share, same, *fast, *done, "1"),
        "linear 2e-5": (*share, "baseline", *slow, *done, "1"),
        "linear tuned": (*share, same, *slow, *done, "2"),
    }


def test_steps_of_the_summary_are_the_median_over_tasks():
    fast, slow = [0.9] * 4, [0.1, 0.1, 0.1, 0.9]
    runs = [
        a_run(task, scheduler=scheduler, scores=scores)
        for task in ("cola", "squad", "qqp_like")
        for scheduler, scores in (
            ("metalr", slow if task == "squad" else fast),
            ("linear", fast),
        )
    ]
    cells = tables.summary_table(comparison.from_lines(runs, "linear 2e-5"))
    (own,) = [line for line in cells if line[0] == "metalr"]
    # 1, 4 and 1 times the fastest.
    assert own[tables.SUMMARY_HEAD.index("steps to 95 %")] == "1.00"


def test_seconds_sensitivity_and_devices_are_told_where_runs_know_them():
    rates = (1.25e-6, 2e-5, 3.2e-4)
    device = {"kind": "cpu", "processor": "Xeon", "threads": 2}
    runs = [
        a_run(rate=rate, scores=[0.5, score], step_seconds=0.5, device=device)
        for rate, score in zip(rates, (0.6, 0.9, 0.7), strict=True)
    ]
    runs += [a_run(scheduler="prodigy", rate=1.0, scores=[0.9, 0.9], step_seconds=2.0)]
    found = comparison.from_lines(runs, "linear 2e-5", mix_devices=True)
    cells = {line[0]: line for line in tables.summary_table(found)}
    column = tables.SUMMARY_HEAD.index
    assert cells["linear 2e-5"][column("sensitivity")] == "0.417"
    assert cells["prodigy"][column("sensitivity")] == "none"
    assert cells["linear tuned"][column("sensitivity")] == "–"
    # 20 steps of 0.5 s against 10 of 2 s.
    assert cells["linear 2e-5"][column("seconds to 95 %")] == "1.00"
    assert cells["prodigy"][column("seconds to 95 %")] == "2.00"
    assert tables.device_table(found) == [
        ("cpu", "Xeon", "2", "3"),
        ("unknown", "–", "–", "1"),
    ]


def test_means_say_over_how_many_problems_they_are_where_it_is_not_all():
    rates = (1.25e-6, 2e-5, 3.2e-4)
    runs = [a_run(rate=rate, scores=[0.9 if rate == 2e-5 else 0.6]) for rate in rates]
    runs += [a_run("cola", scheduler="metalr", scores=[0.9])]
    runs += [a_run("cola", rate=2e-5, scores=[0.9])]
    found = comparison.from_lines(runs, "linear 2e-5")
    cells = {line[0]: line for line in tables.summary_table(found)}
    column = tables.SUMMARY_HEAD.index
    assert cells["metalr"][1] == "1.000 (IQR 0.000) on 1 of 2"
    assert cells["linear 2e-5"][1] == "1.000 (IQR 0.000)"
    assert cells["linear 2e-5"][column("sensitivity")] == "0.500 on 1 of 2"


def test_problem_table_counts_the_rates_that_were_tried():
    runs = [a_run(rate=r, scores=[0.6, s]) for r, s in ((2e-5, 0.7), (1e-3, 0.9))]
    found = comparison.from_lines(runs, "linear 2e-5")
    cells = {c[0]: c for c in tables.workload_table(found, ("sst2", "minilm:2"))}
    head = tables.WORKLOAD_HEAD
    tuned = dict(zip(head, cells["linear tuned"], strict=True))
    assert (tuned["rate"], tuned["steps to 95 %"], tuned["steps paid"]) == (
        *("1e-3", "20", "40"),
    )
    assert tuned["epochs to 95 %"] == "1.00"
    plain = dict(zip(head, cells["linear 2e-5"], strict=True))
    assert (plain["steps to 95 %"], plain["steps paid"]) == ("20", "20")
    assert plain["final loss"] == plain["loss at the best"] == "0.500"


def test_overheads_are_the_quartiles_of_the_pairs():
    lines = [a_run(), overhead("prodigy", (1.0, 1.1, 1.2, 1.4, 1.6), 2.0)]
    (cells,) = tables.overhead_table(comparison.from_lines(lines, "linear 2e-5"))
    assert cells[0] == "prodigy"
    assert cells[-3:] == ("1.200", "1.100 to 1.400", "2.000")
