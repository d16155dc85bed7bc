"""Names in pictures, and places for them."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_ib.plot.labels import extents, free_places, legend, short_labels, spread_out, tinted


def test_names_that_fit_stay_as_they_are():
    names = ["_conv", "out", "block.1.attention"]
    assert short_labels(names) == names


def test_of_long_names_what_they_share_in_front_goes_first_then_the_end_then_the_middle():
    names = [f"model.encoder.layers.{k}.feed_forward.intermediate.linear" for k in (3, 11)]
    assert short_labels(names, 40) == [f"…{k}.feed_forward.intermediate.linear" for k in (3, 11)]
    assert short_labels(names, 24) == ["…3…", "…11…"]
    others = ["model.3.feed_forward.intermediate.linear", "model.11.self_attention.intermediate.output"]
    assert short_labels(others, 24) == ["…3.feed_forw…iate.linear", "…11.self_att…iate.output"]


@pytest.mark.parametrize("longest", [20, 24, 32])
def test_names_stay_different_and_short(longest):
    middle = [f"{'a' * 60}{k}{'b' * 60}" for k in range(12)]
    labels = short_labels(middle, longest)
    assert len(set(labels)) == 12
    assert all(len(label) <= longest for label in labels)


@pytest.mark.parametrize("name", ["層", "a\tb", "x\ny", "\u200b", "🫠.fc"])
def test_what_the_font_cannot_show_is_spelled_out(name):
    (label,) = short_labels([name])
    assert label.isascii()
    assert label.encode().decode("unicode_escape") == name
    figure = Figure()
    figure.text(0, 0, label, parse_math=False)
    FigureCanvasAgg(figure).draw()  # a warning of a missing glyph would be an error


def test_a_legend_shows_labels_of_any_kind():
    labels = ["_hidden", "$x$", "", "plain", r"\alpha_1"]
    figure = Figure()
    made = legend(figure, [Line2D([], []) for _ in labels], labels)
    FigureCanvasAgg(figure).draw()
    assert [text.get_text() for text in made.get_texts()] == labels
    assert not any(text.get_parse_math() for text in made.get_texts())


def test_the_extent_of_a_label_is_that_of_its_drawing():
    labels, figure = ["out", "encoder.blocks.10.attention", "WWWWWW", "iiiiii"], Figure(dpi=72)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for label, (width, height) in zip(labels, extents(labels, 9.0)):
        drawn = figure.text(0, 0, label, fontsize=9.0).get_window_extent(renderer)
        assert drawn.width - 1 < width < 1.1 * drawn.width + 7
        assert drawn.height - 1 < height < drawn.height + 5


def test_a_color_is_mixed_with_white_or_black():
    assert tinted((0.2, 0.4, 0.6), 1.0) == pytest.approx((0.2, 0.4, 0.6))
    assert tinted((0.2, 0.4, 0.6), 0.5) == pytest.approx((0.6, 0.7, 0.8))
    assert tinted((0.2, 0.4, 0.6), 1.5) == pytest.approx((0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], []),
        ([3.0], [3.0]),
        ([-5.0, 20.0], [0.0, 10.0]),
        ([5.0, 5.0, 5.0], [5.0, 7.0, 9.0]),
        ([9.0, 9.5, 10.0], [6.0, 8.0, 10.0]),
    ],
)
def test_heights_are_spread_out_within_the_ends(wanted, expected):
    assert spread_out(wanted, 2.0, 0.0, 10.0) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_a_knot_find_places_that_do_not_overlap(seed):
    random = np.random.default_rng(seed)
    anchors = np.array([190.0, 120.0]) + 8 * random.normal(size=(12, 2))
    sizes = [(60.0, 11.0)] * 12
    obstacles = np.array([190.0, 120.0]) + 40 * random.normal(size=(500, 2))
    places = free_places(anchors, sizes, obstacles, (380.0, 290.0))
    assert np.array_equal(places, free_places(anchors, sizes, obstacles, (380.0, 290.0))), "the same again"
    for k, (x, y) in enumerate(places):
        assert 30 <= x <= 350
        assert 5.5 <= y <= 284.5
        for other in places[:k]:
            apart = np.abs(other - (x, y))
            assert apart[0] >= 60 - 1e-9 or apart[1] >= 11 - 1e-9
        assert np.hypot(*(anchors[k] - (x, y))) < 200


def test_a_label_alone_stands_beside_its_anchor():
    ((x, y),) = free_places(np.array([[100.0, 100.0]]), [(40.0, 10.0)], np.zeros((0, 2)), (380.0, 290.0))
    assert (x, y) == pytest.approx((126, 100))


def test_a_label_makes_way_for_what_lies_to_the_right():
    line = np.stack((np.linspace(100, 380, 200), np.full(200, 100.0)), 1)
    ((x, y),) = free_places(np.array([[100.0, 100.0]]), [(40.0, 10.0)], line, (380.0, 290.0))
    assert abs(y - 100) > 5 or x < 80
