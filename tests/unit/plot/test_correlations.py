"""The picture of rank correlations over runs."""

import pytest

from lightning_ib.plot import plot_correlations
from lightning_ib.records import RankCorrelation


def rows(n):
    return [
        RankCorrelation(f"$layer_{k}$", "cells", "I_XT", 6, 0.9 - 0.1 * k, 0.1, 1.0, 0.9, 0.1, 1.0, k % 2)
        for k in range(n)
    ]


def test_each_quantity_has_a_line_and_a_marker_that_says_whether_it_is_flagged():
    figure = plot_correlations(rows(3), "val_loss", "bars: 95 %")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"I_XT, cells, $layer_{k}$" for k in range(3)]
    markers = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in markers] == pytest.approx([0.9, 0.8, 0.7])
    assert [line.get_markerfacecolor() for line in markers] == ["tab:blue", "white", "tab:blue"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the largest stands above
    assert axes.get_xlabel() == "Kendall's τ-b with val_loss, over 6 runs"
    assert figure.get_supxlabel() == "bars: 95 %; hollow: flagged in some run"


def test_of_many_the_first_are_drawn():
    figure = plot_correlations(rows(23), "val_loss")
    assert len(figure.axes[0].get_yticks()) == 20
    assert figure.get_supxlabel().endswith("3 more are not drawn")
    with pytest.raises(ValueError, match="there is no correlation to draw."):
        plot_correlations([], "val_loss")
