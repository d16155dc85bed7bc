"""The sizes of a picture: for a screen, or for a column of a paper."""

from __future__ import annotations

from typing import Literal, NamedTuple

from lightning_ib.functional.checks import checked_choice

StyleName = Literal["screen", "paper"]


class Style(NamedTuple):
    """Lengths in inches, fonts in points.

    Attributes:
        size: width and height of the picture.
        left, right, top, bottom: the margins of the plane; the legend stands below the lower one.
        legend_row: the height of a row of the legend.
        legend_width: the width of the legend, in characters.
        title: the font of the title; 0 leaves it out.
        axes: of the names of the axes.
        ticks: of the numbers at the axes.
        names: of the names of layers.
        levels: of the bounds.
        legend: of the legend.
        line: of the line about the measurements; 0 leaves it out.
        area: the area of markers, as a fraction of that on a screen.
        width: likewise of lines.
        panel: the width of a small plane.
        most_names: how many layers are named in a plane.
        of_more: how many of more layers.
        longest_name: in characters.
    """

    size: tuple[float, float]
    left: float
    right: float
    top: float
    bottom: float
    legend_row: float
    legend_width: int
    title: float
    axes: float
    ticks: float
    names: float
    levels: float
    legend: float
    line: float
    area: float
    width: float
    panel: float
    most_names: int
    of_more: int
    longest_name: int


SCREEN = Style((7.2, 5.6), 0.72, 1.2, 0.42, 0.82, 0.2, 92, 11.5, 10, 10, 9, 8.5, 9, 7.5, 1.0, 1.0, 2.4, 14, 8, 24)
PAPER = Style((3.4, 2.9), 0.52, 0.86, 0.18, 0.5, 0.15, 52, 0, 8, 7, 7, 7, 7, 0, 0.5, 0.75, 1.7, 7, 5, 18)

_STYLES = {"screen": SCREEN, "paper": PAPER}


def style_of(name: StyleName) -> Style:
    """The style of a name.

    Raises:
        ValueError: there is none.
    """
    return _STYLES[checked_choice(name, "style", ("screen", "paper"))]
