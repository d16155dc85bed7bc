"""The picture of the information plane, down to what is drawn."""

import math
import subprocess
import sys

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_ib.history import Estimate, InformationPoint
from lightning_ib.plotting import plot_information_plane

LOG_N, H_Y = math.log2(60_000), math.log2(10)


def point(epoch, layer, i_xt, i_ty, saturation=0.5, unit="bits", verdict="", n=60_000):
    scale = 1.0 if unit == "bits" else math.log(2)
    return (
        InformationPoint.missing(layer, epoch=epoch, step=epoch * 10, n_samples=n, unit=unit)
        ._replace(i_xt=scale * i_xt, i_ty=scale * i_ty, h_t=scale * i_xt, h_y=scale * H_Y, saturation=saturation)
        ._replace(verdict=verdict)
    )


def read(points, value=2.0, estimator="probe", figure="I_TY"):
    """What an estimator reads of the same layers."""
    return [Estimate(p.epoch, p.step, p.layer, estimator, figure, value, p.unit, 2000, "ok") for p in points]


def crosses(figure):
    """Where a probe is drawn: the crosses are the small unfilled markers."""
    small = [c for c in figure.axes[0].collections if hasattr(c, "get_sizes") and list(c.get_sizes()) == [16]]
    return [tuple(place) for collection in small for place in collection.get_offsets().tolist()]


def dotted(figure):
    """The heights of the dotted lines across the whole picture."""
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() == ":" and list(line.get_xdata()) == [0, 1]]
    return [line.get_ydata()[0] for line in lines]


def texts(figure):
    (legend,) = figure.legends
    axes = figure.axes[0]
    return [t.get_text() for t in legend.get_texts()], [t.get_text() for t in axes.texts]


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_axes_name_their_unit_and_the_bounds_are_drawn(unit):
    figure = plot_information_plane([point(e, "out", 8 - e, 1 + e / 2, unit=unit) for e in range(4)])
    axes, bar = figure.axes
    assert axes.get_xlabel() == f"I(X;T) [{unit}]"
    assert axes.get_ylabel() == f"I(T;Y) [{unit}]"
    assert bar.get_ylabel() == "epoch"
    scale = 1.0 if unit == "bits" else math.log(2)
    assert texts(figure)[1] == [f"H(Y) = {scale * H_Y:.2f} {unit}", f"N = 60 000, log N = {scale * LOG_N:.2f} {unit}"]
    assert axes.get_xlim()[1] > scale * 8, "the points"
    assert axes.get_ylim()[1] > scale * H_Y


@pytest.mark.parametrize(("far", "reaches"), [(15.0, True), (0.61 * LOG_N, True), (0.59 * LOG_N, False), (2.0, False)])
def test_the_plane_ends_near_the_points_where_they_are_far_from_log_n(far, reaches):
    axes = plot_information_plane([point(e, "out", far / (1 + e), 2) for e in range(3)]).axes[0]
    vertical = [line for line in axes.lines if list(line.get_ydata()) == [0, 1]]
    assert [line.get_xdata()[0] for line in vertical] == ([LOG_N] if reaches else [])
    low, high = axes.get_xlim()
    assert low < 0
    assert far < high < (1.05 * LOG_N if reaches else 1.25 * far)


def test_two_numbers_of_samples_are_named_both():
    """Cells on a sample, bins on every one."""
    figure = plot_information_plane([point(0, "cells", 5, 2, n=10_000), point(0, "bins", 7, 2)])
    assert texts(figure)[1][1] == f"N = 10 000 and 60 000, log N = {LOG_N:.2f} bits"


def test_a_cross_is_what_the_probe_reads_of_the_same_rows():
    points = [point(e, layer, 9 - e, 1 + k) for e in range(2) for k, layer in enumerate(("hidden", "out"))]
    unread = point(2, "out", 3, 1)
    others = read(points, 0.5, "kde") + read(points, 0.9, figure="accuracy") + read([unread], math.nan)
    figure = plot_information_plane([*points, unread], [*others, *read(points, 2.5)])
    assert sorted(crosses(figure)) == [(8, 2.5), (8, 2.5), (9, 2.5), (9, 2.5)]
    assert texts(figure)[0] == ["hidden", "out", "linear probe"]
    assert crosses(plot_information_plane([*points, unread], others)) == []
    assert texts(plot_information_plane(points, others))[0] == ["hidden", "out"]


def test_without_a_target_no_cross_is_drawn():
    points = [point(e, "out", 9 - e, math.nan) for e in range(2)]
    figure = plot_information_plane(points, read(points))
    assert crosses(figure) == []
    assert texts(figure)[0] == ["out"]


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_line_of_fano_is_that_of_the_last_epoch(unit):
    points = [point(e, "out", 8 - e, 1 + e, unit=unit)._replace(i_ty_fano=0.5 * e) for e in (2, 0, 1)]
    figure = plot_information_plane(points)
    assert dotted(figure) == [1.0]
    assert texts(figure)[1][2] == f"dotted: ≥ 1.00 {unit} by Fano, epoch 2"


@pytest.mark.parametrize("bound", [math.nan, 0.0])
def test_an_accuracy_that_proves_nothing_has_no_line(bound):
    figure = plot_information_plane([point(0, "out", 8, 1)._replace(i_ty_fano=bound)])
    assert dotted(figure) == []
    assert len(texts(figure)[1]) == 2


def test_every_doubt_is_hollow_and_named_in_the_legend():
    doubts = [
        "constant",
        "saturated",
        "clipped",
        "undersampled",
        "target_saturated",
        "target_undersampled",
        "too_coarse",
    ]
    figure = plot_information_plane([point(e, "out", 3, 1, verdict=doubt) for e, doubt in enumerate(doubts)])
    faces = figure.axes[0].collections[0].get_facecolors()
    assert [face[3] for face in faces] == [0.0] * 7
    assert texts(figure)[0] == ["out", f"hollow: {', '.join(sorted(doubts))}"]


@pytest.mark.parametrize("last", [2.3, 8.9])
def test_no_label_lies_on_another_or_on_a_point(last):
    """As after the training of a classifier: H(Y), what Fano proves and the last layer are all but the same."""
    points = [
        point(e, layer, i_xt, i_ty, unit="nats", n=10_000, verdict=doubt)._replace(
            **dict(zip(("i_xt", "i_ty", "h_y", "i_ty_fano", "i_ty_shuffled"), (i_xt, i_ty, 2.30, 2.28, 0.002)))
        )
        for layer, i_xt, i_ty, doubt in (("conv", 5.3, 1.83, "ok"), ("out", last, 2.28, "too_coarse"))
        for e in range(11)
    ]
    figure = plot_information_plane(points, read(points, 2.2))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in (*axes.texts, axes.title)]
    assert len(boxes) == 4
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        for p in points:
            x, y = axes.transData.transform((p.i_xt, p.i_ty))
            assert not (box.x0 - 4 < x < box.x1 + 4 and box.y0 - 4 < y < box.y1 + 4), p.layer


def test_one_path_a_layer_in_the_order_of_epochs():
    history = [point(e, layer, 9 - e, 1 + k) for e in (2, 0, 1) for k, layer in enumerate(("conv1", "conv2", "out"))]
    figure = plot_information_plane(history)
    paths = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert [list(path.get_xdata()) for path in paths] == [[9, 8, 7]] * 3
    assert texts(figure)[0] == ["conv1", "conv2", "out"]


def test_points_in_doubt_are_hollow_and_the_legend_says_why():
    doubts = ["saturated", "ok", "clipped", ""]
    history = [point(e, "out", 9 + e, 3, verdict=verdict) for e, verdict in enumerate(doubts)]
    figure = plot_information_plane(history)
    faces = figure.axes[0].collections[0].get_facecolors()
    assert [face[3] for face in faces] == [0.0, 1.0, 0.0, 1.0]
    assert texts(figure)[0] == ["out", "hollow: clipped, saturated"]
    assert texts(plot_information_plane(history[3:]))[0] == ["out"]


def test_bars_reach_two_standard_errors_and_a_dash_marks_chance():
    plain = [point(e, "out", 9 - e, 1 + e / 2) for e in range(3)]
    known = [p._replace(i_xt_se=0.5, i_ty_se=0.25, i_ty_shuffled=0.125) for p in plain]
    figure = plot_information_plane(known)
    segments = [s for bars in figure.axes[0].collections if hasattr(bars, "get_segments") for s in bars.get_segments()]
    assert [s.tolist() for s in segments] == [
        *([[8 - e, 1 + e / 2], [10 - e, 1 + e / 2]] for e in range(3)),
        *([[9 - e, 0.5 + e / 2], [9 - e, 1.5 + e / 2]] for e in range(3)),
    ]
    dashes = [line for line in figure.axes[0].lines if line.get_marker() == "_"]
    assert [(list(d.get_xdata()), list(d.get_ydata())) for d in dashes] == [([7], [0.125])], "under the last point"
    assert texts(figure)[0] == ["out", "permuted labels"]
    assert texts(plot_information_plane(plain))[0] == ["out"]


@pytest.mark.parametrize("n_layers", [3, 12])
def test_nothing_overlaps(n_layers):
    """The legend stays outside the axes, within the page, and every layer has a marker and a name of its own."""
    layers = [f"model.encoder.layers.{k}.feed_forward.intermediate.linear" for k in range(n_layers)]
    figure = plot_information_plane(
        [point(e, layer, 1 + k + e / 9, k / 5) for k, layer in enumerate(layers) for e in (0, 9)]
    )
    figure.draw_without_rendering()
    (legend,) = figure.legends
    renderer = FigureCanvasAgg(figure).get_renderer()
    box, page = legend.get_window_extent(renderer), figure.bbox
    assert box.y1 <= figure.axes[0].get_tightbbox(renderer).y0 + 1
    assert box.x0 >= page.x0
    assert box.x1 <= page.x1
    assert box.y0 >= page.y0
    assert figure.axes[0].get_window_extent(renderer).height > 0.35 * page.height
    markers = [handle.get_marker() for handle in legend.legend_handles]
    names = [text.get_text() for text in legend.get_texts()]
    assert len(set(markers)) == len(set(names)) == n_layers


def test_points_without_figures_are_left_out_and_a_history_of_them_is_refused():
    missing = InformationPoint.missing("out", n_samples=10, unit="bits")
    figure = plot_information_plane([missing, point(1, "out", 3, 1)])
    assert list(figure.axes[0].lines[-1].get_xdata()) == [3]
    with pytest.raises(ValueError, match="there is no point to draw"):
        plot_information_plane([missing])


@pytest.mark.parametrize("epochs", [range(3), range(1)])
def test_without_a_target_the_information_about_the_input_is_drawn_over_the_epochs(epochs):
    nan = math.nan
    history = [point(e, layer, 9 - e, nan)._replace(h_y=nan) for e in epochs for layer in ("encoder", "decoder")]
    figure = plot_information_plane(history)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "I(X;T) [bits]")
    paths = [line for line in axes.lines if list(line.get_xdata()) == list(epochs)]
    assert [list(path.get_ydata()) for path in paths[-2:]] == [[9 - e for e in epochs]] * 2
    assert texts(figure) == (["encoder", "decoder"], [f"log N = {LOG_N:.2f} bits"])
    assert axes.get_ylim()[1] > LOG_N


def test_a_single_point_and_a_single_class_can_be_drawn():
    assert plot_information_plane([point(0, "out", 0.0, 0.0)]).axes


def test_drawing_never_touches_pyplot():
    program = (
        "import sys; from lightning_ib.plotting import plot_information_plane as plot;"
        "from lightning_ib.history import InformationPoint as P;"
        "p = P.missing('out', n_samples=8, unit='bits')._replace(i_xt=1.0, i_ty=1.0, h_y=1.0, saturation=0.5);"
        "plot([p]); assert 'matplotlib.pyplot' not in sys.modules; assert 'pytorch_lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
