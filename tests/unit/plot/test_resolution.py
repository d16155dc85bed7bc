"""The picture of a resolution sweep."""

import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_ib.evaluation.resolution import ResolutionSweep
from lightning_ib.plot.resolution import plot_resolution
from tests.helpers.sweeps import made_up

pytestmark = pytest.mark.slow


def texts(figure):
    return [text for text in (t.get_text() for t in figure.legends[0].get_texts()) if text.strip()]


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_figure_has_a_column_a_layer_and_a_line_a_size_and_pool(unit):
    rows = made_up(["conv", "out"], ["none", "max"], unit=unit)
    figure = ResolutionSweep(rows).plot()
    assert len(figure.axes) == 4
    h_conv, i_conv, h_out, i_out = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["conv", "", "out", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == [f"H(T) [{unit}]", f"I(T;Y) [{unit}]", "", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "bins a coordinate"] * 2
    curves = [line for line in h_out.lines if list(line.get_xdata()) == [2, 3, 10]]
    assert len(curves) == 4
    assert len({line.get_linestyle() for line in curves}) == 2
    assert len({line.get_color() for line in curves}) == 2
    assert list(curves[0].get_ydata()) == [
        row.h_t for row in rows if row[:2] == ("out", "none") and row.n_samples == 100
    ]
    scale = 1.0 if unit == "bits" else math.log(2)
    levels = {round(line.get_ydata()[0], 6) for line in h_conv.lines if list(line.get_xdata()) == [0, 1]}
    assert levels == {round(scale * math.log2(n), 6) for n in (100, 1000)}
    assert [line.get_ydata()[0] for line in i_out.lines if list(line.get_xdata()) == [0, 1]] == [1.5 * scale]
    assert texts(figure) == [
        *("N = 100", "N = 1000", "pool: none", "pool: max"),
        *("log N", "H(Y), all samples", "hollow: saturated, H(T) > 0.9 log N"),
    ]
    faces = [points.get_facecolors() for points in i_conv.collections]
    assert all([bool((face == 1).all()) for face in points] == [False, False, True] for points in faces)
    assert h_conv.get_ylim() == h_out.get_ylim()


@pytest.mark.parametrize("n_layers", [1, 3, 5, 12])
def test_nothing_overlaps(n_layers):
    layers = [f"model.encoder.layers.{k}.feed_forward.intermediate.linear" for k in range(n_layers)]
    pools = ["none", "MaxPool3d(kernel_size=(4, 4, 4)…"]
    figure = plot_resolution(made_up(layers, pools, (10, 20, 40, 80, 160), (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30)))
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    page, legend = figure.bbox, figure.legends[0].get_window_extent(renderer)
    panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
    assert len(panels) == 2 * n_layers
    boxes = [legend, *panels]
    for k, box in enumerate(boxes):
        assert box.x0 >= page.x0 - 1
        assert box.x1 <= page.x1 + 1
        assert box.y0 >= page.y0 - 1
        assert box.y1 <= page.y1 + 1
        for other in boxes[:k]:
            apart = (box.x0 - other.x1, other.x0 - box.x1, box.y0 - other.y1, other.y0 - box.y1)
            assert max(apart) > -2
    for axes in figure.axes[1::2]:
        ticks = [label.get_window_extent(renderer) for label in axes.get_xticklabels()]
        assert len(ticks) >= 5
        assert all(left.x1 < right.x0 for left, right in zip(ticks, ticks[1:]))


def test_without_a_target_only_the_entropy_is_drawn():
    figure = plot_resolution([row._replace(i_ty=math.nan) for row in made_up(["a", "b"])])
    assert [axes.get_ylabel() for axes in figure.axes] == ["H(T) [bits]", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["bins a coordinate"] * 2
    assert "H(Y), all samples" not in texts(figure)


def test_a_single_setting_can_be_drawn():
    figure = plot_resolution(made_up(["a"], sizes=(2,), n_bins=(2,)))
    figure.draw_without_rendering()
    assert len(figure.axes) == 2


def test_neither_pyplot_nor_lightning_is_imported(programs):
    program = (
        "import sys; from types import SimpleNamespace; from lightning_ib.plot import plot_resolution as plot;"
        "figures = dict(h_t=1.0, i_ty=1.0, h_y=1.0, saturation=0.5, unit='bits');"
        "plot([SimpleNamespace(layer='a', pool='none', n_bins=2, n_samples=8, **figures)]);"
        "assert 'matplotlib.pyplot' not in sys.modules;"  # torchmetrics imports it, for its own plots
        "import lightning_ib.evaluation.resolution;"
        "assert not {'pytorch_lightning', 'lightning', 'lightning_ib.callbacks'} & set(sys.modules)"
    )
    ran = programs.run(program)
    assert ran.returncode == 0, ran.stderr
