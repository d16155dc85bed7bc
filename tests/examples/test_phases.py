"""The example of the phases of training: its runs, what it reads off them, and the whole script on small settings."""

import csv
import importlib
import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ib import History, Record
from lightning_ib.records.record import GRADIENT
from tests.helpers import ROOT

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn", reason="needs the extra: pip install 'lightning-ib[example]'")

SCRIPT = ROOT / "examples" / "phases.py"


@pytest.fixture(scope="module")
def modules():
    """The script and the modules beside it, by their names."""
    names = ("phases", "phases_runs", "phases_table", "phases_picture", "twelve_bits")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as for a script
        yield {name: importlib.import_module(name) for name in names}


@pytest.fixture
def runs(modules):
    return modules["phases_runs"]


@pytest.fixture
def tables(modules):
    return modules["phases_table"]


def task(modules):
    x = 2 * modules["twelve_bits"].patterns().float() - 1
    return x, (x.sum(1) > 0).long()


@pytest.fixture(scope="module")
def run(modules):
    """Two epochs of the twelve bits with tanh, in batches of 512."""
    options = {"activation": "tanh", "batch_size": 512, "seed": 3, "n_epochs": 2, "noise": 0.25}
    return modules["phases_runs"].twelve_bits_run(*task(modules), **options)


def made(runs, snr, distances, h_t, *, batch_size=8):
    """A run of one layer, with a moment for each of the lists; H(T) has one more, before training."""
    records = []
    for k, (one, distance) in enumerate(zip(snr, distances)):
        values = {"grad_snr": one, "grad_snr_floor": 0.25, "noise_scale": batch_size / one**2}
        for layer in ("layer1", "all_layers"):
            records += [Record(10**k, 0, layer, GRADIENT, name, value) for name, value in values.items()]
            records.append(Record(10**k, 0, layer, GRADIENT, "weight_distance", distance))
    records += [
        Record(10 ** (k - 1) if k else 0, 0, "layer1", "cells", "H_T", value, standard_error=0.1, unit="bits")
        for k, value in enumerate(h_t)
    ]
    return runs.Run("twelve bits", "tanh", batch_size, 0, "epoch", History(records))


# -- runs --------------------------------------------------------------------------------------------------------------


def test_the_gradients_are_those_of_the_steps_of_an_epoch(modules, run):
    x, y = task(modules)
    generator = torch.Generator().manual_seed(3)
    net = modules["twelve_bits"].network(nn.Tanh, generator)
    start = net.layer3[0].weight.detach().clone()
    rows = torch.randperm(4096, generator=generator)[:3482]
    adam = torch.optim.Adam(net.parameters(), lr=4e-4)
    for epoch in (1, 2):
        gradients = []
        for batch in rows[torch.randperm(3482, generator=generator)].split(512):
            adam.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            gradients.append(net.layer3[0].weight.grad.double().numpy().ravel().copy())
            adam.step()
        values = {
            one.quantity: one.value
            for one in run.history.gradients().records()
            if (one.layer, one.epoch) == ("layer3", epoch)
        }
        mean, spread = np.mean(gradients, axis=0), np.std(gradients, axis=0, ddof=1)
        assert values["grad_mean"] == pytest.approx(np.linalg.norm(mean), rel=1e-3)
        assert values["grad_std"] == pytest.approx(np.linalg.norm(spread), rel=1e-3)
        assert values["grad_snr_floor"] == pytest.approx(1 / math.sqrt(7))
        way = float((net.layer3[0].weight.detach() - start).norm())
        assert values["weight_distance"] == pytest.approx(way, rel=1e-3)


def test_both_kinds_of_symbols_and_the_bound_are_measured_before_training_and_at_every_moment(runs, run):
    records = run.history.records()
    for source, quantity in (("binned", "H_T"), ("cells", "H_T"), (runs.BOUND, "compression_bound")):
        moments = [(one.epoch, one.layer) for one in records if (one.source, one.quantity) == (source, quantity)]
        layers = ["layer1", "layer2", "layer3", "layer4", "layer5", "out"]
        assert moments == [(epoch, layer) for epoch in (0, 1, 2) for layer in layers]
    assert {one.epoch for one in records if one.source == GRADIENT} == {1, 2}


@pytest.mark.parametrize("noise", [0.01, 0.5])
def test_the_bound_is_that_of_the_covariance_of_the_layer_before(modules, runs, noise):
    x, _ = task(modules)
    net = modules["twelve_bits"].network(nn.Tanh, torch.Generator().manual_seed(0))
    found = {one.layer: one for one in runs.bounds(net, x, noise, epoch=4, step=9)}
    with torch.no_grad():
        before = net.layer2(net.layer1(x)).double().numpy()
    w = net.layer3[0].weight.detach().double().numpy()
    of_noise = np.eye(5) + w @ np.cov(before.T, ddof=0) @ w.T / noise
    assert found["layer3"].value == pytest.approx(0.5 * np.linalg.slogdet(of_noise)[1] / math.log(2))
    assert found["layer3"][:2] == (4, 9)
    # All patterns, so that the covariance of the input is the identity.
    w = net.layer1[0].weight.detach().double().numpy()
    expected = 0.5 * np.linalg.slogdet(np.eye(10) + w @ w.T / noise)[1] / math.log(2)
    assert found["layer1"].value == pytest.approx(expected)


def test_the_network_of_mnist_has_its_activation_exchanged(runs):
    for name, kind, other in (("tanh", nn.Tanh, nn.ReLU), ("ReLU", nn.ReLU, nn.Tanh)):
        net = runs.mnist_network(name)
        assert sum(isinstance(one, kind) for one in net.modules()) == 2
        assert not any(isinstance(one, other) for one in net.modules())
        assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


# -- what is read off them ---------------------------------------------------------------------------------------------


def test_phases_are_read_from_the_transition_on(runs, tables):
    walk = [1.0, 2.0, *(2 * 10 ** (0.5 * k) for k in range(1, 4))]
    run = made(runs, [3.0, 2.0, 0.5, 0.4, 0.2], [1.0, 2.0, 20.0, 200.0, 2000.0], [5.0] * 6)
    found = tables.phases(run, "layer1")
    assert found.transition == 100
    assert (found.snr_first, found.snr_max, found.snr_last, found.floor, found.at_floor) == (3, 3, 0.2, 0.25, 0.2)
    assert found.noise_scale == pytest.approx(8 / 9)
    assert found.noise_scale_last == pytest.approx(200)
    assert found.diffusion.exponent == pytest.approx(1)
    assert (found.diffusion.first, found.diffusion.last) == (100, 10_000)
    # From too late a transition on there are fewer than 1.5 decades.
    late = tables.phases(made(runs, [3.0, 2.0, 2.0, 0.4, 0.2, 0.1][1:], walk, [5.0] * 6), "layer1")
    assert late.transition == 100
    short = made(runs, [3.0, 0.5, 0.4, 0.2], walk[1:], [5.0] * 5)
    assert tables.phases(short, "layer1").diffusion.exponent == pytest.approx(0.5)
    short = runs.Run(*short[:4], "epoch", short.history.until(10, 0))
    assert math.isnan(tables.phases(short, "layer1").transition)
    assert math.isnan(tables.phases(short, "layer1").diffusion.exponent)
    assert tables.exponent(tables.phases(short, "layer1").diffusion).endswith("1–10: under 1.5 decades")


@pytest.mark.parametrize(
    ("h_t", "begins", "leaves"),
    [
        ({0: 5.0, 1: 6.0, 10: 5.9, 100: 4.0}, 1, 10),
        ({0: 6.0, 1: 5.0, 10: 5.5, 100: 5.0}, 0, 0),
        ({0: 5.0, 1: 6.0, 10: 3.0, 100: 5.75}, math.nan, math.nan),  # back within two errors of the difference
        ({0: 4.0, 1: 5.0, 10: 5.5, 100: 6.0}, math.nan, math.nan),
    ],
)
def test_compression_begins_at_the_largest_entropy_if_it_falls_for_good(tables, h_t, begins, leaves):
    entropies = {time: (value, 0.1) for time, value in h_t.items()}
    found = tables.compression(entropies, layer="out", source="cells", transition=10.0)
    assert (found.begins, found.leaves) == pytest.approx((begins, leaves), nan_ok=True)
    assert (found.h_max, found.h_transition) == (max(h_t.values()), h_t[10])
    assert (found.h_last, found.se_last) == (h_t[100], 0.1)


def test_entropies_without_errors_compress_beyond_rounding_alone(tables):
    for fall, begins in ((1e-12, math.nan), (1e-3, 1)):
        entropies = {1: (2.0, math.nan), 2: (2.0 - fall, math.nan)}
        found = tables.compression(entropies, layer="out", source="cells", transition=math.nan)
        assert found.begins == pytest.approx(begins, nan_ok=True)
        assert math.isnan(found.h_transition)


def test_the_answer_is_computed_from_pairs(runs, tables):
    snr, way = [3.0, 0.5, 0.4, 0.2], [1.0, 2.0, 3.0, 4.0]
    at_once = made(runs, snr, way, [4.0, 4.5, 6.0, 5.0, 3.0])
    later = made(runs, snr, way, [4.0, 4.5, 4.7, 6.0, 3.0])
    earlier = made(runs, snr, way, [6.0, 5.5, 4.7, 4.0, 3.0])
    never = made(runs, snr, way, [3.0, 3.5, 4.7, 5.0, 6.0])
    without = made(runs, [0.9, 0.5, 0.2, 0.2], way, [4.0, 4.5, 6.0, 5.0, 3.0])
    decades = [tables.pairs(run)[0].decades for run in (at_once, later, earlier)]
    assert decades == pytest.approx([0, 1, -1])  # before training counts as the first moment
    assert not tables.pairs(never)
    assert not tables.pairs(without)
    text = tables.answer([at_once, later, earlier, never, without], "cells")
    assert text.startswith("of 5 layers 4 have a transition, 4 compress (4 by more than 0.5 bits), 3 do both.")
    assert "In 1 of 3 compression begins within a factor of 2 of the transition, and in 1 H(T) is still" in text
    assert "it begins +0.00 (−1.00 to +1.00) decades after the transition" in text
    assert tables.answer([without], "cells").endswith("0 do both: it cannot be said.")
    text = tables.findings([without, at_once._replace(activation="ReLU", batch_size=32)])
    assert "twelve bits, ReLU, cells: of 1 layers 1 have a transition" in text
    assert "Of 2 layers in all, the SNR of 1 is below 1 at every moment" in text
    assert "That of 0 is at or under the floor throughout" in text
    assert "Transition of all weights (twelve bits, tanh): none with batches of 8" in text
    assert "(twelve bits, ReLU): 10 with batches of 32" in text
    text = tables.in_all([pair for run in (at_once, later, earlier) for pair in tables.pairs(run)], "its own")
    assert text.startswith(
        "In all, by its own: of 3 times that both exist, compression begins within a factor of 2 of it"
    )
    assert text.count("of it in 1, earlier in 1, later in 1") == 2  # all fall by more than half a bit
    little = made(runs, snr, way, [4.0, 4.5, 6.0, 5.9, 5.6])
    assert "; of 0 times that H(T) falls by over 0.5 bits" in tables.in_all(tables.pairs(little), "its own")
    silent = made(runs, [0.2, 0.1, 0.2, 0.2], way, [4.0, 4.5, 6.0, 5.0, 3.0])
    assert "That of 1 is at or under the floor throughout" in tables.findings([silent])


def test_the_transition_of_all_weights_takes_the_place_of_the_layers_own(runs, tables):
    run = made(runs, [3.0, 0.5, 0.4, 0.2], [1.0, 2.0, 3.0, 4.0], [4.0, 4.5, 6.0, 5.0, 3.0])
    snr = dict(zip((1, 10, 100, 1000), (0.9, 0.5, 0.4, 0.2)))
    moved = History(
        one._replace(value=snr[one.epoch]) if one.layer == "layer1" and one.quantity == "grad_snr" else one
        for one in run.history.records()
    )
    assert not tables.pairs(run._replace(history=moved))
    assert [one.transition for one in tables.pairs(run._replace(history=moved), of_all_weights=True)] == [10]


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_the_script_measures_prints_and_draws_both_tasks(modules, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    flags = ["--epochs", "2", "--batch-sizes", "1024", "512", "--seeds", "1", "--noise", "0.02"]
    of_mnist = [
        "--data",
        "digits",
        "--images",
        "200",
        "--steps",
        "4",
        "--every",
        "2",
        "--mnist-batch-sizes",
        "40",
        "20",
    ]
    modules["phases"].main([*flags, *of_mnist, "--out", str(tmp_path / "new" / "phases.png")])
    assert torch.equal(torch.get_rng_state(), before)
    files = ["phases.csv", "phases.png", "phases_mnist.png"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", *files]
    for name in files[1:]:
        assert (tmp_path / "new" / name).read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "new" / "phases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["task", "activation", "batch_size", "seed", *Record._fields]
    made = {(row["task"], row["activation"], row["batch_size"]) for row in rows}
    sizes = {"twelve bits": ("1024", "512"), "MNIST": ("40", "20")}
    assert made == {(task, name, size) for task, of in sizes.items() for name in ("tanh", "ReLU") for size in of}
    mnist = [row for row in rows if row["task"] == "MNIST"]
    assert {row["step"] for row in mnist if row["source"] == "gradient"} == {"2", "4"}
    assert {row["step"] for row in mnist if row["source"] == "cells"} == {"0", "2", "4"}
    floors = {float(row["value"]) for row in mnist if row["quantity"] == "grad_snr_floor"}
    assert list(floors) == pytest.approx([2**-0.5])

    printed = capsys.readouterr().out
    for task, of in sizes.items():
        unit = "steps" if task == "MNIST" else "epochs"
        for size in of:
            assert f"\n{task}, ReLU, batches of {size}; times in {unit}\n" in printed
    first = printed.split("batches of 1024; times in epochs\n")[1].splitlines()
    assert "SNR (floor 0.50)" in first[0]  # 4 steps
    chosen = [row for row in rows if row["layer"] == "layer1" and row["quantity"] == "grad_snr"][:2]
    assert first[2].split()[2:5] == [
        f"{float(chosen[0]['value']):.2f}",
        f"{max(float(row['value']) for row in chosen):.2f}",
        f"{float(chosen[1]['value']):.2f}",
    ]
    assert printed.count("cells: of ") == 4
    assert "twelve bits, tanh, bins: of 12 layers" in printed
    assert "MNIST, ReLU, cells: of 6 layers" in printed


def test_the_picture_has_a_column_for_the_bound_where_it_was_computed(modules, runs, run):
    panels = modules["phases_picture"].draw([run], source="cells", noise=0.25).axes
    assert [one.get_title() for one in panels[1:]] == [
        "gradients, all weights",
        "weights from their start",
        "bound, Gaussian, at noise σ² = 0.25",
    ]
    without = run._replace(history=History(one for one in run.history.records() if one.source != runs.BOUND))
    assert len(modules["phases_picture"].draw([without], source="binned", noise=0.25).axes) == 3


def test_the_transition_is_one_line_in_all_columns(modules, run):
    # Two moments become five, of which the third is the first with an SNR below 1.
    moments = [run.history.at(epoch, 7 * epoch).records() for epoch in (0, 1, 2, 2, 2, 2)]
    history = History(
        one._replace(
            epoch=epoch,
            value=(3.0, 2.0, 0.5, 0.4, 0.3)[epoch - 1] if one.quantity == "grad_snr" else one.value,
        )
        for epoch, records in enumerate(moments)
        for one in records
    )
    figure = modules["phases_picture"].draw([run._replace(history=history)], source="cells", noise=0.01)
    for axes in figure.axes:
        assert [list(line.get_xdata()) for line in axes.get_lines() if line.get_color() == "tab:red"] == [[3, 3]]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--epochs", "0"], "argument --epochs: must be a whole number of at least 1, got '0'"),
        (["--batch-sizes", "4000"], "argument --batch-sizes: must be a whole number between 1 and 1741, got '4000'"),
        (["--noise", "0"], "argument --noise: must be a finite number above 0, got '0'"),
        (["--every", "1"], "argument --every: must be a whole number of at least 2, got '1'"),
        (["--steps", "5"], "argument --steps: must be at least --every, 10, got 5"),
        (["--tasks", "digits"], "argument --tasks: invalid choice: 'digits'"),
        (["--out", "plane.txt"], "argument --out: must end in .png, .pdf or .svg, got 'plane.txt'"),
    ],
)
def test_a_bad_argument_is_named_in_a_sentence_before_anything_is_done(modules, capsys, flags, sentence):
    with pytest.raises(SystemExit) as stopped:
        modules["phases"].main(flags)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_data_that_is_unavailable_or_too_small_is_named_before_training(modules, tmp_path):
    flags = ["--data", "digits", "--images", "50", "--out", str(tmp_path / "phases.png")]
    with pytest.raises(SystemExit, match=r"error: batches of 250 take more than the 50 images\."):
        modules["phases"].main(flags)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_is_named_in_a_sentence(modules, tmp_path, capsys):
    (tmp_path / "taken.png").mkdir()
    flags = ["--tasks", "twelve_bits", "--epochs", "1", "--batch-sizes", "1024", "--seeds", "1"]
    with pytest.raises(SystemExit, match="taken.png and the files beside it cannot be written"):
        modules["phases"].main([*flags, "--out", str(tmp_path / "taken.png")])
