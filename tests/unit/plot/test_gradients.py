"""The picture of the phases: every line is what was recorded, the floor and the transition are there."""

import math

import pytest

from lightning_ib import History, Record
from lightning_ib.plot import plot_gradients
from lightning_ib.records.phases import phase_transition

SNR = {1: 4.0, 2: 1.5, 4: 0.5, 8: 0.2, 16: 0.1}


def run(layers=("hidden", "out"), snr=None, m=100, step=None, **changes):
    records = []
    for k, layer in enumerate(layers):
        for epoch, ratio in (snr or SNR).items():
            values = {"grad_mean": ratio, "grad_std": 1.0, "grad_snr": ratio, "grad_snr_floor": m**-0.5}
            values |= {"weight_norm": 2.0 + k, "weight_distance": 0.5} | changes
            at = 10 * epoch if step is None else step
            records += [Record(epoch, at, layer, "gradient", name, value) for name, value in values.items()]
    return History(records)


def lines(axes):
    return [[tuple(point) for point in line.get_xydata()] for line in axes.get_lines()]


@pytest.mark.parametrize("normalized", [True, False])
def test_each_panel_has_mean_spread_floor_and_transition(normalized):
    figure = plot_gradients(run(), normalized=normalized)
    assert [axes.get_title() for axes in figure.axes] == ["hidden", "out"]
    for k, axes in enumerate(figure.axes):
        norm = 2.0 + k if normalized else 1.0
        floor, spread, mean, transition = lines(axes)
        assert mean == [(epoch, pytest.approx(ratio / norm)) for epoch, ratio in SNR.items()]
        assert spread == [(epoch, pytest.approx(1 / norm)) for epoch in SNR]
        assert floor == [(epoch, pytest.approx(0.1 / norm)) for epoch in SNR]
        assert {x for x, _ in transition} == {phase_transition(list(SNR), snr=list(SNR.values()))} == {4}
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_xlabel() == "epoch"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[2:] == ["mean without any signal, spread/√M", "spread > mean from here on"]


def test_without_a_transition_none_is_drawn():
    figure = plot_gradients(run(snr=dict.fromkeys(range(1, 9), 0.3)))
    assert [len(lines(axes)) for axes in figure.axes] == [3, 3]
    assert len(figure.legends[0].get_texts()) == 3


def test_values_that_are_missing_leave_gaps_and_layers_without_any_are_left_out():
    history = run(snr={1: 2.0, 2: math.nan, 3: 1.5}) + run(["idle"], grad_mean=math.nan, grad_std=math.nan)
    figure = plot_gradients(history)
    assert [axes.get_title() for axes in figure.axes] == ["hidden", "out"]
    assert [math.isnan(value) for _, value in lines(figure.axes[0])[2]] == [False, True, False]


def test_a_layer_of_zeros_is_drawn_with_gaps():
    assert plot_gradients(run(weight_norm=0.0)).axes


def test_where_records_share_an_epoch_time_is_the_step():
    history = run(snr={1: 2.0}, step=10) + run(snr={1: 1.0}, step=20)
    figure = plot_gradients(history)
    assert figure.axes[0].get_xlabel() == "step"
    assert [x for x, _ in lines(figure.axes[0])[2]] == [10, 20]


@pytest.mark.parametrize("n", [1, 2, 5, 13])
def test_any_number_of_layers_has_its_panels(n):
    figure = plot_gradients(run([f"encoder.layers.{k}.self_attention.dense" for k in range(n)]))
    assert len(figure.axes) == n
    figure.canvas.draw()


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="there is no gradient to draw: GradientSNRCallback records them"):
        plot_gradients(History())
