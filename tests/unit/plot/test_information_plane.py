"""The picture of the information plane, down to what is drawn."""

import math
from typing import get_args

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection

from lightning_ib.plot.information_plane import VERDICT_MARKERS, plot_information_plane
from lightning_ib.plot.labels import depth_colors
from lightning_ib.records import InformationPoint
from lightning_ib.records.reliability import Verdict
from tests.helpers.records import estimate

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
    return [estimate(p.epoch, p.step, p.layer, estimator, figure, value, p.unit, 2000, "ok") for p in points]


def scatters(figure):
    """All markers: the shape of the marker, x, y, area, face and edge of each."""
    found = []
    for collection in figure.axes[0].collections:
        if isinstance(collection, PathCollection):
            n = len(collection.get_offsets())
            of = (collection.get_sizes(), collection.get_facecolors(), collection.get_edgecolors())
            shape = len(collection.get_paths()[0].vertices)
            for k, (x, y) in enumerate(collection.get_offsets().tolist()):
                found.append((shape, x, y, *(values[k % len(values)] if len(values) else None for values in of)))
            assert all(len(values) in (0, 1, n) for values in of)
    return found


def crosses(figure):
    return [(x, y) for _, x, y, area, *_ in scatters(figure) if area == 18]


def dashes(figure):
    return [(x, y) for _, x, y, area, *_ in scatters(figure) if area == 110]


def triangles(figure):
    """Baselines below the picture."""
    return [x for _, x, y, area, *_ in scatters(figure) if area == 34 and y == 0]


def marks(figure):
    """The markers of the points themselves."""
    return [one for one in scatters(figure) if one[3] not in (18, 34, 110)]


def segments(figure, k):
    """The lines of the k-th collection: paths, bars of errors, leaders to names."""
    collections = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    return [segment.tolist() for segment in collections[k].get_segments()]


def levels(figure, style="--"):
    """Where lines cross the whole picture, and whether upright."""
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() == style]
    return [
        (line.get_ydata()[0], False) if list(line.get_xdata()) == [0, 1] else (line.get_xdata()[0], True)
        for line in lines
    ]


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def texts(figure):
    """What is written into and around the axes, but for title and ticks."""
    return [text.get_text() for text in figure.axes[0].texts]


def footer(figure):
    (text,) = figure.texts
    return text.get_text()


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_axes_name_their_unit_and_the_bounds_are_drawn(unit):
    figure = plot_information_plane([point(e, "out", 15 - e, 1 + e / 2, unit=unit) for e in range(5)])
    (axes,) = figure.axes
    scale = 1.0 if unit == "bits" else math.log(2)
    assert (axes.get_xlabel(), axes.get_ylabel()) == (f"I(X;T) [{unit}]", f"I(T;Y) [{unit}]")
    assert axes.get_title("left") == "Information plane, epochs 0–4"
    assert [at for at, _ in levels(figure)] == pytest.approx([scale * LOG_N, scale * H_Y])
    assert [upright for _, upright in levels(figure)] == [True, False]
    assert {f"log N = {scale * LOG_N:.2f}", f"H(Y) = {scale * H_Y:.2f}"} <= set(texts(figure))
    assert axes.get_xlim()[1] > scale * LOG_N
    assert axes.get_ylim()[1] > scale * H_Y


def test_the_axes_end_around_the_points_and_far_bounds_are_named_at_the_edge():
    figure = plot_information_plane([point(e, "out", 5 - e / 5, 1 + e / 10)._replace(i_ty_fano=0.1) for e in range(4)])
    (axes,) = figure.axes
    assert levels(figure) == levels(figure, ":") == []
    assert {f"log N = {LOG_N:.2f} →", f"H(Y) = {H_Y:.2f} ↑", "Fano ≥ 0.10 ↓"} <= set(texts(figure))
    for (low, high), (least, most) in ((axes.get_xlim(), (4.4, 5)), (axes.get_ylim(), (1, 1.3))):
        assert least - 0.6 < low < least
        assert most < high < most + 0.6


def test_the_bound_is_that_of_the_input_where_it_is_discretized():
    figure = plot_information_plane([point(e, "out", 9 - e, 2)._replace(h_x=9.5) for e in range(3)])
    assert (9.5, True) in levels(figure)
    assert "H(X) = 9.50" in texts(figure)
    known = plot_information_plane([point(e, "out", 15.5 - e, 2)._replace(h_x=LOG_N) for e in range(3)])
    assert f"log N = {LOG_N:.2f}" in texts(known)


def test_rounding_does_not_fill_the_picture():
    points = [point(e, "out", 15 + 1e-9 * e, 3 - 1e-12 * e) for e in range(3)]
    (axes,) = plot_information_plane(points).axes
    assert axes.get_xlim()[1] - axes.get_xlim()[0] > 0.04 * LOG_N
    assert axes.get_ylim()[1] - axes.get_ylim()[0] > 0.04 * H_Y


def test_below_the_picture_it_says_what_was_measured():
    points = [point(e, "cells", 5, 2, n=10_000)._replace(source="cells") for e in range(2)]
    points += [point(e, "bins", 7, 2)._replace(source="binned", correction="miller_madow") for e in range(2)]
    assert footer(plot_information_plane(points, run="logs/version_3")) == (
        "N = 10 000 in cells and 60 000 in bins · 2 layers · 2 measurements · bits · corrected: miller_madow · "
        "logs/version_3"
    )
    assert footer(plot_information_plane([point(0, "out", 5, 2, unit="nats")])) == (
        "N = 60 000 in cells · 1 layer · 1 measurement · nats"
    )


def test_a_cross_is_what_the_probe_reads_at_the_last_point():
    points = [point(e, layer, 9 - e, 1 + k) for e in range(2) for k, layer in enumerate(("hidden", "out", "unread"))]
    others = read(points, 0.5, "kde") + read(points, 0.9, figure="accuracy") + read(points, math.nan)
    figure = plot_information_plane(points, [*others, *read([p for p in points if p.layer != "unread"], 2.5)])
    assert crosses(figure) == [(8, 2.5), (8, 2.5)]
    assert legend_of(figure) == ["epoch 0", "1", "linear probe"]
    assert crosses(plot_information_plane(points, others)) == []
    assert legend_of(plot_information_plane(points, others)) == ["epoch 0", "1"]


def test_without_a_target_no_cross_is_drawn():
    points = [point(e, "out", 9 - e, math.nan)._replace(i_ty_permuted=0.1) for e in range(2)]
    figure = plot_information_plane(points, read(points))
    assert crosses(figure) == dashes(figure) == []
    assert legend_of(figure) == ["epoch 0", "1"]


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_line_of_fano_is_that_of_the_last_epoch(unit):
    points = [point(e, "out", 8 - e, 1 + e, unit=unit)._replace(i_ty_fano=0.5 + 0.6 * e) for e in (2, 0, 1)]
    figure = plot_information_plane(points)
    assert levels(figure, ":") == [(1.7, False)]
    assert "Fano ≥ 1.70" in texts(figure)


@pytest.mark.parametrize("bound", [math.nan, 0.0])
def test_an_accuracy_that_proves_nothing_has_no_line(bound):
    figure = plot_information_plane([point(0, "out", 8, 1)._replace(i_ty_fano=bound)])
    assert levels(figure, ":") == []
    assert not any("Fano" in text for text in texts(figure))


def test_each_verdict_has_a_hollow_marker_of_its_own():
    doubts = [verdict for verdict in get_args(Verdict) if verdict != "ok"]
    assert set(doubts) <= set(VERDICT_MARKERS)
    assert len(set(VERDICT_MARKERS.values()) | {"o"}) == len(VERDICT_MARKERS) + 1
    points = [point(e, "out", 3 + e, 1, verdict=doubt) for e, doubt in enumerate(["ok", *doubts, "", "of_tomorrow"])]
    figure = plot_information_plane(points)
    (layer,) = depth_colors(1)
    faces = {x: tuple(face[:3]) for _, x, _, _, face, _ in marks(figure)}
    assert [faces[p.i_xt] == layer for p in points] == [p.verdict in ("ok", "") for p in points]
    assert all(face in (layer, (1, 1, 1)) for face in faces.values())
    assert legend_of(figure)[-8:] == [f"flagged: {doubt}" for doubt in sorted([*doubts, "of_tomorrow"])]
    assert not any("flagged" in label for label in legend_of(plot_information_plane(points[:1])))


def test_bars_reach_two_standard_errors_at_the_last_point_where_they_show():
    plain = [point(e, "out", 9 - e, 1 + e / 2) for e in range(3)]
    assert segments(plot_information_plane(plain), 1) == [], "no bars, the leaders come next"
    known = [p._replace(i_xt_se=0.5, i_ty_se=0.25) for p in plain]
    assert segments(plot_information_plane(known), 1) == [[[6, 2], [8, 2]], [[7, 1.5], [7, 2.5]]]
    small = [p._replace(i_xt_se=0.5, i_ty_se=0.001) for p in plain]
    assert segments(plot_information_plane(small), 1) == [[[6, 2], [8, 2]]]


def test_a_dash_marks_chance_below_the_last_point_or_a_triangle_at_the_edge():
    points = [point(e, "out", 9 - e, 0.5 + e)._replace(i_ty_permuted=0.125) for e in range(3)]
    figure = plot_information_plane(points)
    assert (dashes(figure), triangles(figure)) == ([(7, 0.125)], [])
    assert legend_of(figure)[-1] == "permuted labels"
    figure = plot_information_plane([p._replace(i_ty=2.5 + p.epoch / 5) for p in points])
    assert (dashes(figure), triangles(figure)) == ([], [7])
    assert [text for text in texts(figure) if "permuted" in text or "0.12" in text] == ["0.12 ↓", "permuted labels"]
    assert legend_of(figure) == ["epoch 0", "1", "2"]


def test_one_path_a_layer_in_the_order_of_time_colored_by_depth_and_named_at_its_end():
    layers = ("conv1", "conv2", "out")
    history = [point(e, layer, 9 - e, 1 + k / 2) for e in (2, 0, 1) for k, layer in enumerate(layers)]
    figure = plot_information_plane(history)
    assert segments(figure, 0) == [
        piece for k in range(3) for piece in ([[9, 1 + k / 2], [8, 1 + k / 2]], [[8, 1 + k / 2], [7, 1 + k / 2]])
    ]
    (shades,) = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)][:1]
    assert [tuple(shade[:3]) for shade in shades.get_colors()[::2]] == depth_colors(3)
    early, late = shades.get_colors()[:2, 3]
    assert early < late, "the path becomes stronger with time"
    assert texts(figure)[-3:] == list(layers)


def test_the_lightness_of_the_colors_rises_with_depth():
    weights = np.array([0.2126, 0.7152, 0.0722])
    for n in (2, 3, 12, 40):
        lightness = np.array(depth_colors(n)) @ weights
        assert (np.diff(lightness) > 0).all()
    assert lightness[-1] < 0.75, "shows on white"
    assert len(depth_colors(1)) == 1


def test_time_is_marked_in_powers_of_ten():
    figure = plot_information_plane([point(e, "out", 15 - e / 100, 1 + e / 500) for e in range(0, 1001)])
    large = [((15 - x) * 100, area) for _, x, _, area, *_ in marks(figure)]
    assert [round(epoch) for epoch, _ in large] == [0, 1, 10, 100, 1000]
    assert [area for _, area in large] == sorted({area for _, area in large})
    assert legend_of(figure) == ["epoch 0", "1", "10", "100", "1000"]
    assert sum(len(piece) for piece in segments(figure, 0)) < 130
    sparse = plot_information_plane([point(e, "out", 9 - e / 10, 1) for e in (0, 7, 14, 21)])
    assert legend_of(sparse) == ["epoch 0", "7", "14", "21"]
    assert len(marks(sparse)) == 4


def test_a_verdict_in_a_long_run_is_seen_where_it_begins():
    points = [point(e, "out", 15 - e / 100, 1, verdict="clipped" if e >= 377 else "ok") for e in range(1001)]
    hollow = [x for _, x, _, _, face, _ in marks(plot_information_plane(points)) if tuple(face[:3]) == (1, 1, 1)]
    assert sorted((15 - x) * 100 for x in hollow) == pytest.approx([377, 1000])


def test_several_measurements_an_epoch_are_counted_in_steps():
    points = [point(0, "out", 9 - k, 1)._replace(step=50 * k) for k in range(4)]
    figure = plot_information_plane(points)
    assert legend_of(figure) == ["step 0", "50", "100", "150"]
    assert figure.axes[0].get_title("left") == "Information plane, steps 0–150"


NAMES = [
    "_conv_stem",
    "_blocks",
    r"fc$\alpha$",
    "a_b^$2",
    "größe",
    "a" * 300,
    "b" * 99 + "1",
    "b" * 99 + "2",
    "層",
    "x\ny",
]


def test_names_of_any_kind_are_drawn_letter_by_letter():
    figure = plot_information_plane([point(e, name, 9 - e - k, 2) for e in range(2) for k, name in enumerate(NAMES)])
    FigureCanvasAgg(figure).draw()  # a glyph that is missing would be a warning
    labels = texts(figure)[-len(NAMES) :]
    assert labels[:5] == NAMES[:5]
    assert len(set(labels)) == len(NAMES)
    assert all(len(label) <= 24 for label in labels)
    assert not any(text.get_parse_math() for text in figure.axes[0].texts[-len(NAMES) :])


def boxes_of(figure):
    """The box of every text in and around the axes, and that of the axes and of the page."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes
    shown = [*axes.texts, axes._left_title, *figure.texts, *figure.legends]
    return [(one, one.get_window_extent(renderer)) for one in shown], axes.get_window_extent(renderer), figure.bbox


@pytest.mark.parametrize(("n_layers", "n_epochs"), [(1, 1), (3, 6), (12, 9), (40, 12)])
@pytest.mark.parametrize("seed", range(3))
def test_no_text_lies_on_another(n_layers, n_epochs, seed):
    """Layers that end in a knot, with bounds, baselines, probe and doubts."""
    random = np.random.default_rng(seed)
    layers = [f"model.encoder.layers.{k}.linear" for k in range(n_layers)]
    points = [
        point(e, layer, 6 - e / 3 + 0.1 * random.normal(), 1 + 2 * e / n_epochs + 0.05 * random.normal())._replace(
            i_ty_fano=3.3, i_ty_permuted=0.1 * k, i_ty_se=0.1, verdict="clipped" if e == 1 else "ok"
        )
        for e in range(n_epochs)
        for k, layer in enumerate(layers)
    ]
    figure = plot_information_plane(points, read(points, 2.7))
    figure.draw_without_rendering()
    boxes, axes, page = boxes_of(figure)
    for k, (one, box) in enumerate(boxes):
        for other, at in boxes[k + 1 :]:
            assert not box.padded(-1).overlaps(at.padded(-1)), (one, other)
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert page.y0 <= box.y0
        assert box.y1 <= page.y1
    assert axes.height > 0.5 * page.height
    assert page.width < 1000
    names = [text for text in texts(figure) if text.endswith(".linear")]
    assert len(names) == {40: 8}.get(n_layers, n_layers)


def test_points_without_figures_are_left_out_and_a_history_of_them_is_refused():
    missing = InformationPoint.missing("out", n_samples=10, unit="bits")
    figure = plot_information_plane([missing, point(1, "out", 3, 1)])
    assert [(x, y) for _, x, y, *_ in marks(figure)] == [(3, 1)]
    with pytest.raises(ValueError, match="there is no point to draw"):
        plot_information_plane([missing])


@pytest.mark.parametrize("epochs", [range(3), range(1), range(200)])
def test_without_a_target_the_information_about_the_input_is_drawn_over_the_epochs(epochs):
    nan = math.nan
    history = [point(e, layer, 9 - e / 100, nan)._replace(h_y=nan) for e in epochs for layer in ("encoder", "decoder")]
    figure = plot_information_plane(history)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "I(X;T) [bits]")
    ends = [(e, 9 - e / 100) for e in epochs if e in (0, 1, 10, 100, epochs[-1])]
    drawn = [(x, y) for _, x, y, area, *_ in marks(figure) if area != 7]
    assert sorted(set(drawn)) == ends
    assert axes.get_xscale() == ("symlog" if len(epochs) == 200 else "linear")
    assert axes.get_xlim()[1] > epochs[-1]
    assert texts(figure) == [f"log N = {LOG_N:.2f} ↑", "encoder", "decoder"]


def test_a_single_point_and_a_single_class_can_be_drawn():
    assert plot_information_plane([point(0, "out", 0.0, 0.0)]).axes


def test_drawing_never_touches_pyplot(programs):
    program = (
        "import sys; from lightning_ib.plot.information_plane import plot_information_plane as plot;"
        "from lightning_ib.records import InformationPoint as P;"
        "p = P.missing('out', n_samples=8, unit='bits')._replace(i_xt=1.0, i_ty=1.0, h_y=1.0, saturation=0.5);"
        "plot([p]); assert 'matplotlib.pyplot' not in sys.modules; assert 'pytorch_lightning' not in sys.modules"
    )
    ran = programs.run(program)
    assert ran.returncode == 0, ran.stderr
