"""The benchmark that puts estimators beside the truth: small runs of it, its file, its tables, its words."""

import csv
import math
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import pytest
import torch

from tests.helpers import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import peers
import records
import runs
import tables
import truth
from cases import CASES, KINDS
from estimators import ESTIMATORS, Estimator, ids
from records import HEADER, Row, append, read, write

from lightning_ib.functional import entropy, mutual_information

TINY = ["--cases", "10 symbols", "normal, rho 0.5", "--estimators", "plug_in", "--sizes", "100", "200", "--seeds", "2"]


def a_row(**changes):
    row = Row(
        "normal, rho 0.5",
        "continuous",
        "1+1",
        0.207519,
        "plug_in",
        5000,
        2,
        0.2,
        -0.00752,
        0.01,
        0.001,
        "0.19 0.21",
        "",
    )
    return replace(row, **changes)


def fake(monkeypatch, estimate, **policy):
    """Put an estimator in the place of all others, in this process."""
    monkeypatch.setitem(runs.ALL, "fake", Estimator("fake", tuple(KINDS), estimate, **policy))


# --- Runs ------------------------------------------------------------------------------------------------------------


def test_a_run_from_the_command_line_goes_on_where_it_was_stopped(tmp_path, capsys, monkeypatch, programs):
    path, page = tmp_path / "deep" / "truth.csv", tmp_path / "truth.md"
    where = ["--results", str(path), "--jobs", "1"]
    done = programs.script(ROOT / "benchmarks" / "truth.py", *where, *TINY)
    out = done.stdout
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "4 rows asked for, 0 there already" in out
    assert "4/4" in out
    assert "| plug-in |" in out
    whole = path.read_text()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == HEADER
    assert [(row["case"], row["n"]) for row in rows] == [
        ("10 symbols", "100"),
        ("10 symbols", "200"),
        ("normal, rho 0.5", "100"),
        ("normal, rho 0.5", "200"),
    ]

    # Stopped in the writing of the fourth row. What is left is done in this process: another one takes long to start.
    monkeypatch.setattr(runs, "ProcessPoolExecutor", lambda jobs, **_: ThreadPoolExecutor(jobs))
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:30])
    truth.main([*where, *TINY])
    out = capsys.readouterr().out
    assert "4 rows asked for, 3 there already" in out
    assert "1/1 normal, rho 0.5 · plug_in · 200: " in out
    assert [strip_time(row) for row in read(path).values()] == [strip_time(row) for row in parsed(whole, tmp_path)]

    truth.main([*where, *TINY])
    assert "4 rows asked for, 4 there already" in capsys.readouterr().out
    truth.main([*where, "--summary"])
    assert "| plug-in |" in capsys.readouterr().out
    truth.main([*where, "--docs", str(page)])
    assert "| normal, rho 0.5 | 0.21 | " in page.read_text()


def parsed(text, tmp_path):
    (tmp_path / "copy.csv").write_text(text)
    return read(tmp_path / "copy.csv").values()


def strip_time(row):
    return replace(row, median_seconds=0.0)


def test_measure_gives_mean_bias_and_error_of_the_samples_of_their_seeds():
    row = runs.measure("binary channel, flip 0.1", "plug_in", 500, 3)
    figures = [float(figure) for figure in row.values.split()]
    assert (row.kind, row.dims, row.seeds, row.note, row.failed) == ("discrete", "1+1", 3, "", False)
    assert len(set(figures)) == 3
    exact = CASES["binary channel, flip 0.1"].truth
    assert row.truth_bits == pytest.approx(exact, abs=1e-6)
    assert row.mean == pytest.approx(sum(figures) / 3, abs=1e-4)
    assert row.bias == pytest.approx(row.mean - exact, abs=2e-5)
    assert row.rmse == pytest.approx(math.sqrt(sum((f - exact) ** 2 for f in figures) / 3), abs=1e-4)
    assert row.median_seconds > 0
    assert strip_time(runs.measure("binary channel, flip 0.1", "plug_in", 500, 3)) == strip_time(row)


def test_failures_nan_and_warnings_are_kept_with_their_sentence(monkeypatch):
    answers = iter([0.5, math.nan, ValueError("7 are too\nfew."), math.inf, ValueError("8 are too few."), 0.7])

    def estimate(x, y):
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    fake(monkeypatch, estimate)
    row = runs.measure("binary channel, flip 0.1", "fake", 50, 6)
    assert row.mean == pytest.approx(0.6)
    assert row.values == "0.5 0.7"
    assert row.seeds == 6
    assert row.failed
    assert row.note == (
        "6 of 6: warned: mind the gap; 1 of 6: gave nan; 2 of 6: ValueError: 7 are too few.; 1 of 6: gave inf"
    )


def test_nothing_but_failures_has_no_mean_and_is_not_within(monkeypatch, tmp_path):
    def estimate(x, y):
        raise RuntimeError("no.")

    fake(monkeypatch, estimate)
    row = runs.measure("10 symbols", "fake", 50, 2)
    assert all(math.isnan(figure) for figure in (row.mean, row.bias, row.rmse))
    assert (row.values, row.note) == ("", "2 of 2: RuntimeError: no.")
    assert row.failed
    assert not row.within
    write(tmp_path / "rows.csv", [row])
    (back,) = read(tmp_path / "rows.csv").values()
    assert repr(back) == repr(row)


def test_an_estimator_that_takes_the_first_rows_gets_no_more_and_says_so(monkeypatch):
    lengths = []

    def estimate(x, y):
        lengths.append((len(x), len(y)))
        return 0.0

    fake(monkeypatch, estimate, rows=30)
    assert runs.measure("10 symbols", "fake", 50, 2).note == "the first 30 rows"
    assert runs.measure("10 symbols", "fake", 20, 1).note == ""
    assert lengths == [(30, 30), (30, 30), (20, 20)]


def test_every_estimator_sees_the_same_samples_and_another_seed_gives_others(monkeypatch):
    seen = []
    fake(monkeypatch, lambda x, y: seen.append(x.clone()) or 0.0)
    for _ in range(2):
        runs.measure("normal, rho 0.9", "fake", 20, 2)
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_counting_takes_symbols_as_they_are_and_ten_equal_bins_a_coordinate():
    x, y = CASES["normal 2+2, dense"].sample(1000, torch.Generator().manual_seed(0))
    assert torch.bincount(torch.unique(ids(x[:, :1]), return_inverse=True)[1]).tolist() == [100] * 10
    assert entropy(ids(x)) <= math.log2(100)
    labels = torch.tensor([3, 1, 3])
    assert ids(labels) is labels
    assert ESTIMATORS["plug_in"].estimate(x, y) == mutual_information(ids(x), ids(y))


# --- What is asked for -----------------------------------------------------------------------------------------------


def test_words_choose_the_names_that_hold_them_in_their_own_order():
    names = ["normal, rho 0.9", "normal, rho 0.99", "Spiral"]
    assert runs.chosen(names, None, "case") == names
    assert runs.chosen(names, ["spiral", "0.99"], "case") == names[1:]
    assert runs.chosen(names, ["normal, rho 0.9"], "case") == names[:1]  # a whole name is that one alone


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cases", "normal", "nonsense"], "no case is called 'nonsense': there are 8 fair bits, 12 fair bits, "),
        (["--estimators", "magic"], "no estimator is called 'magic': there are plug_in, miller_madow, "),
        (["--estimators", "ksg", "--cases", "fair bits"], "none of these estimators is meant for any of these cases"),
        (["--summary"], "no.csv has no rows: run without --summary and --docs first."),
    ],
)
def test_what_cannot_be_done_is_said(arguments, words, tmp_path):
    with pytest.raises(SystemExit) as stop:
        truth.main(["--results", str(tmp_path / "no.csv"), *arguments])
    assert words in str(stop.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0"], "--seeds must be at least 1, got 0."),
        (["--jobs", "0"], "--jobs must be at least 1, got 0."),
        (["--sizes", "100", "-1"], "--sizes must be at least 1, got -1."),
    ],
)
def test_numbers_that_make_no_sense(arguments, words, capsys):
    with pytest.raises(SystemExit):
        truth.main(arguments)
    assert words in capsys.readouterr().err


def test_tasks_are_those_an_estimator_is_meant_for_the_largest_first(monkeypatch):
    some = {
        "any": Estimator("any", tuple(KINDS), lambda x, y: 0.0),
        "slow": Estimator("slow", ("continuous",), lambda x, y: 0.0, limits=((50, 3), (1000, 0))),
    }
    monkeypatch.setattr(runs, "ALL", some)
    found = runs.tasks(["10 symbols", "spiral 3+3"], list(some), [100, 1000], 10)
    assert list(found.items()) == [
        (("10 symbols", "any", 1000), 10),
        (("spiral 3+3", "any", 1000), 10),
        (("10 symbols", "any", 100), 10),
        (("spiral 3+3", "any", 100), 10),
        (("spiral 3+3", "slow", 100), 3),
    ]


def test_limits_are_kept_and_said():
    slow = Estimator("slow", ("continuous",), lambda x, y: 0.0, rows=2000, limits=((0, 7), (5000, 3), (10_000, 0)))
    assert [slow.seeds(n, 10) for n in (10, 4999, 5000, 9999, 10_000)] == [7, 7, 3, 3, 0]
    assert slow.seeds(5000, 2) == 2
    assert slow.policy() == (
        "the first 2 000 rows only, 7 samples, 3 samples at N = 5 000 and above, not run at N = 10 000 and above"
    )
    assert ESTIMATORS["plug_in"].policy() == ""


def test_quick_is_small_and_keeps_to_a_file_of_its_own():
    options = truth.parsed(["--quick"])
    assert (options.sizes, options.seeds, options.results) == ([1000], 2, ROOT / "build" / "truth_quick.csv")
    options = truth.parsed([])
    assert (options.sizes, options.seeds, options.results) == ([1000, 5000, 10_000], 10, truth.RESULTS)
    assert peers.parsed(["--quick"]).results == ROOT / "build" / "peers_quick.csv"


def test_again_forgets_what_is_asked_for_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    write(path, [a_row(), a_row(n=1000)])
    left = []
    monkeypatch.setattr(runs, "run", lambda todo, path, jobs, timeout: left.extend(read(path)))
    truth.main(["--results", str(path), "--cases", "rho 0.5", "--estimators", "plug_in", "--sizes", "5000", "--again"])
    assert left == [("normal, rho 0.5", "plug_in", 1000)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyboardInterrupt, "stopped; .*rows.csv keeps what was done, and the same command goes on"),
        (BrokenProcessPool, "a process was killed, .*rows.csv keeps what was done: go on with fewer --jobs"),
    ],
)
def test_fewer_seeds_than_asked_for_are_run_again_and_what_ends_a_run_is_said(
    tmp_path, monkeypatch, capsys, error, words
):
    path = tmp_path / "rows.csv"
    write(path, [a_row()])

    class Nothing:
        def __init__(self, *_, **__):
            pass

        def submit(self, function, *arguments):
            raise error

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(runs, "ProcessPoolExecutor", Nothing)
    runs.run({a_row().key: 2}, path, 1)
    assert "1 rows asked for, 1 there already" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=words):
        runs.run({a_row().key: 3}, path, 1)
    assert list(read(path).values()) == [a_row()]


# --- The file --------------------------------------------------------------------------------------------------------


def test_rows_come_back_the_later_of_two_and_none_that_was_cut_off(tmp_path):
    path = tmp_path / "rows.csv"
    write(path, [a_row(case="spiral 3+3"), a_row(), a_row(case="gone"), a_row(n=1000, note='said "no", and left')])
    append(path, a_row(mean=0.3))
    with path.open("a") as file:
        file.write("normal, rho 0.5,continuous")
    rows = list(read(path).values())
    assert [(row.case, row.n, row.mean) for row in rows] == [
        ("normal, rho 0.5", 1000, 0.2),
        ("normal, rho 0.5", 5000, 0.3),
        ("spiral 3+3", 5000, 0.2),
        ("gone", 5000, 0.2),
    ]
    assert rows[0].note == 'said "no", and left'
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_other_columns_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(SystemExit, match=r"other.csv has the columns \['epoch', 'loss'\], not \['case', .*--results"):
        read(tmp_path / "other.csv")
    assert records.read(tmp_path / "none.csv") == {}


# --- Tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exact", "bias", "within"),
    [(0.2, 0.1, True), (0.2, -0.11, False), (3.0, 0.29, True), (3.0, -0.31, False), (0.0, 0.05, True)],
)
def test_within_is_a_tenth_of_a_bit_or_of_the_truth(exact, bias, within):
    row = a_row(truth_bits=exact, bias=bias, mean=exact + bias)
    assert row.within is within
    assert tables.cell(row) == (f"{exact + bias:.2f}" if within else f"**{exact + bias:.2f}**")


def test_cells_of_what_failed_or_was_not_run():
    assert tables.cell(None) == "–"
    assert tables.cell(a_row(mean=math.nan, bias=math.nan, values="")) == "**failed**"
    assert tables.cell(a_row(values="0.2")) == "0.20†"
    assert tables.cell(a_row(truth_bits=0, mean=-0.001, bias=-0.001)) == "0.00"


def test_the_summary_counts_by_kind_and_by_n_and_names_the_worst():
    rows = [
        a_row(),
        a_row(case="normal, rho 0.9", truth_bits=1.2, mean=0.7, bias=-0.5, rmse=0.5),
        a_row(case="10 symbols", kind="discrete", truth_bits=3.3, mean=3.3, bias=0.0, rmse=0.0),
        a_row(n=10_000, median_seconds=2.0),
        a_row(n=10_000, case="normal, rho 0.9", truth_bits=1.2, mean=1.1, bias=-0.1, median_seconds=4.0, values="1.1"),
        a_row(estimator="ksg_1", mean=math.nan, bias=math.nan, rmse=math.nan, values="", note="2 of 2: OSError: no."),
        a_row(estimator="gone"),
        a_row(case="gone"),
    ]
    header, _, *body = tables.summary(rows).splitlines()
    assert header == (
        "| estimator | median abs. bias | worst bias | median RMSE | discrete | continuous | labeled | mixed "
        "| conditional | N = 5 000 | N = 10 000 | failures | s at 10 000 |"
    )
    assert body == [
        "| plug-in | 0.008 | -0.50 (normal, rho 0.9) | 0.010 | 1/1 | 1/2 | – | – | – | 2/3 | 2/2 | 1/5 | 3 |",
        "| KSG 1 | **failed** | **failed** | **failed** | – | 0/1 | – | – | – | 0/1 | – | 1/1 | – |",
    ]


def test_the_page_has_a_table_for_each_kind_and_says_what_failed_and_what_was_cut(monkeypatch):
    monkeypatch.setitem(ESTIMATORS, "ksg_1", replace(ESTIMATORS["ksg_1"], limits=((10_000, 3),)))
    trouble = "2 of 2: ValueError: Σ is singular."
    rows = [
        a_row(),
        a_row(case="10 symbols", kind="discrete", truth_bits=3.321928, mean=2.0, bias=-1.3),
        a_row(estimator="ksg_1", mean=math.nan, bias=math.nan, rmse=math.nan, values="", note=trouble),
        a_row(estimator="renyi", note="the first 1000 rows"),
    ]
    rows.append(replace(rows[2], n=1000))
    page = tables.page(rows)
    assert "| case | truth | plug-in | KSG 1 | matrix Rényi |" in page
    assert "| normal, rho 0.5 | 0.21 | 0.20 | **failed** | 0.20 |" in page
    assert "| case | truth | plug-in |\n" in page
    assert "| 10 symbols | 3.32 | **2.00** |" in page
    assert "## Labeled" not in page
    assert f"- KSG 1; normal, rho 0.5; N = 1 000, 5 000: {trouble}" in page
    assert "To be affordable, 3 samples at N = 10 000 and above: KSG 1. To be affordable, the first 1 000 rows" in page
    assert "What failed" not in tables.page(rows[:2])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_takes_the_kinds_of_cases_it_is_meant_for(name):
    for kind in ESTIMATORS[name].kinds:
        case = next(case for case, of in CASES.items() if of.kind == kind)
        assert math.isfinite(runs.measure(case, name, 100, 1).mean), kind
