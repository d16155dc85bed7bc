"""The example of noise and compression: small runs of it, its differences and its words."""

import csv
import importlib
import math
import re

import pytest
import torch

from tests.helpers import ROOT

pytest.importorskip("sklearn", reason="needs the extra: pip install 'lightning-ib[example]'")

SCRIPT = ROOT / "examples" / "noise_compresses.py"


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as for a script
        yield importlib.import_module(SCRIPT.stem)


@pytest.fixture(autouse=True)
def _threads(one_thread):
    """The program sets their number."""


QUICK = ["--loss", "1.2", "--settings", "full batch", "batch 16", "batch 4"]


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- Runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_prints_draws_and_writes_what_it_found(example, tmp_path, capsys):
    before = torch.get_rng_state()
    example.main([*QUICK, "--seeds", "3", "--out", str(tmp_path / "new" / "noise.png")])
    assert torch.equal(torch.get_rng_state(), before)
    assert (tmp_path / "new" / "noise.png").read_bytes().startswith(b"\x89PNG")
    rows = rows_of(tmp_path / "new" / "noise.csv")
    assert [(row["setting"], row["seed"]) for row in rows] == [
        (name, str(seed)) for name in QUICK[3:] for seed in range(3)
    ]
    for row in rows:
        assert 0.9 < float(row["loss"]) <= 1.2
        assert 0.4 < float(row["accuracy"]) < 1
        assert 0 < float(row["i_ty_bins"]) < math.log2(10)
        assert 3 < float(row["h_bins"]) < math.log2(1400)
        assert 1 < float(row["h_cells"]) <= 5
    printed = capsys.readouterr().out
    below = [float(row["h_bins"]) for row in rows]
    each = [below[6 + seed] - below[seed] for seed in range(3)]
    line = next(line for line in printed.splitlines() if re.match(r"batch 4 +[+−]", line))
    assert f"{sum(each) / 3:+.2f}".replace("-", "−") in line
    assert f"({sum(value < 0 for value in each)}/3)" in line
    assert "Seen in bins, each at a level of 1%:" in printed
    assert re.search(r"I\(T;Y\) in bins is \d\.\d\d to \d\.\d\d bits in all settings\.", printed)


def test_a_run_repeats_itself_seed_by_seed(example):
    data = example.digits()
    one, again, other = (example.run("dropout 0.3", seed, data, 1.5, 100) for seed in (0, 0, 1))
    assert one == again
    assert one.h_bins != other.h_bins


def test_all_settings_start_from_the_same_weights_and_come_down_to_the_loss(example):
    data = example.digits()
    starts = set()
    for name, setting in example.SETTINGS.items():
        torch.manual_seed(1)
        net = example.network(setting)
        starts.add(tuple(net.get_submodule(layer).weight.sum().item() for layer in ("linear1", "linear2", "out")))
        assert net.get_submodule(example.LAYER)(torch.tensor(0.3)) == torch.tensor(0.3).tanh()
        before, _ = example.loss_and_accuracy(net, data[0])
        assert 0 < example.train(net, setting, data[0], 1.9, 2000) < math.inf, name
        loss, accuracy = example.loss_and_accuracy(net, data[0])
        assert loss <= 1.9 < before
        assert accuracy > 0.2
    assert len(starts) == 1


def test_a_run_that_falls_short_is_left_out_of_the_differences(example, capsys, tmp_path):
    flags = ["--settings", "full batch", "batch 4", "--max-epochs", "1", "--seeds", "1", "--loss", "2"]
    example.main([*flags, "--out", str(tmp_path / "noise.svg")])
    printed = capsys.readouterr().out
    assert "Left out of the differences, since the loss was not reached: full batch (seed 0: 2." in printed
    (row,) = (row for row in rows_of(tmp_path / "noise.csv") if row["setting"] == "full batch")
    assert row["epochs"] == "inf"
    assert "batch 4     –" in printed


def test_the_share_in_the_outer_bins(example):
    net = torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Linear(4, 2))
    x = torch.tensor([[0.1, -3.0, 0.5, 2.0], [0.0, 0.6, 0.8, 0.0]])  # tanh⁻¹ 0.6 = 0.693
    assert example.saturated_share(net, example.Data(x, torch.zeros(2))) == 3 / 8


# --- Differences and words --------------------------------------------------------------------------------------------


def results(example, **of):
    """Networks with given H(T) in bins, seed by seed; in cells all are the same."""
    return [
        example.Result(name.replace("_", " "), seed, 3.0, 0.05, 0.9 + h / 100, h, 3.3, 4.0, 3.2, 0.9 - h / 100, "ok")
        for name, values in of.items()
        for seed, h in enumerate(values)
    ]


def test_differences_are_paired(example):
    found = results(example, full_batch=[6.0, 5.0, 7.0], batch_4=[5.0, 4.2, 6.2])
    of = example.difference(found, "batch 4", "full batch", "h_bins")
    assert of.mean == pytest.approx(-13 / 15)
    assert of.error == pytest.approx(math.sqrt(((2 / 15) ** 2 + 2 * (1 / 15) ** 2) / 2 / 3))
    assert (of.n_below, of.n) == (3, 3)
    assert str(of) == "−0.87 ± 0.07 (3/3)"
    assert of.clear
    assert example.difference(found, "full batch", "full batch", "h_bins") is None
    assert example.difference(found, "full batch", "batch 16", "h_bins") is None


@pytest.mark.parametrize(
    ("mean", "error", "n", "clear"),
    [(1.0, 0.1, 5, True), (-1.0, 0.2, 5, True), (1.0, 0.22, 5, False), (1.0, 0.22, 20, True), (9.0, 0.1, 2, False)],
)
def test_a_difference_is_clear_beyond_students_interval(example, mean, error, n, clear):
    """Its factor is 4.60 for five seeds, 2.86 for twenty."""
    assert example.Difference(mean, error, 0, n).clear is clear


def test_the_words_follow_the_numbers(example):
    lower = [5.0, 4.0, 6.0, 5.5, 4.5]
    higher = [5.9, 5.0, 7.1, 6.5, 5.5]
    other = [5.0, 6.0, 5.5, 4.5, 5.8]
    words = example.findings(results(example, full_batch=higher, batch_128=other, batch_4=lower))
    assert "  batch 4 lies 1.00 ± 0.03 bits below full batch, in 5 of 5 seeds" in words.splitlines()
    assert "Within chance in bins against full batch: batch 128; against batch 128: batch 4." in words
    assert "correlates by −1.00 with the share of values in the outer\nbins, and by +1.00 with" in words
    assert "bins, each at a level of 1%:\n  batch 4 lies" in words
    assert "Seen in cells, each at a level of 1%:\n  nothing\n" in words
    words = example.findings(results(example, full_batch=lower, batch_4=higher))
    assert "  batch 4 lies 1.00 ± 0.03 bits above full batch, in 5 of 5 seeds" in words.splitlines()
    words = example.findings(results(example, slow_full_batch=higher, batch_4=lower))
    assert words.endswith(
        "At one learning rate of 0.01, batch 4 − slow full batch is −1.00 ± 0.03 (5/5) in bins; +0.00 ± 0.00 (0/5) in "
        "cells, within chance."
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--seeds", "0"], "argument --seeds: must be a whole number of at least 1, got '0'"),
        (["--loss", "0"], "argument --loss: must be a finite number above 0, got '0'"),
        (["--loss", "low"], "argument --loss: must be a finite number above 0, got 'low'"),
        (["--settings", "batch 5"], "argument --settings: invalid choice: 'batch 5'"),
        (["--out", "noise.txt"], "argument --out: must end in .png, .pdf or .svg, got 'noise.txt'"),
    ],
)
def test_a_wrong_argument_ends_in_one_sentence(example, capsys, flags, sentence):
    with pytest.raises(SystemExit) as stopped:
        example.main(flags)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
