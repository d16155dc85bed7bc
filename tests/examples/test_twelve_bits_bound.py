"""The layers of the tanh-and-ReLU example beside the bound: symbols, distances, and what is printed of them."""

import csv
import importlib
import math

import pytest
import torch
from torch import nn

from lightning_ib.bottleneck import distance_to_bound
from tests.examples.test_tanh_vs_relu import SCRIPT


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        yield importlib.import_module(SCRIPT.stem)


@pytest.fixture(scope="module")
def beside(example):
    return example.beside_bound


@pytest.fixture(scope="module")
def task(example, beside):
    return beside.task(example.rule(example.power(example.patterns())).p)


@pytest.fixture(scope="module")
def x(example):
    return 2 * example.patterns().float() - 1


def networks(example, activation, n=1):
    """Networks as they are before training; their weights are larger, so that layers differ."""
    network = importlib.import_module("twelve_bits").network

    nets = [network(activation, torch.Generator().manual_seed(seed)) for seed in range(n)]
    with torch.no_grad():
        for net in nets:
            for weight in net.parameters():
                weight.mul_(2)
    return nets


@pytest.mark.slow
def test_the_task_has_the_information_of_the_rule(example, task):
    assert task.curve.i_xy == pytest.approx(0.99, abs=1e-9)
    assert float(task.p_xy.sum()) == pytest.approx(1, abs=1e-12)
    assert float(task.curve.gap.max()) < 1e-10
    # Nearly a function of x: just below the broken line of hard labels.
    r = torch.tensor([0.25, 0.5, 0.9])
    assert ((task.curve.bound(r) < r) & (task.curve.bound(r) > 0.99 * r)).all()


@pytest.mark.parametrize("panel", ["tanh", "relu", "tanh_cells", "relu_cells"])
def test_symbols_are_those_of_the_plane(example, beside, x, panel):
    activation, bins = example.PANELS[panel].activation, example.PANELS[panel].bins
    nets = networks(example, activation)
    team = example.Team(nets, activation())
    y = (x[:, 0] > 0).long()
    points = {one.point.layer: one.point for one in example.measured({panel: example.plane(bins)}, team, x, y, 0, 0)}
    for layer, symbols in beside.layer_symbols(nets[0], x, bins):
        counts = symbols.bincount().double()
        p = counts[counts > 0] / len(x)
        assert float(-(p * p.log2()).sum()) == pytest.approx(points[layer].h_t, abs=1e-9), layer


def test_distances_are_those_of_the_encoder_and_the_rule(example, beside, task, x):
    nets = networks(example, nn.Tanh, 2)
    found = list(beside.distances(task, nets, x, {"tanh": example.UNIT}, epoch=7))
    assert [(one.seed, one.layer) for one in found] == [(seed, layer) for seed in range(2) for layer in example.LAYERS]
    symbols = dict(beside.layer_symbols(nets[1], x, example.UNIT))
    one = found[-2]
    exact = distance_to_bound(symbols["layer5"], task.p_xy)
    assert (one.epoch, one.panel) == (7, "tanh")
    assert one.i_ty == pytest.approx(exact.i_ty, abs=1e-9)
    assert one.gap == pytest.approx(exact.gap, abs=1e-4)
    joint = torch.zeros(int(symbols["layer5"].max()) + 1, 2, dtype=torch.float64).index_add(
        0, symbols["layer5"], task.p_xy
    )
    by_hand = torch.special.xlogy(joint, joint / (joint.sum(1, keepdim=True) * joint.sum(0))).sum() / math.log(2)
    assert one.i_ty == pytest.approx(float(by_hand), abs=1e-9)


def test_the_surplus_is_what_an_optimal_encoder_would_save(beside, task):
    for k in (10, 30, 50):
        i_xt, i_ty = float(task.curve.i_xt[k]), float(task.curve.i_ty[k])
        assert beside.surplus(task.curve, i_xt, i_ty) == pytest.approx(0, abs=1e-6)
        assert beside.surplus(task.curve, i_xt + 2, i_ty) == pytest.approx(2, abs=1e-6)
    assert beside.surplus(task.curve, 3.0, 0.0) == pytest.approx(3, abs=1e-6)


def test_tables_and_findings_say_what_was_measured(example, beside, task, tmp_path):
    def of(epoch, layer, gap, beyond, beta):
        return beside.Distance("tanh", 0, epoch, layer, 5.0, 0.99 - gap, 0.99, gap, beyond, beta, beyond)

    found = [of(0, layer, 0.9, 4.0, 1.0) for layer in example.LAYERS]
    found += [
        of(9, layer, 0.95 if layer == "out" else 0.1, 1.0, math.inf if layer == "layer1" else 2.0)
        for layer in example.LAYERS
    ]
    words = beside.findings(found, {"tanh": "TANH"})
    assert (
        "TANH: in I(T;Y), layer1, layer2, layer3, layer4, layer5 came nearer to the bound, out went away from it"
        in words
    )
    assert "layer5 from 0.900 to 0.100 bits below, and from 4.00 to 1.00 bits of I(X;T)" in words
    assert "1 of 6 layers have β = ∞" in words
    rows = beside.table(found, {"tanh": "TANH"}).splitlines()
    assert "    9  layer1    5.00   0.890   0.990   0.100     1.00    1.00   ∞ in 1 of 1" in rows
    beside.write_csv(found, tmp_path / "d.csv")
    with (tmp_path / "d.csv").open(newline="") as file:
        assert [tuple(row) for row in csv.reader(file)][1] == tuple(map(str, found[0]))
    figure = beside.draw(found, task, {"tanh": "TANH"})
    plane, gaps = figure.axes
    assert plane.get_title() == "TANH"
    assert "IB bound" in [one.get_text() for one in figure.legends[0].get_texts()]
    assert [list(line.get_ydata()) for line in gaps.lines][-1] == pytest.approx([0.9, 0.95])
