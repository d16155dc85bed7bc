"""Small planes, the size of a paper, and frames of a film, down to what is drawn."""

import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from lightning_ib import History
from lightning_ib.plot import plot_information_plane, plot_layers, plot_runs
from lightning_ib.plot.labels import depth_colors
from tests.unit.plot.test_information_plane import point, read

LAYERS = ("conv", "dense", "out")


def history(layers=LAYERS, epochs=(0, 1, 2, 3), unit="bits", shift=0.0, verdict="ok"):
    points = [
        point(epoch, layer, 9 - k - epoch / 4 + shift, 1 + 0.4 * epoch + k / 4, unit=unit, verdict=verdict)
        for epoch in epochs
        for k, layer in enumerate(layers)
    ]
    return History.of(points, read(points[-len(layers) :]))


def drawn(figure):
    """The figure once it is drawn."""
    FigureCanvasAgg(figure).draw()
    return figure


def texts(figure):
    return [one for one in figure.findobj(Text) if one.get_text() and one.get_visible()]


def ends(axes):
    return axes.get_xlim(), axes.get_ylim()


def legend(figure):
    return [one.get_text() for one in figure.legends[0].get_texts()]


@pytest.mark.parametrize("style", ["screen", "paper"])
def test_each_layer_has_a_plane_on_equal_axes(style):
    run = history()
    figure = drawn(plot_layers(run, run.estimates(), style=style))
    assert [axes.get_title() for axes in figure.axes] == list(LAYERS)
    assert len({ends(axes) for axes in figure.axes}) == 1
    for axes in figure.axes:
        others = [line for line in axes.lines if line.get_color() == "0.82"]
        assert len(others) == len(LAYERS) - 1
    assert legend(figure) == ["epoch 0", "1", "3", "linear probe", "H(Y) = 3.32"]


def test_runs_share_axes_unit_colors_and_legend():
    runs = {"first": history(), "second": history(("conv", "new"), unit="nats", shift=-3, verdict="saturated")}
    figure = drawn(plot_runs(runs))
    assert [axes.get_title() for axes in figure.axes] == ["first", "second"]
    assert len({ends(axes) for axes in figure.axes}) == 1
    assert figure.axes[0].get_xlabel() == "I(X;T) [bits]"
    expected = [*LAYERS, "new", "first", "last", "linear probe", "flagged: saturated", "H(Y) = 3.32"]
    assert legend(figure) == expected
    handles = figure.legends[0].legend_handles[:4]
    assert [handle.get_markerfacecolor() for handle in handles] == depth_colors(4)
    low, high = figure.axes[0].get_xlim()
    assert low < 5.25
    assert high > 9
    assert drawn(plot_runs(runs, unit="nats")).axes[0].get_xlim()[1] == pytest.approx(high * math.log(2), rel=0.05)


def test_a_frame_has_the_fano_bound_of_its_moment_and_the_axes_of_the_film():
    run = History.of(one._replace(i_ty_fano=0.25 + one.epoch / 2) for one in history())
    first, last = (drawn(plot_information_plane(run, until=epoch)) for epoch in (0, 3))
    assert ends(first.axes[0]) == ends(last.axes[0])
    for figure, bound in ((first, "Fano ≥ 0.25"), (last, "Fano ≥ 1.75")):
        assert any(one.get_text().startswith(bound) for one in texts(figure))


def test_a_layer_without_a_value_is_named_below_the_plane():
    run = History.of([*history(), *(one._replace(layer="dead", i_xt=math.nan) for one in history(("out",)))])
    assert any("no value: dead" in one.get_text() for one in texts(drawn(plot_information_plane(run))))


def test_networks_with_other_layers_have_the_whole_range_of_colors_each():
    runs = {"first": history(("a", "b", "c")), "second": history(("x", "y"))}
    figure = drawn(plot_runs(runs))
    handles = figure.legends[0].legend_handles[:5]
    assert [handle.get_markerfacecolor() for handle in handles] == depth_colors(3) + depth_colors(2)


def test_runs_without_a_target_are_drawn_over_time():
    nothing = History.of([point(epoch, "out", 3.0, math.nan) for epoch in (0, 1)])
    figure = drawn(plot_runs({"a": nothing, "b": nothing}))
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("epoch", "I(X;T) [bits]")
    with pytest.raises(ValueError, match=r"a has no I\(T;Y\) and the others do"):
        plot_runs({"a": nothing, "b": history()})
    with pytest.raises(ValueError, match="there is no run to draw"):
        plot_runs({})


@pytest.mark.parametrize(
    "draw", [plot_information_plane, plot_layers, lambda run, *_, style: plot_runs({"a": run}, style=style)]
)
def test_a_paper_has_a_column_of_small_vector_text(draw, tmp_path):
    run = history()
    figure = drawn(draw(run, run.estimates(), style="paper"))
    assert figure.get_figwidth() == 3.4
    assert {7, 8} >= {one.get_fontsize() for one in texts(figure)}
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= 3.41
    assert box.y1 <= figure.get_figheight()


def test_an_unknown_style_is_refused():
    with pytest.raises(ValueError, match="style must be 'screen' or 'paper', got 'papers': did you mean 'paper'?"):
        plot_information_plane(history(), style="papers")


def test_frames_share_the_axes_of_the_whole():
    run = history()
    frames = [drawn(plot_information_plane(run, run.estimates(), until=epoch)) for epoch in range(4)]
    whole = drawn(plot_information_plane(run, run.estimates()))
    assert {ends(figure.axes[0]) for figure in frames} == {ends(whole.axes[0])}
    assert {tuple(figure.get_size_inches()) for figure in frames} == {tuple(whole.get_size_inches())}
    assert [figure.axes[0].get_title(loc="left") for figure in frames] == [
        f"Information plane, epoch {epoch}" for epoch in range(4)
    ]
    places = [next(one for one in texts(figure) if one.get_text() == "out").get_position() for figure in frames]
    assert len(set(places)) == 4


def test_a_layer_that_comes_later_keeps_its_color_in_every_frame():
    run = History.of(
        [point(0, "late", math.nan, math.nan), point(0, "out", 4, 1), point(1, "late", 6, 2), point(1, "out", 4, 2)]
    )
    for epoch in (0, 1):
        figure = plot_information_plane(run, until=epoch)
        names = {one.get_text(): one for one in texts(drawn(figure))}
        assert ("late" in names) == (epoch == 1)
