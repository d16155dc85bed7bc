"""Correlations of what codes keep with the gap."""

import math

import pytest

from lightning_ib.functional.ranks import Bar, kendall, spearman
from lightning_ib.reproduce import generalization as module
from lightning_ib.reproduce.clusters import Training
from lightning_ib.reproduce.experiment import Settings, Silent
from lightning_ib.reproduce.finished import FinishedRuns


def fake(model, training):
    """A row in which the gap rises with the information within a draw, and falls from draw to draw."""
    info = model.width / 100 + model.weight_decay
    gap = info - 10 * model.draw
    row = model._asdict() | dict.fromkeys(module.QUANTITIES, info) | {"gap_loss": gap, "verdict": "ok"}
    return row | {"train_accuracy": 0.5 if model.width == 32 else 1.0, "n_parameters": -gap}


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(module, "train", fake)
    return module.run(Settings(True, FinishedRuns(None, {})), Silent(), Training())


def test_networks_that_did_not_learn_are_left_out(found):
    assert len(found.rows) == 4 * 3 * 3
    assert {row["networks"] for row in found.summary} == {27}
    assert "over 27 networks without a constraint" in found.claims[0].found


def test_networks_that_diverged_are_left_out(monkeypatch):
    def some(model, training):
        row = fake(model, training)
        return row if model.width != 64 else model._asdict() | {"train_accuracy": math.nan, "verdict": "diverged"}

    monkeypatch.setattr(module, "train", some)
    found = module.run(Settings(True, FinishedRuns(None, {})), Silent(), Training())
    assert {row["networks"] for row in found.summary} == {18}
    assert len({tuple(row) for row in found.rows}) == 1


def test_correlations_are_those_of_the_values(found):
    kept = [row for row in found.rows if row["train_accuracy"] > 0.85]
    values, gaps = ([row[name] for row in kept] for name in ("i_xz_given_y", "gap_loss"))
    row = found.summary[0]
    tau, rho = kendall(values, gaps), spearman(values, gaps)
    assert row["Kendall's τ [95 %]"] == f"{tau.value:+.2f} [{tau.low:+.2f}, {tau.high:+.2f}]"
    assert row["Spearman's ρ [95 %]"] == f"{rho.value:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}]"
    assert row["τ within each draw"] == "+1.00, +1.00, +1.00"


def test_a_claim_holds_only_outside_the_bars():
    assert module._positive(Bar(0.5, 0.1, 0.7)) is True
    assert module._positive(Bar(0.1, -0.1, 0.3)) is None
    assert module._positive(Bar(-0.5, -0.7, -0.1)) is False
    assert module._positive(Bar(math.nan, math.nan, math.nan)) is None
    assert module._larger(Bar(0.5, 0.4, 0.6), Bar(0.1, 0.0, 0.3)) is True
    assert module._larger(Bar(0.5, 0.2, 0.6), Bar(0.1, 0.0, 0.3)) is None
    assert module._larger(Bar(0.1, 0.0, 0.3), Bar(0.5, 0.4, 0.6)) is False


def test_the_setting_of_the_paper_is_216_networks(monkeypatch):
    monkeypatch.setattr(module, "train", fake)
    found = module.run(Settings(False, FinishedRuns(None, {})), Silent(), Training())
    assert len(found.rows) == 2 * 108
    assert [row["networks"] for row in found.summary] == [81] * 12
    assert len(found.claims) == 4


def test_the_picture_shows_each_network_and_each_correlation(found):
    from lightning_ib.reproduce.generalization_picture import draw

    group = module._group(0.0, found.rows)
    figure = draw([group], module.QUANTITIES)
    scatter, counted, bars = figure.axes
    for axes in (scatter, counted):
        assert sum(len(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "None") == 27
    assert "[bits]" in scatter.get_xlabel()
    assert "[nats]" in scatter.get_ylabel()
    assert [label.get_text() for label in bars.get_yticklabels()] == list(module.QUANTITIES.values())
