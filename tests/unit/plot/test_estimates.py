"""Figures of what estimators say: every panel, line and band is what was estimated, and nothing else."""

import math

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from lightning_ib.plot.estimates import plot_estimates
from lightning_ib.plot.labels import VERDICT_MARKERS, depth_colors
from lightning_ib.plot.resolution import plot_resolution
from lightning_ib.records import Record
from lightning_ib.records.resolution import Resolution


def estimate(figure="I_TY", value=1.0, *, epoch=0, layer="hidden", estimator="kde", unit="bits", step=None):
    step = 10 * epoch if step is None else step
    return Record(epoch, step, layer, estimator, figure, value, unit=unit, n_samples=100)


def run(estimator="kde", figures=("I_XT", "I_TY"), layers=("hidden", "out"), epochs=range(4), unit="bits"):
    """A made-up run: every value is another."""
    return [
        estimate(figure, 1 + i + 0.1 * k + 0.01 * epoch, epoch=epoch, layer=layer, estimator=estimator, unit=unit)
        for epoch in epochs
        for k, layer in enumerate(layers)
        for i, figure in enumerate(figures)
    ]


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def lines(axes):
    """The lines that hold data, as lists of (epoch, value)."""
    drawn = [line.get_xydata() for line in axes.get_lines()]
    return [[tuple(point) for point in path] for path in drawn if len(path)]


def bands(axes):
    return [collection for collection in axes.collections if isinstance(collection, PolyCollection)]


def test_each_doubt_has_a_hollow_marker_of_its_own_and_the_legend_names_it():
    doubts = ["ok", "saturated", "", "above_bound", "outgrown", "at_chance", "below_zero"]
    estimates = [estimate(epoch=e)._replace(verdict=doubt) for e, doubt in enumerate(doubts)]
    figure = drawn_on_canvas(plot_estimates(estimates))
    hollow = {}
    for markers in figure.axes[0].collections:
        for (epoch, _), face in zip(markers.get_offsets(), np.resize(markers.get_facecolors(), (9, 4))):
            hollow[doubts[int(epoch)]] = tuple(face) == (1, 1, 1, 1)
    assert hollow == {doubt: doubt not in ("ok", "") for doubt in doubts}
    assert all(doubt in VERDICT_MARKERS for doubt in doubts if hollow[doubt])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["hidden", *(f"flagged: {doubt}" for doubt in sorted(doubts) if hollow[doubt])]
    sound = plot_estimates([one._replace(verdict="ok") for one in estimates])
    assert [text.get_text() for text in sound.legends[0].get_texts()] == ["hidden"]


def test_names_that_begin_with_an_underscore_or_look_like_formulas_are_in_the_legend():
    layers = ["_conv_stem", "_blocks", "fc$\\alpha$", "out"]
    figure = drawn_on_canvas(plot_estimates(run("$mine$", layers=layers)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == layers
    assert not any(text.get_parse_math() for text in figure.legends[0].get_texts())
    assert [axes.get_title() for axes in figure.axes] == ["$mine$: I(X;T)", "$mine$: I(T;Y)"]


def test_a_layer_has_the_color_it_has_in_the_plane():
    layers = ["a", "b", "c"]
    figure = plot_estimates(run(layers=layers))
    assert [line.get_color() for line in figure.axes[0].get_lines()] == depth_colors(3)
    rows = [Resolution(layer, "none", 2, n, 1.0, 0.5, 0.9, 0.1, 4, 0.0, "bits") for layer in layers for n in (10, 20)]
    panels = plot_resolution(rows).axes[::2]
    strongest = [[line for line in axes.lines if list(line.get_xdata()) == [2]][-1] for axes in panels]
    assert [line.get_color() for line in strongest] == depth_colors(3)


def test_long_runs_have_few_markers_and_a_logarithmic_axis():
    estimates = [one._replace(verdict="ok" if one.epoch < 37 else "outgrown") for one in run(epochs=range(301))]
    axes = drawn_on_canvas(plot_estimates(estimates)).axes[0]
    assert axes.get_xscale() == "symlog"
    epochs = {epoch for markers in axes.collections for epoch in markers.get_offsets()[:, 0]}
    assert epochs == {0, 1, 10, 37, 100, 300}
    assert [len(line) for line in lines(axes)] == [301, 301]


def test_widths_and_soft_entropies_have_panels_with_names():
    figures = {"noise_variance": "", "kernel_width": "", "H_T": "[bits]", "I_TY_floor": "[bits]"}
    figure = plot_estimates([estimate(name, unit=unit.strip("[]")) for name, unit in figures.items()])
    assert {axes.get_title(): axes.get_ylabel() for axes in figure.axes} == {
        "kde: σ²": "",
        "kde: kernel width": "",
        "kde: H(T)": "[bits]",
        "kde: I(T;Y), permuted labels": "[bits]",
    }


def drawn_on_canvas(figure):
    """As saving would draw it: no warning, no error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    return figure


def test_a_panel_for_each_estimator_and_figure():
    ksg = run("ksg", figures=("I_XT",))
    probe = [estimate("I_TY", 0.5, estimator="probe"), estimate("accuracy", 0.9, estimator="probe", unit="")]
    figure = drawn_on_canvas(plot_estimates(run() + ksg + probe))
    assert [axes.get_title() for axes in figure.axes] == [
        "kde: I(X;T)",
        "kde: I(T;Y)",
        "ksg: I(X;T)",
        "probe: I(T;Y)",
        "probe: held-out accuracy",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == ["[bits]"] * 4 + ["share"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}


def test_the_unit_is_that_of_the_estimates():
    figure = plot_estimates(run(unit="nats"))
    assert [axes.get_ylabel() for axes in figure.axes] == ["[nats]"] * 2


def test_an_information_has_its_unit_after_an_accuracy_too():
    figure = plot_estimates([estimate("accuracy", 0.9, unit=""), estimate("I_TY", 1.0)])
    assert panels(figure)["kde: I(T;Y)"].get_ylabel() == "[bits]"


def test_a_figure_of_ones_own_keeps_its_name():
    figure = plot_estimates([estimate("curvature", 3.0, estimator="mine")])
    assert [axes.get_title() for axes in figure.axes] == ["mine: curvature"]


def test_a_line_for_each_layer_through_its_values():
    estimates = run()
    figure = plot_estimates(estimates)
    for title, name in (("kde: I(X;T)", "I_XT"), ("kde: I(T;Y)", "I_TY")):
        expected = [
            [(one.epoch, one.value) for one in estimates if (one.layer, one.quantity) == (layer, name)]
            for layer in ("hidden", "out")
        ]
        assert lines(panels(figure)[title]) == expected


def test_the_order_of_the_estimates_makes_no_difference_to_the_lines():
    straight, reverse = (plot_estimates(estimates) for estimates in (run(), run()[::-1]))
    for title, axes in panels(straight).items():
        assert sorted(lines(axes)) == sorted(lines(panels(reverse)[title]))


def test_with_several_values_an_epoch_time_is_counted_in_steps():
    """As with every_n_train_steps."""
    figure = plot_estimates([estimate(value=value, step=step) for step, value in ((1, 3.0), (2, 1.0), (3, 2.0))])
    assert lines(figure.axes[0]) == [[(1, 3.0), (2, 1.0), (3, 2.0)]]
    assert figure.axes[0].get_xlabel() == "step"


def test_a_layer_has_one_color_and_the_legend_tells_which():
    layers = ("net.first.linear", "net.second.linear", "net.head")
    figure = plot_estimates(run(layers=layers) + run("ksg", layers=layers[1:]))
    (legend,) = figure.legends
    named = dict(zip([text.get_text() for text in legend.get_texts()], legend.get_lines()))
    assert len(named) == 3
    assert all(label in layer for label, layer in zip(named, layers))
    colors = [line.get_color() for line in named.values()]
    assert len(set(colors)) == 3
    for title, axes in panels(figure).items():
        shown = [line.get_color() for line in axes.get_lines() if len(line.get_xydata())]
        assert shown == (colors if title.startswith("kde") else colors[1:])


def test_layers_whose_ends_are_alike_are_told_apart():
    figure = plot_estimates(run(layers=("encoder.0.linear", "decoder.0.linear")))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(set(labels)) == 2


def test_a_band_from_the_lower_bound_to_the_upper_one():
    upper, lower = run(figures=("I_TY",)), run(figures=("I_TY_lower",))
    lower = [one._replace(value=one.value - 0.5) for one in lower]
    (axes,) = drawn_on_canvas(plot_estimates(upper + lower)).axes
    assert axes.get_title() == "kde: I(T;Y)"
    assert len(bands(axes)) == 2
    for band, path, line in zip(bands(axes), lines(axes), axes.get_lines()):
        corners = band.get_paths()[0].vertices
        for epoch, value in path:
            at = corners[corners[:, 0] == epoch, 1]
            assert (at.min(), at.max()) == pytest.approx((value - 0.5, value))
        assert np.allclose(band.get_facecolor()[0][:3], line.get_color()[:3])


def test_no_lower_bound_no_band():
    figure = plot_estimates(run() + run("probe") + run(figures=("I_XT_lower",)))
    assert [len(bands(axes)) for axes in figure.axes] == [2, 0, 0, 0]


def test_a_layer_may_lack_the_lower_bound_that_another_has():
    figure = plot_estimates(run(figures=("I_TY",)) + [estimate("I_TY_lower", 0.5, layer="out")])
    assert len(bands(figure.axes[0])) == 1


def test_a_lower_bound_alone_is_drawn():
    """As one would name what a variational bound gives."""
    assert lines(plot_estimates([estimate("I_TY_lower", 0.5, estimator="mine")]).axes[0]) == [[(0.0, 0.5)]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_left_out(value):
    estimates = run()
    missing = [one._replace(value=value) if (one.epoch, one.layer) == (2, "out") else one for one in estimates]
    figure = drawn_on_canvas(plot_estimates(missing))
    for axes in figure.axes:
        hidden, out = lines(axes)
        assert [epoch for epoch, _ in hidden] == [0, 1, 2, 3]
        assert [epoch for epoch, _ in out] == [0, 1, 3]


def test_an_estimator_that_never_had_a_figure_has_no_panel():
    failed = [one._replace(value=math.nan) for one in run("ksg")]
    assert {axes.get_title() for axes in plot_estimates(run() + failed).axes} == {"kde: I(X;T)", "kde: I(T;Y)"}


def test_a_layer_that_never_had_a_figure_is_not_in_the_legend():
    estimates = [one._replace(value=math.nan) if one.layer == "out" else one for one in run()]
    assert [text.get_text() for text in plot_estimates(estimates).legends[0].get_texts()] == ["hidden"]


@pytest.mark.parametrize("estimates", [[], [estimate(value=math.nan)], [estimate(value=math.inf)]])
def test_nothing_to_draw_is_refused(estimates):
    with pytest.raises(ValueError, match="^there is no estimate to draw: none is finite.$"):
        plot_estimates(estimates)


@pytest.mark.parametrize("n_layers", [1, 12, 40])
def test_however_many_layers(n_layers):
    figure = drawn_on_canvas(plot_estimates(run(layers=[f"block.{k}" for k in range(n_layers)])))
    assert len(figure.legends[0].get_texts()) == n_layers


def test_one_measurement_alone():
    assert lines(drawn_on_canvas(plot_estimates([estimate(value=0.25)])).axes[0]) == [[(0.0, 0.25)]]


def test_negative_figures_are_drawn_as_they_are():
    assert lines(plot_estimates([estimate(value=-0.25)]).axes[0]) == [[(0.0, -0.25)]]


def test_epochs_are_whole_numbers():
    figure = drawn_on_canvas(plot_estimates(run(epochs=range(2))))
    assert all(float(tick).is_integer() for axes in figure.axes for tick in axes.get_xticks())


def test_no_pyplot_and_no_lightning(programs):
    """Neither by these panels nor by the rows as points."""
    program = (
        "import sys, torch; from lightning_ib.plot import plot_estimates; from lightning_ib.records import Record;"
        "from lightning_ib.plot.embedding import plot_tsne; from lightning_ib.estimators import Rows;"
        "plot_estimates([Record(0, 0, 'out', 'kde', 'I_TY', 1.0, unit='bits', n_samples=9)]);"
        "plot_tsne({'out': Rows(torch.rand(12, 3), torch.arange(12) % 2)});"
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'pytorch_lightning' not in sys.modules"
    )
    ran = programs.run(program)
    assert ran.returncode == 0, ran.stderr
